"""What starts again under its name is the same member as before, and nothing is lost meanwhile.

A killed CoreServer of ours is in test_core_server.py, a peer that comes and goes in test_join.py.
"""

from __future__ import annotations

import asyncio
import logging
import signal

import pytest

from pybeethoven.cluster.rejoin import REJOIN_INTERVAL
from pybeethoven.mnesia import mirror
from pybeethoven.net.registrar import FIRST_INTERVAL
from pybeethoven.testing import BeamNode, Epmd, Peers
from tests.command_line import POOL_COMMAND, has_processes, next_event, options, running
from tests.helpers import node_update, soon, until_logged
from tests.interop.conftest import Member, WholeAgain
from tests.interop.kv import ROWS, Kv, row
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

START_MNESIA = f"""
:ok = :mnesia.start()
others = [:"{A}", :"{B}"] -- [node()]
{{:ok, ^others}} = :mnesia.change_config(:extra_db_nodes, others)
:ok = :mnesia.wait_for_tables([CoreTracker], 5000)
"""


async def crash_core_server(peers: Peers, peer: BeamNode) -> None:
    """Kill a peer's CoreServer; it is back when this returns."""
    await peer.eval("""
      killed = Process.whereis(Beethoven.CoreServer)
      Process.exit(killed, :kill)
    """)
    await peers.until(peer, "Process.whereis(Beethoven.CoreServer) not in [killed, nil]")
    await peer.eval("Beethoven.CoreServer.get_mode()")


class Watched(Kv):
    """Tells when it has found out whether its table is to be created again."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: asyncio.Queue[None] = asyncio.Queue()

    async def _create_again(self) -> None:
        await super()._create_again()
        if self.mirror.source is None:
            self.looked.put_nowait(None)


# Ours


@pytest.mark.parametrize("module", ["pybeethoven", POOL_COMMAND])
async def test_our_process_within_a_second(
    cluster: Peers, member: Member, whole_again: WholeAgain, module: str
) -> None:
    """Killed and started at once under the same name, it is online for all and knows all; the
    others heard that it was gone, once. That its pool workers live on changes nothing."""
    a, b = [await cluster.start(name) for name in (A, B)]
    async with member(PY2, rejoin_interval=PAUSES) as other:
        updates = other.core_server.updates()
        async with running(*options(cluster), "--json", module=module) as first:
            assert (await next_event(first))["event"] == "joined"
            assert await heard(updates, 1) == [(PY, ONLINE)]
            async with whole_again(2 * UNIT):
                first.kill()
                async with running(*options(cluster), "--json") as second:
                    joined = await next_event(second)
                    told = await heard(updates, 2)
                    await cluster.await_tracker(b, {PY: ONLINE})
                    table = {row["node"]: row["status"] for row in joined["nodes"]}
            assert has_processes(first) == (module == POOL_COMMAND)
        assert told == [(PY, OFFLINE), (PY, ONLINE)]
        assert table == {A: ONLINE, B: ONLINE, PY: ONLINE, PY2: ONLINE}
        await cluster.await_tracker(a, {PY: OFFLINE})


# Peers


async def test_source_within_a_second(
    cluster: Peers, member: Member, whole_again: WholeAgain
) -> None:
    """The source is killed and starts again at once: each change is heard once, and in order."""
    a, b = [await cluster.start(name) for name in (A, B)]
    async with member(rejoin_interval=PAUSES) as py:
        follower = await follow(py)
        async with whole_again(3 * UNIT):
            await a.kill()
            a = await cluster.start(A)
            for status in (OFFLINE, ONLINE):
                assert await follower.next() == node_update(A, status)
        assert py.core_server.mirror.source == B
        await b.kill()
        assert await follower.next() == node_update(B, OFFLINE)
        await py.core_server.mirror.attached.wait()
        await cluster.await_tracker(a, {B: OFFLINE, PY: ONLINE})
        assert await statuses(py) == await cluster.tracker(a)
        assert follower.messages.empty()


async def test_all_peers_at_once(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """All restart with empty tables: who was online and is not there is told offline, who is there
    again online, once each; the rows of the old cluster have gone."""
    peers = [await cluster.start(name) for name in (A, B, C)]
    async with member(rejoin_interval=PAUSES) as py:
        follower = await follow(py)
        await kill_all(*peers)
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT):
            await whole(py)
        c = await cluster.start(C)
        told = [await follower.next() for _ in range(5)]
        assert sorted(m[1][1] for m in told[:3]) == [(n, OFFLINE) for n in (A, B, C)]
        assert told[3:] == [node_update(A, ONLINE), node_update(C, ONLINE)]
        for peer in (a, c):
            await cluster.await_tracker(peer, {A: ONLINE, C: ONLINE, PY: ONLINE})
        assert await statuses(py) == await cluster.tracker(a)
        assert follower.messages.empty()


async def test_table_of_ours(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """A table that we have created is there again in the cluster that has begun anew, created by
    the one that is first; one that somebody deletes stays deleted."""
    peers = [await cluster.start(name) for name in (A, B)]
    async with member(rejoin_interval=PAUSES) as py, member(PY2, rejoin_interval=PAUSES) as other:
        servers = [Watched(), Watched()]
        for server, node in zip(servers, (py, other), strict=True):
            await node.start(server)
        await servers[0].dirty_write(row("old", 1))
        await kill_all(*peers)
        a = await cluster.start(A)
        async with whole_again(REJOIN_LIMIT + mirror.RETRY_INTERVALS[1] + 2 * UNIT):
            for server in servers:
                await soon(server.mirror.attached.wait())
                while await server.fetch_all() != [row("made", 1)]:
                    await soon(server.heard.get())
        await servers[1].dirty_write(row("new", 2))
        assert sum(server.calls.count("create_action") for server in servers) == 2
        assert [server.calls.count("entry_point arg") for server in servers] == [1, 1]
        assert sorted(await a.eval(ROWS)) == sorted([row("made", 1), row("new", 2)])
        for server in servers:
            while not server.looked.empty():
                server.looked.get_nowait()
        await a.eval("{:atomic, :ok} = :mnesia.delete_table(Kv); :ok")
        for server in servers:
            for _ in range(2):  # it has looked again, and may have been asked to before that
                await soon(server.looked.get())
        assert await a.eval("Kv in :mnesia.system_info(:tables)") is False


async def test_all_peers_while_we_are_frozen(cluster: Peers, whole_again: WholeAgain) -> None:
    """A process that has not seen the old cluster go is a member of the new one, and tells what
    that means: the peer that is not there any more is offline."""
    peers = [await cluster.start(name) for name in (A, B)]
    async with running(*options(cluster), "--json") as process:
        joined = await next_event(process)
        table = {row["node"]: row["status"] for row in joined["nodes"]}
        process.send_signal(signal.SIGSTOP)
        await kill_all(*peers)
        a = await cluster.start(A)
        async with whole_again(2 * UNIT):
            process.send_signal(signal.SIGCONT)
            await cluster.await_tracker(a, {PY: ONLINE})
            while table != {A: ONLINE, B: OFFLINE, PY: ONLINE}:
                event = await next_event(process)
                if event["event"] == "node_update":
                    assert event["status"] != table[event["node"]]
                    table[event["node"]] = event["status"]


async def test_source_is_frozen(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """A source that is frozen for longer than the tick time is offline, and another goes on: one
    that is connected, so that nobody waits for the frozen one."""
    a, b, c = [await cluster.start(name, flags=TICKS) for name in (A, B, C)]
    async with member(rejoin_interval=PAUSES, net_ticktime=TICKTIME) as py:
        updates = py.core_server.updates()
        await asyncio.gather(*(soon(py.node.connect(name)) for name in (B, C)))
        async with whole_again(DETECTION_LIMIT):
            a.freeze()
            assert await heard(updates, 1) == [(A, OFFLINE)]
            await py.core_server.mirror.attached.wait()
        assert py.core_server.mirror.source in (B, C)
        await c.kill()
        assert await heard(updates, 1) == [(C, OFFLINE)]
        assert py.core_server.mode == "clustered"
        assert await statuses(py) == await cluster.tracker(b)


async def test_only_peer_is_frozen(
    cluster: Peers, member: Member, whole_again: WholeAgain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only peer, frozen for longer than the tick time, is offline, and so are we for it; when
    it goes on both are online."""
    monkeypatch.setattr(mirror, "ANSWER_TIME", 1.0 * UNIT)
    a = await cluster.start(A, flags=TICKS)
    async with member(rejoin_interval=PAUSES, net_ticktime=TICKTIME) as py:
        updates = py.core_server.updates()
        async with whole_again(DETECTION_LIMIT + mirror.ANSWER_TIME):
            a.freeze()
            await py.until_mode("standalone", None)
        async with whole_again(REJOIN_LIMIT):
            a.thaw()
            await whole(py)
        await cluster.await_tracker(a, {A: ONLINE, PY: ONLINE})
        assert await heard(updates, 2) == [(A, OFFLINE), (A, ONLINE)]


@pytest.mark.parametrize("names", [(A,), (B,), (A, B)], ids=["source", "other", "all"])
async def test_core_server_crashes(
    cluster: Peers, member: Member, whole_again: WholeAgain, names: tuple[str, ...]
) -> None:
    """While a peer's CoreServer is away nothing is told, and all that comes after is."""
    peers = {name: await cluster.start(name) for name in (A, B)}
    async with member(rejoin_interval=PAUSES) as py:
        follower = await follow(py)
        for _ in range(3):
            await asyncio.gather(*(crash_core_server(cluster, peers[name]) for name in names))
            await peers[A].eval(f'Beethoven.CoreServer.new_node(:"{PY}")')
        async with whole_again(5 * UNIT):  # most of it is the start of a BEAM
            c = await cluster.start(C)
            assert await follower.next() == node_update(C, ONLINE)
        await c.kill()
        assert await follower.next() == node_update(C, OFFLINE)
        assert follower.messages.empty()
        assert py.core_server.mode == "clustered"
        await cluster.await_tracker(peers[B], {C: OFFLINE, PY: ONLINE})
        assert await statuses(py) == await cluster.tracker(peers[B])


@pytest.mark.parametrize("stopped", [A, B], ids=["source", "other"])
async def test_mnesia_restarts(
    cluster: Peers, member: Member, whole_again: WholeAgain, stopped: str
) -> None:
    """Mnesia is stopped on a peer and started again: the tracker stays, goes on, and that peer can
    be the source again."""
    peers = {name: await cluster.start(name) for name in (A, B)}
    staying = peers.pop(B if stopped == A else A)
    peer = peers.pop(stopped)
    async with member(rejoin_interval=PAUSES) as py:
        updates = py.core_server.updates()
        assert py.core_server.mirror.source == A
        row = f'{{CoreTracker, :"{C}", :online, DateTime.utc_now()}}'
        async with whole_again(1 * UNIT):
            await peer.eval(":mnesia.stop()")
            await staying.eval(f":mnesia.dirty_write({row})")
            assert (await soon(anext(updates))).node == C
        assert py.core_server.mirror.source == staying.name
        await staying.eval(f'Node.monitor(:"{C}", true)')
        assert (await soon(anext(updates))).status == OFFLINE
        await peer.eval(START_MNESIA)
        await crash_core_server(cluster, peer)
        async with whole_again(1 * UNIT):
            await staying.kill()
            assert await heard(updates, 1) == [(staying.name, OFFLINE)]
        assert py.core_server.mirror.source == stopped
        assert await statuses(py) == await cluster.tracker(peer)


async def test_mnesia_of_the_only_peer_restarts(
    cluster: Peers, member: Member, whole_again: WholeAgain, caplog: pytest.LogCaptureFixture
) -> None:
    """While the only peer's Mnesia is away its beacon is left alone, which would crash it. Started
    anew it has no tracker, until the CoreServer makes one: of that we are a member. The peer was
    never called offline, for it was not."""
    caplog.set_level(logging.INFO, "pybeethoven.cluster")
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        await a.eval("core = Process.whereis(Beethoven.CoreServer)\n:mnesia.stop()")
        await until_logged(caplog, "does not offer the tracker")
        assert await a.eval("Process.whereis(Beethoven.CoreServer) == core")
        await a.eval(":mnesia.start()")
        async with whole_again(mirror.RETRY_INTERVALS[1] + 4 * REJOIN_INTERVAL[0] + 1 * UNIT):
            await crash_core_server(cluster, a)
            await cluster.await_tracker(a, {PY: ONLINE})
            await py.core_server.mirror.attached.wait()
        await cluster.start(B)
        assert await heard(updates, 1) == [(B, ONLINE)]
        assert await statuses(py) == await cluster.tracker(a)


# EPMD


async def test_epmd(cluster: Peers, member: Member, whole_again: WholeAgain) -> None:
    """When EPMD is killed and started again nobody is offline; who joins then finds us, too."""
    await cluster.start(A)
    async with member(rejoin_interval=PAUSES) as py:
        updates = py.core_server.updates()
        await cluster.epmd.__aexit__()
        async with Epmd(cluster.epmd.port), whole_again(4 * UNIT + 4 * FIRST_INTERVAL):
            b = await cluster.start_bare(B)
            await cluster.until(b, f'Node.ping(:"{PY}") == :pong and Node.ping(:"{A}") == :pong')
            await b.kill()
            b = await cluster.start(B)
            assert await heard(updates, 1) == [(B, ONLINE)]
            await cluster.await_tracker(b, {A: ONLINE, PY: ONLINE})
