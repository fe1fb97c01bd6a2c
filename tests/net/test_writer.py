"""Tests of `net.writer`, with a transport that the test fills and empties."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pybeethoven.distribution import control as c
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.framing import TICK, MessageReader
from pybeethoven.errors import BeethovenError, Busy, EncodeError, NoConnection
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.net.writer import CHUNKS_PER_TURN, Writer
from tests.helpers import soon

OURS = Pid(Atom("py@127.0.0.1"), 1, 0, 1)
OTHER = Pid(Atom("py@127.0.0.1"), 2, 0, 1)
THEIRS = Pid(Atom("a@127.0.0.1"), 1, 0, 1)
REFERENCE = Reference(THEIRS.node, 1, (1, 2, 3))
LIMIT = 100_000
HIGH_WATER = 65_536


class FullTransport(asyncio.Transport):
    """Keeps what is written; with `stuck` nothing leaves, and the writer is told to pause."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.held = 0
        self.stuck = False
        self.writer: Writer | None = None

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written.append(bytes(data))
        self.held += len(data) * self.stuck
        if self.held > HIGH_WATER and self.writer is not None:
            self.writer.pause()

    def get_write_buffer_size(self) -> int:
        """What has not left."""
        return self.held

    def let_go(self) -> None:
        """All of it leaves."""
        self.held, self.stuck = 0, False
        assert self.writer is not None
        self.writer.resume()

    def payloads(self) -> list[Term]:
        """The messages written so far."""
        return [m for _, m in MessageReader(OFFERED).receive_data(b"".join(self.written))]


class Rig:
    """A writer on such a transport."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.transport = FullTransport()
        self.overruns: list[BeethovenError] = []
        self.writer = Writer(self.transport, "a@127.0.0.1", OFFERED, limit, self.overruns.append)
        self.transport.writer = self.writer

    def send(self, message: Term, sender: Pid = OURS, *, refusable: bool = True) -> None:
        """Send a message."""
        control, payload = c.send_sender(OFFERED, sender, THEIRS, message)
        self.writer.send(control, payload, None, refusable=refusable)

    def fill(self) -> None:
        """Send, while nothing leaves, until no more is taken."""
        self.transport.stuck = True
        while not self.writer.busy:
            self.send(bytes(10_000))


async def test_messages_of_one_turn_are_one_write() -> None:
    """Messages of one turn of the loop are one write, as long as the transport takes it."""
    rig = Rig()
    rig.send(1)
    rig.send(2, OTHER)
    assert rig.transport.written == []
    await asyncio.sleep(0)
    assert len(rig.transport.written) == 1
    assert rig.transport.payloads() == [1, 2]
    assert (rig.writer.messages_out, rig.writer.unsent) == (2, 0)
    assert rig.writer.bytes_out == len(rig.transport.written[0])
    rig.send(3)
    await asyncio.sleep(0)
    assert rig.transport.payloads() == [1, 2, 3]


async def test_large_message_is_written_within_the_turn() -> None:
    """In one turn of the loop no more than a fragment's size is held back."""
    rig = Rig()
    for _ in range(100):
        rig.send(bytes(10_000))
        assert rig.writer.unsent < 76_000
    assert len(rig.transport.payloads()) > 90


async def test_small_message_keeps_its_place_before_a_large_one() -> None:
    """What was sent before a large message in the same turn comes before it."""
    rig = Rig()
    for number, size in enumerate((1, 300_000, 1)):
        rig.send((number, bytes(size)))
    while len(rig.transport.payloads()) < 3:
        await asyncio.sleep(0)
    assert [number for number, _ in rig.transport.payloads()] == [0, 1, 2]


async def test_nothing_is_written_while_paused() -> None:
    """Messages wait, counted, and leave in order when there is room."""
    rig = Rig()
    rig.transport.stuck = True
    for number in range(12):
        rig.send((number, bytes(10_000)), refusable=False)
    assert len(rig.transport.written) == 1
    assert rig.writer.unsent > 120_000
    rig.transport.let_go()
    assert [number for number, _ in rig.transport.payloads()] == list(range(12))
    assert rig.writer.unsent == 0
    rig.send(12)
    await asyncio.sleep(0)
    assert rig.transport.payloads()[-1] == 12


async def test_busy_is_raised_over_the_limit() -> None:
    """`Busy` names the peer and the limit; nothing of that message is sent."""
    rig = Rig()
    rig.fill()
    sent = rig.writer.messages_out
    with pytest.raises(Busy, match=r"wait for a@127.0.0.1; the limit is 100000"):
        rig.send("too much")
    assert rig.writer.messages_out == sent
    rig.transport.let_go()
    rig.send("fits")
    await asyncio.sleep(0)
    assert len(rig.transport.payloads()) == sent + 1


async def test_message_over_the_limit_is_taken() -> None:
    """The limit is for what waits before a message."""
    rig = Rig()
    rig.transport.stuck = True
    rig.send(bytes(5 * LIMIT))
    assert rig.writer.full
    with pytest.raises(Busy):
        rig.send(bytes(5 * LIMIT))
    rig.send("small")
    rig.transport.let_go()
    assert rig.transport.payloads() == [bytes(5 * LIMIT), b"small"]


async def test_unencodable_message_leaves_nothing() -> None:
    """An unencodable message raises, and does not affect later ones."""
    rig = Rig()
    with pytest.raises(EncodeError):
        rig.send(object())
    rig.send(1)
    await asyncio.sleep(0)
    assert rig.transport.payloads() == [1]


async def test_forced_messages_are_bounded() -> None:
    """Forced messages are taken up to the limit once more, and then no more.

    The owner is told, once.
    """
    rig = Rig()
    rig.fill()
    for _ in range(100):
        rig.send(bytes(10_000), refusable=False)
    assert len(rig.overruns) == 1
    assert isinstance(rig.overruns[0], NoConnection)
    with pytest.raises(NoConnection):
        await soon(rig.writer.drain(large=False))
    assert rig.writer.unsent < 2 * LIMIT + 20_000


async def test_excess_is_forgiven_once_there_is_room() -> None:
    """The excess of a peer that has caught up is not counted again."""
    rig = Rig()
    for _ in range(5):
        rig.fill()
        for _ in range(5):
            rig.send(bytes(10_000), refusable=False)
        rig.transport.let_go()
    assert rig.overruns == []


async def test_excess_shrinks_as_the_peer_reads() -> None:
    """A peer that reads as fast as it is answered is not cut off: only what waits counts."""
    rig = Rig(10 * LIMIT)
    rig.fill()
    for _ in range(40):
        rig.send(bytes(10_000), refusable=False)
    for _ in range(40):
        for _ in range(6):
            rig.send(bytes(10_000), refusable=False)
        assert rig.writer.busy
        rig.transport.held = 0
        rig.writer.resume()
    assert rig.overruns == []


async def test_drain_waits_for_room() -> None:
    """`drain` returns at once when not busy, and else as soon as there is room."""
    rig = Rig()
    await soon(rig.writer.drain(large=True))
    rig.fill()
    waiting = [asyncio.create_task(rig.writer.drain(large=True)) for _ in range(3)]
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting[1:])
    rig.transport.let_go()
    await soon(asyncio.gather(*waiting[1:]))


async def test_drain_of_a_closed_connection_raises() -> None:
    """Waiting and later callers get the reason."""
    rig = Rig()
    rig.fill()
    waiting = asyncio.create_task(rig.writer.drain(large=True))
    await asyncio.sleep(0)
    rig.writer.close(NoConnection("gone"), flush=False)
    for late in (waiting, rig.writer.drain(large=True)):
        with pytest.raises(NoConnection, match="gone"):
            await soon(late)


@pytest.mark.parametrize("flush", [True, False])
async def test_close_flushes_if_told(flush: bool) -> None:
    """With `flush` all that waits is given to the transport; later messages are dropped."""
    rig = Rig()
    rig.transport.stuck = True
    rig.send(bytes(3 * LIMIT))
    rig.send("behind it", refusable=False)
    rig.writer.close(NoConnection("gone"), flush=flush)
    rig.send("too late", refusable=False)
    assert rig.transport.payloads() == ([bytes(3 * LIMIT), b"behind it"] if flush else [])


async def test_large_message_leaves_the_loop_its_turns() -> None:
    """After some chunks comes a turn of the loop, even if the transport takes all.

    What another process sends meanwhile goes between the fragments.
    """
    rig = Rig()
    rig.send(bytes(10_000_000))
    assert len(rig.transport.written) == CHUNKS_PER_TURN
    rig.send("in between", OTHER)
    rig.send("behind", OURS)
    await asyncio.sleep(0)
    assert rig.transport.payloads() == [b"in between"]
    while len(rig.transport.payloads()) < 3:
        await asyncio.sleep(0)
    assert rig.transport.payloads() == [b"in between", bytes(10_000_000), b"behind"]
    assert rig.writer.unsent == 0


async def test_down_for_a_name_follows_its_large_message() -> None:
    """A DOWN for a name waits behind the large message of the process that had it."""
    rig = Rig()
    rig.send(bytes(3_000_000))
    down = c.monitor_p_exit(OFFERED, Atom("name"), THEIRS, REFERENCE, Atom("normal"))
    rig.writer.send(*down, OURS)
    while len(rig.transport.payloads()) < 2:
        await asyncio.sleep(0)
    assert rig.transport.payloads() == [bytes(3_000_000), Atom("normal")]


async def test_tick_is_written_when_idle() -> None:
    """A tick is written when nothing else was; data that waits stands for one."""
    rig = Rig()
    rig.writer.tick()
    assert rig.transport.written == []
    rig.writer.tick()
    assert rig.transport.written == [TICK]
    rig.fill()
    before = len(rig.transport.written)
    rig.writer.tick()
    assert not rig.writer.tick()
    assert len(rig.transport.written) == before
    rig.transport.held -= 1
    assert rig.writer.tick()
    rig.transport.let_go()
    assert rig.writer.tick()
