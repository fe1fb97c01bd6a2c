"""What can be seen of a node's connections: how they are, and what happens to them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self, TypeAlias
from weakref import WeakSet

from pybeethoven.distribution.flags import Flag
from pybeethoven.errors import UpdatesLost
from pybeethoven.net.connection import Connection

logger = logging.getLogger(__name__)

MAX_UNREAD: Final = 10_000
"""So many `up` and `down` events wait for a reader; with more it gets `UpdatesLost`. So many
`refused` events wait besides; with more these are dropped, for strangers cause them."""

EventKind: TypeAlias = Literal["up", "down", "refused"]
_TEXTS: Final[dict[EventKind, str]] = {
    "up": "connected to %s",
    "down": "disconnected from %s: %s",
    "refused": "no connection to %s: %s",
}


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A connection that is up.

    `since`: when it came up. `last_heard`: when bytes came last. Messages don't include ticks,
    bytes do. `unsent`: bytes that wait for the peer to take them.
    """

    peer: str
    flags: Flag
    hidden: bool
    since: datetime
    last_heard: datetime
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    unsent: int


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node and its connections. `creation` is None before it has started.

    `dialling`: the nodes that it is connecting to. `handshakes`: how many connections of others
    have not completed theirs.
    """

    name: str
    creation: int | None
    hidden: bool
    connections: list[ConnectionInfo]
    dialling: list[str]
    handshakes: int


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A connection came up, went down, or was not made, by whatever side it was refused.

    `peer` is None when a stranger has not given a name; one that was refused may have lied about
    it. `reason` is None for `up`.
    """

    kind: EventKind
    peer: str | None
    reason: str | None
    time: datetime


class ConnectionEvents:
    """The events from the moment it was made: `async for event in node.connection_events()`.

    It ends when the node stops, and raises `UpdatesLost` behind the last of `MAX_UNREAD` that were
    not read; of `refused` events, those that are one too many are left out. A cancelled wait loses
    nothing.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[ConnectionEvent | None] = asyncio.Queue()
        self._refused = 0
        self._lost = False

    def put(self, event: ConnectionEvent | None) -> None:
        """Add an event; None is the end (called by the node)."""
        if self._lost:
            return
        if event is not None and event.kind == "refused":
            if self._refused == MAX_UNREAD:
                return
            self._refused += 1
        elif event is not None and self._queue.qsize() - self._refused == MAX_UNREAD:
            self._lost = True
            event = None
        self._queue.put_nowait(event)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConnectionEvent:
        event = await self._queue.get()
        if event is not None:
            self._refused -= event.kind == "refused"
            return event
        self._queue.put_nowait(None)
        if self._lost:
            raise UpdatesLost(f"over {MAX_UNREAD} connection events were not read in time")
        raise StopAsyncIteration


class Announcer:
    """Tells those who read the events, and the log, what happens to connections."""

    def __init__(self) -> None:
        self._readers: WeakSet[ConnectionEvents] = WeakSet()

    def events(self) -> ConnectionEvents:
        """A new reader."""
        reader = ConnectionEvents()
        self._readers.add(reader)
        return reader

    def announce(
        self, kind: EventKind, peer: str | None, reason: object = None, level: int = logging.INFO
    ) -> None:
        """Something happened, which is logged at `level`."""
        text = None if reason is None else str(reason)
        fields = {"peer": peer, "reason": text}
        args = (peer,) if text is None else (peer or "an unnamed node", text)
        logger.log(level, _TEXTS[kind], *args, extra=fields)
        for reader in list(self._readers):
            reader.put(ConnectionEvent(kind, peer, text, datetime.now(UTC)))

    def end(self) -> None:
        """The node has stopped."""
        for reader in list(self._readers):
            reader.put(None)
        self._readers.clear()


def describe(connection: Connection) -> ConnectionInfo:
    """How a connection is that is up."""
    assert connection.peer is not None
    silence = asyncio.get_running_loop().time() - connection.last_heard
    return ConnectionInfo(
        peer=connection.peer.name,
        flags=connection.flags,
        hidden=not connection.peer.flags & Flag.PUBLISHED,
        since=connection.since,
        last_heard=datetime.now(UTC) - timedelta(seconds=silence),
        bytes_in=connection.bytes_in,
        bytes_out=connection.writer.bytes_out,
        messages_in=connection.messages_in,
        messages_out=connection.writer.messages_out,
        unsent=connection.writer.unsent,
    )
