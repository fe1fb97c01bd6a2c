"""How the cost of a mirrored table grows with its rows: `python -m benchmarks.mirror`.

Each figure is microseconds for a row, beside what a BEAM's own process took for the same in the
same run; a new source is a thing of ours alone. Rows have a number, a binary and a float.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.table import Row, print_table
from erlang_interop.peers import Peers
from pybeethoven import Atom, Node
from pybeethoven.mnesia import Mirror, Table
from pybeethoven.testing import BeamNode

SIZES = (1_000, 10_000, 100_000)
TAB = Atom("tab")
A, B, PY = "a@127.0.0.1", "b@127.0.0.1", "py@127.0.0.1"

CREATE = """
:mnesia.start()
{:atomic, :ok} = :mnesia.create_table(:tab,
  type: :ordered_set, ram_copies: [node()], attributes: [:key, :name, :score])
fill = fn size -> for n <- 1..size, do: :mnesia.dirty_write({:tab, n, "name of \\#{n}", n / 3}) end
:ok
"""
REPLICATE = f"""
:mnesia.start()
{{:ok, _}} = :mnesia.change_config(:extra_db_nodes, [:"{A}"])
:ok
"""
COPY = "{:atomic, :ok} = :mnesia.add_table_copy(:tab, node(), :ram_copies)"
DROP = "{:atomic, :ok} = :mnesia.del_table_copy(:tab, node())"
TIMED = "elem(:timer.tc(fn -> WORK end), 0)"
READ = "for n <- 1..SIZE, do: :mnesia.dirty_read(:tab, n)"
SPEC = [
    (
        (TAB, Atom("$1"), Atom("_"), Atom("$2")),
        [(Atom("<"), Atom("$2"), 100.0)],
        [[Atom("$1")]],
    )
]
SELECT = ':mnesia.dirty_select(:tab, [{{:tab, :"$1", :_, :"$2"}, [{:<, :"$2", 100.0}], [[:"$1"]]}])'
FOLLOW = """
{:ok, _} = :mnesia.subscribe({:table, :tab, :detailed})
:rpc.call(A, :erlang, :apply, [fn ->
  for n <- 1..SIZE, do: :mnesia.dirty_write({:tab, n, "new", 0.5})
end, []])
for _ <- 1..SIZE, do: (receive do {:mnesia_table_event, _} -> :ok end)
:mnesia.unsubscribe({:table, :tab, :detailed})
""".replace("A,", f':"{A}",', 1)


class Bench:
    """A mirror of a peer's table, and another BEAM that does the same things."""

    def __init__(self, peers: Peers, a: BeamNode, b: BeamNode, node: Node) -> None:
        self.a, self.b, self.node = a, b, node
        self.peers = peers

    async def measure(self, size: int) -> dict[str, tuple[float, float]]:
        """Seconds of ours and of the BEAM's for each kind of work, with `size` rows."""
        await self.a.eval(f":mnesia.clear_table(:tab); fill.({size}); :ok")
        mirror = Mirror(Table(TAB, type="ordered_set"), peers=lambda: [A])
        figures = {
            "snapshot": (await timed(lambda: self.node.start(mirror)), await self.beam(COPY))
        }
        figures["read"] = (
            await timed(lambda: self._read(mirror, size)),
            await self.beam(READ, size),
        )
        figures["select"] = (await timed(lambda: self._select(mirror)), await self.beam(SELECT))
        figures["live"] = (await self._live(mirror, size), await self.beam(FOLLOW, size))
        figures["new source"] = (await self._new_source(mirror), 0.0)
        self.node.exit(mirror, Atom("shutdown"))
        await self.b.eval(DROP)
        return figures

    async def beam(self, work: str, size: int = 0) -> float:
        """Seconds that the other BEAM takes."""
        timed = TIMED.replace("WORK", work.replace("SIZE", str(size)))
        micros: int = await self.b.eval(timed, timeout=120)
        return micros / 1e6

    async def _read(self, mirror: Mirror, size: int) -> None:
        for key in range(1, size + 1):
            assert mirror.table.read(key)

    async def _select(self, mirror: Mirror) -> None:
        assert len(mirror.table.select(SPEC)) == 299

    async def _live(self, mirror: Mirror, size: int) -> float:
        write = f'for n <- 1..{size}, do: :mnesia.dirty_write({{:tab, n, "live", 0.5}})'
        start = time.perf_counter()
        await self.a.eval(f"{write}; :ok", timeout=120)
        await mirror.catch_up(None)
        assert mirror.table.read(size) == [(TAB, size, b"live", 0.5)]
        return time.perf_counter() - start

    async def _new_source(self, mirror: Mirror) -> float:
        """From the end of the source until another is, with nothing changed."""
        mirror.attached.clear()
        mirror._peers = lambda: [B]
        start = time.perf_counter()
        self.node.disconnect(A)
        await mirror.attached.wait()
        return time.perf_counter() - start


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """The seconds that `work` takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def measure() -> list[Row]:
    """A row for each kind of work and size."""
    async with Peers() as peers:
        os.environ.update(peers.env)
        a, b = await peers.start_bare(A), await peers.start_bare(B)
        await a.eval(CREATE)
        await b.eval(REPLICATE)
        async with Node(PY, peers.cookie) as node:
            bench = Bench(peers, a, b, node)
            figures = {size: await bench.measure(size) for size in SIZES}
    return [
        Row(f"mirror, {work}, {size:,} rows", "us/row", ours / size * 1e6, beam / size * 1e6)
        for work in figures[SIZES[0]]
        for size in SIZES
        for ours, beam in [figures[size][work]]
    ]


if __name__ == "__main__":
    print_table(asyncio.run(measure()))
