"""All of CoreServer, from Python and from a BEAM: adding nodes, followers, restarts, the tables."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pybeethoven import (
    Atom,
    Beethoven,
    ConfigError,
    CoreServer,
    Follower,
    GenServer,
    MirrorError,
    Modes,
    Node,
    ProcessExit,
    Supervisor,
    Term,
    TrackerEvent,
    TrackerRow,
    Updates,
)
from pybeethoven.cluster.tracker import last_change
from pybeethoven.errors import NoConnection, NoProcess
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, node_update, soon
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, ONLINE, PY, A, B, C

SERVER = f'{{Beethoven.CoreServer, :"{PY}"}}'
KILL = Atom("kill")


async def restarted(py: Beethoven) -> None:
    """Wait until a CoreServer that was killed has ended and runs again."""
    await soon(py.core_server.wait_end())
    await soon(py.substrate.which_children())  # answered after the restart


# Adding nodes


async def test_new_node(cluster: Peers, member: Member) -> None:
    """A BEAM peer tracks the node and merges its Mnesia; our mirror has its row on return."""
    await cluster.start(A)
    b = await cluster.start_bare(B)
    await b.eval(":mnesia.start()")
    async with member() as py:
        await py.core_server.new_node(B)
        (row,) = await py.core_server.fetch(B)
        assert (row.node, row.status) == (B, ONLINE)
        assert sorted(await b.eval(":mnesia.system_info(:running_db_nodes)")) == [A, B]


async def test_add_node_by_a_beam(cluster: Peers, member: Member) -> None:
    """`new_node` from Elixir, to our CoreServer, does the same."""
    a = await cluster.start(A)
    b = await cluster.start_bare(B)
    await b.eval(":mnesia.start()")
    async with member() as py:
        call = f'GenServer.call({SERVER}, {{:add_node, :"{B}"}})'
        assert await a.eval(call) == "ok"
        assert B in await py.get_active_cluster_nodes()
        assert sorted(await b.eval(":mnesia.system_info(:running_db_nodes)")) == [A, B]
        await cluster.await_tracker(a, {B: ONLINE})


async def test_add_node_to_mnesia(cluster: Peers, member: Member) -> None:
    """Mnesia is merged with the node's, and nothing else is done."""
    await cluster.start(A)
    b = await cluster.start_bare(B)
    await b.eval(":mnesia.start()")
    async with member() as py:
        await py.core_server.add_node_to_mnesia(B)
        assert sorted(await b.eval(":mnesia.system_info(:running_db_nodes)")) == [A, B]
        assert await py.core_server.fetch(Atom(B)) == []


@pytest.mark.parametrize("name", ["b", "b@", "@host", "b @127.0.0.1", "b@127.0.0.1\n"])
async def test_no_node_name(cluster: Peers, member: Member, name: str) -> None:
    """What is no node name is refused before anybody is asked."""
    a = await cluster.start(A)
    async with member() as py:
        with pytest.raises(ConfigError, match="must look like"):
            await py.core_server.new_node(name)
        with pytest.raises(ConfigError, match="must look like"):
            await py.core_server.add_node_to_mnesia(name)
        assert await cluster.tracker(a) == {A: ONLINE, PY: ONLINE}


async def test_add_node_without_peer(cluster: Peers, member: Member) -> None:
    """Standalone, a node that can't be reached is not added: an error, to a BEAM as `{:error,
    text}`; and there is no Mnesia that could connect to one."""
    async with member() as py:
        text = "no connection to b@127.0.0.1"
        with pytest.raises(NoConnection, match=text):
            await py.core_server.new_node(B)
        with pytest.raises(MirrorError, match=r"b@127.0.0.1 was not added: no BEAM peer is conn"):
            await py.core_server.add_node_to_mnesia(B)
        a = await cluster.start_bare(A)
        error, told = await a.eval(f'GenServer.call({SERVER}, {{:add_node, :"{B}"}})')
        assert (error, told[: len(text)]) == ("error", text.encode())
        assert await py.get_cluster_nodes() == [PY]


@pytest.mark.stand_in
async def test_add_node_holds_up_nobody(cluster: Peers, member: Member) -> None:
    """While a peer takes its time to add a node, the CoreServer answers and alerts."""
    a = await cluster.start(A)
    async with member() as py:
        await a.eval(":sys.suspend(Beethoven.CoreServer)")
        adding = asyncio.create_task(py.core_server.new_node(B))
        calling = asyncio.create_task(
            a.eval(f'Task.async(fn -> GenServer.call({SERVER}, {{:add_node, :"{B}"}}) end)')
        )
        await soon(calling)
        assert await py.core_server.get_mode() == "clustered"
        assert not adding.done()
        await a.eval(":sys.resume(Beethoven.CoreServer)")
        await soon(adding)
        assert len(await py.core_server.fetch(Atom(B))) == 1


# Followers


class Billing(Follower):
    """Hears of nodes by the callback that the page names."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Term] = asyncio.Queue()

    async def init(self) -> None:
        await self.alert_me()

    async def node_update(self, node: Atom, status: Atom) -> None:
        self.heard.put_nowait((node, status))


async def test_follower_class(cluster: Peers, member: Member) -> None:
    """`alert_me()` without a parameter registers the process that calls it."""
    await cluster.start(A)
    async with member() as py:
        billing = Billing()
        await py.start(billing, name="billing")
        await py.core_server.alert_me("billing")
        await py.core_server.alert_me(("billing", PY))
        b = await cluster.start(B)
        assert await soon(billing.heard.get()) == (B, ONLINE)
        await b.kill()
        assert await soon(billing.heard.get()) == (B, OFFLINE)
        assert billing.heard.empty()


async def test_follower_without_core_server(node: Any) -> None:
    """On a node that has none, `alert_me` says so."""
    with pytest.raises(NoProcess):
        await node.start(Billing())


async def test_slow_and_crashing_followers(cluster: Peers, member: Member) -> None:
    """One that blocks and one that crashes at each alert hold up no other."""
    await cluster.start(A)

    class Slow(GenServer):
        async def handle_cast(self, message: Term) -> None:
            await asyncio.get_running_loop().create_future()

    class Crashing(GenServer):
        async def handle_cast(self, message: Term) -> None:
            raise ValueError("no")

    async with member() as py:
        recorder = Recorder()
        py.node.spawn(recorder)
        for server in (Slow(), Crashing()):
            await py.start(server)
            await py.core_server.alert_me(server)
        await py.core_server.alert_me(recorder)
        for _ in range(2):
            b = await cluster.start(B)
            assert await recorder.next() == node_update(B, ONLINE)
            await b.kill()
            assert await recorder.next() == node_update(B, OFFLINE)


async def test_tracker_events(cluster: Peers, member: Member) -> None:
    """`subscribe` gives Mnesia's own terms, and `TrackerEvent` reads them."""
    a = await cluster.start(A)
    async with member() as py:
        recorder = Recorder()
        py.node.spawn(recorder)
        await py.core_server.subscribe("detailed", recorder)
        await cluster.start(B)
        event = TrackerEvent.parse(await recorder.next())
        while event is None or event.row is None or event.row.node != B:
            event = TrackerEvent.parse(await recorder.next())
        assert (event.operation, event.row.status) == ("write", ONLINE)
        assert event.old_rows == []
        there = await a.eval(f':mnesia.dirty_read(CoreTracker, :"{B}")')
        assert event.row.last_change <= last_change(there[0])
        assert TrackerEvent.parse(Atom("what")) is None


# Killed and run again


@pytest.mark.parametrize("victim", ["core_server", "mirror"])
async def test_restart(cluster: Peers, member: Member, victim: str) -> None:
    """Killed, the CoreServer runs again with its followers and readers still alerted, once each."""
    a = await cluster.start(A)
    async with member() as py:
        follower = Recorder()
        py.node.spawn(follower)
        await py.core_server.alert_me(follower)
        await a.eval("me = ControlShell.collect(:heard)")
        await a.eval(f"GenServer.cast({SERVER}, {{:alert_me, me}})")
        assert await a.eval(f"GenServer.call({SERVER}, :get_mode)") == "clustered"
        updates = py.core_server.updates()
        for _ in range(2):
            py.node.exit(py.core_server if victim == "core_server" else py.core_server.mirror, KILL)
            await restarted(py)
            await py.until_ready()
        assert await a.eval(f"GenServer.call({SERVER}, :get_mode)") == "clustered"
        b = await cluster.start(B)
        await cluster.await_tracker(a, {B: ONLINE})
        await b.kill()
        for status in (ONLINE, OFFLINE):
            assert await follower.next() == node_update(B, status)
            assert await a.next_event("heard") == (Atom("heard"), node_update(B, status))
            assert (await soon(anext(updates))).status == status
        assert follower.messages.empty()


async def test_changes_during_the_restart(cluster: Peers, member: Member) -> None:
    """What changed while the CoreServer was down is told when it is back."""
    a = await cluster.start(A)
    await cluster.start_bare(C)
    async with member() as py:
        updates = py.core_server.updates()
        a.freeze()
        py.node.exit(py.core_server, KILL)
        a.thaw()
        row = f'{{CoreTracker, :"{C}", :online, DateTime.utc_now()}}'
        await a.eval(f":mnesia.dirty_write({row})")
        update = await soon(anext(updates))
        assert (update.node, update.status) == (C, ONLINE)


async def test_killed_with_unread_messages(cluster: Peers, member: Member) -> None:
    """What stood in the mailbox of a killed CoreServer is not lost: updates, and new followers."""
    a = await cluster.start(A)
    async with member() as py:
        follower = Recorder()
        py.node.spawn(follower)
        await py.core_server.alert_me(follower)
        updates = py.core_server.updates()
        await a.eval(f":sys.suspend({SERVER})")
        await a.eval("me = ControlShell.collect(:heard)")
        await a.eval(f"GenServer.cast({SERVER}, {{:alert_me, me}})")
        b = await cluster.start(B)
        await py.core_server.mirror.catch_up()
        assert follower.messages.empty()
        py.node.exit(py.core_server, KILL)
        assert await follower.next() == node_update(B, ONLINE)
        assert (await soon(anext(updates))).status == ONLINE
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, ONLINE))
        await b.kill()
        assert await follower.next() == node_update(B, OFFLINE)
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, OFFLINE))


async def test_answers_beside_a_frozen_peer(cluster: Peers, member: Member) -> None:
    """While the peer whose Mnesia is mirrored doesn't answer, a CoreServer that was killed does."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        assert py.core_server.mirror.source == A
        a.freeze()
        py.node.exit(py.core_server, KILL)
        await restarted(py)
        assert await b.eval(f"GenServer.call({SERVER}, :get_mode, 1000)") == "clustered"
        a.thaw()


async def test_killed_too_often(cluster: Peers, member: Member) -> None:
    """A CoreServer that keeps being killed is given up: the node leaves, and who waits for updates
    is told."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        with suppress(ProcessExit):  # when the supervisor gives up
            while True:
                py.node.exit(py.core_server, KILL)
                await restarted(py)
        for reader in (updates, py.core_server.updates()):
            for _ in range(2):
                with pytest.raises(NoProcess, match=r"no process Elixir.Beethoven.CoreServer"):
                    await soon(anext(reader))
        await cluster.await_tracker(a, {PY: OFFLINE})
        assert not py.ready()
        for answer in (py.get_node_status, py.get_cluster_nodes, py.get_detailed_cluster_nodes):
            with pytest.raises(NoProcess):
                await answer()
        with pytest.raises(NoProcess):
            await py.core_server.alert_me("me")
        with pytest.raises(ConfigError, match=r"the node py@127.0.0.1 does not run"):
            await py.start(Billing())


async def test_under_another_supervisor(cluster: Peers, member: Member) -> None:
    """`child_spec` is what a supervisor needs to run a CoreServer."""
    async with member() as py:
        await py.node.stop()
    async with Node(PY, cluster.cookie) as node:
        spec = CoreServer.child_spec(Atom("standalone"))
        await node.start(Supervisor([spec]))
        mode = await node.call("Elixir.Beethoven.CoreServer", Atom("get_mode"))
        assert mode == "standalone"


async def test_start_link(cluster: Peers) -> None:
    """`start_link` gives a CoreServer under its name; when it ends, so do all its readers."""
    async with Node(PY, cluster.cookie) as node:
        server = await CoreServer.start_link(Atom("standalone"), node=node)
        assert node.whereis("Elixir.Beethoven.CoreServer") == server.pid
        assert await server.get_mode() == "standalone"
        assert [row.node for row in await server.fetch_all()] == [PY]
        assert await server.table_exists()
        await server.until_exists()
        readers: list[Updates | Modes] = [server.updates(), server.modes()]
        node.exit(server, KILL)
        await soon(server.wait_end())
        for reader in (*readers, server.updates(), server.modes()):
            with pytest.raises(NoProcess):
                await soon(anext(reader))
        with pytest.raises(ConfigError, match=r"'junk'\); give 'standalone' or 'clustered'"):
            await CoreServer.start_link(Atom("junk"), node=node)


# The module Beethoven

ROLES = "[{:mailer, Beethoven.TestRole, [], 2}, {:cron, Beethoven.TestRole, [], 1}]"


def terms(rows: list[Any]) -> Term:
    """Rows with names as the maps that Elixir has."""
    return [
        {Atom("node"): r.node, Atom("status"): r.status, Atom("last_change"): r.to_record()[3]}
        if isinstance(r, TrackerRow)
        else {Atom(name): getattr(r, name) for name in ("role", "count", "assigned", "nodes")}
        for r in rows
    ]


async def agree(py: Beethoven, peer: BeamNode) -> None:
    """Each function of the module answers what it does on the peer at the same moment."""
    for mirror in (py.core_server.mirror, py.substrate.roles, py.substrate.allocations):
        await mirror.catch_up()
    ours = {
        "get_cluster_nodes()": await py.get_cluster_nodes(),
        "get_active_cluster_nodes()": await py.get_active_cluster_nodes(),
        "get_detailed_cluster_nodes()": terms(await py.get_detailed_cluster_nodes()),
        "get_roles()": terms(await py.get_roles()),
        "whois_hosting(:mailer)": await py.whois_hosting(Atom("mailer")),
        "whois_hosting(:cron)": await py.whois_hosting("cron"),
        "whois_hosting(:none)": await py.whois_hosting(Atom("none")),
        "allocate()": await py.allocate(),
        "Allocator.allocation_list()": await py.allocation_list(),
        "ready?()": py.ready(),
    }
    assert ours == {call: await peer.eval(f"Beethoven.{call}") for call in ours}


async def test_agrees_with_elixir(cluster: Peers, member: Member) -> None:
    """Each function of the module answers what it does on a BEAM node of the cluster."""
    cluster.roles = ROLES
    a, b, c = [await cluster.start(name) for name in (A, B, C)]
    async with member() as py:
        await py.until_ready()
        for score, peer in ((0.5, a), (0.25, b), (0.75, c)):
            assert await peer.eval("Beethoven.until_ready()") == "ok"
            row = f"{{AllocTracker, node(), {score}, DateTime.utc_now()}}"
            await peer.eval(f":mnesia.sync_dirty(fn -> :mnesia.write({row}) end)")
        await agree(py, a)
        assert await py.allocation_list() == [B, A, C]
        assert len(await py.whois_hosting(Atom("mailer"))) == 2


@pytest.mark.stand_in
async def test_agrees_when_a_node_dies(cluster: Peers, member: Member) -> None:
    """So it is after a node has gone: its roles have others, and it takes no work."""
    cluster.roles = ROLES
    a, b, c = [await cluster.start(name) for name in (A, B, C)]
    async with member() as py:
        await py.until_ready()
        await a.eval("Beethoven.until_ready()")
        await c.eval("Beethoven.Allocator.set_score(0.5)")
        await b.kill()
        await cluster.await_tracker(a, {B: OFFLINE})
        await a.eval(
            f"""
            ControlShell.until(fn ->
              :"{B}" not in Beethoven.Allocator.allocation_list() and
                :"{B}" not in Beethoven.whois_hosting(:mailer)
            end)
            """
        )
        await agree(py, a)
        assert await py.get_node_status() == await a.eval("Beethoven.get_node_status()")


async def test_tables_without_cluster(cluster: Peers, member: Member) -> None:
    """Standalone there are no roles and nobody takes work: errors that say so; but it is ready."""
    async with member() as py:
        await py.until_ready()
        assert await py.get_node_status() == "standalone"
        with pytest.raises(MirrorError, match=r"no connected peer offers the table Elixir.RoleTr"):
            await py.get_roles()
        with pytest.raises(MirrorError, match=r"no connected peer offers the table Elixir.AllocTr"):
            await py.allocate()


async def test_calls_and_casts_from_elixir(cluster: Peers, member: Member) -> None:
    """What works on an Elixir CoreServer works on ours, with the same answers."""
    a = await cluster.start(A)
    calls = [f'{{:add_node, :"{A}"}}', ":get_mode"]
    theirs = [await a.eval(f"GenServer.call(Beethoven.CoreServer, {call})") for call in calls]
    assert theirs == ["ok", "standalone"]
    async with member():
        ours = [await a.eval(f"GenServer.call({SERVER}, {call})") for call in calls]
        assert ours == ["ok", "clustered"]
        for follower in ("self()", ":me", f'{{:me, :"{A}"}}'):
            assert await a.eval(f"GenServer.cast({SERVER}, {{:alert_me, {follower}}})") == "ok"
        assert await a.eval(f"GenServer.call({SERVER}, :get_mode)") == "clustered"
        state = await a.eval(f":sys.get_state({SERVER})")
        assert state[0] == "clustered"
        assert await a.eval(f"elem(:sys.get_status({SERVER}), 0)") == "status"
        await a.eval(f":sys.suspend({SERVER})")
        with pytest.raises(Exception, match="time out"):
            await a.eval(f"GenServer.call({SERVER}, :get_mode, 50)")
        await a.eval(f":sys.resume({SERVER})")
        assert await a.eval(f"GenServer.call({SERVER}, :get_mode)") == "clustered"
