"""The tracker of a cluster without a BEAM, which its Python nodes keep among themselves.

Each of them has all of it, mirrors that of every other one, and takes over the rows that are newer
there (see `is_newer`). So what one of them writes reaches all, in whatever order and by whichever
way it comes, and all end with the same table. Nobody leads, but where one has to decide for all,
the first of them in the order of their names does.

As soon as a BEAM offers the tracker, that one leads, and nothing is taken from anybody else.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Final

from pybeethoven.cluster.clock import ClusterClock
from pybeethoven.cluster.tracker import (
    CORE_TRACKER,
    OFFLINE,
    ONLINE,
    is_newer,
    is_tracker_row,
    last_change,
    record,
)
from pybeethoven.errors import ConfigError, NoConnection
from pybeethoven.etf import Atom
from pybeethoven.mnesia import WRITE, Change, Mirror, Row, Table
from pybeethoven.otp import Node, Process
from pybeethoven.otp.process import NORMAL

LOST_PAUSE: Final = (0.002, 0.020)
"""Seconds that a survivor waits before it marks a lost node offline, in case another one does:
a random time in this range, as in Beethoven."""
MAX_CHECKS: Final = 64
"""Maximum number of nodes that are dialled at once to check whether they can be reached. Above
`Limits.dials`, dials fail at once, and nodes would be marked offline that can be reached."""


class Sharing:
    """Shares the tracker in `tracker.table` as long as that has no source.

    `changed` is called when a link to another node has come up or gone down, by any process.
    """

    def __init__(self, tracker: Mirror, clock: ClusterClock, changed: Callable[[], None]) -> None:
        self._tracker = tracker
        self._clock = clock
        self._changed = changed
        self._links: dict[str, Mirror] = {}
        """Each mirrors the tracker of a node."""
        self._met: set[str] = set()
        """Those whose link is up."""
        self._checked: set[str] = set()
        """The nodes that are being checked, or wait for it."""
        self._unchecked: deque[str] = deque()
        """The nodes that wait to be checked."""
        self._checkers: list[Process] = []

    @property
    def node(self) -> Node:
        """The node whose tracker it is."""
        return self._tracker.node

    @property
    def linked(self) -> set[str]:
        """The nodes that share with us."""
        return set(self._met)

    @property
    def first(self) -> str:
        """The node that decides for all that share."""
        return min(self.linked | {self.node.name})

    @property
    def online_at_first(self) -> list[str]:
        """The nodes that the first one has online, unless we are that."""
        link = self._links.get(self.first)
        rows = link.table.rows() if link is not None else []
        return [row[1] for row in rows if is_tracker_row(row) and row[2] == ONLINE]

    def lost(self, peer: str) -> None:
        """The connection to a node was lost. The link may come up again by itself, but what has
        changed there meanwhile is no news as it comes: see `_meet`."""
        self._met.discard(peer)

    def begin(self) -> None:
        """Forget the links of an earlier run of the process that has called `share_with`, and the
        nodes that wait to be checked."""
        self._links.clear()
        self._met.clear()
        self._checked.difference_update(self._unchecked)
        self._unchecked.clear()

    def share_with(self, known: Set[str], reached: Set[str]) -> None:
        """Have links to the nodes of `reached`, keep those to nodes of `known`, and end all others;
        called by the process that owns them all."""
        for peer in self._links.keys() - known - reached:
            self.node.end_process(self._links.pop(peer), NORMAL)
            self._met.discard(peer)
        for peer in reached - self._links.keys():
            self._links[peer] = link = self._link(peer)
            self.node.spawn(link, link=True)

    def write(self, name: str, status: Atom) -> None:
        """Say so of a node from now on."""
        self._tracker.write_local(record(name, status, self._clock.now()))

    def check(self, name: str) -> None:
        """Mark an online node offline if it can't be reached. A BEAM does so itself."""
        if name in self._checked:
            return
        self._checked.add(name)
        self._unchecked.append(name)
        self._checkers = [checker for checker in self._checkers if checker.alive]
        if len(self._checkers) < MAX_CHECKS:
            self._checkers.append(self.node.spawn(self._check_all))

    async def check_lost(self, process: Process, name: str) -> None:
        """Mark an online node whose connection was lost offline, unless it is back soon."""
        self._checked.add(name)  # it may be there already, and wait for long
        await self._check(name, lost=True)

    async def _check_all(self, process: Process) -> None:
        while self._unchecked:
            await self._check(self._unchecked.popleft(), lost=False)

    async def _check(self, name: str, lost: bool) -> None:
        try:
            if lost:
                await asyncio.sleep(random.uniform(*LOST_PAUSE))
            elif self.status(name) == ONLINE:
                with suppress(NoConnection, ConfigError):  # no name of a node that we could reach
                    await self.node.connect(name)
            await self._tracker.settle()
            connected = self.node.network.is_connected(name)
            if not connected and self.status(name) == ONLINE and self._shares:
                self.write(name, OFFLINE)
        finally:
            self._checked.discard(name)

    def status(self, name: str) -> Atom | None:
        """What the tracker says of a node; None if nothing."""
        return next((r[2] for r in self._tracker.table.read(Atom(name)) if is_tracker_row(r)), None)

    @property
    def _shares(self) -> bool:
        return self._tracker.source is None

    def _link(self, peer: str) -> Mirror:
        return Mirror(
            Table(CORE_TRACKER, type="ordered_set"),
            peers=lambda: [peer],
            on_change=lambda change: self._process_change(peer, change),
            on_attached=lambda: self._meet(peer),
            on_detached=lambda: self._part(peer),
            required=False,
            mnesia="no",
        )

    def _process_change(self, peer: str, change: Change) -> None:
        if peer in self._met and change.operation == WRITE:
            self._take(change.row)

    def _take(self, row: Row) -> None:
        if self._shares and self._is_news(row):
            self._clock.hear(last_change(row))
            self._tracker.write_local(row)
        elif row[1:3] == (self.node.name, OFFLINE) and self.status(row[1]) == ONLINE:
            self.write(row[1], ONLINE)  # it is offline there, since a time that does not count
        elif is_tracker_row(row) and row[2] == ONLINE and self.status(row[1]) == OFFLINE:
            # It may be back for us, too. A BEAM that leads where this was said has older rows.
            self.node.network.connect_soon(row[1])

    def _is_news(self, row: Row) -> bool:
        if not is_tracker_row(row):
            return False
        ours = self._tracker.table.read(row[1])
        return not ours or not is_tracker_row(ours[0]) or is_newer(row, ours[0])

    def _meet(self, peer: str) -> None:
        """A link has come up: take over what is newer there. But we, and those that share with us,
        are online, whatever was thought here or there while somebody could not be reached."""
        if self._shares and peer in self._links:
            self._met.add(peer)
            here = self.linked | {self.node.name}
            wrong = {name for name in here if self.status(name) == OFFLINE}
            for row in self._links[peer].table.rows():
                if self._is_news(row) and row[1] in here and row[2] == OFFLINE:
                    self._clock.hear(last_change(row))
                    wrong.add(row[1])
                else:
                    self._take(row)
            for name in wrong:
                self.write(name, ONLINE)
        self._changed()

    def _part(self, peer: str) -> None:
        self._met.discard(peer)
        self._changed()
