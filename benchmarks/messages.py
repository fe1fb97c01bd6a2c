"""Calls, bursts and memory, beside those of two BEAMs: `python -m benchmarks.messages`.

A Python node is in this process, and two BEAMs, `a` and `b`, are on this machine. Where Python and
`a` talk, `a` and `b` do the same for comparison.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from benchmarks.table import Row, print_table
from erlang_interop.peers import Peers
from pybeethoven import Atom, From, GenServer, Node, Pid, Process, Term
from pybeethoven.net import epmd
from pybeethoven.testing import BeamNode

A, B, PY = "a@127.0.0.1", "b@127.0.0.1", "py@127.0.0.1"
CALLS: Final = 5_000
BURST: Final = 200_000
LARGE: Final = 10_000_000
LARGE_TIMES: Final = 10
IDLE: Final = 300
PROCESSES: Final = 10_000
LIMIT: Final = 120.0
"""Seconds that any single measurement may take."""

SERVERS = """
echo = fn echo ->
  receive do
    {:"$gen_call", from, request} when is_binary(request) -> GenServer.reply(from, :ok)
    {:"$gen_call", from, request} -> GenServer.reply(from, request)
    {:"$gen_cast", _} -> :ok
  end
  echo.(echo)
end
Process.register(spawn(fn -> echo.(echo) end), :echo)
:ok
"""
BEAM_CALLS = f"""
times = for n <- 1..{CALLS} do
  {{micros, ^n}} = :timer.tc(fn -> GenServer.call({{:echo, :"NODE"}}, n) end)
  micros
end
Enum.sort(times)
"""
BEAM_BURST = f"""
{{micros, _}} = :timer.tc(fn ->
  for n <- 1..{BURST}, do: GenServer.cast({{:echo, :"NODE"}}, {{:put, n}})
  GenServer.call({{:echo, :"NODE"}}, :done, :infinity)
end)
micros
"""
BEAM_LARGE = f"""
large = :binary.copy(<<0>>, {LARGE})
times = for _ <- 1..{LARGE_TIMES} do
  {{micros, :ok}} = :timer.tc(fn -> GenServer.call({{:echo, :"NODE"}}, large, :infinity) end)
  micros
end
Enum.sort(times)
"""
BEAM_ALLOCATED = (
    "for pid <- Process.list(), do: :erlang.garbage_collect(pid); :erlang.memory(:total)"
)
BEAM_PROCESSES = f"""
before = :erlang.memory(:total)
pids = for _ <- 1..{PROCESSES}, do: spawn(fn -> receive do :stop -> :ok end end)
after_ = :erlang.memory(:total)
for pid <- pids, do: send(pid, :stop)
(after_ - before) / {PROCESSES}
"""


class Echo(GenServer):
    """What `SERVERS` is on a BEAM."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        return Atom("ok") if type(request) is bytes else request

    async def handle_cast(self, message: Term) -> None:
        """Take it."""


class Idle(Process):
    """Waits for ever."""

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it."""

    async def run(self) -> None:
        """Wait."""
        await asyncio.get_running_loop().create_future()


class Bench:
    """The three nodes, and what is measured between them."""

    def __init__(self, a: BeamNode, node: Node, cookie: str) -> None:
        self.a, self.node, self.cookie = a, node, cookie

    async def measure(self) -> list[Row]:
        """A row for each figure."""
        return [
            *await self._calls(),
            *await self._burst(),
            *await self._large(),
            await self._per_connection(),
            await self._per_process(),
        ]

    async def _beam(self, source: str, node: str) -> list[float]:
        """What `a` measures towards `node`: microseconds, the least first."""
        figures = await self.a.eval(source.replace("NODE", node), timeout=LIMIT)
        return figures if isinstance(figures, list) else [figures]

    async def _calls(self) -> list[Row]:
        from_beam, beam = await self._beam(BEAM_CALLS, PY), await self._beam(BEAM_CALLS, B)
        to_beam = []
        for number in range(CALLS):
            start = time.perf_counter()
            await self.node.call(("echo", A), number)
            to_beam.append((time.perf_counter() - start) * 1e6)
        return [
            Row(f"call {way}, {name}", "us", percentile(ours, part), percentile(beam, part))
            for way, ours in (("BEAM to us", from_beam), ("us to BEAM", sorted(to_beam)))
            for name, part in (("p50", 0.5), ("p99", 0.99))
        ]

    async def _burst(self) -> list[Row]:
        beam = rate(BURST, (await self._beam(BEAM_BURST, B))[0])
        received = rate(BURST, (await self._beam(BEAM_BURST, PY))[0])
        start = time.perf_counter()
        for number in range(BURST):
            self.node.cast(("echo", A), (Atom("put"), number))
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        await self.node.call(("echo", A), Atom("done"), timeout=LIMIT)
        sent = rate(BURST, (time.perf_counter() - start) * 1e6)
        what = f"burst of {BURST:,} casts"
        return [
            Row(f"{what}, BEAM to us", "casts/s", received, beam),
            Row(f"{what}, us to BEAM", "casts/s", sent, beam),
        ]

    async def _large(self) -> list[Row]:
        from_beam, beam = await self._beam(BEAM_LARGE, PY), await self._beam(BEAM_LARGE, B)
        large, to_beam = bytes(LARGE), []
        for _ in range(LARGE_TIMES):
            start = time.perf_counter()
            await self.node.call(("echo", A), large, timeout=LIMIT)
            to_beam.append((time.perf_counter() - start) * 1e6)
        beam_time = percentile(beam, 0.5) / 1000
        return [
            Row(f"10 MB binary {way}", "ms", percentile(ours, 0.5) / 1000, beam_time)
            for way, ours in (("BEAM to us", from_beam), ("us to BEAM", sorted(to_beam)))
        ]

    async def _per_connection(self) -> Row:
        with allocations() as allocated:
            before = allocated()
            async with idle_connections(PY, self.cookie):
                ours = (allocated() - before) / IDLE
        before = await self.a.eval(BEAM_ALLOCATED)
        async with idle_connections(A, self.cookie):
            beam = (await self.a.eval(BEAM_ALLOCATED) - before) / IDLE
        return Row(f"memory, each of {IDLE} idle connections", "kB", ours / 1000, beam / 1000)

    async def _per_process(self) -> Row:
        with allocations() as allocated:
            before = allocated()
            idle = [self.node.spawn(Idle()) for _ in range(PROCESSES)]
            await asyncio.sleep(0)
            ours = (allocated() - before) / PROCESSES
        for process in idle:
            self.node.exit(process, Atom("shutdown"))
        beam: float = await self.a.eval(BEAM_PROCESSES)
        return Row(f"memory, each of {PROCESSES:,} processes", "kB", ours / 1000, beam / 1000)


@contextmanager
def allocations() -> Iterator[Callable[[], int]]:
    """A function that gives the bytes which this process has allocated in the block."""

    def allocated() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield allocated
    finally:
        tracemalloc.stop()


@asynccontextmanager
async def idle_connections(name: str, cookie: str) -> AsyncIterator[None]:
    """Let nodes be connected to `name` while the block runs."""
    alive_name, _, host = name.partition("@")
    port = await epmd.look_up(alive_name, host)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.idle", name, str(port), cookie, str(IDLE)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if not await process.stdout.readline():
        raise RuntimeError(f"no idle connections to {name}")
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        await process.communicate(b"")


def percentile(times: list[float], part: float) -> float:
    """The time that `part` of the sorted `times` are below."""
    return times[min(len(times) - 1, int(len(times) * part))]


def rate(number: int, micros: float) -> float:
    """How many a second."""
    return number / micros * 1e6


async def measure() -> list[Row]:
    """A row for each figure."""
    async with Peers() as peers:
        os.environ.update(peers.env)
        a, b = await peers.start_bare(A), await peers.start_bare(B)
        for beam in (a, b):
            await beam.eval(SERVERS)
        async with Node(PY, peers.cookie) as node:
            await node.start(Echo(), name="echo")
            await node.connect(A)
            return await Bench(a, node, peers.cookie).measure()


if __name__ == "__main__":
    print_table(asyncio.run(measure()))
