"""Decoding and encoding beside erlang_py: `python -m benchmarks.codec`.

Each encodes what it has itself decoded from the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import erlang

from benchmarks.table import Row, print_table
from pybeethoven.etf import Atom, Pid, Reference, Term, decode, encode

ROUNDS: Final = 5
ROUND_TIME: Final = 0.2
"""Seconds of a round; the fastest counts."""

PID: Final = Pid(Atom("a@127.0.0.1"), 85, 0, 9)
CALL: Final = (
    Atom("$gen_call"),
    (PID, [Atom("alias"), Reference(Atom("a@127.0.0.1"), 9, (1, 2, 3))]),
    (Atom("lookup"), b"a key", 42),
)
TERMS: Final[dict[str, Term]] = {
    "a call": CALL,
    "1,000 rows": [(Atom("tab"), n, b"name of %d" % n, n / 3, Atom("online")) for n in range(1000)],
    "a map of 100": {b"key %d" % n: [n, {Atom("nested"): -n}] for n in range(100)},
    "10 MB binary": bytes(10_000_000),
}


def seconds(work: Callable[[], Any]) -> float:
    """The seconds that one call of `work` takes."""
    times = 1
    while (spent := _time(work, times)) < ROUND_TIME / 2:
        times *= 2
    return min(spent, *(_time(work, times) for _ in range(ROUNDS - 1))) / times


def _time(work: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def measure() -> list[Row]:
    """A row for each term and direction."""
    rows = []
    for name, term in TERMS.items():
        data = encode(term)
        theirs = erlang.binary_to_term(data)
        rows += [
            _row(f"decode {name}", partial(decode, data), partial(erlang.binary_to_term, data)),
            _row(f"encode {name}", partial(encode, term), partial(erlang.term_to_binary, theirs)),
        ]
    return rows


def _row(what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    return Row(what, "us", seconds(ours) * 1e6, seconds(theirs) * 1e6, "erlang_py")


if __name__ == "__main__":
    print_table(measure())
