"""How the cost of a mirrored table grows with its rows: `python -m benchmarks.mirror`.

Each figure is microseconds for a row, beside what a BEAM's own process took for the same in the
same run; a new source is a thing of ours alone. Rows have a number, a binary and a float.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from benchmarks.nodes import LIMIT, PY, A, B, compile_on, running_peers
from benchmarks.table import Row, show
from pybeethoven import Atom, Node
from pybeethoven.mnesia import Mirror, Table
from pybeethoven.testing import BeamNode

SIZES: Final = (1_000, 100_000)
TAB: Final = Atom("tab")
SPEC: Final = [
    (
        (TAB, Atom("$1"), Atom("_"), Atom("$2")),
        [(Atom("<"), Atom("$2"), 100.0)],
        [[Atom("$1")]],
    )
]


class Bench:
    """A mirror of a peer's table, and another BEAM that does the same things."""

    def __init__(self, a: BeamNode, b: BeamNode, node: Node) -> None:
        self.a, self.b, self.node = a, b, node

    async def measure(self, size: int) -> AsyncIterator[Row]:
        """A row for each kind of work, with a table of so many rows."""
        await self.a.eval(f"MirrorPeer.fill({size})", timeout=LIMIT)
        mirror = Mirror(Table(TAB, type="ordered_set"), peers=lambda: [A])
        ours = await timed(lambda: self.node.start(mirror))
        yield row("snapshot", size, ours, await self._beam("snapshot"))
        ours = await timed(lambda: self._read(mirror, size))
        yield row("read", size, ours, await self._beam("read", f"{size}"))
        ours = await timed(lambda: self._select(mirror))
        yield row("select", size, ours, await self._beam("select"))
        ours = await timed(lambda: self._live(mirror, size))
        yield row("live", size, ours, await self._beam("live", f':"{A}", {size}'))
        ours = await timed(lambda: self._new_source(mirror))
        yield row("new source", size, ours)
        self.node.exit(mirror, Atom("shutdown"))
        await self.b.eval("MirrorPeer.drop()")

    async def _beam(self, function: str, args: str = "") -> float:
        """Seconds that the other BEAM takes."""
        micros: int = await self.b.eval(f"MirrorPeer.time(:{function}, [{args}])", timeout=LIMIT)
        return micros / 1e6

    async def _read(self, mirror: Mirror, size: int) -> None:
        for key in range(1, size + 1):
            assert mirror.table.read(key)

    async def _select(self, mirror: Mirror) -> None:
        assert len(mirror.table.select(SPEC)) == 299

    async def _live(self, mirror: Mirror, size: int) -> None:
        await self.a.eval(f"MirrorPeer.write({size})", timeout=LIMIT)
        await mirror.catch_up(None)
        assert mirror.table.read(size) == [(TAB, size, b"live", 0.5)]

    async def _new_source(self, mirror: Mirror) -> None:
        """From the end of the source until another is, with nothing changed."""
        mirror.attached.clear()
        mirror._peers = lambda: [B]
        self.node.disconnect(A)
        await mirror.attached.wait()


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """The seconds that `work` takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


def row(work: str, size: int, ours: float, beam: float | None = None) -> Row:
    """The cost of a row of the table."""
    other = None if beam is None else beam / size * 1e6
    return Row(f"mirror, {work}, {size:,} rows", "us/row", ours / size * 1e6, other)


async def measure() -> AsyncIterator[Row]:
    """A row for each kind of work and size."""
    async with running_peers() as peers:
        a, b = await peers.start_bare(A), await peers.start_bare(B)
        for beam in (a, b):
            await compile_on(beam, "mirror_peer")
        await a.eval("MirrorPeer.create()")
        await b.eval(f'MirrorPeer.join(:"{A}")')
        async with Node(PY, peers.cookie) as node:
            bench = Bench(a, b, node)
            for size in SIZES:
                async for figure in bench.measure(size):
                    yield figure


if __name__ == "__main__":
    show(measure)
