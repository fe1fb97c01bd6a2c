"""The limits of a node, and what it reports of its connections."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pybeethoven import Atom, Busy, ConfigError, ConnectionEvent, Limits, Node, Pid, Process, Term
from pybeethoven.distribution import control as c
from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import MessageReader, encode_message
from pybeethoven.distribution.handshake import Handshake, Identity
from pybeethoven.errors import CallTimeout, NoConnection, UpdatesLost
from pybeethoven.net import epmd, sockets
from pybeethoven.net.observe import MAX_UNREAD, ConnectionEvents
from pybeethoven.testing import Epmd
from tests.helpers import LIMIT, Recorder, atoms, soon
from tests.net.conftest import StartNode
from tests.net.peers import (
    HOST,
    A,
    B,
    gone,
    identity,
    impostor,
    open_to,
    says_nothing,
    silent_peer,
    talk,
    until_up,
    watcher,
)
from tests.timing import UNIT

MIB = 1024 * 1024
CLOCK = timedelta(milliseconds=10)
"""How exact times are: uvloop's clock counts milliseconds, and stands still within a turn."""


@pytest.mark.parametrize(
    "limits",
    [
        *({"handshake_time": 0}, {"handshakes": 0}, {"dials": -1}, {"unsent_size": float("nan")}),
        *({"term_depth": "x"}, {"message_size": None}, {"terms": 0}),
    ],
    ids=repr,
)
def test_bad_limit_is_refused(limits: dict[str, Any]) -> None:
    """The error names the limit and its value."""
    [(name, value)] = limits.items()
    with pytest.raises(ConfigError, match=f"the limit {name} is {value!r}"):
        Limits(**limits)


# Handshakes and dials


async def test_idle_connections_do_not_lock_out_peers(epmd: Epmd) -> None:
    """Of many connections without a handshake the last ones stay, and a peer still gets in."""
    async with Node(A, "cookie", limits=Limits(handshakes=20)) as a, Node(B, "cookie") as b:
        idle = [await open_to("a") for _ in range(200)]
        assert await soon(b.ping(A))
        await asyncio.gather(*(gone(reader) for reader, _ in idle[:-20]))
        assert a.info().handshakes <= 20
        for _, writer in idle:
            writer.close()


async def test_dials_are_bounded(epmd: Epmd, caplog: pytest.LogCaptureFixture) -> None:
    """Messages to thousands of unknown nodes start at most `dials` attempts; the node goes on."""
    async with Node(A, "cookie", limits=Limits(dials=10)) as a, Node(B, "cookie"):
        recorder = Recorder()
        a.spawn(recorder)
        for number in range(3000):
            a.send(Pid(Atom(f"made-up{number}@{HOST}"), 1, 0, 1), b"hello")
        reference = recorder.monitor(("name", f"late@{HOST}"))
        assert len(a.network._dials) == 10
        assert await recorder.next_down(reference) == "noconnection"
        assert len(a.info().dialling) <= 10
        await soon(asyncio.wait(a.network._dials))
        assert a.info().dialling == []
        assert await soon(a.ping(B))


async def test_what_waits_for_a_dial_is_bounded(epmd: Epmd) -> None:
    """While a node is dialled, at most `unsent_size` waits for it; then `Busy` is raised."""
    async with (
        impostor(says_nothing),
        Node(A, "cookie", limits=Limits(unsent_size=MIB, handshake_time=0.3 * UNIT)) as a,
    ):
        await fill(a, B)
        with pytest.raises(NoConnection):
            await soon(a.send_wait(("name", B), b"hello"))


# What a peer sends


@pytest.mark.parametrize(
    ("limits", "message", "reason"),
    [
        (Limits(message_size=1000), bytes(1000), "bytes exceeds 1000"),
        (Limits(term_depth=10), [[[[[[[[[[[[1]]]]]]]]]]]], "nested deeper than the 10 levels"),
        (Limits(terms=100), [[]] * 100, "more than the 100 terms"),
    ],
)
async def test_oversized_message_closes_its_connection(
    epmd: Epmd, limits: Limits, message: Term, reason: str
) -> None:
    """A message over a limit closes that connection, with the reason, and no other."""
    async with Node(A, "cookie", limits=limits) as a, Node(f"c@{HOST}", "cookie") as other:
        events = a.connection_events()
        await soon(other.connect(A))
        async with silent_peer() as (reader, writer):
            await until_up(a, B)
            theirs = Pid(Atom(B), 1, 0, 7)
            writer.write(encode_message(OFFERED, *c.reg_send(theirs, Atom("name"), message)))
            await gone(reader)
        kinds = [await soon(anext(events)) for _ in range(3)]
        assert [(e.kind, e.peer) for e in kinds[1:]] == [("up", B), ("down", B)]
        assert reason in str(kinds[2].reason)
        assert await soon(other.ping(A))


# Peers that do not read


async def test_senders_wait_for_a_full_connection(epmd: Epmd) -> None:
    """Casts raise `Busy`, calls wait, memory is bounded; once the peer reads, all go on."""
    limits = Limits(unsent_size=MIB)
    async with Node(A, "cookie", limits=limits) as a, silent_peer() as (reader, _):
        await until_up(a, B)
        await fill(a, B)
        assert a.info().connections[0].unsent < MIB + 100_000
        with pytest.raises(CallTimeout, match="could not be called, as its node takes no more"):
            await a.call(("name", B), b"hello", timeout=0.05 * UNIT)
        waiting = [
            asyncio.create_task(a.send_wait(("name", B), b"hello")),
            asyncio.create_task(a.drain(B)),
        ]
        await asyncio.sleep(0.02 * UNIT)
        assert not any(task.done() for task in waiting)
        reading = asyncio.create_task(read_all(reader))
        await soon(asyncio.gather(*waiting))
        a.cast(("name", B), b"hello")
        reading.cancel()


@pytest.mark.parametrize(
    "request_",
    [
        Atom("features_request"),
        (Atom("sbcast"), Atom("rex"), 1),
        (Atom("sbcast"), Atom("nobody"), 1),
        (Atom("call"), Atom("no"), Atom("such"), [], None),
    ],
)
async def test_rex_survives_a_full_connection(epmd: Epmd, request_: Term) -> None:
    """The answer to an rpc waits like a reply, and `rex` lives on."""
    async with (
        Node(A, "cookie", limits=Limits(unsent_size=MIB)) as a,
        silent_peer() as (reader, writer),
    ):
        await until_up(a, B)
        rex = a.whereis("rex")
        await fill(a, B)
        theirs = Pid(Atom(B), 1, 0, 7)
        writer.write(encode_message(OFFERED, *c.reg_send(theirs, Atom("rex"), (theirs, request_))))
        while a.info().connections[0].messages_in == 0:
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT):
            to, answer = await first_to_a_pid(reader)
        assert to == theirs
        assert answer[0] in ("rex", "features_reply")
        assert a.whereis("rex") == rex


async def first_to_a_pid(reader: asyncio.StreamReader) -> tuple[Term, Term]:
    """The receiver of the first message to a pid, and the message."""
    messages = MessageReader(OFFERED)
    while data := await reader.read(1 << 16):
        for control, message in messages.receive_data(data):
            if control[0] == c.Op.SEND_SENDER:
                return control[2], message
    pytest.fail("there was none")


async def test_peer_goes_down_while_senders_wait(epmd: Epmd) -> None:
    """Senders that wait for room get `NoConnection`."""
    async with Node(A, "cookie", limits=Limits(unsent_size=MIB)) as a, silent_peer():
        await until_up(a, B)
        await fill(a, B)
        waiting = [
            asyncio.create_task(a.call(("name", B), 1, timeout=None)),
            asyncio.create_task(a.rpc(B, "m", "f", [], timeout=None)),
            asyncio.create_task(a.send_wait(("name", B), 1)),
            asyncio.create_task(a.drain(B)),
        ]
        await asyncio.sleep(0)
        a.disconnect(B)
        for task in waiting:
            with pytest.raises(NoConnection):
                await soon(task)


async def test_replies_over_the_limit_close_the_connection(epmd: Epmd) -> None:
    """Replies are taken up to the limit once more, then the peer is down.

    The process that replied lives on.
    """
    async with Node(A, "cookie", limits=Limits(unsent_size=MIB)) as a, silent_peer() as (reader, _):
        await until_up(a, B)
        heard = watcher(a)
        alive: list[Process] = []

        async def replies(process: Process) -> None:
            for _ in range(50):
                a.reply((Pid(Atom(B), 1, 0, 7), Atom("tag")), bytes(50_000))
                a.cast(("name", B), bytes(50_000), forced=True)
            alive.append(process)

        await fill(a, B)
        a.spawn(replies)
        assert await heard.next() == atoms("nodedown", B)
        assert len(alive) == 1
        await gone(reader)


async def test_peer_that_ticks_but_reads_nothing(epmd: Epmd) -> None:
    """A peer that reads nothing for net_ticktime is down, although it sends ticks."""
    ticktime = 0.3 * UNIT
    limits = Limits(unsent_size=MIB)
    async with (
        Node(A, "cookie", limits=limits, net_ticktime=ticktime) as a,
        silent_peer() as (_, writer),
    ):
        await until_up(a, B)
        events = a.connection_events()
        await fill(a, B)
        ticking = asyncio.create_task(tick(writer, ticktime / 8))
        event = await soon(anext(events))
        assert (event.kind, event.peer) == ("down", B)
        assert "took nothing of what was sent to it for net_ticktime" in str(event.reason)
        ticking.cancel()


async def tick(writer: asyncio.StreamWriter, interval: float) -> None:
    """Send ticks."""
    while True:
        writer.write(bytes(4))
        await asyncio.sleep(interval)


async def fill(node: Node, peer: str) -> None:
    """Send to a peer that does not read until the connection stays full."""
    sent = 0
    while sent < 1_000:
        before = sent
        with suppress(Busy):
            while sent < 1_000:
                node.cast(("name", peer), bytes(50_000))
                sent += 1
        if sent == before:
            return
        await asyncio.sleep(0.05 * UNIT)
    pytest.fail("there is no limit")


async def read_all(reader: asyncio.StreamReader) -> None:
    """Read for ever."""
    while await reader.read(1 << 16):
        pass


async def test_peer_goes_down_while_a_large_call_waits(epmd: Epmd) -> None:
    """A call that waits for room ends with `NoConnection`; small messages found room meanwhile."""
    async with Node(A, "cookie", limits=Limits(unsent_size=MIB)) as a, silent_peer():
        await until_up(a, B)
        recorder = Recorder()
        a.spawn(recorder)
        a.send(("name", B), bytes(20 * MIB))
        call = asyncio.create_task(a.call(("name", B), bytes(MIB), timeout=None))
        waiting = asyncio.create_task(a.send_wait(("name", B), bytes(MIB)))
        a.network.send(B, *c.link(recorder.pid, Pid(Atom(B), 1, 0, 7)))
        await asyncio.sleep(0.02 * UNIT)
        assert not call.done()
        assert not waiting.done()
        with pytest.raises(Busy):
            a.send(("name", B), bytes(MIB))
        a.disconnect(B)
        for task in (call, waiting):
            with pytest.raises(NoConnection):
                await soon(task)


# Info, events and logs


async def test_info_describes_connections(start_node: StartNode) -> None:
    """A node tells its name, and of each connection the peer, the flags and the traffic."""
    a, b = await start_node(A), await start_node(B)
    assert a.info().connections == []
    assert (a.info().name, a.info().creation, a.info().hidden) == (A, a.network.creation, True)
    assert await soon(a.ping(B))
    recorder = Recorder()
    b.spawn(recorder, name="recorder")
    a.send(("recorder", B), 1)  # behind the monitor, the call and the demonitor
    assert await recorder.next() == 1
    [one], [other] = a.info().connections, b.info().connections
    assert (one.peer, other.peer) == (B, A)
    assert one.flags & Flag.FRAGMENTS
    assert one.hidden
    assert (one.messages_out, other.messages_in) == (4, 4)
    assert one.bytes_out == other.bytes_in - handshake()
    assert one.unsent == 0
    assert one.since < one.last_heard + CLOCK
    await asyncio.sleep(CLOCK.total_seconds())
    assert await soon(a.ping(B))
    assert a.info().connections[0].messages_out > one.messages_out
    assert a.info().connections[0].last_heard > one.last_heard


def handshake() -> int:
    """Bytes that the side that dials sends in the handshake of a and b."""
    name = len(Identity(A, OFFERED, 1).name)
    return 2 + 15 + name + 2 + 21


def test_info_of_a_node_that_has_not_started() -> None:
    """A node that has not started has no creation."""
    assert Node(A, "cookie").info().creation is None


async def test_connections_are_reported_as_events(start_node: StartNode) -> None:
    """Both sides report up, down and refused, with the reason; then the end."""
    b = await start_node(B)
    async with Node(A, "cookie") as a:
        one, other = a.connection_events(), b.connection_events()
        await soon(a.connect(B))
        a.disconnect(B)
        with pytest.raises(NoConnection):
            await soon(a.connect(f"nobody@{HOST}"))
        async with Node(f"c@{HOST}", "SECRET") as wrong:
            with pytest.raises(NoConnection):
                await soon(wrong.connect(B))
        assert [told(await soon(anext(one))) for _ in range(3)] == [
            ("up", B, "None"),
            ("down", B, f"disconnected from {B}"),
            ("refused", f"nobody@{HOST}", f"EPMD on {HOST} knows no node 'nobody'"),
        ]
        seen = [told(await soon(anext(other))) for _ in range(3)]
        assert [(kind, peer) for kind, peer, _ in seen] == [
            ("up", A),
            ("down", A),
            ("refused", f"c@{HOST}"),
        ]
        assert "cookie" in seen[2][2]
    async with asyncio.timeout(LIMIT):
        assert [event.kind async for event in one] == []


def told(event: ConnectionEvent) -> tuple[str, str | None, str]:
    """The content of an event, without its time."""
    return event.kind, event.peer, str(event.reason)


async def test_missing_flags_are_named(start_node: StartNode) -> None:
    """The event and the dialler's error name the missing flags."""
    a = await start_node(A)
    events = a.connection_events()
    poor = Identity(B, OFFERED & ~Flag.MANDATORY_25_DIGEST & ~Flag.MAP_TAG & ~Flag.UTF8_ATOMS, 1)
    reader, writer = await open_to("a")
    await soon(talk(Handshake.initiator(poor, A, "cookie", 1), reader, writer))
    writer.close()
    event = await soon(anext(events))
    lacking = f"node {B!r} lacks the flags UTF8_ATOMS, MAP_TAG, which BEAMs have from OTP 23 on"
    assert told(event) == ("refused", B, lacking)

    async def is_poor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await talk(Handshake.acceptor(poor, "cookie", 1), reader, writer)

    async with impostor(is_poor):
        with pytest.raises(NoConnection, match="lacks the flags UTF8_ATOMS, MAP_TAG"):
            await soon(a.connect(B))
        assert "UTF8_ATOMS, MAP_TAG" in str((await soon(anext(events))).reason)


async def test_dial_that_comes_too_late_is_not_a_refusal(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose dial is answered when the peer's has succeeded keeps that, without an event."""
    a, b = await start_node(A), await start_node(B)
    events = b.connection_events()
    dial, may_go_on = sockets.dial, asyncio.Event()

    async def late(*args: Any) -> None:
        monkeypatch.setattr(sockets, "dial", dial)
        await may_go_on.wait()
        await dial(*args)
        dialled.set()

    dialled = asyncio.Event()
    monkeypatch.setattr(sockets, "dial", late)
    dialling = asyncio.create_task(a.connect(B))
    while sockets.dial is late:
        await asyncio.sleep(0)
    await soon(b.connect(A))
    await soon(dialling)
    may_go_on.set()
    await soon(dialled.wait())
    while b.info().handshakes or len(b.network._all) > 1:
        await asyncio.sleep(0)
    a.disconnect(B)
    assert [(await soon(anext(events))).kind for _ in range(2)] == ["up", "down"]


async def test_dial_that_a_connected_peer_gives_up_is_not_a_refusal(start_node: StartNode) -> None:
    """A peer closes it when the connection in the other direction comes up."""
    a, b = await start_node(A), await start_node(B)
    events = a.connection_events()
    await soon(b.connect(A))
    name = messages.build_name(identity("b"))
    reader, writer = await asyncio.open_connection(HOST, await epmd.look_up("a", HOST))
    writer.write(len(name).to_bytes(2) + name)
    assert await soon(reader.readexactly(2 + len("salive"))) == b"\0\6salive"
    writer.close()
    while a.info().handshakes:
        await asyncio.sleep(0)
    a.disconnect(B)
    assert [(await soon(anext(events))).kind for _ in range(2)] == ["up", "down"]


async def test_simultaneous_dials_are_not_refusals(start_node: StartNode) -> None:
    """Of two nodes that dial each other at once one gives way, without an event."""
    a, b = await start_node(A), await start_node(B)
    for _ in range(20):
        events = a.connection_events(), b.connection_events()
        await soon(asyncio.gather(a.connect(B), b.connect(A)))
        assert await soon(a.ping(B))
        a.disconnect(B)
        for reader in events:
            assert [(await soon(anext(reader))).kind for _ in range(2)] == ["up", "down"]


async def test_unread_events_are_bounded() -> None:
    """After the maximum number of unread events, the reader gets `UpdatesLost`."""
    events = ConnectionEvents()
    event = ConnectionEvent("up", B, None, datetime.now(UTC))
    for _ in range(MAX_UNREAD + 5):
        events.put(event)
    events.put(None)
    got = [await soon(anext(events)) for _ in range(MAX_UNREAD)]
    assert len(got) == MAX_UNREAD
    for _ in range(2):
        with pytest.raises(UpdatesLost):
            await soon(anext(events))


async def test_log_has_fields_and_no_secrets(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Records have the peer and the reason; none has the cookie or a payload."""
    caplog.set_level(logging.DEBUG)
    a, b = await start_node(A, "TOPSECRET"), await start_node(B, "TOPSECRET")
    recorder = Recorder()
    b.spawn(recorder, name="recorder")
    a.send(("recorder", B), b"PAYLOAD")
    await recorder.next()
    async with Node(f"c@{HOST}", "OTHERSECRET") as wrong:
        with pytest.raises(NoConnection):
            await soon(wrong.connect(B))
    a.disconnect(B)
    records = [r for r in caplog.records if r.name.startswith("pybeethoven.net")]
    assert {(vars(r)["peer"], bool(vars(r)["reason"])) for r in records} >= {
        (B, False),
        (B, True),
        (f"c@{HOST}", True),
    }
    for record in caplog.records:
        assert "SECRET" not in str(vars(record))
        assert "PAYLOAD" not in str(vars(record))


async def test_killed_processes_count_until_they_end(epmd: Epmd) -> None:
    """A process that other nodes have started counts as long as it runs."""
    go = asyncio.Event()
    running: set[Process] = set()

    async def cleans_up() -> None:
        process = a.caller()
        running.add(process)
        try:
            await go.wait()
        except asyncio.CancelledError:
            await go.wait()
        finally:
            running.discard(process)

    async with Node(A, "cookie", limits=Limits(processes=10)) as a, Node(B, "cookie") as b:
        a.export("m", cleans_up, name="f")
        calls = []
        for _ in range(20):
            calls.append(asyncio.create_task(b.rpc(A, "m", "f", [])))
            assert await b.ping(A)
            for process in running:
                a.exit(process, Atom("kill"))
        assert len(running) < 10
        answers = await soon(asyncio.gather(*calls, return_exceptions=True))
        assert len([each for each in answers if "system_limit" in str(each)]) > 10
        go.set()
