"""What the worst messages and queries of a peer cost: `python -m benchmarks.hostile`.

Beside each message is an honest one of the same size, beside each query one for all rows.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from benchmarks.table import Row, show
from pybeethoven.etf import Atom, Map, Term, decode, encode
from pybeethoven.mnesia import Table
from pybeethoven.mnesia.budget import Budget, OverBudget
from pybeethoven.mnesia.match_spec import NO_CONTEXT, Context, MatchSpec

MB: Final = 1_000_000
ROUNDS: Final = 3
TAB, ROW, KEY, VALUE = Atom("tab"), Atom("$_"), Atom("$1"), Atom("$2")
HEAD: Final = (TAB, KEY, VALUE)


def cpu_time(work: Callable[[], Any]) -> float:
    """The milliseconds of CPU that `work` takes; the fastest of three rounds counts."""

    def once() -> float:
        start = time.thread_time()
        work()
        return 1000 * (time.thread_time() - start)

    return min(once() for _ in range(ROUNDS))


def many(term: Term) -> Term:
    """A list of as many of a term as a megabyte has."""
    return [term] * (MB // (len(encode(term)) - 1))


def deep(levels: int) -> Term:
    """Tuples in tuples."""
    term: Term = []
    for _ in range(levels):
        term = (term,)
    return term


MESSAGES: Final[dict[str, Term]] = {
    "empty lists": many([]),
    "tuples 500 deep": many(deep(500)),
    "a map of integers": dict.fromkeys(range(MB // 6), 0),
    "a map of keys of one hash": Map([(n * (2**61 - 1), 0) for n in range(MB // 13)]),
    "a map of multiples of 2**32": Map([(n << 32, 0) for n in range(MB // 9)]),
}
HONEST: Final = many((Atom("node_update"), (Atom("a@127.0.0.1"), Atom("online"))))

QUERIES: Final[dict[str, Term]] = {
    "large numbers": [(HEAD, [(Atom("rem"), (Atom("bsl"), 1, 80_000), 7)], [KEY])],
    "wide answers": [(HEAD, [], [[ROW] * 1000])],
    "many comparisons": [(HEAD, [(Atom("=="), ROW, ROW)] * 1500, [KEY])],
    "many clauses": [((TAB, KEY, {Atom("field1"): 77}), [], [KEY])] * 700,
}


async def measure() -> AsyncIterator[Row]:
    """A row for each message and query."""
    honest = encode(HONEST)
    for name, term in MESSAGES.items():
        data = encode(term)
        ours = cpu_time(partial(decode, data)) / len(data) * MB
        other = cpu_time(partial(decode, honest)) / len(honest) * MB
        yield Row(f"decode {name}", "ms/MB", ours, other, "honest terms")
    value = {Atom(f"field{number}"): number for number in range(13)}
    table = Table(TAB, [(TAB, Atom(f"n{number}@127.0.0.1"), value) for number in range(100)])
    everything = cpu_time(partial(select, table, [(HEAD, [], [ROW])]))
    for name, spec in QUERIES.items():
        ours = cpu_time(partial(select, table, spec))
        yield Row(f"{name}, 100 rows", "ms", ours, everything, "all rows")


def select(table: Table, spec: Term) -> None:
    """Query a table as for a peer."""
    context = Context(NO_CONTEXT.node, NO_CONTEXT.pid, Budget(of_rows=True))
    with suppress(OverBudget):
        table.select(MatchSpec(spec, metered=True), context)


if __name__ == "__main__":
    show(measure)
