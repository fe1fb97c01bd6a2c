"""Calls, casts and binaries, beside those of two BEAMs: `python -m benchmarks.messages`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any, Final, TypeVar

from benchmarks.nodes import LIMIT, PY, A, B, Nodes, percentile, running_nodes
from benchmarks.table import Row, show
from pybeethoven import Atom, Busy, From, GenServer, Pid, Process, Term

ROUNDS: Final = 5
CALLS: Final = 1_000
BURST: Final = 200_000
PROCESSES: Final = 1_000
MESSAGES: Final = 100
LARGE: Final = 10_000_000
LARGE_TIMES: Final = 2
SIZES: Final = {
    "1 kB": 1_000,
    "10 kB": 10_000,
    "100 kB": 100_000,
    "1 MB": 1_000_000,
    "10 MB": 10_000_000,
    "100 MB": 100_000_000,
}
STREAM: Final = 100_000_000
"""Bytes sent in messages of each size."""
TURN: Final = 1_000
TURN_SIZE: Final = 1_000_000
"""So many casts, or bytes, are sent before the event loop gets a turn."""

T = TypeVar("T")

ECHO: Final = ("echo", A)
DONE: Final = Atom("done")
WAYS: Final = ("BEAM to us", "us to BEAM")


class Echo(GenServer):
    """What `BenchPeer` is on a BEAM."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        match request:
            case bytes():
                return Atom("ok")
            case tuple(("receivers", processes, messages)):
                return [self.node.spawn(take, messages).pid for _ in range(processes)]
        return request

    async def handle_cast(self, message: Term) -> None:
        """Take it."""


async def take(process: Process, messages: int) -> None:
    """Get so many messages and tell the sender of the last."""
    for _ in range(messages):
        sender, _ = await process.receive()
    process.node.send(sender, DONE)


class Bench:
    """The three nodes, and what is measured between them."""

    def __init__(self, nodes: Nodes) -> None:
        self.py, self.a = nodes.py, nodes.a

    async def calls(self) -> AsyncIterator[Row]:
        """From one process to another, one after the other."""
        calls = partial(self._calls, 42, CALLS)
        *ours, beam = map(joined, await self._rounds("calls", CALLS, "42", calls))
        for way, times in zip(WAYS, ours, strict=True):
            for name, part, goal in (("p50", 0.5, "at most 2.5"), ("p99", 0.99, None)):
                figures = (percentile(times, part) / 1e3, percentile(beam, part) / 1e3)
                yield Row(f"call, {way}, {name}", "us", *figures, goal=goal)

    async def bursts(self) -> AsyncIterator[Row]:
        """All to one process."""
        burst = partial(self._burst, (Atom("put"), 42), BURST, TURN)
        times = await self._rounds("burst", BURST, "{:put, 42}", burst)
        *ours, beam = map(middle, times)
        for way, took, goal in zip(WAYS, ours, ("at least 0.2", None), strict=True):
            what = f"burst of {BURST:,} casts, {way}"
            yield Row(what, "casts/s", rate(BURST, took), rate(BURST, beam), goal=goal)

    async def many(self) -> AsyncIterator[Row]:
        """To many processes, a message to each and again."""
        times = await self._rounds("many", PROCESSES, str(MESSAGES), self._many)
        *ours, beam = map(middle, times)
        number = PROCESSES * MESSAGES
        for way, took in zip(WAYS, ours, strict=True):
            what = f"{PROCESSES:,} processes with {MESSAGES} messages each, {way}"
            yield Row(what, "messages/s", rate(number, took), rate(number, beam))

    async def large(self) -> AsyncIterator[Row]:
        """A binary, until its receipt is acknowledged."""
        calls = partial(self._calls, bytes(LARGE), LARGE_TIMES)
        rounds = await self._rounds("calls", LARGE_TIMES, binary(LARGE), calls)
        *ours, beam = map(middle, map(joined, rounds))
        for way, took in zip(WAYS, ours, strict=True):
            yield Row(f"10 MB binary, {way}", "ms", took / 1e6, beam / 1e6)

    async def sizes(self) -> AsyncIterator[Row]:
        """So many bytes in messages of ever larger size."""
        for name, size in SIZES.items():
            number, turn = STREAM // size, max(1, min(TURN, TURN_SIZE // size))
            burst = partial(self._burst, bytes(size), number, turn)
            times = await self._rounds("burst", number, binary(size), burst)
            *ours, beam = map(middle, times)
            for way, took in zip(WAYS, ours, strict=True):
                what = f"casts of {name}, {way}"
                yield Row(what, "ns/byte", took / STREAM, beam / STREAM, goal="flat")

    async def _rounds(
        self, function: str, number: int, what: str, ours: Callable[[], Awaitable[T]]
    ) -> list[list[T]]:
        """What a BEAM measures towards us, what we do towards it, and what it does towards another.

        They take turns, so that whatever else the machine does hits all; the first round is none.
        """
        rounds = []
        for _ in range(ROUNDS + 1):
            received: T = await self._beam(function, PY, number, what)
            rounds.append((received, await ours(), await self._beam(function, B, number, what)))
        return [list(way) for way in zip(*rounds[1:], strict=True)]

    async def _beam(self, function: str, node: str, number: int, what: str) -> Any:
        """The nanoseconds that `a` takes towards `node`."""
        call = f'BenchPeer.{function}(:"{node}", {number}, {what})'
        return await self.a.eval(call, timeout=LIMIT)

    async def _calls(self, request: Term, number: int) -> list[int]:
        times = []
        for _ in range(number):
            start = time.perf_counter_ns()
            await self.py.call(ECHO, request, timeout=LIMIT)
            times.append(time.perf_counter_ns() - start)
        return times

    async def _burst(self, message: Term, number: int, turn: int) -> int:
        start = time.perf_counter_ns()
        for count in range(number):
            while True:
                try:
                    self.py.cast(ECHO, message)
                    break
                except Busy:
                    await self.py.drain(A)
            if count % turn == 0:
                await asyncio.sleep(0)
        await self.py.call(ECHO, DONE, timeout=LIMIT)
        return time.perf_counter_ns() - start

    async def _many(self) -> int:
        pids = await self.py.call(ECHO, (Atom("receivers"), PROCESSES, MESSAGES))
        took: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.py.spawn(send_to_all, pids, took)
        return await asyncio.wait_for(took, LIMIT)


async def send_to_all(process: Process, pids: list[Pid], took: asyncio.Future[int]) -> None:
    """Send each message to each process, and tell how long it took until all had all."""
    start = time.perf_counter_ns()
    for number in range(MESSAGES):
        for pid in pids:
            process.node.send(pid, (process.pid, number))
        await asyncio.sleep(0)
    for _ in pids:
        await process.receive()
    took.set_result(time.perf_counter_ns() - start)


def middle(times: list[int]) -> float:
    """Their median."""
    return median(times)


def joined(rounds: list[list[int]]) -> list[int]:
    """The times of all rounds."""
    return [time for times in rounds for time in times]


def binary(size: int) -> str:
    """The Elixir source of a binary."""
    return f":binary.copy(<<0>>, {size})"


def rate(number: int, nanoseconds: float) -> float:
    """How many a second."""
    return number / nanoseconds * 1e9


async def measure() -> AsyncIterator[Row]:
    """A row for each figure and way."""
    async with running_nodes() as nodes:
        await nodes.py.start(Echo(), name="echo")
        bench = Bench(nodes)
        for work in (bench.calls, bench.bursts, bench.many, bench.large, bench.sizes):
            async for row in work():
                yield row


if __name__ == "__main__":
    show(measure)
