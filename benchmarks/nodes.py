"""The nodes that are measured: Python in this process, and BEAMs on this machine.

What a BEAM does is compiled there, from `elixir/`. As Python is a hidden node, so is `b`: where
Python and `a` talk, `a` and `b` do the same for comparison.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from pybeethoven import Limits, Node
from pybeethoven.testing import BeamNode, Peers

A, B, PY = "a@127.0.0.1", "b@127.0.0.1", "py@127.0.0.1"
HIDDEN: Final = ("-hidden",)
SOURCES: Final = Path(__file__).with_name("elixir")
LIMITS: Final = Limits(message_size=128 * 1024 * 1024)
"""They let the largest messages of `messages` in."""
LIMIT: Final = 120.0
"""Seconds that any single measurement may take."""


class Nodes(NamedTuple):
    """Python, a BEAM that talks with it, and another, hidden."""

    py: Node
    a: BeamNode
    b: BeamNode
    cookie: str


@asynccontextmanager
async def running_peers() -> AsyncIterator[Peers]:
    """A cluster without nodes, whose EPMD is that of this process too."""
    async with Peers() as peers:
        os.environ.update(peers.env)
        yield peers


@asynccontextmanager
async def running_nodes() -> AsyncIterator[Nodes]:
    """Three nodes; each BEAM has the server `echo`."""
    async with running_peers() as peers:
        a, b = await peers.start_bare(A), await peers.start_bare(B, flags=HIDDEN)
        for beam in (a, b):
            await compile_on(beam, "bench_peer")
            await beam.eval("BenchPeer.start()")
        async with Node(PY, peers.cookie, limits=LIMITS) as py:
            await py.connect(A)
            yield Nodes(py, a, b, peers.cookie)


async def compile_on(beam: BeamNode, source: str) -> None:
    """Have the module in a file of `elixir/` on the BEAM."""
    await beam.eval(f"{(SOURCES / source).with_suffix('.ex').read_text()}\n:ok")


def percentile(times: list[int], part: float) -> int:
    """The time that `part` of the times are below."""
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]
