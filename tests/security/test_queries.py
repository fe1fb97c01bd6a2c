"""What match specifications and transactions of a peer may cost."""

from __future__ import annotations

import asyncio
import math
import os
from random import Random
from typing import Any, Final

import pytest

from pybeethoven import Atom, Node, Term
from pybeethoven.errors import ErlangExit, MatchSpecError
from pybeethoven.etf import Export, ImproperList
from pybeethoven.etf.order import exact_key
from pybeethoven.mnesia import SUBSCRIBER, Mirror, Row, Table, TableServer
from pybeethoven.mnesia.budget import MAX_WEIGHT, Budget, OverBudget, weight
from pybeethoven.mnesia.match_spec import NO_CONTEXT, Context, MatchSpec
from tests.helpers import soon
from tests.net.conftest import StartNode, start_node
from tests.random_specs import Specs
from tests.random_terms import Terms

__all__ = ["start_node"]

A, B = "a@127.0.0.1", "b@127.0.0.1"
TAB: Final = Atom("tab")
ROW, ONE, TWO = Atom("$_"), Atom("$1"), Atom("$2")
HEAD: Final = (TAB, ONE, TWO)
APPLY: Final = Export(Atom("erlang"), Atom("apply"), 2)
ZIPWITH: Final = Export(Atom("lists"), Atom("zipwith"), 3)
LIMIT: Final = (Atom("aborted"), (Atom("system_limit"), Atom("too_much_work_for_one_call")))


def call(name: str, *arguments: Term) -> Term:
    """A call in a match specification."""
    return (Atom(name), *arguments)


def rows(count: int) -> list[Row]:
    """Rows like those of a tracker."""
    value = {Atom(f"field{number}"): number for number in range(13)}
    return [(TAB, Atom(f"n{number}@127.0.0.1"), value) for number in range(count)]


HUGE: Final = call("-", call("bsl", 1, 4_194_300), 1)
HALF: Final = call("+", call("bsl", 1, 2_097_150), 1)
COSTLY: Final[dict[str, Term]] = {
    "division": [(HEAD, [call(">", call("div", HUGE, HALF), 0)], [ONE])],
    "multiplication": [(HEAD, [call(">", call("*", HUGE, HUGE), 0)], [ONE])],
    "large constant": [(HEAD, [call(">", call("rem", 1 << 200_000, 7), 0)], [ONE])],
    "large results": [(HEAD, [], [[call("bsl", 1, 100_000)] * 100])],
    "wide body": [(HEAD, [], [[ROW] * 3000])],
    "all variables": [
        (
            (TAB, ONE, {Atom(f"field{n}"): Atom(f"${n + 2}") for n in range(13)}),
            [],
            [[Atom("$$")] * 3000],
        )
    ],
    "tails": [(HEAD, [], [ImproperList([ROW] * 3000, TWO)])],
    "keys of a map": [(HEAD, [], [{call("element", 3, ((n, n, TWO),)): n for n in range(900)}])],
    "comparisons": [(HEAD, [call("==", ROW, ROW)] * 2000, [ONE])],
    "clauses": [((TAB, ONE, {Atom("field1"): 7}), [], [ONE])] * 800,
    "same variable": [(((TAB, TWO, TWO)), [], [1])] * 1200,
    "to compile": [(HEAD, [True] * MAX_WEIGHT, [ONE])],
}


@pytest.fixture
async def a(start_node: StartNode) -> Node:
    """The node that asks."""
    return await start_node(A)


@pytest.fixture
async def table(start_node: StartNode) -> Table:
    """The table of 100 rows that node `b` serves."""
    b = await start_node(B)
    mirror = Mirror(Table(TAB), peers=list, on_change=lambda _: None)
    await soon(b.start(mirror))
    for row in rows(100):
        mirror.write_local(row)
    await b.start(TableServer([mirror]), SUBSCRIBER)
    return mirror.table


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("dirty", [True, False])
async def test_costly_query_is_refused(a: Node, table: Table, name: str, dirty: bool) -> None:
    """It is aborted with `system_limit`, whether in a transaction or not."""
    arguments: list[Term] = [TAB, COSTLY[name]]
    if dirty:
        with pytest.raises(ErlangExit) as raised:
            await soon(a.rpc(B, "mnesia", "dirty_select", arguments))
        assert raised.value.reason == LIMIT
    else:
        select = Export(Atom("mnesia"), Atom("select"), 2)
        assert await soon(a.rpc(B, "mnesia", "transaction", [select, arguments])) == LIMIT


async def transaction(a: Node, calls: list[tuple[str, list[Term]]]) -> Term:
    """Make calls of Mnesia's functions in one transaction."""
    functions: list[Term] = [Export(Atom("mnesia"), Atom(f), len(each)) for f, each in calls]
    lists = [APPLY, functions, [each for _, each in calls]]
    return await soon(a.rpc(B, "mnesia", "transaction", [ZIPWITH, lists]))


@pytest.mark.parametrize("name", COSTLY)
async def test_nothing_of_a_transaction_is_done_if_a_query_is_refused(
    a: Node, table: Table, name: str
) -> None:
    """Not even what comes before it."""
    before = table.rows()
    calls: list[tuple[str, list[Term]]] = [
        ("write", [(TAB, Atom("new"), 1)]),
        ("delete", [(TAB, before[0][1])]),
        ("select", [TAB, COSTLY[name]]),
    ]
    assert await transaction(a, calls) == LIMIT
    assert table.rows() == before


async def test_queries_of_a_transaction_see_its_writes(a: Node, table: Table) -> None:
    """Though they are tried on a copy first."""
    new = (TAB, Atom("new"), 1)
    calls: list[tuple[str, list[Term]]] = [("write", [new]), ("match_object", [new])]
    assert await transaction(a, calls) == (Atom("atomic"), [Atom("ok"), [new]])
    assert table.read(Atom("new")) == [new]


@pytest.mark.parametrize(
    "reader",
    [
        ("all_keys", [TAB]),
        ("match_object", [(TAB, Atom("_"), Atom("_"))]),
        ("delete_object", [(TAB, {}, 1)]),
        ("read", [TAB, Atom("n1@127.0.0.1")]),
    ],
    ids=lambda reader: reader[0],
)
async def test_many_calls_of_a_transaction_are_refused(
    a: Node, table: Table, reader: tuple[str, list[Term]]
) -> None:
    """Each of them is cheap."""
    before = table.rows()
    assert await transaction(a, [("write", [(TAB, 1, 1)]), *[reader] * 5000]) == LIMIT
    assert table.rows() == before


async def test_many_writes_are_no_queries(a: Node, table: Table) -> None:
    """A transaction of any number of them is done."""
    calls: list[tuple[str, list[Term]]] = [("write", [(TAB, n, 1)]) for n in range(2000)]
    await transaction(a, calls)
    assert len(table) == 2100


async def test_other_work_goes_on_among_many_calls(a: Node, table: Table) -> None:
    """Those of one rpc that are no transaction take turns with everything else."""
    read: Term = Export(Atom("mnesia"), Atom("dirty_all_keys"), 1)
    many = 200
    calling = asyncio.ensure_future(
        a.rpc(B, "lists", "zipwith", [APPLY, [read] * many, [[TAB]] * many])
    )
    turns = 0
    while not calling.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(await calling) == many
    assert turns > many


def names(count: int) -> Term:
    """A query for so many nodes."""
    guard = call("orelse", *[call("==", ONE, Atom(f"n{n}@127.0.0.1")) for n in range(count)])
    return [(HEAD, [guard], [ROW])]


@pytest.mark.parametrize("count", [3, 100, 1000, 5000])
@pytest.mark.parametrize(
    "spec",
    [
        [(HEAD, [], [ROW])],
        [((TAB, ONE, {Atom("field1"): TWO}), [call(">", TWO, 0)], [((ONE, TWO),)])],
        names(20),
    ],
    ids=["all", "field", "names"],
)
def test_honest_queries_are_answered(spec: Term, count: int) -> None:
    """However many rows there are."""
    table = Table(TAB, rows(count))
    budget = Budget(of_rows=True)
    context = Context(NO_CONTEXT.node, NO_CONTEXT.pid, budget)
    assert table.select(MatchSpec(spec, metered=True), context) == table.select(spec)


def test_metered_specifications_give_the_same() -> None:
    """As those that are not, and take more steps than there are terms in what they give."""
    random = Random(os.environ["PYBEETHOVEN_SEED"])
    specs = Specs(random, Terms(random, Atom(A), 25), 25)
    for _ in range(500):
        table_rows, spec = specs.case()
        try:
            plain: Any = MatchSpec(spec)
        except MatchSpecError:
            with pytest.raises(MatchSpecError):
                MatchSpec(spec, metered=True)
            continue
        budget = Budget(10**12, of_rows=False)
        context = Context(NO_CONTEXT.node, NO_CONTEXT.pid, budget)
        results = MatchSpec(spec, metered=True).run(table_rows, context)
        assert exact_key(results) == exact_key(plain.run(table_rows))
        least = sum(map(weight, results))
        with pytest.raises(OverBudget):
            budget.spend(10**12 - least + 1)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (Atom("a"), 1),
        ((1, [2, {3: 4}]), 7),
        (ImproperList([1], 2), 3),
        (bytes(6400), 101),
        (1 << 256 * 10, 101),
        (-1 << 256 * 10, 101),
        (math.pi, 1),
    ],
)
def test_weight(term: Term, expected: int) -> None:
    """Of terms with others in them, of long binaries and of large numbers."""
    assert weight(term) == expected
