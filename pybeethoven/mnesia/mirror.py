"""The mirror: a process that keeps a table as the BEAM peers' Mnesia has it.

It subscribes to the table on one peer, its source, takes a snapshot, and applies the events, those
that came before the snapshot too, in order on top of it. All that came until then is told as one
difference. A monitor of the peer's `mnesia_subscr` tells of the end of the source; then another
peer becomes it. (The subscription makes a link, too, but Mnesia undoes that before it stops.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from pybeethoven.errors import BeethovenError, MirrorError
from pybeethoven.etf import Atom, Export, Pid, Reference, Term
from pybeethoven.mnesia.events import WRITE, Change, apply_event, apply_snapshot
from pybeethoven.mnesia.table import Row, Table
from pybeethoven.otp import GenServer

logger = logging.getLogger(__name__)

SUBSCRIBER: Final = Atom("mnesia_subscr")
DETAILED: Final = Atom("detailed")
READ: Final = Atom("read")
WILDCARD: Final[Term] = [(Atom("_"), [], [Atom("$_")])]
"""The match specification that selects every row."""


class Mirror(GenServer):
    """Mirrors the Mnesia table `name`.

    `peers()` gives the nodes that may be the source, the preferred one first. `on_change` is called
    with each change after it is in `table`; `on_detached` when no peer offers the table any more
    (its rows stay). `order` is a sort key: the order in which differences are told after a change
    of source. None of them may block.
    """

    trap_exit = True

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
        self._subscription: Reference | None = None
        self._followed: str | None = None

    async def init(self) -> None:
        """Take the first peer that offers the table, if there are peers at all.

        Raises `MirrorError` when none of them does.
        """
        if self._peers():
            await self._attach()

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Take a message, but not the events of a node that was given up as the source."""
        if sender is None or sender.node in (self._followed, self.node.name):
            super().deliver(message, sender)

    async def handle_info(self, message: Term) -> None:
        """Apply an event, or change the source when it has ended."""
        match message:
            case ("DOWN", reference, *_) if reference == self._subscription:
                logger.info("%s: the source %s ended", self.table.name, self.source)
                await self._change_source()
            case _ if (change := apply_event(self.table, message)) is not None:
                self._on_change(change)

    def write_local(self, row: Row) -> None:
        """Write a row here alone; the next source's rows replace it."""
        self._on_change(Change(WRITE, row, self.table.write(row)))

    async def _change_source(self) -> None:
        try:
            changes = await self._attach()
        except MirrorError as error:
            logger.info("%s", error)
            self.source = None
            self._on_detached()
            return
        for change in changes:
            self._on_change(change)

    async def _attach(self) -> list[Change]:
        for peer in self._peers():
            try:
                return await self._follow(peer)
            except BeethovenError as error:
                logger.info("%s cannot be the source of %s: %s", peer, self.table.name, error)
                self._unmonitor()
        raise MirrorError(f"no connected peer offers the table {self.table.name}")

    def _unmonitor(self) -> None:
        if self._subscription is not None:
            self.demonitor(self._subscription)
            self._subscription = None

    async def _follow(self, peer: str) -> list[Change]:
        self._followed = peer
        self._subscription = self.monitor((SUBSCRIBER, peer))
        what = (Atom("table"), self.table.name, DETAILED)
        answer = await self.node.rpc(peer, SUBSCRIBER, "subscribe", [self.pid, what])
        if answer != (Atom("ok"), peer):
            raise MirrorError(f"{peer} refused the subscription: {answer!r}")
        fresh = Table(self.table.name, await self._snapshot(peer))
        self._apply_early_events(fresh)
        self.source = peer
        return apply_snapshot(self.table, fresh.rows(), self._order)

    def _apply_early_events(self, fresh: Table) -> None:
        """Told one by one, the events since the subscription would lead back to before the snapshot
        and through it once more."""
        others = [message for message in self._mailbox if apply_event(fresh, message) is None]
        self._mailbox.clear()
        self._mailbox.extend(others)

    async def _snapshot(self, peer: str) -> list[Row]:
        """All rows, read in a transaction.

        A dirty read may miss a write whose event was sent just before we subscribed: Mnesia tells
        of a write before it does it, but holds the lock until after.
        """
        select = [Export(Atom("mnesia"), Atom("select"), 3), [self.table.name, WILDCARD, READ]]
        answer = await self.node.rpc(peer, "mnesia", "transaction", select)
        match answer:
            case ("atomic", list(rows)):
                return rows
        raise MirrorError(f"{peer} could not read the table: {answer!r}")
