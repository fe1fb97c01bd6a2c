"""The mirror: a process that keeps a table as the BEAM peers' Mnesia has it.

It subscribes to the table on one peer, its source, takes a snapshot, and applies the events, those
that came before the snapshot too, in order on top of it. All that came until then is told as one
difference. A monitor of the peer's `mnesia_subscr` tells of the end of the source; then another
peer becomes it. (The subscription makes a link, too, but Mnesia undoes that before it stops.)

Each subscription has a process of its own, so that nothing of a source that was given up comes
through, and the same peer can be asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from pybeethoven.errors import BeethovenError, CallTimeout, MirrorError, brief
from pybeethoven.etf import Atom, Export, Pid, Reference, Term
from pybeethoven.mnesia.events import WRITE, Change, apply_event, apply_snapshot
from pybeethoven.mnesia.table import Row, Table
from pybeethoven.otp import GenServer, Process
from pybeethoven.otp.process import SHUTDOWN

RETRY_INTERVAL = 1.0
"""Seconds after which the peers are asked again when none of them was able to be the source."""

ANSWER_TIME = 5.0
"""Seconds that a peer has to answer each request before another is asked."""

logger = logging.getLogger(__name__)

SUBSCRIBER: Final = Atom("mnesia_subscr")
DETAILED: Final = Atom("detailed")
READ: Final = Atom("read")
WILDCARD: Final[Term] = [(Atom("_"), [], [Atom("$_")])]
"""The match specification that selects every row."""


class _Word(Enum):
    """What the mirror tells itself; no term from outside equals it."""

    RETRY = "RETRY"


class _Subscriber(Process):
    """Receives the events of one subscription, and keeps them until the snapshot is there."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.early: list[Term] | None = []

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Keep an event or hand it on."""
        if self.early is None:
            self._mirror.deliver(message, sender)
        else:
            self.early.append(message)

    async def run(self) -> None:
        """Live until ended."""
        await asyncio.get_running_loop().create_future()


class Mirror(GenServer):
    """Mirrors the Mnesia table `name`.

    `peers()` gives the nodes that may be the source, the preferred one first. `on_change` is called
    with each change after it is in `table`; `on_detached` when no peer offers the table any more
    (its rows stay, and the peers are asked again each `RETRY_INTERVAL`). `order` is a sort key: the
    order in which differences are told after a change of source. None of them may block.
    """

    def __init__(
        self,
        name: str,
        *,
        peers: Callable[[], Sequence[str]],
        on_change: Callable[[Change], None],
        on_detached: Callable[[], None],
        order: Callable[[Row], Any] | None = None,
    ) -> None:
        self.table = Table(name)
        self.source: str | None = None
        self._peers = peers
        self._on_change = on_change
        self._on_detached = on_detached
        self._order = order
        self._subscriber: _Subscriber | None = None
        self._monitor: Reference | None = None

    async def init(self) -> None:
        """Take the first peer that offers the table, if there are peers at all.

        Raises `MirrorError` when none of them does.
        """
        if self._peers():
            await self._attach()

    async def handle_info(self, message: Term) -> None:
        """Apply an event, or change the source when it has ended."""
        match message:
            case ("DOWN", reference, *_) if reference == self._monitor:
                logger.info("%s: the source %s ended", self.table.name, self.source)
                await self._change_source()
            case _Word.RETRY if self.source is None:
                await self._change_source()
            case _ if (change := apply_event(self.table, message)) is not None:
                self._on_change(change)

    async def terminate(self, reason: Term) -> None:
        """Let the peer drop the subscription."""
        self._give_up()

    def write_local(self, row: Row) -> None:
        """Write a row here alone; the next source's rows replace it."""
        self._on_change(Change(WRITE, row, self.table.write(row)))

    async def _change_source(self) -> None:
        try:
            changes = await self._attach()
        except MirrorError as error:
            logger.debug("%s", error)
            self.source = None
            self._on_detached()
            asyncio.get_running_loop().call_later(RETRY_INTERVAL, self.deliver, _Word.RETRY)
            return
        for change in changes:
            self._on_change(change)

    async def _attach(self) -> list[Change]:
        for peer in self._peers():
            self._give_up()
            try:
                return await self._follow(peer)
            except BeethovenError as error:
                logger.info("%s cannot be the source of %s: %s", peer, self.table.name, error)
        self._give_up()
        raise MirrorError(f"no connected peer offers the table {self.table.name}")

    def _give_up(self) -> None:
        if self._monitor is not None:
            self.demonitor(self._monitor)
        if self._subscriber is not None:
            self.node.end_process(self._subscriber, SHUTDOWN)
        self._monitor = self._subscriber = None

    async def _follow(self, peer: str) -> list[Change]:
        self._subscriber = subscriber = _Subscriber(self)
        self.node.spawn(subscriber)
        self._monitor = self.monitor((SUBSCRIBER, peer))
        what = (Atom("table"), self.table.name, DETAILED)
        subscribe = [subscriber.pid, what]
        answer = await self.node.rpc(peer, SUBSCRIBER, "subscribe", subscribe, ANSWER_TIME)
        if answer != (Atom("ok"), peer):
            raise MirrorError(f"{peer} refused the subscription: {brief(answer)}")
        fresh = Table(self.table.name, await self._snapshot(peer))
        for event in subscriber.early or []:
            apply_event(fresh, event)
        subscriber.early = None
        self.source = peer
        return apply_snapshot(self.table, fresh.rows(), self._order)

    async def _snapshot(self, peer: str) -> list[Row]:
        """All rows, read in a transaction.

        A dirty read may miss a write whose event was sent just before we subscribed: Mnesia tells
        of a write before it does it, but holds the lock until after. Where another node that does
        not answer holds a lock, a dirty read is better than none.
        """
        select = [self.table.name, WILDCARD, READ]
        read = [Export(Atom("mnesia"), Atom("select"), 3), select]
        try:
            answer = await self.node.rpc(peer, "mnesia", "transaction", read, ANSWER_TIME)
        except CallTimeout:
            rows = await self.node.rpc(peer, "mnesia", "dirty_select", select[:2], ANSWER_TIME)
            answer = (Atom("atomic"), rows)
        match answer:
            case ("atomic", list(rows)) if all(type(row) is tuple and len(row) > 1 for row in rows):
                return rows
        raise MirrorError(f"{peer} could not read the table: {brief(answer)}")
