"""The peers that the other interop tests rely on: they behave as Beethoven nodes do."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from pybeethoven.errors import BeethovenError
from pybeethoven.etf import Atom, Term
from pybeethoven.testing import BeamDownError, BeamNode, EvalError, Peers
from pybeethoven.testing.peers import atom
from tests.interop.members import OFFLINE, ONLINE, A, B, C
from tests.timing import UNIT

pytestmark = pytest.mark.slow  # nothing of pybeethoven but the stand-in and its harness is tested

MODE = "GenServer.call(Beethoven.CoreServer, :get_mode)"
ROWS = ":mnesia.dirty_match_object(CoreTracker, {CoreTracker, :_, :_, :_})"
ROLES = "[{:billing, Billing, [], 1}, {:mail, Mail, [], 2}]"

KEY_VALUE = """
defmodule KeyValue do
  use Beethoven.DistrServer, subscribe?: true

  def start, do: Beethoven.DistrServer.start_link(__MODULE__, :arg, name: __MODULE__)
  def put(key, value), do: Beethoven.DistrServer.call(__MODULE__, {:put, key, value})

  @impl true
  def config do
    %{tableName: KV, columns: [:key, :value], indexes: [:value], dataType: :set, copyType: :multi}
  end

  @impl true
  def create_action(table_config), do: ControlShell.emit({:created, table_config})

  @impl true
  def entry_point(arg), do: {:ok, arg, {:continue, :entered}}

  @impl true
  def handle_continue(:entered, arg) do
    ControlShell.emit({:entered, arg})
    {:noreply, arg}
  end

  @impl true
  def handle_call({:put, key, value}, _from, state) do
    {:reply, :mnesia.dirty_write({KV, key, value}), state}
  end

  @impl true
  def handle_info({:mnesia_table_event, event}, state) do
    ControlShell.emit({:event, elem(event, 0), elem(event, 2)})
    {:noreply, state}
  end
end
"""
# Of a table that is local, without a copy elsewhere unless it is subscribed to.
LOCAL = """
defmodule Local do
  use Beethoven.DistrServer, subscribe?: SUBSCRIBE

  @impl true
  def config do
    %{tableName: Local, columns: [:k, :v], indexes: [], dataType: :bag, copyType: :local}
  end

  @impl true
  def create_action({Local, [:k, :v], [], :bag, :local}) do
    for v <- [1, 2], do: :ok = :mnesia.dirty_write({Local, :k, v})
    :ok
  end

  @impl true
  def entry_point(_arg), do: {:ok, nil}
end
"""


async def exchange(port: int, sent: bytes) -> bytes:
    """What the beacon answers to `sent` before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10 * UNIT):
        try:
            writer.write(sent)
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def ask(peers: Peers, sender: str, kind: str, payload: str) -> dict[str, Any]:
    """The beacon's answer to a message, as an object."""
    message = {"sender": sender, "type": kind, "payload": payload}
    answer: dict[str, Any] = json.loads(
        await exchange(peers.listener_port, json.dumps(message).encode())
    )
    return answer


async def follow(node: BeamNode, follower: str) -> None:
    """Make `follower`, Elixir source, a follower of the node's CoreServer."""
    await node.eval(f"GenServer.cast(Beethoven.CoreServer, {{:alert_me, {follower}}})")


async def restart(node: BeamNode, name: str) -> None:
    """Kill the process of a name, and wait for the next one."""
    await node.eval(f"""
    old = Process.whereis({name})
    Process.exit(old, :kill)
    ControlShell.until(fn -> Process.whereis({name}) not in [old, nil] end)
    """)


async def settle(node: BeamNode) -> None:
    """Wait until the node's servers have done with what its tracker had told CoreServer."""
    for server in ("CoreServer", "Allocator", "RoleMgmt.Assign"):
        await node.eval(f":sys.get_state(Beethoven.{server})\n:ok")


async def roles(node: BeamNode) -> dict[str, tuple[int, int, list[str]]]:
    """Of each role how many nodes it wants, how many it has, and which."""
    rows = await node.eval("Beethoven.get_roles()")
    count, assigned, nodes = Atom("count"), Atom("assigned"), Atom("nodes")
    return {str(row[Atom("role")]): (row[count], row[assigned], row[nodes]) for row in rows}


def update(tag: str, node: str, status: str) -> Term:
    """The event of a collector that was told of `node`."""
    cast = (Atom("$gen_cast"), (Atom("node_update"), (Atom(node), Atom(status))))
    return (Atom(tag), cast)


async def test_first_node_is_standalone(peers: Peers) -> None:
    """A node that finds no beacon tracks itself and calls itself standalone."""
    a = await peers.start(A)
    assert await peers.tracker(a) == {A: ONLINE}
    assert await a.eval(MODE) == "standalone"


async def test_nodes_join_through_the_beacon(peers: Peers) -> None:
    """Each of three nodes has all three online in its tracker."""
    for node in [await peers.start(name) for name in (A, B, C)]:
        assert await peers.tracker(node) == {A: ONLINE, B: ONLINE, C: ONLINE}


async def test_rows_hold_a_datetime(peers: Peers) -> None:
    """A row is the table, the node, its status and an Elixir DateTime in UTC."""
    a = await peers.start(A)
    [(table, node, status, changed)] = await a.eval(ROWS)
    assert (table, node, status) == ("Elixir.CoreTracker", A, ONLINE)
    assert changed[Atom("__struct__")] == "Elixir.DateTime"
    assert changed[Atom("calendar")] == "Elixir.Calendar.ISO"
    assert changed[Atom("time_zone")] == b"Etc/UTC"
    assert changed[Atom("zone_abbr")] == b"UTC"
    assert (changed[Atom("utc_offset")], changed[Atom("std_offset")]) == (0, 0)
    assert changed[Atom("microsecond")][1] == 6
    assert changed.keys() >= {"year", "month", "day", "hour", "minute", "second"}


async def test_table_is_replicated_in_memory(peers: Peers) -> None:
    """The tracker is an ordered set with a memory copy on each node."""
    a = await peers.start(A)
    await peers.start(B)
    info = dict(await a.eval(":mnesia.table_info(CoreTracker, :all)"))
    assert info[Atom("type")] == "ordered_set"
    assert info[Atom("attributes")] == ["node", "status", "last_change"]
    assert sorted(info[Atom("ram_copies")]) == [A, B]


async def test_killed_node_turns_offline(peers: Peers) -> None:
    """Every survivor has a killed node offline."""
    a, b, c = [await peers.start(name) for name in (A, B, C)]
    await b.kill()
    for node in (a, c):
        assert await peers.await_tracker(node, {B: OFFLINE}) == {A: ONLINE, B: OFFLINE, C: ONLINE}


async def test_node_that_leaves_turns_offline(peers: Peers) -> None:
    """A node that stops in good order is offline too."""
    a, b = await peers.start(A), await peers.start(B)
    await b.stop()
    assert await peers.await_tracker(a, {B: OFFLINE}) == {A: ONLINE, B: OFFLINE}


@pytest.mark.stand_in
async def test_mode_follows_the_cluster(peers: Peers) -> None:
    """A node is clustered while another is connected, and standalone when it is the last."""
    a, b, c = [await peers.start(name) for name in (A, B, C)]
    for node in (a, b, c):
        assert await peers.until(node, f"{MODE} == :clustered")
    await b.kill()
    await peers.await_tracker(a, {B: OFFLINE})
    assert await a.eval(MODE) == "clustered"
    await c.kill()
    assert await peers.until(a, f"{MODE} == :standalone")


async def test_node_comes_back(peers: Peers) -> None:
    """A killed node that starts again under its name is online everywhere, itself included."""
    a, b, c = [await peers.start(name) for name in (A, B, C)]
    await b.kill()
    await peers.await_tracker(a, {B: OFFLINE})
    b = await peers.start(B)
    for node in (a, b, c):
        assert await peers.await_tracker(node, {B: ONLINE}) == {A: ONLINE, B: ONLINE, C: ONLINE}


async def test_beacon_port_is_inherited(peers: Peers) -> None:
    """When the node that holds the beacon's port is killed, another takes the port."""
    a = await peers.start(A)
    b = await peers.start(B)
    await a.kill()
    await peers.await_tracker(b, {A: OFFLINE})
    c = await peers.start(C)
    assert await peers.tracker(c) == {A: OFFLINE, B: ONLINE, C: ONLINE}


async def test_add_node_tracks_whoever_is_named(peers: Peers) -> None:
    """`add_node` answers ok and writes the row, and the node is monitored from then on."""
    a, b = await peers.start(A), await peers.start_bare(B)
    assert await a.eval(f"GenServer.call(Beethoven.CoreServer, {{:add_node, {atom(B)}}})") == "ok"
    assert await peers.tracker(a) == {A: ONLINE, B: ONLINE}
    await b.kill()
    assert await peers.await_tracker(a, {B: OFFLINE}) == {A: ONLINE, B: OFFLINE}


async def test_added_node_that_cannot_be_reached_turns_offline(peers: Peers) -> None:
    """A row turned online makes each node monitor, and thus connect; failing that it is offline."""
    a = await peers.start(A)
    assert await a.eval(f"GenServer.call(Beethoven.CoreServer, {{:add_node, {atom(B)}}})") == "ok"
    assert await peers.await_tracker(a, {B: OFFLINE}) == {A: ONLINE, B: OFFLINE}


async def test_beacon_lets_in_who_can_be_pinged(peers: Peers) -> None:
    """A seeker whose node answers the ping has joined when the reply comes."""
    a = await peers.start(A)
    await peers.start_bare(B)
    answer = await ask(peers, B, "seeking", "join")
    assert answer == {"type": "reply", "sender": A, "payload": "joined"}
    assert await peers.tracker(a) == {A: ONLINE, B: ONLINE}


async def test_beacon_refuses_who_cannot_be_pinged(peers: Peers) -> None:
    """A seeker that is not up is told `join_failed`, and is not tracked."""
    a = await peers.start(A)
    assert (await ask(peers, B, "seeking", "join"))["payload"] == "join_failed"
    assert await peers.tracker(a) == {A: ONLINE}


async def test_beacon_tells_watchers_its_nodes(peers: Peers) -> None:
    """A watcher gets the names of the nodes connected to the one with the beacon."""
    await peers.start(A)
    await peers.start(B)
    answer = await ask(peers, "py@127.0.0.1", "watching", "check")
    assert answer == {"type": "reply", "sender": A, "payload": [B]}


async def test_beacon_knows_itself_and_replies(peers: Peers) -> None:
    """The beacon's own name gets `self`, whatever it asks; a reply sent to it gets `error`."""
    await peers.start(A)
    assert (await ask(peers, A, "seeking", "join"))["payload"] == "self"
    assert (await ask(peers, A, "watching", "check"))["payload"] == "self"
    assert (await ask(peers, B, "reply", "joined"))["payload"] == "error"


NONSENSE = [
    b"nonsense",
    b"{}",
    b'["seeking"]',
    b'{"sender":"x@y","type":"dancing","payload":"join"}',
]


async def test_beacon_closes_on_nonsense(peers: Peers) -> None:
    """What the beacon cannot read gets no reply, and does it no harm."""
    await peers.start(A)
    for sent in NONSENSE:
        assert await exchange(peers.listener_port, sent) == b"", sent
    assert (await ask(peers, A, "seeking", "join"))["payload"] == "self"


JSON: list[tuple[str, Term]] = [
    (r' { "type" : "seeking" , "sender":"a@b", "payload": "join", "n": -1.5e3 } ', b"join"),
    (r'{"sender":"a@b","type":"x","payload":["a@b","c@d"]}', [b"a@b", b"c@d"]),
    (r'{"sender":"a@b","type":"x","payload":[]}', []),
    (r'{"sender":"a@b","type":"x","payload":"\"\\\/\n\u00e9\ud83d\ude00"}', '"\\/\né😀'.encode()),
    (r'{"sender":"a@b","type":"x","payload":"join"} x', None),
    (r'{"sender":"a@b","type":"x","payload":"join"', None),
    (r'{"sender":"a@b","type":"x","payload":"\u12"}', None),
    (r'{"sender":"a@b","type":"x",}', None),
    (r'{"sender":1,"type":"x","payload":[1,]}', None),
    ("", None),
]


@pytest.mark.stand_in
async def test_stand_in_reads_json(peers: Peers) -> None:
    """The hand-written reader takes any JSON object with the three members, and nothing else."""
    node = await peers.start_bare(A)
    for text, payload in JSON:
        result = await node.eval(f"Beethoven.SeekChat.decode(~S|{text}|)")
        if payload is None:
            assert result == "error", text
        else:
            assert result[1][Atom("payload")] == payload, text


@pytest.mark.stand_in
async def test_followers_are_told_once_and_in_order(peers: Peers) -> None:
    """Followers by pid, name and remote name get one cast for each change, in order."""
    a, b = await peers.start(A), await peers.start(B)
    await a.eval("pid = ControlShell.collect(:pid)\nControlShell.collect(:name, name: :local)")
    await b.eval("ControlShell.collect(:remote, name: :remote)")
    for follower in ("pid", ":local", f"{{:remote, {atom(B)}}}"):
        await follow(a, follower)
    c = await peers.start(C)
    await c.kill()
    await peers.await_tracker(a, {C: OFFLINE})
    await peers.start(C)
    for status in (ONLINE, OFFLINE, ONLINE):
        assert await a.next_event("pid") == update("pid", C, status)
        assert await a.next_event("name") == update("name", C, status)
        assert await b.next_event("remote") == update("remote", C, status)
    assert await a.eval("for n <- [:x, :y], do: ControlShell.emit(n)") == ["ok", "ok"]
    assert await a.next_event() == "x", "no follower was told more"


@pytest.mark.stand_in
async def test_joining_again_alerts_nobody(peers: Peers) -> None:
    """A node that is added while online is no news."""
    a, b = await peers.start(A), await peers.start(B)
    await a.eval("ControlShell.collect(:told, name: :told)")
    await follow(a, ":told")
    await a.eval(f"GenServer.call(Beethoven.CoreServer, {{:add_node, {atom(B)}}})")
    await b.kill()
    assert await a.next_event("told") == update("told", B, OFFLINE)


@pytest.mark.stand_in
async def test_core_server_starts_again(peers: Peers) -> None:
    """A CoreServer that is killed comes back under its name, without followers."""
    a = await peers.start(A)
    await a.eval("""
    old = Process.whereis(Beethoven.CoreServer)
    ref = Process.monitor(old)
    Process.exit(old, :kill)
    receive do {:DOWN, ^ref, _, _, _} -> :ok end
    """)
    await peers.until(a, "Process.whereis(Beethoven.CoreServer)")
    assert await a.eval(MODE) == "standalone"


@pytest.mark.stand_in
async def test_servers_follow_a_core_server_that_started_again(peers: Peers) -> None:
    """The CoreServer's followers on its own node start again with it, and the beacon too."""
    a = await peers.start(A)
    await restart(a, "Beethoven.CoreServer")
    await peers.until(a, "Process.whereis(Beethoven.BeaconServer)")
    b = await peers.start(B)
    await b.kill()
    await peers.until(a, f"Beethoven.Allocator.fetch({atom(B)}) == []")
    assert await a.eval("Beethoven.Allocator.allocation_list()") == [A]


@pytest.mark.stand_in
async def test_core_server_has_functions(peers: Peers) -> None:
    """Programs on the node need not know what CoreServer is called and cast."""
    a = await peers.start(A)
    await peers.start_bare(B)
    await a.eval("pid = ControlShell.collect(:pid)\nControlShell.collect(:told, name: Told)")
    await a.eval("defmodule Told do use Beethoven.CoreServer end\n:ok")
    assert await a.eval("Told.alert_me()") == "ok"
    assert await a.eval("Beethoven.CoreServer.alert_me(pid)") == "ok"
    assert await a.eval("Beethoven.CoreServer.get_mode()") == "standalone"
    assert await a.eval(f"Beethoven.CoreServer.new_node({atom(B)})") == "ok"
    assert await a.eval(f"Beethoven.CoreServer.add_node_to_mnesia({atom(B)})") == "ok"
    assert await a.next_event("told") == update("told", B, ONLINE)
    assert await a.next_event("pid") == update("pid", B, ONLINE)
    assert await a.eval("Beethoven.CoreServer.get_mode()") == "clustered"
    assert await a.eval("Beethoven.CoreServer.get_table_name()") == "Elixir.CoreTracker"


@pytest.mark.stand_in
async def test_nodes_that_create_a_table_at_once_share_it(peers: Peers) -> None:
    """Of two nodes that start a DistrServer at one moment, one creates the table; both have it."""
    a, b = await peers.start(A), await peers.start(B)
    nodes = (a, b)
    for node in nodes:
        await node.eval(f"{KEY_VALUE}\n:ok")
    for _ in range(5):
        await asyncio.gather(*(node.eval("{:ok, _} = KeyValue.start()\n:ok") for node in nodes))
        created = []
        for node in nodes:
            assert await node.next_event("entered") == (Atom("entered"), Atom("arg"))
            await node.eval("ControlShell.emit(:last)")
            while (event := await node.next_event()) != "last":
                created.append(event)
        columns = [Atom("key"), Atom("value")]
        config = (Atom("Elixir.KV"), columns, columns[1:], Atom("set"), Atom("multi"))
        assert created == [(Atom("created"), config)]
        assert await a.eval(":mnesia.table_info(KV, :active_replicas) |> Enum.sort()") == [A, B]
        for node in nodes:
            await node.eval("GenServer.stop(KeyValue)")
        assert await a.eval(":mnesia.delete_table(KV)") == (Atom("atomic"), Atom("ok"))


async def test_nodes_see_each_others_writes(peers: Peers) -> None:
    """What one node writes to a DistrServer's table, both read and are told of, a third later."""
    a, b = await peers.start(A), await peers.start(B)
    table = Atom("Elixir.KV")
    rows = {(table, Atom("x"), 1), (table, Atom("y"), 2)}
    for node in (a, b):
        await node.eval(f"{KEY_VALUE}\n{{:ok, _}} = KeyValue.start()\n:ok")
    assert await a.eval("KeyValue.put(:x, 1)") == "ok"
    assert await b.eval("KeyValue.put(:y, 2)") == "ok"
    for node in (a, b):
        seen = [await node.next_event("event"), await node.next_event("event")]
        assert {event[2] for event in seen} == rows
    c = await peers.start(C)
    await c.eval(f"{KEY_VALUE}\n{{:ok, _}} = KeyValue.start()\n:ok")
    assert await c.eval(":mnesia.table_info(KV, :where_to_read)") == C
    for node in (a, b, c):
        assert set(await node.eval("KeyValue.fetch_all()")) == rows
    with pytest.raises(TimeoutError):
        await c.next_event("created", timeout=0)


@pytest.mark.stand_in
async def test_distr_server_reads_its_table(peers: Peers) -> None:
    """A DistrServer's module has functions about its table, and waits for it."""
    a = await peers.start(A)
    await a.eval(f"{KEY_VALUE}\n:ok")
    assert await a.eval("KeyValue.table_exists?()") is False
    assert await a.eval("KeyValue.until_exists(1, 5)") == (Atom("error"), Atom("timeout"))
    await a.eval("Task.async(&KeyValue.until_exists/0) |> then(&Process.put(:waiting, &1))\n:ok")
    await a.eval("{:ok, _} = KeyValue.start()\n:ok")
    assert await a.eval("Task.await(Process.get(:waiting))") == "ok"
    assert await a.eval("KeyValue.table_exists?()") is True
    assert await a.eval("KeyValue.get_table_name()") == "Elixir.KV"
    assert await a.eval("KeyValue.subscribe()") == "ok"
    row = (Atom("Elixir.KV"), Atom("x"), 1)
    await a.eval("KeyValue.put(:x, 1)")
    event = await a.eval("receive do {:mnesia_table_event, event} -> event end")
    assert event[:2] == (Atom("write"), row)
    assert await a.eval("KeyValue.fetch(:x)") == [row]
    assert await a.eval("KeyValue.fetch(:y)") == []
    assert await a.eval('KeyValue.dirty_select([{{KV, :"$1", 1}, [], [:"$1"]}])') == ["x"]


@pytest.mark.stand_in
async def test_local_table_is_copied_for_those_who_subscribe(peers: Peers) -> None:
    """A local table stays where it was made, and is read from there, unless there is a watcher."""
    for name, subscribe in ((A, "false"), (B, "false"), (C, "true")):
        node = await peers.start(name)
        await node.eval(f"{LOCAL.replace('SUBSCRIBE', subscribe)}\n:ok")
        await node.eval("{:ok, _} = Beethoven.DistrServer.start_link(Local, [])\n:ok")
        assert await node.eval("for {Local, :k, v} <- Local.fetch(:k), do: v") == [1, 2]
    assert await node.eval("Enum.sort(:mnesia.table_info(Local, :active_replicas))") == [A, C]


@pytest.mark.stand_in
async def test_roles_are_taken_and_passed_on(peers: Peers) -> None:
    """A node that starts takes the roles that lack a node; those of one that is gone pass on."""
    peers.roles = ROLES
    a = await peers.start(A)
    assert await a.eval("Beethoven.until_ready()") == "ok"
    assert await roles(a) == {"billing": (1, 1, [A]), "mail": (2, 1, [A])}
    b = await peers.start(B)
    assert await b.eval("Beethoven.until_ready()") == "ok"
    assert await roles(b) == {"billing": (1, 1, [A]), "mail": (2, 2, [B, A])}
    assert await b.eval("Beethoven.whois_hosting(:mail)") == [B, A]
    assert await b.eval("Beethoven.whois_hosting(:nothing)") == []
    await a.kill()
    await peers.until(b, f"Beethoven.whois_hosting(:billing) == [{atom(B)}]")
    assert await roles(b) == {"billing": (1, 1, [B]), "mail": (2, 1, [B])}
    c = await peers.start(C)
    assert await c.eval("Beethoven.until_ready()") == "ok"
    assert await roles(c) == {"billing": (1, 1, [B]), "mail": (2, 2, [C, B])}


@pytest.mark.stand_in
async def test_role_rows_are_records(peers: Peers) -> None:
    """A role's row has its name, nodes wanted, nodes there, which, and when that changed."""
    peers.roles = ROLES
    a = await peers.start(A)
    await a.eval("Beethoven.until_ready()")
    rows = await a.eval("Beethoven.RoleMgmt.Assign.fetch_all()")
    table = Atom("Elixir.RoleTracker")
    assert [row[:5] for row in rows] == [
        (table, Atom("billing"), 1, 1, [Atom(A)]),
        (table, Atom("mail"), 2, 1, [Atom(A)]),
    ]
    assert all(row[5][Atom("__struct__")] == "Elixir.DateTime" for row in rows)
    assert await a.eval(":mnesia.table_info(RoleTracker, :type)") == "ordered_set"


@pytest.mark.stand_in
async def test_role_is_taken_once(peers: Peers) -> None:
    """A role that wants another node is not taken again by one that has it."""
    peers.roles = ROLES
    a = await peers.start(A)
    await a.eval("Beethoven.until_ready()")
    await restart(a, "Beethoven.RoleMgmt.Assign")
    await settle(a)
    assert await roles(a) == {"billing": (1, 1, [A]), "mail": (2, 1, [A])}


@pytest.mark.stand_in
async def test_allocator_ranks_nodes_by_score(peers: Peers) -> None:
    """The node with the least score is allocated; a row has the score as a float."""
    a, b, c = [await peers.start(name) for name in (A, B, C)]
    assert await a.eval("Beethoven.Allocator.allocation_list()") == [A, B, C]
    for node, score in ((a, "2"), (b, "0.5"), (c, "1.0")):
        assert await node.eval(f"Beethoven.Allocator.set_score({score})") == "ok"
    ranked = f'Beethoven.Allocator.allocation_list() == [:"{B}", :"{C}", :"{A}"]'
    for node in (a, b, c):
        await peers.until(node, ranked)  # a transaction does not wait for all copies
        assert await node.eval("Beethoven.Allocator.allocate()") == B
        assert await node.eval("Beethoven.allocate()") == B
    rows = await a.eval("Beethoven.Allocator.get_all()")
    table = Atom("Elixir.AllocTracker")
    assert [row[:3] for row in rows] == [(table, B, 0.5), (table, C, 1.0), (table, A, 2.0)]
    assert all(row[3][Atom("__struct__")] == "Elixir.DateTime" for row in rows)
    assert isinstance(rows[2][2], float)
    assert await a.eval(":mnesia.table_info(AllocTracker, :type)") == "set"


@pytest.mark.stand_in
async def test_allocator_knows_visible_nodes_that_are_online(peers: Peers) -> None:
    """A node that is visible has a row while it is online; a hidden one never has."""
    a = await peers.start(A)
    b = await peers.start_bare(B)
    await peers.start_bare(C, flags=["-hidden"])
    for name in (B, C):
        assert (await ask(peers, name, "seeking", "join"))["payload"] == "joined"
    await settle(a)
    assert await peers.tracker(a) == {A: ONLINE, B: ONLINE, C: ONLINE}
    assert await a.eval("Beethoven.Allocator.allocation_list()") == [A, B]
    await b.kill()
    await peers.until(a, f"Beethoven.Allocator.allocation_list() == [{atom(A)}]")


@pytest.mark.stand_in
async def test_beethoven_tells_of_the_cluster(peers: Peers) -> None:
    """The module Beethoven has functions for what programs ask most."""
    a, b = await peers.start(A), await peers.start(B)
    for node in (a, b):
        assert await node.eval("Beethoven.until_ready()") == "ok"
        assert await node.eval("Beethoven.ready?()") is True
        assert await peers.until(node, "Beethoven.get_node_status() == :clustered")
        assert await node.eval("Beethoven.get_cluster_nodes()") == [A, B]
    await b.kill()
    await peers.await_tracker(a, {B: OFFLINE})
    assert await a.eval("Beethoven.get_cluster_nodes()") == [A, B]
    assert await a.eval("Beethoven.get_active_cluster_nodes()") == [A]
    keys = (Atom("node"), Atom("status"), Atom("last_change"))
    detailed = await a.eval("Beethoven.get_detailed_cluster_nodes()")
    assert [dict(zip(keys, row[1:], strict=True)) for row in await a.eval(ROWS)] == detailed


@pytest.mark.stand_in
async def test_ready_is_waited_for(peers: Peers) -> None:
    """Who waits for a node to be ready goes on when it is, or when the time is up."""
    node = await peers.start_bare(A)
    await node.eval("{:ok, _} = Beethoven.Ready.start_link([])\n:ok")
    assert await node.eval("Beethoven.ready?()") is False
    assert await node.eval("Beethoven.until_ready(1)") == "timeout"
    await node.eval("waiting = Task.async(&Beethoven.until_ready/0)\n:ok")
    await node.eval("Beethoven.Ready.announce()")
    assert await node.eval("Task.await(waiting)") == "ok"
    assert await node.eval("Beethoven.ready?()") is True


async def test_node_that_cannot_join_says_so(peers: Peers) -> None:
    """Starting fails, and does not hang, when the beacon lets the node not in."""
    listener = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", peers.listener_port
    )
    async with listener:
        with pytest.raises(BeethovenError, match="gave up"):
            await peers.start(A)


async def test_evaluation_keeps_bindings(peers: Peers) -> None:
    """Sources share bindings; one that raises is an EvalError with Elixir's account of it."""
    node = await peers.start_bare(A)
    await node.eval("x = 20")
    with pytest.raises(EvalError, match="oops"):
        await node.eval('x = 1; raise "oops"')
    with pytest.raises(EvalError, match="thrown"):
        await node.eval("throw(:thrown)")
    with pytest.raises(EvalError, match=r"SyntaxError|TokenMissingError"):
        await node.eval("(")
    assert await node.eval("x + 1") == 21


async def test_long_lines_pass(peers: Peers) -> None:
    """Neither a source nor a term longer than the port's line buffer is cut."""
    node = await peers.start_bare(A)
    assert await node.eval(f'"{"x" * 300_000}"') == b"x" * 300_000


async def test_output_of_the_node_is_kept_apart(peers: Peers) -> None:
    """What the node prints and logs is in `output`, and disturbs no answer."""
    node = await peers.start_bare(A)
    await node.eval('IO.puts("printed")\n:logger.error("logged")\n:io.put_chars(:user, "stray\\n")')
    await node.stop()
    for text in ("printed", "logged", "stray"):
        assert text in node.output


async def test_collector_monitors_on_its_own_behalf(peers: Peers) -> None:
    """A collector's set-up runs in the collector; a nodedown reaches it as an event."""
    a, b = await peers.start_bare(A), await peers.start_bare(B)
    await a.eval(f"ControlShell.collect(:seen, setup: fn -> Node.monitor({atom(B)}, true) end)")
    await b.kill()
    assert await a.next_event("seen") == (Atom("seen"), (Atom("nodedown"), Atom(B)))


async def test_frozen_node_goes_on(peers: Peers) -> None:
    """A frozen node answers nothing until it is thawed."""
    node = await peers.start_bare(A)
    node.freeze()
    with pytest.raises(TimeoutError):
        await node.eval("1", timeout=0.2 * UNIT)
    node.thaw()
    assert await node.eval("2") == 2


async def test_killed_node_is_gone(peers: Peers) -> None:
    """After `kill` the process is reaped, and what waits for the node fails."""
    node = await peers.start_bare(A)
    process = await node.eval(":os.getpid() |> List.to_integer()")
    pending = asyncio.ensure_future(node.eval("Process.sleep(:infinity)"))
    await asyncio.sleep(0)
    await node.kill()
    with pytest.raises(BeamDownError):
        await pending
    with pytest.raises(BeamDownError):
        await node.eval("1")
    with pytest.raises(BeamDownError):
        await node.next_event()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert [event async for event in node.events()] == []


async def test_two_nodes_of_one_name(peers: Peers) -> None:
    """A name that is in use is an error that carries what the BEAM said."""
    await peers.start_bare(A)
    with pytest.raises(BeamDownError, match=r"already|in use"):
        await peers.start_bare(A)
