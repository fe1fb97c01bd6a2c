"""The CoreServer: watches the tracker and tells its followers which nodes come and go.

Source: the module Beethoven.CoreServer of Beethoven 0.3.9, as it is documented: followers get the
cast `{:node_update, {node, status}}`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final, Self
from weakref import WeakSet

from pybeethoven.cluster.tracker import (
    CORE_TRACKER,
    OFFLINE,
    ONLINE,
    NodeUpdate,
    TrackerRow,
    last_change,
    record,
    tracker_row,
)
from pybeethoven.errors import UpdatesLost
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.mnesia import WRITE, Change, Mirror
from pybeethoven.otp import From, GenServer, Process
from pybeethoven.otp.gen_server import GEN_CAST
from pybeethoven.otp.node import Target

logger = logging.getLogger(__name__)

NAME: Final = Atom("Elixir.Beethoven.CoreServer")
STANDALONE: Final = Atom("standalone")
CLUSTERED: Final = Atom("clustered")
ALERT_ME: Final = Atom("alert_me")
NODE_UPDATE: Final = Atom("node_update")
GET_MODE: Final = Atom("get_mode")
MIRROR_DETACHED: Final = Atom("mirror_detached")

MAX_UNREAD: Final = 10_000
"""So many updates wait for a reader; with more it gets `UpdatesLost`."""

_ALERTS: Final = {(ONLINE, None), (ONLINE, OFFLINE), (OFFLINE, ONLINE)}


def mnesia_notify(change: Change, own_node: str) -> tuple[Atom, Atom] | None:
    """The alert that a change of the tracker gives: (node, status), or None.

    A status that is not new, a delete and the own node give none. Source: `mnesia_notify/1`.
    """
    if change.operation == WRITE and change.row[1] != own_node:
        _, node, status, _ = change.row
        old_status = change.old_rows[0][2] if change.old_rows else None
        if (status, old_status) in _ALERTS:
            return node, status
    return None


class Updates:
    """The node updates from the moment it was made, for code that is not a process.

    `async for update in core_server.updates()` waits for each. It ends when the CoreServer does,
    and raises `UpdatesLost` behind the last of `MAX_UNREAD` that were not read. A cancelled wait
    loses nothing.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[NodeUpdate | None] = asyncio.Queue()
        self._lost = False

    def put(self, update: NodeUpdate | None) -> None:
        """Add an update; None is the end (called by the CoreServer)."""
        if self._lost:
            return
        if self._queue.qsize() == MAX_UNREAD and update is not None:
            self._lost = True
            update = None
        self._queue.put_nowait(update)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NodeUpdate:
        update = await self._queue.get()
        if update is not None:
            return update
        self._queue.put_nowait(None)
        if self._lost:
            raise UpdatesLost(f"over {MAX_UNREAD} node updates were not read in time")
        raise StopAsyncIteration


class CoreServer(GenServer):
    """The CoreServer of a node, with the tracker in `mirror.table`.

    `via`: the node of the beacon through which this one joined, or None: standalone.
    """

    def __init__(self, via: str | None) -> None:
        self._via = via
        self._mode = STANDALONE if via is None else CLUSTERED
        self._followers: dict[Reference, Target] = {}
        self._updates: WeakSet[Updates] = WeakSet()
        self.mirror = Mirror(
            CORE_TRACKER,
            peers=self._sources,
            on_change=self.deliver,
            on_detached=lambda: self.deliver(MIRROR_DETACHED),
            order=last_change,
        )

    # For everybody

    async def alert_me(self, follower: Process | Pid | str | tuple[str, str]) -> None:
        """Have `(node_update, (node, status))` cast to `follower` whenever another node comes or
        goes.

        `follower`: a process, a pid, a name on this node or (name, node). Registering twice alerts
        once; a follower that ends is forgotten. What happens after this returns is not missed.
        Raises `ConfigError` for what is none of these.
        """
        self.node.cast(self, (ALERT_ME, self.node.watchable(follower)))

    async def get_mode(self) -> Atom:
        """`clustered` or `standalone`: whether a node of the tracker is connected.

        Raises `NoProcess` when the CoreServer has ended.
        """
        mode: Atom = await self.node.call(self, GET_MODE)
        return mode

    async def fetch_all(self) -> list[TrackerRow]:
        """Every node of the tracker, this one too, online or not."""
        return [tracker_row(row) for row in self.mirror.table.rows()]

    def updates(self) -> Updates:
        """The updates from now on, to be read with `async for`."""
        updates = Updates()
        self._updates.add(updates)
        if self.node.process(self.pid) is None:
            updates.put(None)
        return updates

    # For the node

    async def init(self) -> None:
        """Mirror the tracker and connect to each node that it calls online.

        Raises `MirrorError` when the node of the beacon does not offer the tracker.
        """
        self.node.monitor_nodes(self)
        await self.node.start(self.mirror)
        if self.mirror.source is None:
            self.mirror.write_local(record(self.node.name, ONLINE, datetime.now(UTC)))
        for row in await self.fetch_all():
            self._connect_to(row)

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Take a message; a follower that is a bare name is on the node that the cast came from."""
        match message:
            case ("$gen_cast", ("alert_me", str() as name)) if sender is not None:
                message = (GEN_CAST, (ALERT_ME, (Atom(name), sender.node)))
        super().deliver(message, sender)

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Answer `get_mode`; `{error, notsup}` to anything else, so that no caller can end us."""
        if request == GET_MODE:
            return self._mode
        logger.warning("CoreServer got an unknown call from %s", from_[0].node)
        return (Atom("error"), Atom("notsup"))

    async def handle_cast(self, message: Term) -> None:
        """Take `{alert_me, follower}`."""
        match message:
            case ("alert_me", (Pid() | (Atom(), Atom())) as follower):
                if follower not in self._followers.values():
                    self._followers[self.monitor(follower)] = follower
            case _:
                logger.warning("CoreServer got an unknown cast")

    async def handle_info(self, message: Term) -> None:
        """Take what the mirror, the node monitor and the followers' monitors send."""
        match message:
            case Change():
                self._process_change(message)
            case ("DOWN", reference, *_):
                self._followers.pop(reference, None)
            case ("nodedown", _) | "mirror_detached":
                self._mark_lost_nodes()

    async def terminate(self, reason: Term) -> None:
        """End every `updates()`."""
        for updates in self._updates:
            updates.put(None)

    def _sources(self) -> list[str]:
        """The online nodes, those connected first; before the tracker is known, the beacon's."""
        rows = [row for row in self.mirror.table.rows() if row[2] == ONLINE]
        nodes = [row[1] for row in rows if row[1] != self.node.name]
        if not rows and self._via is not None:
            nodes = [self._via]
        return sorted(nodes, key=lambda node: node not in self.node.nodes())

    def _process_change(self, change: Change) -> None:
        if change.operation == WRITE:
            self._connect_to(tracker_row(change.row))
        alert = mnesia_notify(change, self.node.name)
        if alert is None:
            return
        node, status = alert
        self._mode = CLUSTERED if status == ONLINE or self._connected() else STANDALONE
        self._alert_followers(node, status)
        for updates in self._updates:
            updates.put(tracker_row(change.row))

    def _alert_followers(self, node: Atom, status: Atom) -> None:
        for follower in self._followers.values():
            self.node.cast(follower, (NODE_UPDATE, (node, status)))

    def _connect_to(self, row: TrackerRow) -> None:
        if row.status == ONLINE:
            self.node.network.connect_soon(row.node)

    def _connected(self) -> bool:
        nodes = self.node.nodes()
        return any(row[1] in nodes for row in self.mirror.table.rows())

    def _mark_lost_nodes(self) -> None:
        """With no BEAM peer left, nobody else turns a dead node's row offline."""
        if self.mirror.source is not None:
            return
        present = [*self.node.nodes(), self.node.name]
        for row in self.mirror.table.rows():
            if row[2] == ONLINE and row[1] not in present:
                self.mirror.write_local(record(row[1], OFFLINE, datetime.now(UTC)))
