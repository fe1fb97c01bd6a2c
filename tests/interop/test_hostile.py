"""A node among strangers and a peer that means harm: it serves the others, and forgets it all."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from pybeethoven import From, GenServer, Node, Pid, Process, Term
from pybeethoven.net import epmd
from pybeethoven.testing import BeamNode, Peers
from tests.interop.members import PY, A
from tests.timing import UNIT

TREE: Final = Path(__file__).parent.parent.parent

MALFORMED: Final = {"handshakes": 4_000, "frames": 3_000, "terms": 3_000}
HALF_OPEN: Final = 1_000
FLOOD: Final = 100_000
HANDSHAKE_TIME: Final = 7 * UNIT
"""Seconds in which a node gives up a handshake, unless it is told otherwise."""

LIMIT: Final = 60 * UNIT
"""Seconds that the attack may take; it takes less than half of that on two busy cores."""

HELD: Final = 2_000_000
RESIDENT: Final = 32_000_000
"""Bytes that may be allocated, and be resident, more than before: no multiple of what came."""

CALLS = f"""
caller = spawn(fn ->
  :net_kernel.monitor_nodes(true, [node_type: :all])
  call = fn call, times ->
    {{micros, {{:echo, _}}}} =
      :timer.tc(fn -> GenServer.call({{:echo, :"{PY}"}}, {{:echo, length(times)}}) end)
    receive do
      {{:nodedown, :"{PY}", _}} -> exit(:nodedown)
      {{:times, from}} -> send(from, {{:times, Enum.sort([micros | times])}})
    after
      1 -> call.(call, [micros | times])
    end
  end
  call.(call, [])
end)
Process.register(caller, :caller)
Process.monitor(caller)
:ok
"""
TIMES = """
send(:caller, {:times, self()})
receive do
  {:times, times} -> {length(times), Enum.at(times, div(length(times), 2)), List.last(times)}
  {:DOWN, _, _, _, reason} -> {:failed, inspect(reason)}
end
"""


class Echo(GenServer):
    """Answers with what it is asked."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        return request


class Sink(Process):
    """Drops what it gets."""

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it."""

    async def run(self) -> None:
        """Live until ended."""
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many sockets as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def errors_only() -> Iterator[None]:
    """Log no warnings, one for each stranger, of which pytest would keep all."""
    logger = logging.getLogger("pybeethoven")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


class Strangers:
    """Starts strangers, each a process, that know the node's port and cookie."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port = str(port)
        self._env = {**os.environ, "PYBEETHOVEN_COOKIE": cookie}

    async def do(self, what: str, number: int) -> None:
        """Let one do something, and wait for it."""
        async with self.doing(what, number) as process:
            output, _ = await process.communicate()
        assert output.endswith(b"done\n"), f"{what}: {output!r}"

    @asynccontextmanager
    async def doing(self, what: str, number: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """Let one do something while the block runs."""
        command = ("-m", "tests.interop.stranger", self._port, what, str(number))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=TREE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def resident() -> int:
    """The bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def held() -> int:
    """The bytes that are allocated, garbage apart."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def attack(strangers: Strangers) -> None:
    """Do all of it while connections are half open, until the node has closed each of these."""
    loop = asyncio.get_running_loop()
    async with strangers.doing("half_open", HALF_OPEN) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        closed_at = loop.time() + HANDSHAKE_TIME + UNIT
        for what, number in MALFORMED.items():
            await strangers.do(what, number)
        await strangers.do("flood", FLOOD)
        await asyncio.sleep(closed_at - loop.time())
        output, _ = await process.communicate(b"")
        assert output.split() == [str(HALF_OPEN).encode(), b"done"]


async def settle(node: Node) -> None:
    """Wait until only the BEAM is connected, and nothing is half open."""
    async with asyncio.timeout(10 * UNIT):
        while others := node.network._all - {node.network._up[A]}:
            await asyncio.gather(*(connection.closed for connection in others))
    assert node.network.connected() == [A]


async def warm_up(strangers: Strangers, node: Node) -> None:
    """Let everything be done once, so that what stays for good is there."""
    for what in (*MALFORMED, "flood"):
        await strangers.do(what, 1_000)
    await settle(node)


@pytest.mark.usefixtures("many_files", "errors_only")
@pytest.mark.slow
async def test_strangers_and_floods_do_no_harm(
    cluster: Peers, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """10,000 malformed handshakes, frames and terms, 1,000 half-open connections and a flood leave
    a BEAM's calls answered, its connection up, nothing logged as an error, and no memory taken."""
    a: BeamNode = await cluster.start_bare(A)
    await node.start(Echo(), name="echo")
    node.spawn(Sink(), name="sink")
    await node.connect(A)
    port = await epmd.look_up("py", "127.0.0.1")
    assert port is not None
    strangers = Strangers(port, cluster.cookie)
    await warm_up(strangers, node)
    await a.eval(CALLS)
    tracemalloc.start()
    try:
        held_before, resident_before = held(), resident()
        async with asyncio.timeout(LIMIT):
            await attack(strangers)
        await settle(node)
        grown = held() - held_before, resident() - resident_before
        peak = tracemalloc.get_traced_memory()[1] - held_before
    finally:
        tracemalloc.stop()
    figures: Any = await a.eval(TIMES)
    assert figures[0] != "failed", figures
    _report(figures, grown, peak)
    assert grown[0] < HELD
    assert grown[1] < RESIDENT
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def _report(figures: tuple[int, int, int], grown: tuple[int, int], peak: int) -> None:
    calls, middle, longest = figures
    print(f"\n{calls:,} calls meanwhile: p50 {middle / 1000:.1f} ms, max {longest / 1000:.1f} ms")
    print(f"memory: {grown[0]:+,} bytes allocated, {grown[1]:+,} resident, peak {peak:+,}")
