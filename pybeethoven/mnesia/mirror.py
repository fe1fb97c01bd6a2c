"""The mirror: a process that keeps a table as the BEAM peers' Mnesia has it.

It subscribes to the table on one peer, its source, takes a snapshot, and applies the events, those
that came before the snapshot too, in order on top of it. An event that the snapshot holds already
changes nothing the second time. The subscription links the peer's `mnesia_subscr` to this process,
so that the end of the source arrives as an exit signal; then another peer becomes the source.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from pybeethoven.errors import BeethovenError, MirrorError
from pybeethoven.etf import Atom, Export, Pid, Term
from pybeethoven.mnesia.events import WRITE, Change, apply_event, apply_snapshot
from pybeethoven.mnesia.table import Row, Table
from pybeethoven.otp import GenServer

logger = logging.getLogger(__name__)

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
        self._link: Pid | None = None

    async def init(self) -> None:
        """Take the first peer that offers the table, if there are peers at all.

        Raises `MirrorError` when none of them does.
        """
        if self._peers():
            await self._attach()

    async def handle_info(self, message: Term) -> None:
        """Apply an event, or change the source when it has ended."""
        match message:
            case ("EXIT", pid, _) if pid == self._link:
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
            self.source = self._link = None
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
        raise MirrorError(f"no connected peer offers the table {self.table.name}")

    async def _follow(self, peer: str) -> list[Change]:
        what = (Atom("table"), self.table.name, DETAILED)
        answer = await self.node.rpc(peer, "mnesia_subscr", "subscribe", [self.pid, what])
        if answer != (Atom("ok"), peer):
            raise MirrorError(f"{peer} refused the subscription: {answer!r}")
        self._link = next((pid for pid in self.links if pid.node == peer), None)
        rows = await self._snapshot(peer)
        self.source = peer
        return apply_snapshot(self.table, rows, self._order)

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
