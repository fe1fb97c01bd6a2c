"""What code that is not a process reads with `async for`: node updates, and changes of the mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Generic, Self, TypeVar

from pybeethoven.cluster.tracker import NodeUpdate, ServerStatus, TrackerRow
from pybeethoven.errors import BeethovenError, UpdatesLost

T = TypeVar("T")

MAX_UNREAD: Final = 10_000
"""So many updates wait for a reader; with more it gets `UpdatesLost`."""


class Reader(Generic[T]):
    """What comes from the moment it was made, in order, until an end."""

    what = "events"
    """What they are, for an error's text."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T | Exception] = asyncio.Queue()
        self._ended = False

    def put(self, item: T) -> None:
        """Add one (called by the CoreServer)."""
        if self._ended:
            return
        if self._queue.qsize() == MAX_UNREAD:
            self.end(UpdatesLost(f"over {MAX_UNREAD} {self.what} were not read in time"))
        else:
            self._queue.put_nowait(item)

    def end(self, error: BeethovenError | None = None) -> None:
        """Let nothing come any more (called by the CoreServer); `error` is raised then."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(error or StopAsyncIteration())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item = await self._queue.get()
        if not isinstance(item, Exception):
            return item
        self._queue.put_nowait(item)
        raise item


class Updates(Reader[NodeUpdate]):
    """The node updates from the moment it was made, for code that is not a process.

    `async for update in core_server.updates()` waits for each. It ends when the node leaves. It
    raises `UpdatesLost` behind the last of `MAX_UNREAD` that were not read, and `NoProcess` when
    the CoreServer has ended for good. A cancelled wait loses nothing.
    """

    what = "node updates"

    def __init__(self, known: Iterable[TrackerRow] = ()) -> None:
        super().__init__()
        self._known = {row.node: row for row in known}

    def put(self, item: NodeUpdate) -> None:
        """Add an update unless it was known (called by the CoreServer)."""
        if self._known.pop(item.node, None) != item:
            super().put(item)


class Modes(Reader[ServerStatus]):
    """Each change of the mode from the moment it was made: `clustered` or `standalone`.

    `async for mode in beethoven.modes()` waits for each. Ends and errors are those of `Updates`.
    """

    what = "changes of the mode"
