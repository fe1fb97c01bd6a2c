"""`make soak`: peers die every few seconds under thousands of tracker writes, for half an hour.

In the end every mirror is the peers' table, every follower has heard what gives that table, and
each warning was one that is explained here; else the exit status is 1. Memory is printed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from pybeethoven.testing import BeamError, BeamNode, Cluster
from tests.model.members import OFFLINE, ONLINE, Listener
from tests.model.world import NAMES, World

FOLLOWERS: Final = 5
"""So many of Python, and as many of a BEAM that is no member."""
PAUSE: Final = (1.0, 4.0)
"""Seconds between the return of a peer and the death of another."""
BATCH: Final = 20
REPORT_INTERVAL: Final = 60.0
MADE_UP: Final = [f"made_up{number}@127.0.0.1" for number in range(20)]
WATCHER: Final = "w@127.0.0.6"
PY: Final = NAMES["p"]

EXPLAINED: Final = {
    r"^closing the connection to ": "that peer was killed",
    r"did not add this node again": "that peer was killed before it had",
    r"^lost the connection|^no connection to ": "a peer that was killed, or that is made up",
}
"""Which warnings are to be expected, and why."""

WRITE = """
for {node, status} <- [CHANGES] do
  row = {CoreTracker, node, status, DateTime.utc_now()}
  {:atomic, :ok} = :mnesia.transaction(fn -> :mnesia.write(row) end)
end
:ok
"""
FOLLOWER = """
defmodule Follower do
  def loop(known, repeated) do
    receive do
      {:"$gen_cast", {:node_update, {node, status}}} ->
        same = if Map.get(known, node, :offline) == status, do: [{node, status}], else: []
        loop(Map.put(known, node, status), same ++ repeated)
      {:tell, asker} ->
        send(asker, {:told, self(), known, repeated})
        loop(known, repeated)
    end
  end
end
"""
FOLLOW = f"""
followers = for _ <- 1..{FOLLOWERS}, do: spawn(fn -> Follower.loop(KNOWN, []) end)
server = {{Beethoven.CoreServer, :"{PY}"}}
for pid <- followers, do: GenServer.cast(server, {{:alert_me, pid}})
:clustered = GenServer.call(server, :get_mode)
"""
"""When the call is answered, all follow."""
HEARD = """
for pid <- followers do
  send(pid, {:tell, self()})
  receive do {:told, ^pid, known, repeated} -> {known, repeated} end
end
"""


class Warnings(logging.Handler):
    """How often each warning was logged, without the numbers and names in it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.counts[record.getMessage()] += 1

    def unexplained(self) -> list[str]:
        """Those that nobody can explain."""
        return [text for text in self.counts if not any(re.search(r, text) for r in EXPLAINED)]


@dataclass
class Soak:
    """A cluster under stress for `seconds`, in which `writes` changes are made."""

    world: World
    seconds: float
    writes: int
    began: float = field(default_factory=time.monotonic)
    written: int = 0
    deaths: int = 0
    listeners: list[Listener] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether it was long enough, and enough was written."""
        return time.monotonic() - self.began >= self.seconds and self.written >= self.writes

    async def run(self) -> list[str]:
        """What is wrong in the end."""
        await self.world.play([])  # else followers miss what comes while they are made
        watcher = await self.world.cluster.start_bare(WATCHER, flags=["-hidden"])
        await self._follow(watcher)
        tasks = [asyncio.create_task(each) for each in (self._kill(), self._write(), self._tell())]
        try:
            await asyncio.gather(*tasks[:2])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._write_all(OFFLINE)
        await self.world.play([])
        return [text async for text in self._wrong(watcher)]

    async def _follow(self, watcher: BeamNode) -> None:
        core_server = self.world.members["p"].beethoven.core_server
        known = {str(row.node): str(row.status) for row in await core_server.fetch_all()}
        for _ in range(FOLLOWERS):
            listener = Listener()
            listener.known = dict(known)
            core_server.node.spawn(listener)
            await core_server.alert_me(listener)
            self.listeners.append(listener)
        pairs = ", ".join(f':"{node}" => :{status}' for node, status in known.items())
        await watcher.eval(FOLLOWER)
        await watcher.eval(FOLLOW.replace("KNOWN", f"%{{{pairs}}}"))

    async def _kill(self) -> None:
        cluster = self.world.cluster
        while not self.over:
            await asyncio.sleep(random.uniform(*PAUSE))
            node = random.choice(self.world.beams())
            await node.kill()
            self.deaths += 1
            with suppress(BeamError, TimeoutError):
                await cluster.restart(node.name)

    async def _write(self) -> None:
        while not self.over:
            ahead = self.written / self.writes * self.seconds - (time.monotonic() - self.began)
            await asyncio.sleep(max(0.0, ahead))
            changes = [
                (random.choice(MADE_UP), random.choice((ONLINE, OFFLINE))) for _ in range(BATCH)
            ]
            await self._write_some(changes)

    async def _write_some(self, changes: list[tuple[str, str]]) -> None:
        source = WRITE.replace("CHANGES", ", ".join(f'{{:"{n}", :{s}}}' for n, s in changes))
        with suppress(BeamError, TimeoutError):
            await random.choice(self.world.beams()).eval(source, timeout=10)
            self.written += len(changes)

    async def _write_all(self, status: str) -> None:
        before = self.written
        while self.written == before:
            await self._write_some([(node, status) for node in MADE_UP])

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            self.tell()

    def tell(self) -> None:
        """Print how far it is, and how much memory there is."""
        gc.collect()
        minutes = (time.monotonic() - self.began) / 60
        click.echo(
            f"{minutes:5.1f} min: {self.written:,} writes, {self.deaths} deaths; "
            f"{resident():.1f} MB resident, {len(gc.get_objects()):,} objects"
        )

    async def _wrong(self, watcher: BeamNode) -> AsyncIterator[str]:
        rows = await self.world.members["p"].beethoven.core_server.fetch_all()
        table = {str(row.node): str(row.status) for row in rows}
        followers = [("of a BEAM", *told) for told in await watcher.eval(HEARD)]
        followers += [("of Python", each.known, each.repeated) for each in self.listeners]
        for whose, known, repeated in followers:
            if {str(node): str(status) for node, status in known.items()} != table:
                yield f"a follower {whose} believes {known}, the table is {table}"
            if repeated:
                yield f"a follower {whose} heard twice in a row: {repeated}"


def resident() -> float:
    """The memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(minutes: float, writes: int) -> list[str]:
    """What is wrong after it."""
    async with Cluster() as cluster:
        os.environ.update(cluster.env)
        world = World(cluster)
        await world.start()
        run = Soak(world, 60 * minutes, writes)
        run.tell()
        try:
            wrong = await run.run()
        finally:
            run.tell()
            await world.leave()
        return wrong


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--writes", default=50_000, show_default=True)
def main(minutes: float, writes: int) -> None:
    """Run it, and say what was wrong."""
    warnings = Warnings()
    logging.getLogger("pybeethoven").addHandler(warnings)
    wrong = asyncio.run(soak(minutes, writes))
    for text, count in warnings.counts.most_common(20):
        why = next((EXPLAINED[r] for r in EXPLAINED if re.search(r, text)), "UNEXPLAINED")
        click.echo(f"{count} x {text} ({why})")
    wrong += warnings.unexplained()
    for text in wrong:
        click.echo(text, err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
