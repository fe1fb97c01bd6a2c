"""Streams of frames, recorded and made, changed and cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import corpus, targets
from fuzz.targets import CHALLENGE, COOKIE, FLAGS, OWN
from pybeethoven.distribution.control import Signal
from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.framing import TICK, MessageReader, encode_message
from pybeethoven.distribution.handshake import Handshake, Identity, Status
from pybeethoven.errors import BeethovenError, DecodeError, ProtocolError, RemoteError
from pybeethoven.etf import decode
from pybeethoven.net.connection import Connection
from pybeethoven.net.limits import Limits
from pybeethoven.net.ticktime import TickTime
from tests.distribution.samples import PASS_THROUGH, WITH_HEADER, fragments, signals
from tests.fuzz.strategies import at_most, changed, cut

HANDSHAKES = corpus.read("handshake")
STREAMS = {
    "acceptor_header": corpus.read("framing")["header_stream"][1:],
    "acceptor_pass_through": corpus.read("framing")["pass_through_stream"][1:],
}
forms = st.sampled_from(FLAGS)


@st.composite
def frames(draw: st.DrawFn, flags: Flag) -> list[bytes]:
    """Frames as a peer may send them: messages, some in fragments that interleave, and ticks."""
    result: list[list[bytes]] = [[TICK]]
    for number, signal in enumerate(draw(st.lists(signals, max_size=5))):
        if flags & Flag.FRAGMENTS and draw(st.booleans()):
            result.append(fragments(signal, draw(st.integers(10, 90)), number))
        else:
            result.append([encode_message(flags, *signal)])
    order = draw(st.permutations([i for i, parts in enumerate(result) for _ in parts]))
    return [result[index].pop(0) for index in order]


@settings(max_examples=300)
@given(forms, st.data())
def test_changed_stream_does_not_depend_on_the_cut(flags: Flag, data: st.DataObject) -> None:
    """The same messages and the same kind of error, which is a `RemoteError`, with any cut."""
    stream = b"".join(data.draw(changed(data.draw(frames(flags)))))
    stream += data.draw(st.binary(max_size=10))
    whole = targets.read_frames(flags, [stream])
    assert targets.read_frames(flags, targets.pieces(stream, 1)) == whole
    assert targets.read_frames(flags, data.draw(cut(stream))) == whole


@settings(max_examples=200)
@given(forms, st.data())
def test_changed_contents_raise_only_remote_errors(flags: Flag, data: st.DataObject) -> None:
    """Contents that are changed, in frames whose lengths are right."""
    contents = [frame[4:] for frame in data.draw(frames(flags))]
    parts = b"".join(len(c).to_bytes(2) + c for c in data.draw(changed(contents)))
    how = FLAGS.index(flags) | targets.LENGTHS_GIVEN
    targets.framing(bytes([how]) + parts)


class Told:
    """The owner of a connection, which keeps what it is told."""

    crowded, paused = False, 0

    def __init__(self) -> None:
        self.messages: list[Signal] = []
        self.ups = 0
        self.reasons: list[BeethovenError] = []

    def status_for(self, connection: Connection, peer: Identity) -> Status:
        """Let everybody in."""
        return Status.OK

    def is_connected(self, peer: str) -> bool:
        """Nobody else is."""
        return False

    def proceed_when_alive(self, connection: Connection) -> bool:
        """Always."""
        return True

    def connection_up(self, connection: Connection) -> None:
        """Count it."""
        self.ups += 1

    def message_received(self, connection: Connection, control: Any, message: Any) -> None:
        """Keep it."""
        self.messages.append((control, message))

    def peer_silent(self, connection: Connection) -> None:
        """Let it be."""

    def connection_down(self, connection: Connection, reason: BeethovenError) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


class Sink(asyncio.Transport):
    """A transport that drops what is written."""

    def write(self, data: Any) -> None:
        """Drop it."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""


async def play(flags: Flag, parts: list[bytes]) -> Told:
    """Let a connection that was dialled receive `parts`."""
    told = Told()
    handshake = Handshake.acceptor(Identity(OWN.name, flags, 7), COOKIE, CHALLENGE)
    connection = Connection(handshake, told, ticktime=TickTime(60), limits=Limits())
    connection.connection_made(Sink())
    for part in parts:
        connection.data_received(part)
    connection.connection_lost(None)
    return told


@settings(max_examples=100)
@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_connection_tells_all_once(name: str, data: st.DataObject) -> None:
    """From the last message of a handshake on, the frames behind it in the same piece or not, a
    connection hands on each message of a recorded stream, and its end once."""
    flags = WITH_HEADER if name == "acceptor_header" else PASS_THROUGH
    who, last = targets.messages(HANDSHAKES[name][1:])
    told = asyncio.run(play(flags, [who, *data.draw(cut(last + STREAMS[name]))]))
    assert told.messages == list(MessageReader(flags).receive_data(STREAMS[name]))
    assert (told.ups, len(told.reasons)) == (1, 1)


@settings(max_examples=200)
@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_connection_ends_once_whatever_comes(name: str, data: st.DataObject) -> None:
    """Nothing is raised into the event loop by what a peer changed, and the end is told once."""
    flags = WITH_HEADER if name == "acceptor_header" else PASS_THROUGH
    parts = [*targets.messages(HANDSHAKES[name][1:])]
    rest = STREAMS[name]
    while rest:
        end = 4 + int.from_bytes(rest[:4])
        parts, rest = [*parts, rest[:end]], rest[end:]
    told = asyncio.run(play(flags, data.draw(changed(parts))))
    assert len(told.reasons) == 1
    assert told.ups <= 1


MAX_MESSAGE, MAX_UNFINISHED = 100_000, 200_000
HEAD = b"\x83E%b%b\0"
LIES: dict[str, bytes] = {
    "a frame that never ends": (MAX_MESSAGE).to_bytes(4) + bytes(MAX_MESSAGE - 1),
    "a frame beyond the limit": (MAX_MESSAGE + 1).to_bytes(4) + bytes(MAX_MESSAGE),
    "a list of 4 billion": b"\0\0\0\x08\x83D\0l\xff\xff\xff\xff",
    "a tuple of 4 billion": b"\0\0\0\x08\x83D\0i\xff\xff\xff\xff",
    "a map of 4 billion": b"\0\0\0\x08\x83D\0t\xff\xff\xff\xff",
    "a binary of 4 GB": b"\0\0\0\x08\x83D\0m\xff\xff\xff\xff",
    "an integer of 4 GB": b"\0\0\0\x09\x83D\0o\xff\xff\xff\xff\0",
    "sequences that never end": b"".join(
        (19).to_bytes(4) + HEAD % (number.to_bytes(8), (2).to_bytes(8)) for number in range(2_000)
    ),
    "one sequence that never ends": (19).to_bytes(4)
    + HEAD % (bytes(8), MAX_MESSAGE.to_bytes(8))
    + b"".join(
        (1018).to_bytes(4) + b"\x83F" + bytes(8) + (MAX_MESSAGE - n).to_bytes(8) + bytes(1000)
        for n in range(1, 200)
    ),
}


@pytest.mark.parametrize("stream", LIES.values(), ids=LIES.keys())
def test_lies_about_sizes_cost_no_memory(stream: bytes) -> None:
    """A reader holds what has come, up to its limits, whatever is announced."""
    reader = MessageReader(
        WITH_HEADER, max_message_size=MAX_MESSAGE, max_unfinished_size=MAX_UNFINISHED
    )
    parts = [*targets.pieces(stream, 1000)]
    refused = None
    with at_most(6 * MAX_MESSAGE):
        try:
            for part in parts:
                list(reader.receive_data(part))
        except RemoteError as error:
            refused = type(error)
    assert refused in (None, ProtocolError, DecodeError)


DENSE: dict[str, bytes] = {
    "empty lists": b"j",
    "empty tuples": b"h\0",
    "lists of one": b"l\0\0\0\1a\1j",
    "tuples of one": b"h\1a\1",
    "empty maps": b"t\0\0\0\0",
    "floats": b"F" + bytes(8),
    "small integers": b"b\0\1\0\0",
    "empty binaries": b"m\0\0\0\0",
    "atoms": b"w\1a",
    "pids": b"Xw\1a" + bytes(12),
}


@pytest.mark.parametrize("term", DENSE.values(), ids=DENSE.keys())
def test_terms_cost_no_more_than_a_multiple_of_their_bytes(term: bytes) -> None:
    """The densest terms take at most 100 times their bytes, and a constant."""
    data = b"\x83l" + (20_000).to_bytes(4) + term * 20_000 + b"j"
    with at_most(100_000 + 100 * len(data)):
        decode(data)
