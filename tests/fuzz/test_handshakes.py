"""Recorded handshakes with a BEAM, changed and cut, in both roles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import corpus, targets
from fuzz.targets import CHALLENGE, COOKIE, OWN, PEER
from pybeethoven.distribution.handshake import Handshake, State
from pybeethoven.errors import HandshakeError
from tests.fuzz.strategies import at_most, changed, cut

RECORDED = corpus.read("handshake")
GIVEN_UP = {"acceptor_nok", "acceptor_not_allowed", "initiator_gives_up"}

recorded = st.sampled_from(sorted(RECORDED)).map(RECORDED.__getitem__)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_handshake_ends_as_it_did(name: str) -> None:
    """What a BEAM said leads where it led then."""
    how, stream = RECORDED[name][0], RECORDED[name][1:]
    state, trailing, _ = targets.shake_hands(how, targets.messages(stream))
    assert state is (State.CLOSED if name in GIVEN_UP else State.DONE)
    assert trailing == b""


@settings(max_examples=300)
@given(recorded, st.data())
def test_changed_handshake_does_not_depend_on_the_cut(seed: bytes, data: st.DataObject) -> None:
    """Nothing but `HandshakeError` comes out, and the same however it comes in."""
    how = data.draw(st.just(seed[0]) | st.integers(0, 63))
    parts = data.draw(changed(list(targets.messages(seed[1:]))))
    stream = b"".join(parts) + data.draw(st.binary(max_size=10))
    targets.handshake(bytes([how]) + stream)
    one_by_one = targets.shake_hands(how, targets.messages(stream))
    anyhow = targets.shake_hands(how, data.draw(cut(stream)))
    assert anyhow == one_by_one or targets.only_lost_to_an_error(anyhow, one_by_one)


@settings(max_examples=100)
@given(recorded, st.binary(max_size=40), st.data())
def test_data_behind_a_handshake_is_whole(seed: bytes, after: bytes, data: st.DataObject) -> None:
    """Framing gets each byte that follows the last message, wherever the pieces end."""
    *waited_for, last = targets.messages(seed[1:])
    parts = [*waited_for, *data.draw(cut(last + after))]
    state, trailing, _ = targets.shake_hands(seed[0], parts)
    assert trailing == (after if state is State.DONE else b"")


@pytest.mark.parametrize("size", [1, 1000, 65_535])
@pytest.mark.parametrize("initiates", [True, False])
def test_endless_handshake_holds_little(initiates: bool, size: int) -> None:
    """The first message of 64 kB ends the handshake; of what follows nothing is kept."""
    machine = (
        Handshake.initiator(OWN, PEER, COOKIE, CHALLENGE)
        if initiates
        else Handshake.acceptor(OWN, COOKIE, CHALLENGE)
    )
    with at_most(400_000):
        with pytest.raises(HandshakeError, match="unexpected message"):
            receive_endlessly(machine, b"\xff" * size)
        assert not any(machine.receive_data(bytes(65_535)) for _ in range(256))


def receive_endlessly(machine: Handshake, part: bytes) -> None:
    """16 MB of `part`."""
    for _ in range((1 << 24) // len(part)):
        machine.receive_data(part)
