"""A Python node joins a cluster of BEAM nodes and hears who comes and goes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, GenServer, JoinError, Pid, Term
from pybeethoven.errors import NameTaken
from pybeethoven.testing import Peers
from tests.helpers import Recorder, atoms, node_update, soon
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, ONLINE, PY, PY2, A, B, C, D, heard, kill_all, statuses
from tests.timing import UNIT


async def test_joined_node_and_peers_track_each_other(cluster: Peers, member: Member) -> None:
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

    That includes a call under which 0.3.9 crashes, as it does at each update.
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


async def test_node_without_a_beacon_is_standalone(cluster: Peers, member: Member) -> None:
    """Without a beacon the node is standalone, and tracks itself."""
    async with member() as py:
        assert py.via is None
        assert await py.core_server.get_mode() == "standalone"
        assert await statuses(py) == {PY: ONLINE}


async def test_peers_join_a_python_node(cluster: Peers, member: Member) -> None:
    """A Python node that started first does not hold up a BEAM; another one joins both."""
    async with member():
        a = await cluster.start(A)
        async with member(PY2) as late:
            assert late.via == PY
            assert late.core_server.mirror.source == A, "joined, but not mirrored from who leads"
            await cluster.await_tracker(a, {A: ONLINE, PY: ONLINE, PY2: ONLINE})


async def test_each_change_is_reported_once_and_in_order(cluster: Peers, member: Member) -> None:
    """Python followers, BEAM followers and `updates()` get each change once, in order."""
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


async def test_another_peer_becomes_the_source_of_the_mirror(
    cluster: Peers, member: Member
) -> None:
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


async def test_node_without_peers_is_standalone(cluster: Peers, member: Member) -> None:
    """When the last BEAM peer dies, the node still knows which nodes are offline."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        await a.kill()
        lost = await soon(anext(updates))
        assert (lost.node, lost.status) == (A, OFFLINE)
        assert await py.core_server.get_mode() == "standalone"
        assert await statuses(py) == {A: OFFLINE, PY: ONLINE}


async def test_two_of_four_peers_die_and_come_back(cluster: Peers, member: Member) -> None:
    """Two peers that are killed at once and come back are each reported once, both times."""
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


async def test_python_nodes_hear_of_each_other(cluster: Peers, member: Member) -> None:
    """Python nodes in one cluster are tracked as BEAM nodes are, and are connected."""
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


async def test_leaving_marks_the_row_offline(cluster: Peers, member: Member) -> None:
    """Leaving marks the row offline at once; the name is online again when it returns."""
    a = await cluster.start(A)
    for _ in range(3):
        async with member():
            await cluster.await_tracker(a, {PY: ONLINE})
        await cluster.await_tracker(a, {PY: OFFLINE})


async def test_wrong_cookie_is_named(cluster: Peers, member: Member) -> None:
    """The error says that the beacon can't ping a node with another cookie."""
    a = await cluster.start(A)
    with pytest.raises(JoinError, match="cookie") as caught:
        await member(cookie="another").join()
    assert caught.value.answer == "join_failed"
    assert "another" not in str(caught.value)
    assert await cluster.tracker(a) == {A: ONLINE}


async def test_taken_name_is_refused(cluster: Peers, member: Member) -> None:
    """EPMD refuses the name of a live node of this host, which is unharmed."""
    a = await cluster.start(A)
    with pytest.raises(NameTaken, match="'a' is already registered"):
        await member(A).join()
    assert await cluster.tracker(a) == {A: ONLINE}


async def test_dead_follower_is_removed(cluster: Peers, member: Member) -> None:
    """A dead follower is removed, and holds up no other."""
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


async def test_beam_follower_is_removed_with_its_node(cluster: Peers, member: Member) -> None:
    """A BEAM follower whose node dies is removed; the others go on hearing."""
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


async def test_beam_follower_may_be_a_name(cluster: Peers, member: Member) -> None:
    """A follower may be a name or {name, node}; registered twice, it is alerted once."""
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


async def test_core_server_survives_unknown_requests(cluster: Peers, member: Member) -> None:
    """Unknown calls, casts and messages end neither the CoreServer nor the caller."""
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


async def test_follower_registered_in_init_hears_the_next_change(
    cluster: Peers, member: Member
) -> None:
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


async def test_malformed_rows_are_ignored(cluster: Peers, member: Member) -> None:
    """Malformed rows of the tracker are ignored; those of nodes are read and reported."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        for key, status in [(":x", "[:online]"), ("[1]", ":online"), ('"b@host"', ":online")]:
            await a.eval(f":mnesia.dirty_write({{CoreTracker, {key}, {status}, nil}})")
        await a.eval(':mnesia.dirty_write({CoreTracker, :"x@a..b", :online, nil})')
        assert (await soon(anext(updates))).node == "x@a..b"
        assert await statuses(py) == {A: ONLINE, PY: ONLINE, "x@a..b": ONLINE}


async def test_own_row_is_set_online_again(cluster: Peers, member: Member) -> None:
    """A peer that marks the node offline while it is up is asked to correct that."""
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


async def test_process_of_the_node_may_leave(cluster: Peers, member: Member) -> None:
    """A GenServer may have its node leave, and a leave that is cancelled goes on."""
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
