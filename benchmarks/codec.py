"""Decoding and encoding beside erlang_py: `python -m benchmarks.codec`.

The terms are what Beethoven nodes say, in a BEAM's own bytes. Each encodes what it has itself
decoded from them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import erlang

from benchmarks.nodes import LIMIT, A, compile_on, running_peers
from benchmarks.table import Row, show
from pybeethoven.etf import decode, encode

ROUNDS: Final = 5
ROUND_TIME: Final = 0.2
"""Seconds of a round; the fastest counts."""

TERMS: Final = {
    "a node_update cast": "node_update()",
    "a tracker event": "tracker_event()",
    "1,000 tracker rows": "tracker_rows(1000)",
}
ROWS_OF_A_KB: Final = 4
SIZES: Final = {"1 kB": 1, "100 kB": 100, "10 MB": 10_000, "100 MB": 100_000}


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


async def measure() -> AsyncIterator[Row]:
    """Rows for each term and direction, and for decoding more and more."""
    async with running_peers() as peers:
        beam = await peers.start_bare(A)
        await compile_on(beam, "bench_terms")
        for name, source in TERMS.items():
            data = await beam.eval(f"BenchTerms.{source}")
            yield _decoding(f"{name}, {len(data):,} bytes", data)
            yield _encoding(f"{name}, {len(data):,} bytes", data)
        for name, size in SIZES.items():
            rows = f"BenchTerms.tracker_rows({size * ROWS_OF_A_KB})"
            data = await beam.eval(rows, timeout=LIMIT)
            cost = seconds(partial(decode, data, max_terms=len(data))) / len(data) * 1e9
            yield Row(f"decode {name} of tracker rows", "ns/byte", cost, goal="flat")


def _decoding(what: str, data: bytes) -> Row:
    ours, theirs = partial(decode, data), partial(erlang.binary_to_term, data)
    return _row(f"decode {what}", ours, theirs)._replace(goal="at most 0.33")


def _encoding(what: str, data: bytes) -> Row:
    ours = partial(encode, decode(data))
    theirs = partial(erlang.term_to_binary, erlang.binary_to_term(data))
    return _row(f"encode {what}", ours, theirs)


def _row(what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    return Row(what, "us", seconds(ours) * 1e6, seconds(theirs) * 1e6, "erlang_py")


if __name__ == "__main__":
    show(measure)
