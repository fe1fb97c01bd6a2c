"""Tests of `distribution.outgoing`: all that is put in comes out, in the order of each sender."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution import control as c
from pybeethoven.distribution.control import Op, Signal, sender_of
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import MessageReader, encode_frame
from pybeethoven.distribution.outgoing import FRAGMENT_SIZE, LargeMessage, Outbox, may_fragment
from pybeethoven.etf import Atom, Pid
from tests.distribution.samples import OURS, REF, THEIRS

SENDERS = [Pid(OURS.node, number, 0, 1) for number in range(1, 4)]


def signal(sender: Pid, number: int, size: int) -> Signal:
    """A message that tells its number."""
    return c.send_sender(OFFERED, sender, THEIRS, (number, bytes(size)))


def put(outbox: Outbox, sent: Signal) -> None:
    """Put a message in, large or not."""
    frame, payload_at = encode_frame(int(OFFERED), *sent)
    large = len(frame) - payload_at > FRAGMENT_SIZE
    outbox.put(sender_of(sent[0]), LargeMessage(frame, payload_at) if large else frame)


def take(outbox: Outbox, reader: MessageReader) -> list[Signal]:
    """Read what is to be written next."""
    return list(reader.receive_data(outbox.next_data()))


def take_all(outbox: Outbox) -> list[Signal]:
    """Read all that waits."""
    reader = MessageReader(OFFERED)
    messages: list[Signal] = []
    while data := outbox.next_data():
        messages += reader.receive_data(data)
    return messages


@pytest.mark.parametrize("extra", [-1, 0, 1, FRAGMENT_SIZE, 10 * FRAGMENT_SIZE])
def test_large_message_arrives(extra: int) -> None:
    """Whatever its size, up to the byte, a message is put together again."""
    outbox = Outbox()
    sent = signal(SENDERS[0], 1, FRAGMENT_SIZE + extra)
    put(outbox, sent)
    assert take_all(outbox) == [sent]
    assert outbox.size == 0


def test_fragments_have_the_bytes_that_a_beam_wants() -> None:
    """The whole control message is in the first fragment, ids count down to 1, the number of the
    sequence is not 0, and no fragment is longer than BEAM's."""
    reason = bytes(2 * FRAGMENT_SIZE + 10)
    frame, payload_at = encode_frame(int(OFFERED), *c.exit2(OFFERED, OURS, THEIRS, reason))
    outbox = Outbox()
    outbox.put(OURS, LargeMessage(frame, payload_at))
    frames = [outbox.next_data() for _ in range(3)]
    assert [frame[4:6] for frame in frames] == [b"\x83E", b"\x83F", b"\x83F"]
    assert [int.from_bytes(frame[6:14]) for frame in frames] == [1, 1, 1]
    assert [int.from_bytes(frame[14:22]) for frame in frames] == [3, 2, 1]
    assert frames[0][22] == 0
    assert frames[0][23:].startswith(frame[7:payload_at])
    assert [len(frame) - 4 for frame in frames] == [int.from_bytes(f[:4]) for f in frames]
    assert max(map(len, frames[1:])) == 22 + FRAGMENT_SIZE
    assert outbox.next_data() == b""


def test_others_do_not_wait_for_a_large_message() -> None:
    """Small messages of other senders, and a shorter large one, overtake it; its sender's own
    don't."""
    outbox, reader = Outbox(), MessageReader(OFFERED)
    large = signal(SENDERS[0], 1, 50 * FRAGMENT_SIZE)
    own = signal(SENDERS[0], 2, 1)
    shorter = signal(SENDERS[1], 3, 3 * FRAGMENT_SIZE)
    small = signal(SENDERS[2], 4, 1)
    for sent in (large, own, shorter, small):
        put(outbox, sent)
    assert take(outbox, reader) == [small]
    got = [message for _ in range(8) for message in take(outbox, reader)]
    assert got == [shorter]
    late = signal(SENDERS[2], 5, 1)
    put(outbox, late)
    assert take(outbox, reader) == [late]
    rest = [message for _ in range(60) for message in take(outbox, reader)]
    assert rest == [large, own]


def test_a_flood_of_small_ones_does_not_stop_a_large_one() -> None:
    """Between whatever waits, fragments go on."""
    outbox, reader = Outbox(), MessageReader(OFFERED)
    put(outbox, signal(SENDERS[0], 1, 5 * FRAGMENT_SIZE))
    got: list[Signal] = []
    for number in range(20):
        for _ in range(20):
            put(outbox, signal(SENDERS[1], number, FRAGMENT_SIZE // 10))
        got += take(outbox, reader)
    assert any(sent[0][1] == SENDERS[0] for sent in got)


sizes = st.sampled_from([0, 10, FRAGMENT_SIZE - 100, FRAGMENT_SIZE + 1, 3 * FRAGMENT_SIZE])
steps = st.lists(st.tuples(st.sampled_from(SENDERS), sizes) | st.none(), max_size=30)


@given(steps)
def test_order_of_each_sender(taken: list[tuple[Pid, int] | None]) -> None:
    """However putting and taking (None) interleave, each sender's messages come in its order, all
    of them, and the size is right."""
    outbox, reader = Outbox(), MessageReader(OFFERED)
    sent: list[Signal] = []
    got: list[Signal] = []
    for number, step in enumerate(taken):
        if step is None:
            got += take(outbox, reader)
        else:
            sent.append(signal(step[0], number, step[1]))
            put(outbox, sent[-1])
        assert outbox.size >= 0
    while data := outbox.next_data():
        got += reader.receive_data(data)
    assert outbox.size == 0
    for sender in SENDERS:
        assert [s for s in got if s[0][1] == sender] == [s for s in sent if s[0][1] == sender]


def test_size_counts_what_waits() -> None:
    """It falls as data is taken, fragment by fragment."""
    outbox = Outbox()
    put(outbox, signal(SENDERS[0], 1, 10 * FRAGMENT_SIZE))
    before = outbox.size
    assert before > 10 * FRAGMENT_SIZE
    outbox.next_data()
    assert FRAGMENT_SIZE <= before - outbox.size < FRAGMENT_SIZE + 100


def test_no_copy_of_the_whole() -> None:
    """Taking a large message in pieces needs little more memory than one piece."""
    outbox = Outbox()
    put(outbox, signal(SENDERS[0], 1, 20_000_000))
    tracemalloc.start()
    try:
        while outbox.next_data():
            pass
        assert tracemalloc.get_traced_memory()[1] < 10 * FRAGMENT_SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("flags", "may"),
    [
        (OFFERED, True),
        (OFFERED & ~Flag.FRAGMENTS, False),
        (OFFERED & ~Flag.SEND_SENDER, False),
    ],
)
def test_who_takes_fragments(flags: Flag, may: bool) -> None:
    """Only where they are negotiated, and every message tells its sender."""
    assert may_fragment(flags) is may


@pytest.mark.parametrize(
    ("sent", "sender"),
    [
        (c.link(OURS, THEIRS), OURS),
        (c.send_sender(OFFERED, OURS, THEIRS, 1), OURS),
        (c.unlink_id(1, OURS, THEIRS), OURS),
        (c.unlink_id_ack(1, OURS, THEIRS), OURS),
        (c.spawn_reply(REF, THEIRS, 0, OURS), OURS),
        (c.spawn_request(REF, OURS, THEIRS, (Atom("m"), Atom("f"), 0), [], []), OURS),
        (c.monitor_p_exit(OFFERED, OURS, THEIRS, REF, 1), OURS),
        (c.monitor_p_exit(OFFERED, Atom("name"), THEIRS, REF, 1), Atom("name")),
        (((Op.ALTACT_SIG_SEND, 0, OURS, THEIRS), 1), OURS),
    ],
)
def test_sender_of(sent: Signal, sender: Pid | Atom) -> None:
    """The process that a message is from, wherever that stands."""
    assert sender_of(sent[0]) == sender
