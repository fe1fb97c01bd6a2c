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
from pybeethoven.mnesia import SUBSCRIBER, Mirror, Row, Table, TableServer, patterns
from pybeethoven.mnesia.budget import MAX_WEIGHT, Budget, OverBudget, weight
from pybeethoven.mnesia.match_spec import NO_CONTEXT, Context, MatchSpec
from tests.helpers import soon
from tests.net.conftest import StartNode, start_node
from tests.random_specs import Specs
from tests.random_terms import Terms
from tests.security.test_odd_keys import fun

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
    ("reader", "many"),
    [
        (("all_keys", [TAB]), 5000),
        (("match_object", [(TAB, Atom("_"), Atom("_"))]), 5000),
        (("delete_object", [(TAB, {}, 1)]), 100),
        (("read", [TAB, Atom("n1@127.0.0.1")]), 5000),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else None,
)
async def test_many_calls_of_a_transaction_are_refused(
    a: Node, table: Table, reader: tuple[str, list[Term]], many: int
) -> None:
    """Each of them is cheap."""
    before = table.rows()
    assert await transaction(a, [("write", [(TAB, 1, 1)]), *[reader] * many]) == LIMIT
    assert table.rows() == before


NO_KEY: Final = fun(held=b"t\0\0\0\2ja\1ja\1")


@pytest.mark.parametrize(
    "last", [("write", [(TAB, NO_KEY, 1)]), ("write", [(TAB, 1, NO_KEY)]), ("read", [TAB, NO_KEY])]
)
async def test_nothing_is_done_if_a_term_has_no_place_in_the_order(
    a: Node, table: Table, last: tuple[str, list[Term]]
) -> None:
    """Neither what comes before it."""
    before = table.rows()
    aborted, reason = await transaction(a, [("write", [(TAB, Atom("new"), 1)]), last])
    assert (aborted, reason[0]) == (Atom("aborted"), Atom("bad_type"))
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


async def test_answer_to_many_calls_is_bounded(a: Node, table: Table) -> None:
    """Each of them may give the same large row."""
    table.write((TAB, Atom("large"), bytes(1 << 20)))
    read: Term = Export(Atom("mnesia"), Atom("dirty_read"), 2)
    arguments: Term = [[TAB, Atom("large")]] * 100
    with pytest.raises(ErlangExit) as raised:
        await soon(a.rpc(B, "lists", "zipwith", [APPLY, [read] * 100, arguments]))
    assert raised.value.reason == LIMIT


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


def test_weight_is_not_counted_beyond_its_limit() -> None:
    """So that what costs too much is not looked at whole."""
    shared: Term = []
    for _ in range(60):
        shared = [shared, shared]  # 2**60 terms
    assert 1000 < weight(shared, 1000) < 1100


def test_fun_is_compared_with_funs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all that is in it is decoded."""
    spec = MatchSpec([((TAB, Atom("_"), 77), [], [ROW])])

    def exact_key_of(term: Term) -> Term:
        assert term is not NO_KEY
        return exact_key(term)

    monkeypatch.setattr(patterns, "exact_key", exact_key_of)
    assert spec.run([(TAB, 1, NO_KEY), (TAB, 2, 77)]) == [(TAB, 2, 77)]


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
        (NO_KEY, len(NO_KEY.data) + 1),
    ],
)
def test_weight(term: Term, expected: int) -> None:
    """Of terms with others in them, of long binaries and of large numbers."""
    assert weight(term) == expected
