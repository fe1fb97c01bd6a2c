"""A Python node joins a cluster of BEAM nodes and hears who comes and goes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, ConfigError, GenServer, JoinError, NotReady, Pid, Term
from pybeethoven.errors import NameTaken
from pybeethoven.testing import Peers
from tests.helpers import Recorder, atoms, node_update, soon
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, ONLINE, PY, PY2, A, B, C, D, heard, kill_all, statuses
from tests.timing import UNIT


async def test_join(cluster: Peers, member: Member) -> None:
    """Joined through the beacon, the node has the tracker, and the peers have the node."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        assert py.via == A
        assert await py.core_server.get_mode() == "clustered"
        assert await statuses(py) == {A: ONLINE, B: ONLINE, PY: ONLINE}
        await cluster.await_tracker(a, {PY: ONLINE})
        await cluster.await_tracker(b, {PY: ONLINE})
        await soon(py.node.connect(B))
        assert set(py.node.nodes()) == {A, B}
        assert await a.eval("{Node.list(), Node.list(:hidden)}") == (
            list(atoms(B)),
            list(atoms(PY)),
        )


async def test_join_under_way_blocks_no_peer(cluster: Peers, member: Member) -> None:
    """While nodes join, the peers' CoreServers go on answering.

    A call that 0.3.9 crashes under (it does so at each update) is answered too, if not well.
    """
    a = await cluster.start(A)
    b = await cluster.start(B)
    answered = """
      Enum.map(1..300, fn _ ->
        {micros, _} = :timer.tc(fn ->
          try do
            GenServer.call({Beethoven.CoreServer, NODE}, :get_mode)
          catch
            :exit, {reason, _} when reason != :timeout -> :crashed
          end
        end)
        micros
      end) |> Enum.max()
    """
    calls = [
        asyncio.create_task(peer.eval(answered.replace("NODE", f':"{peer.name}"')))
        for peer in (a, b)
    ]
    async with member(), member(PY2):
        slowest = await soon(asyncio.gather(*calls))
    assert max(slowest) < 1_000_000 * UNIT


async def test_no_cluster(cluster: Peers, member: Member) -> None:
    """Without a beacon the node is standalone, and tracks itself."""
    async with member() as py:
        assert py.via is None
        assert await py.core_server.get_mode() == "standalone"
        assert await statuses(py) == {PY: ONLINE}


async def test_python_first(cluster: Peers, member: Member) -> None:
    """A node that was there before any peer doesn't hold up those that come; one joins later."""
    async with member():
        a = await cluster.start(A)
        async with member(PY2) as late:
            assert late.via == PY
            assert late.core_server.mirror.source == A, "joined, but not mirrored from who leads"
            await cluster.await_tracker(a, {A: ONLINE, PY: ONLINE, PY2: ONLINE})


async def test_peer_comes_goes_and_comes_back(cluster: Peers, member: Member) -> None:
    """Each change reaches each follower once and in order: Python's, a BEAM's, and updates()."""
    a = await cluster.start(A)
    async with member() as py:
        follower = Recorder()
        py.node.spawn(follower)
        await py.core_server.alert_me(follower)
        updates = py.core_server.updates()
        await a.eval("me = ControlShell.collect(:heard)")
        await a.eval(f'GenServer.cast({{Beethoven.CoreServer, :"{PY}"}}, {{:alert_me, me}})')
        await a.eval(f'GenServer.call({{Beethoven.CoreServer, :"{PY}"}}, :get_mode)')

        b = await cluster.start(B)
        await cluster.await_tracker(a, {B: ONLINE})
        await b.kill()
        await cluster.await_tracker(a, {B: OFFLINE})
        b = await cluster.start(B)
        await b.stop()
        await cluster.await_tracker(a, {B: OFFLINE})
        c = await cluster.start(C)

        expected = [(B, ONLINE), (B, OFFLINE), (B, ONLINE), (B, OFFLINE), (C, ONLINE)]
        heard = [await soon(anext(updates)) for _ in expected]
        assert [(update.node, update.status) for update in heard] == expected
        assert [update.last_change for update in heard] == sorted(u.last_change for u in heard)
        assert abs(heard[-1].last_change - datetime.now(UTC)).total_seconds() < 60
        for node, status in expected:
            assert await follower.next() == node_update(node, status)
            assert await a.next_event("heard") == (Atom("heard"), node_update(node, status))
        assert follower.messages.empty()
        assert c.running


async def test_source_of_the_mirror_is_killed(cluster: Peers, member: Member) -> None:
    """When the peer that the mirror follows dies, another takes its place and nothing is lost."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        updates = py.core_server.updates()
        assert py.core_server.mirror.source == A
        await a.kill()
        lost = await soon(anext(updates))
        assert (lost.node, lost.status) == (A, OFFLINE)
        assert py.core_server.mirror.source == B
        await cluster.start(C)
        joined = await soon(anext(updates))
        assert (joined.node, joined.status) == (C, ONLINE)
        assert await cluster.tracker(b) == await statuses(py)


async def test_last_peer_is_killed(cluster: Peers, member: Member) -> None:
    """With no BEAM peer left the node still says who is gone, and is standalone."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        await a.kill()
        lost = await soon(anext(updates))
        assert (lost.node, lost.status) == (A, OFFLINE)
        assert await py.core_server.get_mode() == "standalone"
        assert await statuses(py) == {A: OFFLINE, PY: ONLINE}


async def test_two_of_four_peers_die_and_come_back(cluster: Peers, member: Member) -> None:
    """Two peers that are killed at once and started again are each reported offline and online,
    once."""
    a, b, c, _ = [await cluster.start(name) for name in (A, B, C, D)]
    async with member() as py:
        updates = py.core_server.updates()
        await kill_all(a, c)
        assert sorted(await heard(updates, 2)) == [(A, OFFLINE), (C, OFFLINE)]
        await cluster.await_tracker(b, {A: OFFLINE, C: OFFLINE, PY: ONLINE})
        assert await statuses(py) == await cluster.tracker(b)
        for name in (A, C):
            await cluster.start(name)
        async with member(PY2):
            assert await heard(updates, 3) == [(A, ONLINE), (C, ONLINE), (PY2, ONLINE)]


async def test_two_python_nodes(cluster: Peers, member: Member) -> None:
    """Python nodes in one cluster hear of each other as of BEAM nodes, and are connected."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        async with member(PY2) as py2:
            joined = await soon(anext(updates))
            assert (joined.node, joined.status) == (PY2, ONLINE)
            await soon(py.node.connect(PY2))
            mode = await soon(py.node.call(("Elixir.Beethoven.CoreServer", PY2), Atom("get_mode")))
            assert mode == "clustered"
            assert await statuses(py2) == await cluster.tracker(a)
        left = await soon(anext(updates))
        assert (left.node, left.status) == (PY2, OFFLINE)


async def test_leaving_and_coming_back(cluster: Peers, member: Member) -> None:
    """Leaving turns the row offline at once; the same name is online again when it returns."""
    a = await cluster.start(A)
    for _ in range(3):
        async with member():
            await cluster.await_tracker(a, {PY: ONLINE})
        await cluster.await_tracker(a, {PY: OFFLINE})


async def test_wrong_cookie(cluster: Peers, member: Member) -> None:
    """The beacon can't ping a node with another cookie; the error names that cause."""
    a = await cluster.start(A)
    with pytest.raises(JoinError, match="cookie") as caught:
        await member(cookie="another").join()
    assert caught.value.answer == "join_failed"
    assert "another" not in str(caught.value)
    assert await cluster.tracker(a) == {A: ONLINE}


async def test_name_of_the_beacons_own_node(cluster: Peers, member: Member) -> None:
    """A name that a live node of this host has is refused by EPMD, and the node is unharmed."""
    a = await cluster.start(A)
    with pytest.raises(NameTaken, match="'a' is already registered"):
        await member(A).join()
    assert await cluster.tracker(a) == {A: ONLINE}


async def test_follower_is_killed(cluster: Peers, member: Member) -> None:
    """A dead follower is forgotten and holds up no other."""
    await cluster.start(A)
    async with member() as py:
        first, second = Recorder(), Recorder()
        for follower in (first, second):
            py.node.spawn(follower)
            await py.core_server.alert_me(follower)
        py.node.exit(first, Atom("kill"))
        b = await cluster.start(B)
        assert await second.next() == node_update(B, ONLINE)
        await b.kill()
        assert await second.next() == node_update(B, OFFLINE)
        assert first.messages.empty()


async def test_beam_follower_is_killed(cluster: Peers, member: Member) -> None:
    """A BEAM follower whose node dies is forgotten; the others go on hearing."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        alert_me = f'GenServer.cast({{Beethoven.CoreServer, :"{PY}"}}, {{:alert_me, me}})'
        for peer in (a, b):
            await peer.eval("me = ControlShell.collect(:heard)")
            await peer.eval(alert_me)
            await peer.eval(f'GenServer.call({{Beethoven.CoreServer, :"{PY}"}}, :get_mode)')
        await b.kill()
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, OFFLINE))
        await cluster.start(B)
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, ONLINE))
        assert await py.core_server.get_mode() == "clustered"


async def test_beam_follower_by_name(cluster: Peers, member: Member) -> None:
    """A follower may be a name on the node that cast, or {name, node}; twice alerts once."""
    a = await cluster.start(A)
    async with member():
        await a.eval("ControlShell.collect(:heard, name: :ears)")
        for follower in (":ears", f'{{:ears, :"{A}"}}', ":ears"):
            await a.eval(
                f'GenServer.cast({{Beethoven.CoreServer, :"{PY}"}}, {{:alert_me, {follower}}})'
            )
        await a.eval(f'GenServer.call({{Beethoven.CoreServer, :"{PY}"}}, :get_mode)')
        b = await cluster.start(B)
        await b.kill()
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, ONLINE))
        assert await a.next_event("heard") == (Atom("heard"), node_update(B, OFFLINE))


async def test_strange_requests_to_core_server(cluster: Peers, member: Member) -> None:
    """Calls, casts and messages that it doesn't know end neither the CoreServer nor the caller."""
    a = await cluster.start(A)
    async with member():
        server = f'{{Beethoven.CoreServer, :"{PY}"}}'
        assert await a.eval(f"GenServer.call({server}, {{:what, 1}})") == atoms("error", "notsup")
        await a.eval(f"GenServer.cast({server}, {{:alert_me, 17}})")
        for strange in (":what", "{:alert_me, [:a, :b]}", "[:alert_me, :a]", "{:alert_me, {}}"):
            await a.eval(f"GenServer.cast({server}, {strange})")
        for strange in ("[:add_node, :a@b]", "{:add_node, 1}", "{:add_node, 'x@y'}"):
            answer = await a.eval(f"GenServer.call({server}, {strange})")
            assert answer == atoms("error", "notsup")
        error, text = await a.eval(f"GenServer.call({server}, {{:add_node, :no_name}})")
        assert (error, text[:30]) == ("error", b"the node name 'no_name' has no")
        messages = [
            ":what",
            "{:nodedown}",
            '{:"$gen_call", 1, 2}',
            '{:"$gen_call", {self(), [:alias | {:a, []}]}, :get_mode}',
            "{:mnesia_table_event, 1}",
            "{:DOWN, [], :process, self(), :reason}",
            "{:system, self(), :what}",
        ]
        for message in messages:
            await a.eval(f"send({server}, {message})")
            await a.eval(f'send({{:net_kernel, :"{PY}"}}, {message})')
        assert await a.eval(f"GenServer.call({server}, :get_mode)") == "clustered"


async def test_readme_api(cluster: Peers, member: Member) -> None:
    """A GenServer that asks to be alerted in its init hears of the very next change."""
    await cluster.start(A)
    heard: asyncio.Queue[Term] = asyncio.Queue()

    class Billing(GenServer):
        async def init(self) -> None:
            await py.core_server.alert_me(self)

        async def handle_cast(self, message: Term) -> None:
            heard.put_nowait(message)

    async with member() as py:
        assert isinstance(await py.start(Billing(), name="billing"), Pid)
        await cluster.start(B)
        assert await soon(heard.get()) == (Atom("node_update"), atoms(B, ONLINE))


async def test_rows_that_are_none(cluster: Peers, member: Member) -> None:
    """Whatever somebody writes into the tracker, the rows of nodes are read and told."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        for key, status in [(":x", "[:online]"), ("[1]", ":online"), ('"b@host"', ":online")]:
            await a.eval(f":mnesia.dirty_write({{CoreTracker, {key}, {status}, nil}})")
        await a.eval(':mnesia.dirty_write({CoreTracker, :"x@a..b", :online, nil})')
        assert (await soon(anext(updates))).node == "x@a..b"
        assert await statuses(py) == {A: ONLINE, PY: ONLINE, "x@a..b": ONLINE}


async def test_own_row_turned_offline(cluster: Peers, member: Member) -> None:
    """A peer that calls us offline while we are there is asked to correct it."""
    a = await cluster.start(A)
    for _ in range(5):
        async with member():
            await cluster.await_tracker(a, {PY: ONLINE})
    async with member():
        await a.eval(f"""
          offline = {{CoreTracker, :"{PY}", :offline, DateTime.utc_now()}}
          {{:atomic, :ok}} = :mnesia.transaction(fn -> :mnesia.write(offline) end)
        """)
        await cluster.await_tracker(a, {PY: ONLINE})


async def test_leave_by_a_process_of_the_node(cluster: Peers, member: Member) -> None:
    """A GenServer may have the node leave, and a leave that is cancelled goes on."""
    a = await cluster.start(A)

    class Leaver(GenServer):
        async def handle_cast(self, message: Term) -> None:
            await py.leave()

    py = member()
    await py.join()
    py.node.cast(await py.start(Leaver()), Atom("go"))
    await cluster.await_tracker(a, {PY: OFFLINE})
    await soon(py.leave())
    async with member():
        await cluster.await_tracker(a, {PY: ONLINE})
    py = member()
    await py.join()
    for turns in range(3):
        leaving = asyncio.create_task(py.leave())
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
    await soon(py.leave())
    assert py.node.nodes() == []
    async with member():
        await cluster.await_tracker(a, {PY: ONLINE})


async def test_leave_amid_join(cluster: Peers, member: Member) -> None:
    """A leave at any point of a join ends it: the name is free, and it may join again."""
    a = await cluster.start(A)
    py = member()
    for turns in range(1, 90, 3):
        join = asyncio.create_task(py.join())
        for _ in range(turns):
            await asyncio.sleep(0)
        await soon(py.leave())
        (error,) = await asyncio.gather(join, return_exceptions=True)
        assert error is None or isinstance(error, NotReady)
        assert not py.node.running
    async with py:
        assert await py.core_server.get_mode() == "clustered"
        with pytest.raises(ConfigError, match="has joined already"):
            await py.join()
    await cluster.await_tracker(a, {PY: OFFLINE})


async def test_cancelled_join_leaves_nothing(cluster: Peers, member: Member) -> None:
    """A join that is cancelled at any point frees the name and the sockets."""
    await cluster.start(A)
    for turns in range(0, 60, 3):
        py = member()
        join = asyncio.create_task(py.join())
        for _ in range(turns):
            await asyncio.sleep(0)
        join.cancel()
        await asyncio.gather(join, return_exceptions=True)
        if not join.cancelled():
            await py.leave()
    async with member() as py:
        assert py.via == A
