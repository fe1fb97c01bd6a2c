"""A member that has lost its cluster, or that its cluster has lost, is one again by itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from erlang_interop.peers import Peers
from pybeethoven import Beethoven, ConfigError, Node, NotReady, Updates
from pybeethoven.cluster import locator
from pybeethoven.testing import BeamNode
from tests.helpers import Recorder, node_update, soon
from tests.interop.conftest import Member, WholeAgain
from tests.timing import UNIT

A, B, C = (f"{letter}@127.0.0.1" for letter in "abc")
PY, PY2 = "py@127.0.0.1", "py2@127.0.0.1"
ONLINE, OFFLINE = "online", "offline"

PAUSES = (0.05 * UNIT, 0.4 * UNIT)
REJOIN_LIMIT = PAUSES[1] + 1 * UNIT
"""The longest pause, and the work."""


async def statuses(member: Beethoven) -> dict[str, str]:
    """What the member's own tracker says."""
    return {row.node: row.status for row in await member.core_server.fetch_all()}


async def heard(updates: Updates, count: int) -> list[tuple[str, str]]:
    """The next updates."""
    rows = [await soon(anext(updates)) for _ in range(count)]
    return [(row.node, row.status) for row in rows]


async def whole(member: Beethoven) -> None:
    """Wait until it is clustered, and has the cluster's tables."""
    await member.until_mode("clustered", None)
    await member.until_ready(60 * UNIT)


async def follow(member: Beethoven) -> Recorder:
    """A process that is alerted."""
    follower = Recorder()
    member.node.spawn(follower)
    await member.core_server.alert_me(follower)
    return follower


async def kill_all(*peers: BeamNode) -> None:
    """All at the same moment."""
    await asyncio.gather(*(peer.kill() for peer in peers))


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
        assert await statuses(py) == await cluster.tracker(a) == {A: ONLINE, PY: ONLINE}
        b = await cluster.start(B)
        assert await heard(updates, 2) == [(A, ONLINE), (B, ONLINE)]
        assert await statuses(py) == await cluster.tracker(b)
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
    async with member(rejoin_interval=PAUSES) as py:
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
        (reply("self", PY), "answered 'self'"),
        (reply("joined", "nobody@127.0.0.1"), None),
        (reply("joined", "no name"), None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is no JSON object"),
        (b"", "it closed the connection without a reply"),
        (None, "did not answer within"),
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
    async with member(rejoin_interval=PAUSES) as py:
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
        py, seeks = member(rejoin_interval=PAUSES), asyncio.Event()

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
