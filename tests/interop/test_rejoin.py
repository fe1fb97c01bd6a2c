"""A member that has lost its cluster, or that its cluster has lost, is one again by itself."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pybeethoven import Beethoven, ConfigError, Node, NotReady
from pybeethoven.cluster import locator
from pybeethoven.cluster.rejoin import REJOIN_INTERVAL
from pybeethoven.testing import BeamNode, Peers
from tests.command_line import next_event, options, running
from tests.helpers import Recorder, node_update, soon
from tests.interop.conftest import Member, WholeAgain
from tests.interop.members import (
    DETECTION_LIMIT,
    OFFLINE,
    ONLINE,
    PAUSES,
    PY,
    PY2,
    REJOIN_LIMIT,
    TICKS,
    TICKTIME,
    A,
    B,
    C,
    follow,
    heard,
    kill_all,
    statuses,
    whole,
)
from tests.timing import UNIT

FIRST_PAUSE = REJOIN_INTERVAL[0]


# When every BEAM peer has gone


async def test_all_peers_gone_and_one_back(
    cluster: Peers, member: Member, whole_again: WholeAgain
) -> None:
    """Without peers it is standalone with its last table; through the beacon of the first that is
    back it is clustered, each follower having heard each change once, and the mode behind them."""
    peers = [await cluster.start(name) for name in (A, B)]
    async with member(rejoin_interval=PAUSES) as py:
        await py.until_ready()
        follower, updates, modes = await follow(py), py.core_server.updates(), py.modes()
        async with whole_again(1 * UNIT):
            await kill_all(*peers)
            await py.until_mode("standalone", None)
            lost = await heard(updates, 2)
        assert sorted(lost) == [(A, OFFLINE), (B, OFFLINE)]
        assert await statuses(py) == {A: OFFLINE, B: OFFLINE, PY: ONLINE}
        assert await py.core_server.get_mode() == "standalone"
        assert not py.ready()
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT):
            await whole(py)
        assert (py.via, py.core_server.mirror.source) == (A, A)
        known = {A: ONLINE, B: OFFLINE, PY: ONLINE}
        assert await statuses(py) == await cluster.tracker(a) == known
        own = await py.core_server.fetch(PY)
        b = await cluster.start(B)
        assert await heard(updates, 2) == [(A, ONLINE), (B, ONLINE)]
        assert await statuses(py) == await cluster.tracker(b)
        assert await py.core_server.fetch(PY) == own, "a member was added once more"
        assert [await soon(anext(modes)) for _ in range(2)] == ["standalone", "clustered"]
        for node, status in [*lost, (A, ONLINE), (B, ONLINE)]:
            assert await follower.next() == node_update(node, status)
        assert follower.messages.empty()


async def test_gone_again_and_again(
    cluster: Peers, member: Member, whole_again: WholeAgain
) -> None:
    """The only peer dies and comes back several times: each time the member is there again."""
    a = await cluster.start(A)
    async with member(rejoin_interval=PAUSES) as py:
        updates = py.core_server.updates()
        for _ in range(3):
            await a.kill()
            await py.until_mode("standalone")
            a = await cluster.start(A)
            async with whole_again(REJOIN_LIMIT):
                await whole(py)
                await cluster.await_tracker(a, {A: ONLINE, PY: ONLINE})
        assert await heard(updates, 6) == 3 * [(A, OFFLINE), (A, ONLINE)]


async def test_standalone_at_first(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """A node that found no beacon goes on looking, and joins the first cluster that there is."""
    async with member(rejoin_interval=PAUSES, beacon=False) as py:
        assert py.ready()
        updates, modes = py.core_server.updates(), py.modes()
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT):
            await whole(py)
        assert await heard(updates, 1) == [(A, ONLINE)]
        assert await soon(anext(modes)) == "clustered"
        assert await statuses(py) == await cluster.tracker(a) == {A: ONLINE, PY: ONLINE}


async def test_two_members_find_the_new_cluster(
    cluster: Peers, member: Member, whole_again: WholeAgain
) -> None:
    """Each of two Python nodes joins; what the new cluster doesn't know yet is offline once."""
    a = await cluster.start(A)
    async with member(rejoin_interval=PAUSES) as py, member(PY2, rejoin_interval=PAUSES) as py2:
        await soon(py.node.connect(PY2))
        follower = await follow(py)
        await a.kill()
        assert await follower.next() == node_update(A, OFFLINE)
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT):
            await whole(py)
            await whole(py2)
        await cluster.await_tracker(a, {A: ONLINE, PY: ONLINE, PY2: ONLINE})
        await py.core_server.mirror.catch_up()
        assert await statuses(py) == await cluster.tracker(a)
        await py.core_server.get_mode()
        told = [await follower.next() for _ in range(follower.messages.qsize())]
        of_py2 = [message for message in told if message[1][1][0] == PY2]
        assert node_update(A, ONLINE) in told
        assert of_py2 in ([], [node_update(PY2, OFFLINE), node_update(PY2, ONLINE)])


# What must not stop the search


@asynccontextmanager
async def on_the_port(cluster: Peers, answer: bytes | None) -> AsyncIterator[asyncio.Queue[None]]:
    """Something listens where a beacon should, and answers so or not at all; gives each request."""
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        asked.put_nowait(None)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", cluster.listener_port):
        yield asked


def reply(payload: str, sender: str = A) -> bytes:
    """A beacon's answer."""
    return json.dumps({"type": "reply", "sender": sender, "payload": payload}).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply("join_failed"), "answered 'join_failed'"),
        (reply("error"), "answered 'error'"),
        (reply("self", PY), None),
        (reply("joined", "nobody@127.0.0.1"), "has let us in, but has not connected us to it"),
        (reply("joined", "no name"), "it calls itself 'no name', no node name"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is no JSON object"),
        (b"", "it closed the connection without a reply"),
        (None, "it does not answer"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_search_goes_on(
    cluster: Peers,
    member: Member,
    whole_again: WholeAgain,
    answer: bytes | None,
    said: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever answers in a beacon's place, it is asked again, is said once, and a real one is
    found when it is there."""
    monkeypatch.setattr(locator, "REPLY_TIMEOUT", 0.05 * UNIT)
    async with member(rejoin_interval=PAUSES, beacon=False) as py:
        with caplog.at_level(logging.INFO, "pybeethoven.cluster"):
            async with on_the_port(cluster, answer) as asked:
                for _ in range(6):
                    await soon(asked.get())
            assert py.core_server.mode == "standalone"
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == (said is not None), warnings
        assert said is None or said in warnings[0]
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT):
            await whole(py)
        assert await statuses(py) == await cluster.tracker(a)


async def test_leave_ends_the_search(
    cluster: Peers, member: Member, whole_again: WholeAgain
) -> None:
    """A member that leaves while a beacon has it wait is gone at once, and its name is free."""
    for how in ("leave", "cancel"):
        a = await cluster.start(A)
        py, seeks = member(rejoin_interval=PAUSES, beacon=False), asyncio.Event()

        async def service(
            a: BeamNode = a, py: Beethoven = py, seeks: asyncio.Event = seeks
        ) -> None:
            async with py:
                await a.kill()
                await py.until_mode("standalone")
                seeks.set()
                await asyncio.get_running_loop().create_future()

        tasks = asyncio.all_tasks()
        running = asyncio.create_task(service())
        await soon(seeks.wait())
        async with on_the_port(cluster, None) as asked:
            await soon(asked.get())
            async with whole_again(1 * UNIT):
                if how == "leave":
                    await py.leave()
                running.cancel()
                await asyncio.wait({running})
            left = asyncio.all_tasks() - tasks
            assert all("serve" in repr(task.get_coro()) for task in left)
        async with Node(PY, cluster.cookie):
            pass


# Called offline while it lives


async def test_process_is_frozen(cluster: Peers, whole_again: WholeAgain) -> None:
    """A process that was stopped for longer than the tick time is offline for all peers; when it
    goes on it is online, and has heard what happened meanwhile."""
    peers = [await cluster.start(name, flags=TICKS) for name in (A, B)]
    args = [*options(cluster), "--json", "--net-ticktime", str(TICKTIME)]
    async with running(*args) as process:
        joined = await next_event(process)
        table = {row["node"]: row["status"] for row in joined["nodes"]}
        await asyncio.gather(*(cluster.await_tracker(p, {PY: ONLINE}) for p in peers))
        async with whole_again(DETECTION_LIMIT):
            process.send_signal(signal.SIGSTOP)
            await asyncio.gather(*(cluster.await_tracker(p, {PY: OFFLINE}) for p in peers))
        peers.append(await cluster.start(C, flags=TICKS))
        await peers[1].kill()
        await cluster.await_tracker(peers[0], {B: OFFLINE, C: ONLINE})
        del peers[1]
        async with whole_again(FIRST_PAUSE + 1 * UNIT):
            process.send_signal(signal.SIGCONT)
            await asyncio.gather(*(cluster.await_tracker(p, {PY: ONLINE}) for p in peers))
            while table != await cluster.tracker(peers[0]):
                event = await next_event(process)
                table[event["node"]] = event["status"]


@pytest.mark.stand_in
async def test_connection_fails(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """A peer to which the connection was lost calls us offline; it connects again, and all have us
    online."""
    peers = [await cluster.start(name) for name in (A, B)]
    async with member(rejoin_interval=PAUSES) as py:
        await soon(py.node.connect(B))
        events, updates = py.node.connection_events(), py.core_server.updates()
        recorder = Recorder()
        py.node.spawn(recorder)
        await py.core_server.subscribe("simple", recorder)
        async with whole_again(REJOIN_LIMIT):
            assert py.node.disconnect(B)
            for status in (OFFLINE, ONLINE):
                _, (_, row, _) = await recorder.next()
                assert row[1:3] == (PY, status)
            await asyncio.gather(*(cluster.await_tracker(p, {PY: ONLINE}) for p in peers))
            while (event := await anext(events)).kind != "up":
                pass
        assert event.peer == B
        await py.core_server.mirror.catch_up()
        assert await statuses(py) == await cluster.tracker(peers[1])
        async with member(PY2):
            assert await heard(updates, 1) == [(PY2, ONLINE)]


async def test_any_peer_adds_us(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """Where the source can't add us again, another peer does."""
    a, b = [await cluster.start(name) for name in (A, B)]
    async with member(rejoin_interval=PAUSES) as py:
        assert py.core_server.mirror.source == A
        await a.eval(":ok = Supervisor.terminate_child(Beethoven.Substrate, Beethoven.CoreServer)")
        async with whole_again(REJOIN_LIMIT):
            await b.eval(f"""
              offline = {{CoreTracker, :"{PY}", :offline, DateTime.utc_now()}}
              {{:atomic, :ok}} = :mnesia.transaction(fn -> :mnesia.write(offline) end)
            """)
            await cluster.await_tracker(b, {PY: ONLINE})
        assert py.core_server.mirror.source == A


# The mode as an event


async def test_until_mode(cluster: Peers, member: Member) -> None:
    """It returns at once when the mode is that; it raises when the time is up or the node left."""
    async with member() as py:
        await py.until_mode("standalone")
        with pytest.raises(NotReady, match=f"{PY} was not clustered within 0.01 seconds"):
            await py.until_mode("clustered", 0.01)
        with pytest.raises(ConfigError, match="'what'; give 'standalone' or 'clustered'"):
            await py.until_mode("what")
        waiting = asyncio.create_task(py.until_mode("clustered", None))
        modes = py.modes()
        await asyncio.sleep(0)
    with pytest.raises(NotReady, match="left before it was clustered"):
        await soon(waiting)
    assert [mode async for mode in modes] == []
