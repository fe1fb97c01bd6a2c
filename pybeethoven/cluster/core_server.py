"""The CoreServer: watches the tracker and tells its followers which nodes come and go.

Source: the module Beethoven.CoreServer of Beethoven 0.3.9, as it is documented: followers get the
cast `{:node_update, {node, status}}`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Self
from weakref import WeakSet

from pybeethoven.cluster.tracker import (
    CORE_TRACKER,
    OFFLINE,
    ONLINE,
    NodeUpdate,
    TrackerRow,
    is_tracker_row,
    last_change,
    record,
    tracker_row,
)
from pybeethoven.errors import BeethovenError, UpdatesLost, brief
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.mnesia import WRITE, Change, Mirror
from pybeethoven.otp import From, GenServer, Process
from pybeethoven.otp.gen_server import GEN_CAST
from pybeethoven.otp.node import Target
from pybeethoven.otp.process import NOPROC

logger = logging.getLogger(__name__)

NAME: Final = Atom("Elixir.Beethoven.CoreServer")
STANDALONE: Final = Atom("standalone")
CLUSTERED: Final = Atom("clustered")
ALERT_ME: Final = Atom("alert_me")
NODE_UPDATE: Final = Atom("node_update")
GET_MODE: Final = Atom("get_mode")
ADD_NODE: Final = Atom("add_node")
MIRROR_DETACHED: Final = Atom("mirror_detached")

MAX_UNREAD: Final = 10_000
"""So many updates wait for a reader; with more it gets `UpdatesLost`."""

REJOIN_INTERVAL: Final = 1.0
"""Seconds between two requests to a peer to call this node online again."""

_ALERTS: Final = ((ONLINE, None), (ONLINE, OFFLINE), (OFFLINE, ONLINE))


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

    def __init__(self, known: Iterable[TrackerRow] = ()) -> None:
        self._queue: asyncio.Queue[NodeUpdate | None] = asyncio.Queue()
        self._lost = False
        self._known = {row.node: row for row in known}

    def put(self, update: NodeUpdate | None) -> None:
        """Add an update unless it was known; None is the end (called by the CoreServer)."""
        if self._lost or (update is not None and self._known.pop(update.node, None) == update):
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
        self._rejoining: Process | None = None
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
        return self._rows()

    def updates(self) -> Updates:
        """What differs from now on from what `fetch_all` gives now, to be read with `async for`."""
        updates = Updates(self._rows())
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
        self.link(await self.node.start(self.mirror))
        if self.mirror.source is None:
            self.mirror.write_local(record(self.node.name, ONLINE, datetime.now(UTC)))
        for row in self._rows():
            self._process_row(row)

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
            case ("DOWN", Reference() as reference, _, follower, reason):
                if self._followers.pop(reference, None) is not None and reason == NOPROC:
                    logger.warning("the follower %s is not there", brief(follower))
            case ("nodedown", _) | "mirror_detached":
                self._mark_lost_nodes()

    async def terminate(self, reason: Term) -> None:
        """End every `updates()`."""
        for updates in self._updates:
            updates.put(None)

    def _rows(self) -> list[TrackerRow]:
        return [tracker_row(row) for row in self.mirror.table.rows() if is_tracker_row(row)]

    def _others_online(self) -> list[Atom]:
        return [r.node for r in self._rows() if r.status == ONLINE and r.node != self.node.name]

    def _sources(self) -> list[str]:
        """The online nodes, those connected first; before the tracker is known, the beacon's."""
        if not self._rows() and self._via is not None:
            return [self._via]
        connected = self.node.nodes()
        return sorted(self._others_online(), key=lambda node: node not in connected)

    def _process_change(self, change: Change) -> None:
        if change.operation != WRITE or not is_tracker_row(change.row):
            return
        row = tracker_row(change.row)
        self._process_row(row)
        if mnesia_notify(change, self.node.name) is None:
            return
        self._mode = CLUSTERED if row.status == ONLINE or self._connected() else STANDALONE
        self._alert_followers(row.node, row.status)
        for updates in self._updates:
            updates.put(row)

    def _process_row(self, row: TrackerRow) -> None:
        if row.node == self.node.name:
            if row.status == OFFLINE and self._rejoining is None:
                self._rejoining = self.node.spawn(self._rejoin)
        elif row.status == ONLINE:
            self.node.network.connect_soon(row.node)

    async def _rejoin(self, process: Process) -> None:
        """A peer has marked us offline, maybe for an earlier life of ours: have one correct it."""
        while (source := self.mirror.source) is not None and self._is_offline():
            logger.info("asking %s to call this node online again", source)
            try:
                await self.node.call((NAME, source), (ADD_NODE, self.node.name))
            except BeethovenError as error:
                logger.warning("%s did not add this node again: %s", source, error)
            await asyncio.sleep(REJOIN_INTERVAL)
        self._rejoining = None

    def _is_offline(self) -> bool:
        return any(r.node == self.node.name and r.status == OFFLINE for r in self._rows())

    def _alert_followers(self, node: Atom, status: Atom) -> None:
        for follower in self._followers.values():
            self.node.cast(follower, (NODE_UPDATE, (node, status)))

    def _connected(self) -> bool:
        nodes = self.node.nodes()
        return any(row.node in nodes for row in self._rows())

    def _mark_lost_nodes(self) -> None:
        """With no BEAM peer left, nobody else turns a dead node's row offline."""
        if self.mirror.source is None:
            connected = self.node.nodes()
            for node in self._others_online():
                if node not in connected:
                    self.mirror.write_local(record(node, OFFLINE, datetime.now(UTC)))
