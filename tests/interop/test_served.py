"""What a Python node answers of a table is what a BEAM's Mnesia answers of the same.

Each call is made by one BEAM to a Python node and to another BEAM, which have a table with the same
rows; the answers must be equal, stack traces apart.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pybeethoven import Atom, Node, Term
from pybeethoven.errors import Aborted
from pybeethoven.mnesia import SUBSCRIBER, Delete, Mirror, Table, TableServer, Write
from pybeethoven.mnesia.table import TableType
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import soon

A, B, PY = (f"{name}@127.0.0.1" for name in ("a", "b", "py"))
TAB = Atom("tab")

CREATE = """
:ok = :mnesia.start()
{:atomic, :ok} = :mnesia.create_table(:tab, type: :TYPE, attributes: [:k, :v])
for row <- [{:tab, 1, :one}, {:tab, 2, %{a: 1}}, {:tab, :two, [2]}], do: :mnesia.dirty_write(row)
"""
ROWS: list[Term] = [
    (TAB, 1, Atom("one")),
    (TAB, 2, {Atom("a"): 1}),
    (TAB, Atom("two"), [2]),
]

ASK = """
defmodule Ask do
  # The node's name, pids and stack traces are not compared.
  def plain(node, term) do
    case term do
      ^node -> :the_node
      [{module, name, args, place} | _] when is_atom(module) and is_list(place) ->
        [{module, name, args}]
      [] -> []
      [head | tail] -> [plain(node, head) | plain(node, tail)]
      tuple when is_tuple(tuple) -> plain_tuple(node, tuple)
      pid when is_pid(pid) -> :a_pid
      other -> other
    end
  end

  defp plain_tuple(_, {reason, [{_, _, _, place} | _]})
    when is_list(place) and reason not in [:undef], do: {reason, :stack}
  defp plain_tuple(_, {reason, []}), do: {reason, :stack}
  defp plain_tuple(_, {:tid, _, _}), do: :a_tid
  defp plain_tuple(node, tuple), do:
    tuple |> Tuple.to_list() |> Enum.map(&plain(node, &1)) |> List.to_tuple()

  def ask(node, module, function, args) do
    answer =
      try do
        {:ok, :erpc.call(node, module, function, args)}
      catch
        :error, {:exception, reason, _} -> {:error, reason}
        kind, reason -> {kind, reason}
      end
    plain(node, answer)
  end

  def zip(functions, args), do: [&:erlang.apply/2, functions, args]
  def tx(function, args), do: {:mnesia, :transaction, [function, args]}
  def txz(functions, args), do: tx(&:lists.zipwith/3, zip(functions, args))
  def dirty(function, args), do: {:mnesia, function, args}
  def zipped(functions, args), do: {:lists, :zipwith, zip(functions, args)}
  def sub(what, pid \\\\ self()), do: {:mnesia_subscr, :subscribe, [pid, what]}
  def unsub(what, pid \\\\ self()), do: {:mnesia_subscr, :unsubscribe, [pid, what]}

  def events(told \\\\ []) do
    receive do
      {:mnesia_table_event, event} -> events([event | told])
      :end_of_events -> Enum.reverse(told)
    after
      5000 -> :no_end
    end
  end
end
"""
ALL = 'import Ask; all = [{:_, [], [:"$_"]}]\n'

INFO = [
    *("size", "type", "attributes", "arity", "wild_pattern", "where_to_read", "active_replicas"),
    *("user_properties", "nonsense"),
]

CALLS = [
    *(f"dirty(:table_info, [:tab, :{item}])" for item in INFO),
    *(f"dirty(:table_info, [:none, :{item}])" for item in INFO),
    "dirty(:table_info, [1, :size])",
    "dirty(:table_info, [:tab, 1])",
    "dirty(:system_info, [:nonsense])",
    "dirty(:wait_for_tables, [[:tab], 1000])",
    "dirty(:wait_for_tables, [[:tab, :none], 1])",
    # reads
    "tx(&:mnesia.select/3, [:tab, all, :read])",
    "tx(&:mnesia.select/3, [:tab, all, :write])",
    "tx(&:mnesia.select/3, [:tab, all, :nonsense])",
    "tx(&:mnesia.select/3, [:none, all, :read])",
    "tx(&:mnesia.select/3, [1, all, :read])",
    "tx(&:mnesia.select/3, [:tab, :nonsense, :read])",
    "tx(&:mnesia.select/3, [:tab, [:nonsense], :read])",
    "tx(&:mnesia.select/2, [:tab, [{{:tab, :two, :_}, [], [:found]}]])",
    'tx(&:mnesia.select/2, [:tab, [{{:tab, :two, :_}, [], [:"$9"]}]])',
    "tx(&:mnesia.select/2, [:tab, []])",
    "tx(&:mnesia.read/1, [{:tab, :two}])",
    "tx(&:mnesia.read/1, [{:tab, :none}])",
    "tx(&:mnesia.read/1, [{:none, 1}])",
    "tx(&:mnesia.read/1, [:tab])",
    "tx(&:mnesia.read/1, [{:tab, 1, 2}])",
    "tx(&:mnesia.read/2, [:tab, 1])",
    "tx(&:mnesia.read/2, [:none, 1])",
    "tx(&:mnesia.read/2, [1, 1])",
    "tx(&:mnesia.match_object/1, [{:tab, :_, :one}])",
    "tx(&:mnesia.match_object/1, [{:tab, :_, %{}}])",
    "tx(&:mnesia.match_object/1, [{:tab, :_}])",
    "tx(&:mnesia.match_object/1, [{:tab, :_, :_, :_}])",
    "tx(&:mnesia.match_object/1, [{:none, :_, :_}])",
    "tx(&:mnesia.match_object/1, [:tab])",
    "tx(&:mnesia.match_object/3, [:tab, {:tab, :_, :one}, :read])",
    "tx(&:mnesia.match_object/3, [:none, {:tab, :_, :one}, :read])",
    "tx(&:mnesia.match_object/3, [:tab, {:none, :_, :one}, :read])",
    "tx(&:mnesia.match_object/3, [:tab, :nonsense, :read])",
    "tx(&:mnesia.match_object/3, [:tab, {:tab, :_, :one}, :nonsense])",
    "tx(&:mnesia.all_keys/1, [:tab])",
    "tx(&:mnesia.all_keys/1, [:none])",
    "tx(&:mnesia.all_keys/1, [1])",
    "dirty(:dirty_read, [:tab, 1])",
    "dirty(:dirty_read, [{:tab, 1}])",
    "dirty(:dirty_read, [:none, 1])",
    "dirty(:dirty_read, [{:none, 1}])",
    "dirty(:dirty_read, [:tab])",
    "dirty(:dirty_read, [1, 1])",
    "dirty(:dirty_select, [:tab, all])",
    "dirty(:dirty_select, [:none, all])",
    "dirty(:dirty_select, [1, all])",
    "dirty(:dirty_select, [:tab, :nonsense])",
    "dirty(:dirty_select, [:none, :nonsense])",
    "dirty(:dirty_select, [:tab, [:nonsense]])",
    "dirty(:dirty_match_object, [{:tab, :_, :one}])",
    "dirty(:dirty_match_object, [{:tab, :_}])",
    "dirty(:dirty_match_object, [{:none, :_, :_}])",
    "dirty(:dirty_match_object, [:tab, {:tab, :_, :_}])",
    "dirty(:dirty_match_object, [:none, {:none, :_, :_}])",
    "dirty(:dirty_match_object, [:tab, :nonsense])",
    "dirty(:dirty_match_object, [1, {1, :_, :_}])",
    "dirty(:dirty_all_keys, [:tab])",
    "dirty(:dirty_all_keys, [:none])",
    "dirty(:dirty_all_keys, [1])",
    # writes
    "tx(&:mnesia.write/1, [{:tab, 3, :three}])",
    "tx(&:mnesia.write/1, [{:tab, 3}])",
    "tx(&:mnesia.write/1, [{:tab, 3, 4, 5}])",
    "tx(&:mnesia.write/1, [{:none, 3, 4}])",
    "tx(&:mnesia.write/1, [:tab])",
    "tx(&:mnesia.write/1, [{1, 2, 3}])",
    "tx(&:mnesia.delete/1, [{:tab, 3}])",
    "tx(&:mnesia.delete/1, [{:tab, 3, 4}])",
    "tx(&:mnesia.delete/1, [{:none, 3}])",
    "tx(&:mnesia.delete/1, [{1, 3}])",
    "tx(&:mnesia.delete_object/1, [{:tab, 1, :two}])",
    "tx(&:mnesia.delete_object/1, [{:tab, 1, :one}])",
    "tx(&:mnesia.delete_object/1, [{:tab, 1}])",
    "tx(&:mnesia.delete_object/1, [{:tab, 1, 2, 3}])",
    "tx(&:mnesia.delete_object/1, [{:tab, 1, :_}])",
    'tx(&:mnesia.delete_object/1, [{:tab, :"$1", 1}])',
    "tx(&:mnesia.delete_object/1, [{:none, 1, 2}])",
    "tx(&:mnesia.delete_object/1, [{:none, 1, :_}])",
    "tx(&:mnesia.delete_object/1, [{1, 1, 2}])",
    "dirty(:dirty_write, [{:tab, 3, :three}])",
    "dirty(:dirty_write, [{:tab, 3}])",
    "dirty(:dirty_write, [{:tab, 3, 4, 5}])",
    "dirty(:dirty_write, [{:none, 3, 4}])",
    "dirty(:dirty_write, [{1, 2, 3}])",
    "dirty(:dirty_delete, [{:tab, 3}])",
    "dirty(:dirty_delete, [{:none, 3}])",
    "dirty(:dirty_delete, [{1, 3}])",
    "dirty(:dirty_delete, [:tab])",
    "dirty(:dirty_delete_object, [{:tab, 2, %{a: 1}}])",
    "dirty(:dirty_delete_object, [{:tab, 1, 2, 3}])",
    "dirty(:dirty_delete_object, [{:tab, :_, 1}])",
    "dirty(:dirty_delete_object, [{:none, 1, 1}])",
    "dirty(:dirty_delete_object, [{1, 1, 2}])",
    "dirty(:dirty_update_counter, [{:tab, :n}, 5])",
    "dirty(:dirty_update_counter, [{:tab, :n}, -7])",
    "dirty(:dirty_update_counter, [{:tab, :two}, 4])",
    "dirty(:dirty_update_counter, [{:tab, :new}, -4])",
    "dirty(:dirty_update_counter, [:tab, :n, 1])",
    "dirty(:dirty_update_counter, [{:tab, :n}, :nonsense])",
    "dirty(:dirty_update_counter, [{:none, :n}, 1])",
    "dirty(:dirty_update_counter, [:tab, 1])",
    "dirty(:dirty_update_counter, [{1, :n}, 1])",
    # several at once
    "txz([&:mnesia.write/1, &:mnesia.delete/1], [[{:tab, 5, 5}], [{:tab, 1}]])",
    "txz([&:mnesia.write/1, &:mnesia.read/1], [[{:tab, 6, 6}], [{:tab, 6}]])",
    "txz([&:mnesia.write/1, &:mnesia.write/1], [[{:tab, 9, 9}], [{:tab, 9}]])",
    "txz([&:mnesia.write/1, &:mnesia.nonsense/1], [[{:tab, 9, 9}], [{:tab, 9}]])",
    "txz([&:mnesia.write/1], [[{:tab, 9, 9}], [{:tab, 9, 9}]])",
    "txz([&:mnesia.write/1], [:nonsense])",
    "txz([], [])",
    "zipped([&:mnesia.dirty_write/1, &:mnesia.dirty_read/1], [[{:tab, 7, 7}], [{:tab, 7}]])",
    "zipped([&:mnesia.dirty_write/1, &:mnesia.dirty_read/1], [[{:tab, 8, 8}], [:nonsense]])",
    "zipped([&:mnesia.transaction/2], [[&:mnesia.write/1, [{:tab, 8}]]])",
    "zipped([&:mnesia.nonsense/1], [[8]])",
    "zipped([&:mnesia.dirty_write/1], [])",
    "zipped([], [])",
    # no such functions
    "tx(&:mnesia.nonsense/1, [1])",
    "tx(&:nonsense.nonsense/1, [1])",
    "tx(&:mnesia.read/1, [])",
    "tx(:nonsense, [1])",
    "tx(&:mnesia.read/1, :nonsense)",
    "tx(&:mnesia.read/1, 5)",
    "dirty(:transaction, [&:mnesia.read/1])",
    "dirty(:transaction, [:nonsense])",
    "dirty(:dirty_nonsense, [1])",
    "dirty(:dirty_read, [1, 2, 3])",
    # subscriptions
    "sub({:table, :none, :detailed})",
    "sub({:table, :none, :nonsense})",
    "sub({:table, :tab, :nonsense})",
    "sub(:nonsense)",
    "sub({:table, 1, :detailed})",
    "sub({:table, :tab, :detailed}, :nonsense)",
    "sub({:table, :none, :detailed}, :nonsense)",
    "unsub({:table, :tab, :detailed})",
    "sub({:table, :tab})",
    "sub({:table, :tab, :detailed})",
    "unsub({:table, :tab, :detailed})",
    "unsub({:table, :tab, :simple})",
    "unsub({:table, :none, :detailed})",
    "unsub({:table, :tab, :nonsense})",
    "unsub(:nonsense)",
    "dirty(:dirty_select, [:tab, all])",
]

EVENTS = """
import Ask
{:ok, _} = :erpc.call(NODE, :mnesia_subscr, :subscribe, [self(), {:table, :tab, :KIND}])
for {module, function, args} <- [
  dirty(:dirty_write, [{:tab, 1, :new}]),
  dirty(:dirty_write, [{:tab, 3, :three}]),
  dirty(:dirty_delete, [{:tab, 1}]),
  dirty(:dirty_delete, [{:tab, :none}]),
  dirty(:dirty_delete_object, [{:tab, 3, :other}]),
  dirty(:dirty_delete_object, [{:tab, 3, :three}]),
  dirty(:dirty_update_counter, [{:tab, :n}, 2]),
  dirty(:dirty_update_counter, [{:tab, :n}, 2]),
  tx(&:mnesia.write/1, [{:tab, 4, :four}]),
  tx(&:mnesia.delete/1, [{:tab, 4}]),
  tx(&:mnesia.delete_object/1, [{:tab, :two, [2]}]),
  tx(&:mnesia.write/1, [{:tab, 4}]),
  zipped([&:mnesia.dirty_write/1, &:erlang.send/2],
         [[{:tab, :last, 1}], [self(), :end_of_events]])
], do: Ask.ask(NODE, module, function, args)
Ask.plain(NODE, Ask.events())
"""


@pytest.fixture(params=["set", "ordered_set", "bag"])
def kind(request: pytest.FixtureRequest) -> TableType:
    """The type of the table."""
    value: TableType = request.param
    return value


@pytest.fixture
async def asker(cluster: Peers, node: Node, kind: TableType) -> BeamNode:
    """The BEAM that asks the other two."""
    mirror = Mirror(Table("tab", type=kind), peers=list, columns=("k", "v"))
    await soon(node.start(mirror))
    for row in ROWS:
        mirror.write_local(row)
    await node.start(TableServer([mirror]), SUBSCRIBER)
    b = await cluster.start_bare(B)
    await b.eval(CREATE.replace("TYPE", kind))
    a = await cluster.start_bare(A)
    await a.eval(ASK)
    return a


def sorted_rows(answer: Term) -> Term:
    """A set has its rows in no order."""
    match answer:
        case ("ok", list(rows)):
            return (Atom("ok"), sorted(map(repr, rows)))
        case ("ok", ("atomic", list(rows))):
            return (Atom("ok"), sorted(map(repr, rows)))
    return answer


async def test_answers(asker: BeamNode, kind: TableType) -> None:
    """Each call is answered alike, one after the other."""
    calls = ALL + f"for {{m, f, args}} <- [{', '.join(CALLS)}], do: Ask.ask(NODE, m, f, args)"
    ours, theirs = [await asker.eval(calls.replace("NODE", f':"{name}"')) for name in (PY, B)]
    assert len([answer for answer in theirs if answer[0] == "ok"]) > 60
    order: Callable[[Term], Term] = sorted_rows if kind != "ordered_set" else lambda term: term
    different = [
        f"{call}\n    Python: {one!r}\n    BEAM:   {other!r}"
        for call, one, other in zip(CALLS, ours, theirs, strict=True)
        if order(one) != order(other)
    ]
    assert not different, "\n".join(different)


@pytest.mark.parametrize("how", ["simple", "detailed"])
async def test_events(asker: BeamNode, how: str) -> None:
    """A BEAM's process that subscribes gets the same events, and the mark behind them."""
    events = EVENTS.replace("KIND", how)
    ours, theirs = [await asker.eval(events.replace("NODE", f':"{name}"')) for name in (PY, B)]
    assert len(ours) > 8
    assert ours == theirs


async def test_server_ends(asker: BeamNode, node: Node) -> None:
    """A BEAM's subscriber that does not trap exits outlives the server, as it does Mnesia's end."""
    await asker.eval(
        f"""
        parent = self()
        quiet = spawn(fn -> receive do :what -> send(parent, :lives) end end)
        monitor = :erlang.monitor(:process, {{:mnesia_subscr, :"{PY}"}})
        {{:ok, _}} = :rpc.call(:"{PY}", :mnesia_subscr, :subscribe, [quiet, {{:table, :tab}}])
        """
    )
    server = node.process(SUBSCRIBER)
    assert server is not None
    await server.shut_down(1.0)
    down = "receive do {:DOWN, ^monitor, _, _, reason} -> reason end"
    assert await asker.eval(down) == "shutdown"
    assert await asker.eval("send(quiet, :what); receive do :lives -> :lives end") == "lives"


async def test_led_by_a_beam(cluster: Peers, node: Node) -> None:
    """What is asked of a Python node whose mirror has a BEAM for its source is done there, by
    whomever, and answered as there; the events come through."""
    b = await cluster.start_bare(B)
    await b.eval(CREATE.replace("TYPE", "ordered_set"))
    mirror = Mirror(Table("tab"), peers=lambda: [B], columns=("k", "v"))
    await soon(node.start(mirror))
    await node.start(TableServer([mirror]), SUBSCRIBER)
    a = await cluster.start_bare(A)
    await a.eval(ASK)
    events = EVENTS.replace("KIND", "detailed").replace("NODE", f':"{PY}"')
    assert len(await a.eval(events)) > 8
    async with Node("end@127.0.0.1", cluster.cookie) as end_node:
        end = Mirror(Table("tab"), peers=lambda: [PY])
        await soon(end_node.start(end))
        await end.transaction(Write((TAB, 8, 8)), Delete(1))
        await end.dirty(Write((TAB, 9, 9)))
        assert await end.dirty_update_counter(Atom("n"), 1) == 5
        rows = await b.eval(":ets.tab2list(:tab)")
        assert end.table.rows() == mirror.table.rows() == rows
        with pytest.raises(Aborted):
            await end.transaction(Write((TAB, 8, 8, 8)))


async def test_closure(asker: BeamNode, caplog: pytest.LogCaptureFixture) -> None:
    """A fun that is no exported function is not run; the caller hears that it is no good."""
    write = "fn -> :mnesia.write({:tab, 1, 1}) end"
    transaction = f':rpc.call(:"{PY}", :mnesia, :transaction, [{write}])'
    match await asker.eval(transaction):
        case ("aborted", (("badfun", _), [])):
            pass
        case answer:
            pytest.fail(repr(answer))
    assert not caplog.records
