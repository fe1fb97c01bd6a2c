"""Three BEAM nodes and two of Python, to which steps happen, and what has to hold afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from typing import NamedTuple

from pybeethoven.cluster.tracker import tracker_rows
from pybeethoven.testing import BeamError, BeamNode, Cluster
from tests.model.members import ONLINE, Member, Rows, show
from tests.model.steps import BEAMS, DELAY, NODES, PYTHONS, Round, Step
from tests.timing import UNIT

QUIET_LIMIT = 45 * UNIT
"""Seconds after the last fault in which all has to be well again."""
OPERATOR_LIMIT = 90 * UNIT
"""Seconds in which BEAM nodes that were split have to be one cluster again, by restarts."""
ANSWER_LIMIT = 5 * UNIT
LOOK = 0.1 * UNIT

NAMES = {letter: f"{letter}@127.0.0.{number}" for number, letter in enumerate(NODES, 1)}


class View(NamedTuple):
    """Whom a BEAM's Mnesia runs with, and what it has: after a split two that run with each other
    can have different tables, of which Mnesia merges nothing."""

    runs: tuple[str, ...]
    table: int


Views = dict[str, View | None]
"""Of each BEAM; None: not all is there that Beethoven runs."""

ROWS = ":mnesia.dirty_match_object(CoreTracker, {CoreTracker, :_, :_, :_})"
KILL_CORE = "(pid = Process.whereis(Beethoven.CoreServer)) && Process.exit(pid, :kill)"
VIEW = """
servers = [CoreServer, Allocator, RoleMgmt.Assign, BeaconServer]
whole = Enum.all?(servers, &Process.whereis(Module.concat(Beethoven, &1))) and
  Enum.all?([CoreTracker, RoleTracker, AllocTracker],
    &(:mnesia.system_info(:is_running) == :yes and &1 in :mnesia.system_info(:tables) and
      :mnesia.table_info(&1, :where_to_read) == node()))
if whole do
  rows = :mnesia.dirty_match_object(CoreTracker, {CoreTracker, :_, :_, :_})
  {Enum.sort(:mnesia.system_info(:running_db_nodes)), :erlang.phash2(rows)}
else
  {[], 0}
end
"""


def outsiders_of(views: Views) -> list[str]:
    """Who does not see what most see, the first of equally many."""
    seen = Counter(view for view in views.values() if view)
    most = max(seen, key=seen.__getitem__) if seen else None
    return [name for name, view in views.items() if view is None or view != most]


class World:
    """The cluster, and what is wanted of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.members = {letter: Member(cluster, NAMES[letter]) for letter in PYTHONS}
        self.slowest = 0.0
        """Seconds that it took at most until all was well again."""
        self._began = time.monotonic()
        self._without_mnesia: set[str] = set()
        self._epmd = True

    async def start(self) -> None:
        """Have all nodes in the cluster."""
        for letter in BEAMS:
            await self.cluster.start(NAMES[letter])
        for member in self.members.values():
            await member.join()

    async def leave(self) -> None:
        """Have the nodes of Python leave. Raises `TimeoutError` when one hangs."""
        for member in self.members.values():
            await member.leave()

    def beams(self) -> list[BeamNode]:
        """The members that run."""
        names = [NAMES[letter] for letter in BEAMS]
        return [node for node in self.cluster.nodes.values() if node.running and node.name in names]

    def _tell(self, text: str) -> None:
        """Print what happens: pytest shows it when the test fails."""
        print(f"{time.monotonic() - self._began:7.2f} s  {text}")

    # What happens

    async def play(self, steps: Round) -> None:
        """Let a round of steps happen, mend all, and see that it is well again.

        Raises `AssertionError` when it is not, `TimeoutError` for what hangs.
        """
        for step in steps:
            self._tell(" ".join(step))
            await self._take(step)
        self._tell("mend")
        await self._mend()
        await self._until_well()

    async def _take(self, step: Step) -> None:
        match step:
            case ("wait", ticks):
                await asyncio.sleep(float(ticks) * self.cluster.net_ticktime)
            case ("epmd",):
                self._epmd = False
                await self.cluster.kill_epmd()
            case ("heal",):
                self.cluster.heal()
            case (("cut" | "slow") as kind, one, other):
                self._between(kind, NAMES[one], NAMES[other])
            case ("isolate", letter):
                self.cluster.isolate(NAMES[letter])
            case (kind, letter) if letter in PYTHONS:
                await self._to_python(kind, self.members[letter])
            case (kind, letter):
                await self._to_beam(kind, NAMES[letter])

    def _between(self, kind: str, one: str, other: str) -> None:
        if kind == "cut":
            self.cluster.cut(one, other)
        else:
            self.cluster.slow(one, other, DELAY * self.cluster.net_ticktime)

    async def _to_python(self, kind: str, member: Member) -> None:
        match kind:
            case "leave":
                await member.leave()
            case "join":
                await member.join()
            case "core":
                member.kill_core_server()

    async def _to_beam(self, kind: str, name: str) -> None:
        node = self.cluster.nodes[name]
        match kind:
            case "kill":
                await node.kill()
            case "stop":
                await node.stop(timeout=ANSWER_LIMIT)
            case "start":
                await self.cluster.restart(name)
            case "freeze":
                node.freeze()
            case "thaw":
                node.thaw()
            case "core":
                await node.eval(KILL_CORE)
            case "mnesia":
                self._without_mnesia.add(name)
                await self.cluster.stop_mnesia(name)

    # What people then do

    async def _mend(self) -> None:
        self.cluster.heal()
        for node in self.beams():
            node.thaw()
        if not self._epmd:
            self._epmd = True
            await self.cluster.start_epmd()
            await self._registered()
        for node in self.beams():
            if node.name in self._without_mnesia:
                await self._try(self.cluster.start_mnesia(node.name))
        self._without_mnesia.clear()

    async def _registered(self) -> None:
        """Wait until EPMD has all names again."""
        names = [node.name for node in self.beams()]
        names += [member.name for member in self.members.values() if member.joined]
        for node in self.beams()[:1]:
            wanted = ", ".join(f'~c"{name.partition("@")[0]}"' for name in names)
            known = "{:ok, names} = :net_adm.names({127, 0, 0, 1})"
            missing = f"[{wanted}] -- Enum.map(names, &elem(&1, 0))"
            await self.cluster.until(node, f"({known}; {missing} == [])")

    async def _operate(self) -> bool:
        """Restart what Mnesia has left outside, until all BEAM nodes are one cluster; say whether
        there was anything to do."""
        done = False
        async with asyncio.timeout(OPERATOR_LIMIT):
            while outsiders := await self._lasting_outsiders():
                done = True
                for name in outsiders:
                    await self.cluster.nodes[name].kill()
                for name in outsiders:
                    await self._try(self.cluster.restart(name))
        return done

    async def _lasting_outsiders(self) -> list[str]:
        """Who is left outside, if that stays so."""
        views: Views = {}
        while True:
            before, views = views, {node.name: await self._view(node) for node in self.beams()}
            if not (outsiders := outsiders_of(views)):
                return []
            if views == before:
                self._tell(f"not one cluster: {views}")
                return outsiders
            await asyncio.sleep(self.cluster.net_ticktime / 4)

    async def _try(self, start: Awaitable[object]) -> None:
        """What failed is found out by looking, and done again."""
        try:
            await start
        except (BeamError, TimeoutError) as error:
            self._tell(f"{error!r:.1000}")

    async def _view(self, node: BeamNode) -> View | None:
        try:
            runs, table = await node.eval(VIEW, timeout=ANSWER_LIMIT)
        except (BeamError, TimeoutError):
            return None
        return View(tuple(map(str, runs)), table) if runs else None

    # What has to hold

    async def _until_well(self) -> None:
        await self._operate()
        began, well = time.monotonic(), None
        while well is None or time.monotonic() - well < self.cluster.net_ticktime / 2:
            if differences := await self._differences():
                well = None
                if await self._operate():
                    began = time.monotonic()
                waited = time.monotonic() - began
                assert waited < QUIET_LIMIT, "\n".join([f"after {waited:.1f} s:", *differences])
            elif well is None:
                well = time.monotonic()
                self.slowest = max(self.slowest, well - began)
                self._tell("well")
            await asyncio.sleep(LOOK)

    async def _differences(self) -> list[str]:
        joined = [member for member in self.members.values() if member.joined]
        beams = self.beams()
        if not beams:
            names = {NAMES[letter] for letter in BEAMS}
            return [text for m in joined for text in await m.differences_without(names)]
        try:
            tables = {node.name: await self._table(node) for node in beams}
        except (BeamError, TimeoutError) as error:
            return [str(error)]
        table = tables[beams[0].name]
        found = [f"{name} has {show(rows)}" for name, rows in tables.items() if rows != table]
        online = {node for node, row in table.items() if row.status == ONLINE}
        if online != {member.name for member in joined} | {node.name for node in beams}:
            found.append(f"the peers have {show(table)}")
        return found + [text for m in joined for text in await m.differences(table)]

    async def _table(self, node: BeamNode) -> Rows:
        rows = await node.eval(ROWS, timeout=ANSWER_LIMIT)
        return {str(row.node): row for row in tracker_rows(rows)}
