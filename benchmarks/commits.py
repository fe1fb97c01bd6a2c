"""From a Mnesia commit to a follower that is told of it: `python -m benchmarks.commits`.

On the peer `a`, a Beethoven node, rows of the tracker change, 3 ms apart. First the follower is in
Python, then on `b`, a hidden BEAM, where `a`'s CoreServer alerts it. All read the system's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from benchmarks.nodes import HIDDEN, LIMIT, PY, A, B, compile_on, percentile, running_peers
from benchmarks.table import Row, show
from pybeethoven import Atom, Beethoven, Follower, NodeStatus
from pybeethoven.testing import BeamNode, Peers

COMMITS: Final = 1_000


class Listener(Follower):
    """Notes when it hears of `b`."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def init(self) -> None:
        await self.alert_me()

    async def node_update(self, node: Atom, status: NodeStatus) -> None:
        if node == B:
            self.heard.append(time.time_ns())


async def measure() -> AsyncIterator[Row]:
    """The rows of the percentiles."""
    async with running_peers() as peers:
        a = await peers.start(A)
        b = await peers.start_bare(B, flags=HIDDEN)
        for beam in (a, b):
            await compile_on(beam, "bench_peer")
        await a.eval(f'BenchPeer.commit(:"{B}", :online)')
        ours = await _to_python(peers, a)
        beams = await _to_beam(peers, a, b)
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        figures = (percentile(ours, part) / 1e3, percentile(beams, part) / 1e3)
        yield Row(f"Mnesia commit to a follower, {name}", "us", *figures)


async def _to_python(peers: Peers, a: BeamNode) -> list[int]:
    async with Beethoven(
        PY,
        cookie=peers.cookie,
        cluster_net=peers.cluster_net,
        listener_port=peers.listener_port,
    ) as beethoven:
        listener = Listener()
        await beethoven.start(listener)
        began = await _commit(a)
        async with asyncio.timeout(LIMIT):
            while len(listener.heard) < COMMITS:
                await asyncio.sleep(0.01)
        return _differences(began, listener.heard)


async def _to_beam(peers: Peers, a: BeamNode, b: BeamNode) -> list[int]:
    await peers.await_tracker(a, {PY: "offline"})
    await b.eval("BenchPeer.start()")
    await b.eval(f'BenchPeer.follow(:"{A}")')
    began = await _commit(a)
    await a.eval("GenServer.call(Beethoven.CoreServer, :get_mode)")
    return _differences(began, await b.eval("GenServer.call(:echo, :heard)"))


async def _commit(a: BeamNode) -> list[int]:
    began: list[int] = await a.eval(f'BenchPeer.commits(:"{B}", {COMMITS})', timeout=LIMIT)
    return began


def _differences(began: list[int], heard: list[int]) -> list[int]:
    return [end - start for start, end in zip(began, heard, strict=True)]


if __name__ == "__main__":
    show(measure)
