"""The nodes of Python in the model check, each with a follower that remembers what it heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from pybeethoven import Atom, Beethoven, Pid, Process, Term, TrackerRow
from pybeethoven.testing import Cluster
from tests.timing import UNIT

LEAVE_LIMIT = 5 * UNIT
"""Seconds that a node may take to leave, whatever state the others are in."""
JOIN_LIMIT = 30 * UNIT

MOST_HEARD = 100
"""What a follower remembers of what it heard."""

ONLINE, OFFLINE = "online", "offline"
KILL = Atom("kill")

Rows = dict[str, TrackerRow]


class Listener(Process):
    """A follower: it starts from a table, and applies what it hears."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.heard: deque[tuple[str, str]] = deque(maxlen=MOST_HEARD)
        self.repeated: list[tuple[str, str]] = []

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Apply `{node_update, {node, status}}`."""
        match message:
            case (_, (_, (Atom() as node, Atom() as status))):
                if self.known.get(node, OFFLINE) == status:
                    self.repeated.append((node, status))
                self.heard.append((node, status))
                self.known[node] = status

    async def run(self) -> None:
        """Live until ended by a signal."""
        await asyncio.get_running_loop().create_future()

    def online(self) -> set[str]:
        """The nodes that it believes to be there."""
        return {node for node, status in self.known.items() if status == ONLINE}


class Member:
    """A node of Python, which can leave and join again."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.beethoven = Beethoven(**cluster.settings(name))
        self.listener = Listener()
        self.joined = False

    async def join(self) -> None:
        """Join, with a new follower. Raises what `Beethoven.join` does."""
        async with asyncio.timeout(JOIN_LIMIT):
            await self.beethoven.join()
        self.joined = True
        self.listener = Listener()
        self.beethoven.node.spawn(self.listener)
        await self.beethoven.core_server.alert_me(self.listener)
        rows = await self.beethoven.core_server.fetch_all()
        self.listener.known = {row.node: row.status for row in rows}

    async def leave(self) -> None:
        """Leave. Raises `TimeoutError` when that hangs."""
        self.joined = False
        async with asyncio.timeout(LEAVE_LIMIT):
            await self.beethoven.leave()

    def kill_core_server(self) -> None:
        """Let its supervisor start the CoreServer again."""
        self.beethoven.node.exit(self.beethoven.core_server, KILL)

    async def differences(self, table: Rows) -> list[str]:
        """What is not as it has to be beside peers that have this table."""
        if not self.beethoven.ready():
            return [f"{self.name} is not ready"]
        rows = await self._rows()
        found = list(self._against_itself(rows))
        if rows != table:
            found.append(f"{self.name} has {show(rows)}, the peers have {show(table)}")
        if (mode := await self.beethoven.core_server.get_mode()) != "clustered":
            found.append(f"{self.name} is {mode}")
        return found

    async def differences_without(self, peers: set[str]) -> list[str]:
        """What is not as it has to be when all the peers are down."""
        rows = await self._rows()
        found = list(self._against_itself(rows))
        if any(row.status == ONLINE and node in peers for node, row in rows.items()):
            found.append(f"{self.name} has {show(rows)}, and no peer is left")
        return found

    async def _rows(self) -> Rows:
        return {str(row.node): row for row in await self.beethoven.core_server.fetch_all()}

    def _against_itself(self, rows: Rows) -> Iterator[str]:
        online = {n for n, row in rows.items() if row.status == ONLINE} - {self.name}
        if self.listener.online() - {self.name} != online:
            yield f"{self.name}'s follower heard {self.listener.heard}, the table is {show(rows)}"
        if self.listener.repeated:
            yield f"{self.name}'s follower heard {self.listener.repeated[0]} twice in a row"


def show(rows: Rows) -> str:
    """A table for people."""
    cells = (
        f"{node.partition('@')[0]} {row.status} {row.last_change:%S.%f}"
        for node, row in rows.items()
    )
    return "[" + ", ".join(cells) + "]"
