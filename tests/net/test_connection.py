"""Tests of `net.connection`, with a fake transport and a fake clock."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import pytest

from pybeethoven.distribution import control as c
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import TICK, encode_message
from pybeethoven.distribution.handshake import Identity, State, Status
from pybeethoven.errors import NoConnection
from pybeethoven.etf import Term
from pybeethoven.net.connection import Refused
from tests.net.rig import LIMITS, OURS, STEP, THEIRS, Clock, Rig, frame, turns

# The rig has a transport and a clock of its own, and asyncio's loop takes the time from a method.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

LACKING = OFFERED & ~Flag.MAP_TAG & ~Flag.MANDATORY_25_DIGEST
STOPPED = NoConnection("stopped")
FLUSH = pytest.mark.parametrize("flush", [True, False])
ROLES = pytest.mark.parametrize("role", ["initiator", "acceptor"])
SIZES = pytest.mark.parametrize("size", [1, 1000], ids=["bytewise", "whole"])


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that only the test advances."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
    return clock


@SIZES
@ROLES
@pytest.mark.parametrize("status", [Status.OK, Status.OK_SIMULTANEOUS, Status.ALIVE])
async def test_handshake_completes(clock: Clock, role: str, status: Status, size: int) -> None:
    """The owner is told, can send at once, and gets the messages right behind the handshake.

    Ticks are not delivered. The time limit of the handshake ends.
    """
    rig = Rig(clock, role, status=status, ticktime=400)
    rig.owner.then["up"] = lambda: rig.send(bytes(70_000))  # large enough to be written at once
    rig.shake_hands(frame(1) + TICK + frame(2), size)
    rig.receive(TICK + frame(3), size)
    asked = ["name"] if role == "acceptor" else ["alive"] * (status is Status.ALIVE)
    assert rig.owner.told == [*asked, "up", 1, 2, 3]
    assert rig.connection.messages_in == 3
    assert (rig.connection.peer, rig.connection.flags) == (Identity("x@h", OFFERED, 2), OFFERED)
    written = rig.peer.trailing_data + rig.transport.take()
    assert [message for _, message in rig.reader.receive_data(written)] == [bytes(70_000)]
    await clock.advance(LIMITS.handshake_time)
    assert not rig.transport.lost


@pytest.mark.parametrize(
    ("role", "status", "messages", "text"),
    [
        ("initiator", Status.OK, 0, "node 'x@h' closed the connection before it answered our name"),
        ("initiator", Status.OK, 1, "before its challenge"),
        ("initiator", Status.OK, 2, "most likely its cookie differs"),
        ("acceptor", Status.OK, 0, "the peer closed the connection before it gave its name"),
        ("acceptor", Status.ALIVE, 1, "before it answered alive"),
        ("acceptor", Status.OK, 1, "it may have refused our flags or our name"),
        ("acceptor", Status.OK, 2, "the connection to x@h was lost"),
    ],
)
async def test_eof_ends_the_connection(
    clock: Clock, role: str, status: Status, messages: int, text: str
) -> None:
    """The reason tells the likely cause, which depends on the messages received until then."""
    rig = Rig(clock, role, status=status)
    for message in islice(rig.start(), messages):
        rig.receive(message)
    rig.receive_eof()
    assert text in await rig.end()


@pytest.mark.parametrize(
    ("role", "settings", "told", "text"),
    [
        ("initiator", {"cookie": "other"}, [], "most likely its cookie differs"),
        ("acceptor", {"cookie": "other"}, ["name"], "has another cookie than this node"),
        ("initiator", {"status": Status.NOK}, [], "the peer answered nok"),
        ("acceptor", {"status": Status.NOK}, ["name"], "x@h was answered nok"),
        ("initiator", {"status": Status.NOT_ALLOWED}, [], "the peer answered not_allowed"),
        ("acceptor", {"status": Status.NOT_ALLOWED}, ["name"], "x@h was answered not_allowed"),
        ("initiator", {"status": Status.ALIVE, "proceed": False}, ["alive"], "was over"),
        ("acceptor", {"status": Status.ALIVE, "proceed": False}, ["name"], "keeps its older"),
        ("initiator", {"flags": LACKING}, [], "lacks the flags MAP_TAG"),
        ("acceptor", {"flags": LACKING}, [], "lacks the flags MAP_TAG"),
    ],
)
async def test_failed_handshake_ends_the_connection(
    clock: Clock, role: str, settings: dict[str, Any], told: list[Term], text: str
) -> None:
    """The peer gets the status before the connection is closed; the reason has it, too."""
    rig = Rig(clock, role, **settings)
    rig.shake_hands(frame(1))
    if text in ("most likely its cookie differs", "was over"):  # then the peer closes
        rig.receive_eof()
    assert text in await rig.end()
    assert rig.owner.told == [*told, "down"]
    if settings.get("status") in (Status.NOK, Status.NOT_ALLOWED):
        assert isinstance(rig.owner.reasons[0], Refused)
        assert rig.owner.reasons[0].status is settings["status"]
    if (role == "acceptor" and "cookie" not in settings) or text == "was over":
        assert rig.peer.state is State.CLOSED


@ROLES
async def test_garbage_ends_the_handshake(clock: Clock, role: str) -> None:
    """A message that is not one of the handshake closes the connection at once."""
    rig = Rig(clock, role)
    rig.start()
    rig.receive(b"\0\5HELLO")
    assert "sent an unexpected message b'H'" in await rig.end()


@ROLES
@pytest.mark.parametrize("data", [b"", b"\7"], ids=["silent", "dripping"])
async def test_overdue_handshake_is_ended(clock: Clock, role: str, data: bytes) -> None:
    """The time is for the handshake as a whole, not for each byte of it."""
    rig = Rig(clock, role)
    rig.start()
    for _ in range(int(LIMITS.handshake_time / STEP)):
        assert not rig.transport.lost
        rig.receive(data)
        await clock.advance(STEP)
    assert rig.transport.aborted
    assert "took over 8 seconds" in await rig.end()


async def test_connection_closed_before_it_is_made(clock: Clock) -> None:
    """It is aborted when it is made, and writes nothing."""
    rig = Rig(clock, "initiator")
    rig.connection.close(STOPPED)
    assert rig.owner.told == ["down"]
    rig.start()
    assert rig.transport.take() == b""
    assert await rig.end() == "stopped"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\0\0\0\3\x83\x44\1", "which was not negotiated"),
        (frame(bytes(1000)), "exceeds 1000"),
        (frame(1)[:-2] + b"\0\0", "tag 0 starts no term"),
        (encode_message(OFFERED, (99,)), "99"),
    ],
    ids=["frame", "size", "term", "control"],
)
async def test_malformed_frame_ends_the_connection(clock: Clock, data: bytes, text: str) -> None:
    """Messages before it are delivered, those behind it are not; the reason tells the error."""
    rig = Rig(clock)
    rig.shake_hands()
    rig.receive(frame(1) + data + frame(2), 10_000)
    rig.receive(frame(3))
    assert rig.owner.told == ["name", "up", 1, "down"]
    assert text in await rig.end()


@FLUSH
@pytest.mark.parametrize("inside", ["name", "up", 1])
async def test_close_in_a_callback_delivers_nothing_more(
    clock: Clock, inside: Term, flush: bool
) -> None:
    """Messages in the same data are dropped, and so is all later data."""
    rig = Rig(clock)
    rig.owner.then[inside] = lambda: rig.connection.close(STOPPED, flush=flush)
    rig.shake_hands(frame(1) + frame(2))
    rig.receive(frame(3))
    assert rig.owner.told[-2:] == [inside, "down"]
    assert await rig.end() == "stopped"


@FLUSH
async def test_close_of_a_full_connection(clock: Clock, flush: bool) -> None:
    """The owner is told before `close` returns.

    With `flush` the peer can still read what was sent before, and nothing else; without `flush` the
    transport is aborted.
    """
    rig = Rig(clock)
    rig.shake_hands()
    rig.fill()
    sent = rig.connection.writer.messages_out
    rig.connection.close(STOPPED, flush=flush)
    assert rig.owner.told[-1] == "down"
    rig.receive(frame(1))
    rig.send("late")
    await turns()
    assert rig.connection.closed.done() is rig.transport.aborted is not flush
    assert len(rig.read()) == sent * flush
    assert await rig.end() == "stopped"


@FLUSH
async def test_flush_to_a_peer_that_does_not_read_is_ended(clock: Clock, flush: bool) -> None:
    """It ends after the time limit of a handshake, or with a second close without `flush`."""
    rig = Rig(clock)
    rig.shake_hands()
    rig.fill()
    rig.connection.close(STOPPED)
    rig.connection.tick_anew()
    await clock.advance(LIMITS.handshake_time - STEP)
    assert not rig.transport.lost
    if flush:
        await clock.advance(STEP)
    else:
        rig.connection.close(STOPPED, flush=False)
    assert rig.transport.aborted
    await rig.end()


async def test_paused_connection_writes_when_resumed(clock: Clock) -> None:
    """Messages wait meanwhile, and leave in order. After a close nothing is written."""
    rig = Rig(clock)
    rig.connection.pause_writing()  # before it is up there is nothing to pause
    rig.connection.resume_writing()
    rig.shake_hands()
    rig.connection.pause_writing()
    for number in range(3):
        rig.send(number)
    await turns()
    assert rig.read() == []
    rig.connection.resume_writing()
    assert rig.read() == [0, 1, 2]
    rig.connection.pause_writing()
    rig.send(3)
    rig.connection.close(STOPPED, flush=False)
    rig.connection.resume_writing()
    assert rig.read() == []


async def test_overrun_ends_the_connection(clock: Clock) -> None:
    """It ends in the next turn of the loop, since code that sends does not expect that."""
    rig = Rig(clock)
    rig.shake_hands()
    rig.fill()
    for _ in range(11):
        rig.send(bytes(10_000))
    assert rig.owner.told[-1] == "up"
    assert "bytes wait for x@h; the limit is 100000" in await rig.end()
    assert rig.transport.aborted


async def test_ticks_keep_a_connection_up(clock: Clock) -> None:
    """The connection sends one in each interval without other data, and needs no more itself."""
    rig = Rig(clock)
    rig.shake_hands()
    await clock.advance(1)
    for _ in range(20):
        rig.transport.take()
        rig.receive(TICK)
        await clock.advance(1)
        assert rig.transport.take() == TICK
    assert rig.owner.told == ["name", "up"]


async def test_silent_peer_is_given_up(clock: Clock) -> None:
    """The owner is told after half of the tick time; the connection ends after all of it."""
    rig = Rig(clock)
    rig.shake_hands()
    await clock.advance(1.5)
    rig.receive(b"\0")
    await clock.advance(4.25)
    assert rig.owner.told == ["name", "up", "silent", "silent"]
    await clock.advance(STEP)
    assert rig.transport.aborted
    assert "x@h was silent for net_ticktime, 4 seconds" in await rig.end()


async def test_peer_is_not_silent_while_its_messages_wait(clock: Clock) -> None:
    """Nothing is read meanwhile."""
    rig = Rig(clock)
    rig.shake_hands()
    rig.connection._pause(asyncio.get_running_loop().create_future())
    await clock.advance(10)
    assert rig.owner.told == ["name", "up"]
    assert not rig.transport.aborted


async def test_peer_that_reads_nothing_is_given_up(clock: Clock) -> None:
    """A full connection ends after the tick time, even if the peer sends data."""
    rig = Rig(clock)
    rig.shake_hands()
    rig.fill()
    for _ in range(16):
        assert not rig.transport.lost
        rig.receive(TICK)
        await clock.advance(STEP)
    assert rig.owner.told == ["name", "up", "down"]
    assert "took nothing of what was sent to it for net_ticktime" in await rig.end()


async def test_peer_with_a_shorter_tick_time_is_answered(clock: Clock) -> None:
    """One tick answers two of the peer's, unless other data was sent."""
    rig = Rig(clock, ticktime=400)
    rig.shake_hands()
    for _ in range(8):
        await clock.advance(STEP)
        rig.receive(TICK)
    assert rig.transport.take() == 4 * TICK
    for number in range(8):
        rig.send(number)
        await clock.advance(STEP)
        rig.receive(TICK)
        assert rig.transport.take() == encode_message(
            OFFERED, *c.send_sender(OFFERED, OURS, THEIRS, number)
        )
    for _ in range(10):  # at the same moment
        rig.receive(TICK)
    assert rig.transport.take() in (b"", TICK)


async def test_new_tick_time_holds_at_once(clock: Clock) -> None:
    """A tick is sent at once; silence and intervals are measured by the new time."""
    rig = Rig(clock, ticktime=400)
    rig.connection.tick_anew()  # nothing ticks yet
    rig.shake_hands()
    await clock.advance(1)
    rig.receive(b"\0\0")
    rig.connection.tick_anew()
    rig.transport.take()
    rig.ticktime.change(8)
    rig.ticktime.end_change()
    rig.connection.tick_anew()
    assert rig.transport.take() == TICK
    await clock.advance(8 - STEP)
    assert not rig.transport.lost
    await clock.advance(STEP)
    assert "was silent for net_ticktime, 8 seconds" in await rig.end()


async def test_changes_of_the_tick_time_do_not_delay_the_end(clock: Clock) -> None:
    """A silent peer is given up after the tick time, even if changes come faster than ticks."""
    rig = Rig(clock)
    rig.shake_hands()
    for _ in range(17):
        assert not rig.transport.lost
        rig.connection.tick_anew()
        await clock.advance(STEP)
    assert "was silent for net_ticktime, 4 seconds" in await rig.end()


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("cause", ["eof", "close", "time", "data"])
async def test_connection_is_closed_though_its_owner_raises(
    clock: Clock, cause: str, up: bool
) -> None:
    """The socket is closed, `closed` is set, and the error is not swallowed."""
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    rig = Rig(clock)
    if up:
        rig.shake_hands()
    else:
        rig.start()
    rig.owner.then["down"] = lambda: 1 // 0
    try:
        match cause:
            case "eof":
                rig.receive_eof()
            case "close":
                rig.connection.close(STOPPED)
            case "time":
                await clock.advance(8)
            case "data":
                rig.receive(b"\0\3bad")
    except ZeroDivisionError as error:
        errors.append(error)
    await rig.end()
    assert [type(error) for error in errors] == [ZeroDivisionError]
