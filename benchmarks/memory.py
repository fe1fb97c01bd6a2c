"""What idle connections and processes take, beside a BEAM's: `python -m benchmarks.memory`."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from benchmarks.nodes import PY, A, Nodes, running_nodes
from benchmarks.table import Row, show
from pybeethoven import Atom, Pid, Process, Term
from pybeethoven.net import epmd

IDLE: Final = 300
PROCESSES: Final = 10_000


class Idle(Process):
    """Waits for ever."""

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it."""

    async def run(self) -> None:
        """Wait."""
        await asyncio.get_running_loop().create_future()


async def measure() -> AsyncIterator[Row]:
    """A row for each figure."""
    async with running_nodes() as nodes:
        yield await _per_connection(nodes)
        yield await _per_process(nodes)


async def _per_connection(nodes: Nodes) -> Row:
    with allocations() as allocated:
        before = allocated()
        async with idle_connections(PY, nodes.cookie):
            ours = (allocated() - before) / IDLE
    before = await nodes.a.eval("BenchPeer.allocated()")
    async with idle_connections(A, nodes.cookie):
        beam = (await nodes.a.eval("BenchPeer.allocated()") - before) / IDLE
    return Row(f"memory, each of {IDLE} idle connections", "kB", ours / 1000, beam / 1000)


async def _per_process(nodes: Nodes) -> Row:
    with allocations() as allocated:
        before = allocated()
        idle = [nodes.py.spawn(Idle()) for _ in range(PROCESSES)]
        await asyncio.sleep(0)
        ours = (allocated() - before) / PROCESSES
    for process in idle:
        nodes.py.exit(process, Atom("shutdown"))
    beam: float = await nodes.a.eval(f"BenchPeer.per_process({PROCESSES})")
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
        *(sys.executable, "-m", "benchmarks.idle", name, str(port), str(IDLE)),
        env={**os.environ, "PYBEETHOVEN_COOKIE": cookie},
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


if __name__ == "__main__":
    show(measure)
