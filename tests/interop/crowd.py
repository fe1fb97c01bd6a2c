"""Nodes of Python and of BEAMs in one cluster, each with followers, and what they must agree on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from pybeethoven import Atom, Beethoven, Node, Pid, Term, Updates
from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.cluster.tracker import CORE_TRACKER, to_datetime
from pybeethoven.mnesia import Row
from pybeethoven.mnesia.mirror import WILDCARD
from pybeethoven.testing import BeamNode, Peers
from tests.command_line import next_event, options, running
from tests.helpers import LIMIT, Recorder, soon
from tests.interop.members import ONLINE
from tests.timing import UNIT

QUIET: Final = 0.1 * UNIT
"""What is told without need, as that a node has gone and is back, would come within this time."""

Change = tuple[str, str]
"""A node and its status."""

_FOLLOW: Final = """
_handled = :sys.get_state(Beethoven.CoreServer)
Beethoven.CoreServer.alert_me(ControlShell.collect(:heard))
{_mode, [_ | _]} = :sys.get_state(Beethoven.CoreServer)
:ok
"""
_ROWS: Final = """
{:atomic, rows} = :mnesia.transaction(fn -> :mnesia.select(CoreTracker, [{:_, [], [:"$_"]}]) end)
rows
"""


class Ear:
    """What a follower has heard."""

    def __init__(self) -> None:
        self.heard: list[Change] = []
        self._more = asyncio.Event()

    def put(self, node: str, status: str) -> None:
        """It has heard this."""
        self.heard.append((str(node), str(status)))
        self._more.set()

    async def until(self, count: int) -> None:
        """Wait until it has heard `count` changes in all."""
        while len(self.heard) < count:
            self._more.clear()
            await self._more.wait()

    def of(self, node: str) -> list[str]:
        """What it has heard of a node."""
        return [status for name, status in self.heard if name == node]


class _Follower(Recorder):
    """A process that is alerted."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self._ear = ear

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Take `{node_update, {node, status}}`."""
        _, (_, change) = message
        self._ear.put(*change)


class Witness:
    """A node that is up, and those who follow there from then on. `process`: its own, if any.

    `known`: the nodes that were online there before they began, and when they had begun.
    """

    def __init__(
        self,
        name: str,
        ears: list[Ear],
        rows: Callable[[], Awaitable[list[Row]]],
        mode: Callable[[], Awaitable[Term]],
        end: Callable[[], Awaitable[None]],
        process: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.name = name
        self.ears = ears
        self.rows = rows
        self.mode = mode
        self.end = end
        self.process = process
        self.log = ""
        """What a process of its own has said, when it has ended."""
        self.known: tuple[set[str], set[str]] = (set(), set())

    async def hears_last(self, node: str, status: str) -> None:
        """Wait until the last that each follower has heard of a node is this."""
        for ear in self.ears:
            while ear.of(node)[-1:] != [status]:
                async with asyncio.timeout(3 * LIMIT):  # a cut-off node is dialled every 7 seconds
                    await ear.until(len(ear.heard) + 1)

    async def hears(self, *changes: Change) -> None:
        """Wait until each follower has heard these changes, those of one node in this order, and no
        others."""
        for ear in self.ears:
            with suppress(TimeoutError):  # then what it has heard is shown
                await soon(ear.until(len(changes)))
            assert _by_node(ear.heard) == _by_node(changes), f"{self.name} heard {ear.heard}"

    def heard_once(self, others: set[str]) -> None:
        """Each follower must have heard once that each of the `others` is online that was not known
        before, and nothing else."""
        before, begun = (known - {self.name} for known in self.known)
        for ear in self.ears:
            told = [node for node, status in ear.heard if status == ONLINE]
            said = f"{self.name}, which knew {before}, heard {ear.heard}"
            assert len(told) == len(ear.heard) == len({*told}), said
            assert others - begun <= {*told} <= others - before, said


class Crowd:
    """The nodes of a test, by name: `p...` is of Python, in this process, others are BEAMs.

    Those that are of Python leave when the block is left. `follow_beams`: whether somebody follows
    on a BEAM, too; a real Beethoven 0.3.9 crashes when it has something to tell a follower.
    """

    def __init__(
        self, cluster: Peers, member: Callable[..., Beethoven], *, follow_beams: bool = True
    ) -> None:
        self.cluster = cluster
        self._follow_beams = follow_beams
        self.witnesses: dict[str, Witness] = {}
        self.pythons: dict[str, Beethoven] = {}
        self.beams: dict[str, BeamNode] = {}
        self._member = member
        self._asker: Node | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, name: str, **settings: Any) -> Witness:
        """Start a node, and follow there as soon as it is up."""
        start = self._start_python if name.startswith("p") else self._start_beam
        witness = self.witnesses[name] = await start(name, **settings)
        return witness

    async def start_child(self, name: str, *args: str) -> tuple[Witness, dict[str, Any]]:
        """Start a Python node in a process of its own, which `end` kills; and what it said first.

        Another node asks it for its table, of which the cluster does not know.
        """
        command = running(*options(self.cluster, name), "--json", *args)
        process = await self._stack.enter_async_context(command)
        first = await next_event(process)
        asker = await self._asker_node()
        ear = Ear()

        async def rows() -> list[Row]:
            args: list[Term] = [CORE_TRACKER, WILDCARD]
            answer: list[Row] = await asker.rpc(name, "mnesia", "dirty_select", args)
            return answer

        async def mode() -> Term:
            return await asker.call((CORE_SERVER, name), Atom("get_mode"))

        async def end() -> None:
            process.kill()
            assert process.stderr is not None
            witness.log = (await process.stderr.read()).decode()
            await process.wait()
            del self.witnesses[name]

        self._read(_read_child(process, ear))
        witness = self.witnesses[name] = Witness(name, [ear], rows, mode, end, process)
        return witness, first

    async def _asker_node(self) -> Node:
        if self._asker is None:
            node = Node("asker@127.0.0.1", self.cluster.cookie)
            self._asker = await self._stack.enter_async_context(node)
        return self._asker

    async def agree(self, online: set[str]) -> list[Row]:
        """Wait until all nodes have the same table, in all columns, with these online; gives it."""
        tables: dict[str, list[Row]] = {}
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    tables = {name: await w.rows() for name, w in self.witnesses.items()}
                    first, *others = tables.values()
                    if online_in(first) == online and all(table == first for table in others):
                        return first
        except TimeoutError:
            raise AssertionError(f"they do not agree:\n{_show(tables)}") from None

    async def one_cluster(self) -> None:
        """Wait until all nodes have the same table, in which they and no others are online, and see
        that it stays so; then all are clustered, and the Mnesia of the BEAMs is one."""
        names = set(self.witnesses)
        await self.agree(names)
        await asyncio.sleep(QUIET)
        await self.agree(names)
        for witness in self.witnesses.values():
            assert await witness.mode() == "clustered", witness.name
        for beam in self.running_beams():
            nodes = await beam.eval(":mnesia.system_info(:running_db_nodes)")
            assert set(nodes) == {beam.name for beam in self.running_beams()}

    def heard_once(self) -> None:
        """See `Witness.heard_once`, of all."""
        for name, witness in self.witnesses.items():
            witness.heard_once({*self.witnesses} - {name})

    def running_beams(self) -> list[BeamNode]:
        """The BEAMs that are up."""
        return [beam for name, beam in self.beams.items() if name in self.witnesses]

    async def _start_python(self, name: str, **settings: Any) -> Witness:
        py = self.pythons[name] = self._member(name, **settings)
        await self._stack.enter_async_context(py)
        core, process_ear, updates_ear = py.core_server, Ear(), Ear()
        before = online_in(core.mirror.table.rows())
        await core.get_mode()  # what was told until now has been heard
        follower = _Follower(process_ear)
        py.node.spawn(follower)
        await core.alert_me(follower)
        self._read(_read_updates(core.updates(), updates_ear))

        async def rows() -> list[Row]:
            await core.get_mode()
            return core.mirror.table.rows()

        async def end() -> None:
            await py.leave()
            del self.witnesses[name]

        witness = Witness(name, [process_ear, updates_ear], rows, core.get_mode, end)
        witness.known = before, online_in(core.mirror.table.rows())
        return witness

    async def _start_beam(self, name: str, **settings: Any) -> Witness:
        return await self.watch_beam(await self.cluster.start(name, **settings))

    async def watch_beam(self, beam: BeamNode) -> Witness:
        """Follow on a BEAM that is up."""
        name = beam.name
        self.beams[name] = beam
        before = online_in(await beam.eval(_ROWS))
        ears = [Ear()] if self._follow_beams else []
        for ear in ears:
            await beam.eval(_FOLLOW)
            self._read(_read_beam(beam, ear))

        async def rows() -> list[Row]:
            answer: list[Row] = await beam.eval(_ROWS)
            return answer

        async def mode() -> Term:
            return await beam.eval("Beethoven.CoreServer.get_mode()")

        async def end() -> None:
            await beam.kill()
            del self.witnesses[name]

        witness = Witness(name, ears, rows, mode, end)
        witness.known = before, online_in(await rows())
        self.witnesses[name] = witness
        return witness

    def _read(self, reading: Any) -> None:
        task = asyncio.create_task(reading)
        self._stack.push_async_callback(asyncio.gather, task, return_exceptions=True)
        self._stack.callback(task.cancel)


async def _read_updates(updates: Updates, ear: Ear) -> None:
    async for update in updates:
        ear.put(update.node, update.status)


async def _read_beam(beam: BeamNode, ear: Ear) -> None:
    while True:
        _, (_, (_, change)) = await beam.next_event("heard", timeout=None)
        ear.put(*change)


async def _read_child(process: asyncio.subprocess.Process, ear: Ear) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "node_update":
            ear.put(event["node"], event["status"])


def online_in(rows: Iterable[Row]) -> set[str]:
    """The nodes that a table has online."""
    return {str(row[1]) for row in rows if row[2] == ONLINE}


def _by_node(changes: Iterable[Change]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, status in changes:
        found.setdefault(node, []).append(status)
    return found


def _show(tables: dict[str, list[Row]]) -> str:
    lines = []
    for name, rows in tables.items():
        shown = [f"{row[1]} {row[2]} {to_datetime(row[3]):%H:%M:%S.%f}" for row in rows]
        lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines)
