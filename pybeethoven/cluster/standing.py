"""How a node stands: alone, in a cluster of Python nodes, or in one in which a BEAM leads.

While a BEAM shows us its tracker, ours is a copy of it (see `Mirror`). Otherwise we share it with
the other Python nodes (see `Sharing`), see to it who is there, and look for a BEAM and for other
clusters (see `rejoin`). Whom we let in ourselves then is told in `admission`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from pybeethoven.cluster.admission import Admission
from pybeethoven.cluster.clock import ClusterClock
from pybeethoven.cluster.rejoin import Backoff, Membership, Seek
from pybeethoven.cluster.sharing import Sharing
from pybeethoven.cluster.tracker import (
    CORE_TRACKER,
    ONLINE,
    TrackerRow,
    is_tracker_row,
    tracker_rows,
)
from pybeethoven.errors import MirrorError
from pybeethoven.etf import Atom
from pybeethoven.mnesia import Mirror
from pybeethoven.otp import Node

ENTER_TIME: Final = 5.0
"""Seconds that the node of the beacon that has let us in has to show us the tracker."""
REST_TIME: Final = 1.0
"""Seconds that all other nodes that are online have then to do so, or one of them to lead."""
MAX_UNREACHED: Final = 32
"""Maximum number of nodes without a connection that may be the source, each of which is dialled."""


class Word(Enum):
    """What the CoreServer tells itself, behind the changes that the mirror has told; no term from
    outside equals it."""

    ATTACHED = "ATTACHED"
    DETACHED = "DETACHED"
    LINKS = "LINKS"
    PEERS = "PEERS"
    LET_IN = "LET_IN"


class Standing:
    """How the node of `tracker` stands.

    `tell` puts a word into the mailbox of the CoreServer, in whose process all methods that begin
    with `process_` are called, and `begin`. `seek`, `backoff`: see `CoreServer`.
    """

    def __init__(
        self,
        tracker: Mirror,
        clock: ClusterClock,
        tell: Callable[[Word], None],
        seek: Seek | None,
        backoff: Backoff,
    ) -> None:
        self.mirror = tracker
        self.admission = Admission(self)
        self._tell = tell
        self._told: Counter[Word] = Counter()
        """How many of each word for `process_told` are in the mailbox."""
        self._sharing = Sharing(tracker, clock, lambda: self._tell_again(Word.LINKS))
        self._membership = Membership(self, seek, backoff)
        self._via: str | None = None
        """The node of the beacon that has let us in, until it shows us the tracker, or has gone."""
        self._let_in_at = 0.0
        self._shown = asyncio.Event()
        """Set while somebody shows us the tracker."""
        self._entered = asyncio.Event()
        """Set while a BEAM shows us the tracker, or all who are online share it."""
        self._looked = seek is None
        """Whether we know of every cluster in the network."""

    @property
    def node(self) -> Node:
        """The node."""
        return self.mirror.node

    def rows(self) -> list[TrackerRow]:
        """The tracker."""
        return tracker_rows(self.mirror.table.rows())

    def others_online(self) -> list[str]:
        """The other nodes that the tracker has online."""
        rows = self.mirror.table.rows()
        online = [row[1] for row in rows if is_tracker_row(row) and row[2] == ONLINE]
        return [name for name in online if name != self.node.name]

    def connected(self) -> list[str]:
        """The other nodes of the tracker that we are connected to."""
        return [name for name in self.node.nodes() if self._sharing.status(name) is not None]

    def members(self) -> set[str]:
        """The nodes of our cluster, as far as we are connected to them."""
        return {self.node.name, *set(self.others_online()).intersection(self.node.nodes())}

    def peers(self) -> list[str]:
        """The nodes that may be BEAMs: the online and the connected ones, those that are offline
        for us, but not for the first, too; the source and those connected first, before all of them
        that of the beacon that has let us in, until it is the source."""
        elsewhere = self._sharing.online_at_first
        nodes = dict.fromkeys([*self.others_online(), *self.connected(), *elsewhere])
        rank = {str(node): int(node != self.mirror.source) for node in self.node.nodes()}
        if self._via is not None and self.mirror.source is None:
            rank[self._via] = 0
            nodes = {self._via: None} | nodes
        wanted = nodes.keys() - self._sharing.linked - {self.node.name}
        peers = sorted([n for n in nodes if n in wanted], key=lambda node: rank.get(node, 2))
        return peers[: sum(node in rank for node in peers) + MAX_UNREACHED]

    # For Beethoven

    async def enter(self, via: str) -> None:
        """`let_in`, and wait until a BEAM shows us the tracker, or all nodes that are online share
        it with us, or some do and the rest takes long. Raises `MirrorError` when nobody does."""
        self.let_in(via)
        try:
            async with asyncio.timeout(ENTER_TIME):
                await self._shown.wait()
        except TimeoutError as error:
            raise MirrorError(
                f"{via} has let {self.node.name} in, but does not offer the table {CORE_TRACKER}"
            ) from error
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_TIME):
                await self._entered.wait()

    def looked_around(self) -> None:
        """There is no other cluster in the network, as of a moment when we could be found."""
        self._looked = True
        self.admission.changed()

    # For Membership

    def in_cluster(self) -> bool:
        """Whether a BEAM peer shows us the tracker, or another Python node looks for one."""
        return self.mirror.source is not None or self.first() != self.node.name

    def is_online(self) -> bool:
        """Whether the tracker has this node online."""
        return self._sharing.status(self.node.name) == ONLINE

    def may_recover(self) -> bool:
        """Whether a BEAM peer that the tracker has online is connected: it may show it again."""
        return bool(self.beams())

    async def add_self(self) -> None:
        """Have any peer add this node; errors as `CoreServer.new_node`."""
        await self.admission.add(self.node.name)

    def let_in(self, via: str) -> None:
        """Have the tracker mirrored from the node of the beacon that has let us in."""
        self._via = via
        self._let_in_at = asyncio.get_running_loop().time()
        self.mirror.retry()
        self._tell(Word.LET_IN)

    # For Admission

    def beams(self) -> set[str]:
        """The connected online nodes that others have in `nodes()`, unlike us, who are hidden."""
        visible = {info.peer for info in self.node.info().connections if not info.hidden}
        return visible.intersection(self.others_online()) - self._sharing.linked

    def first(self) -> str:
        """The node that lets BEAMs in, and looks for other clusters, where no BEAM leads."""
        return self._sharing.first

    def has_looked(self) -> bool:
        """Whether we know of every cluster in the network."""
        return self._looked

    def add_here(self, name: str) -> None:
        """Have a node online in our table."""
        self._sharing.write(name, ONLINE)

    # For the CoreServer

    def begin(self) -> None:
        """The CoreServer starts, perhaps once more."""
        self._told.clear()
        self._sharing.begin()

    def check(self) -> None:
        """See to it that this node is a member."""
        self._membership.check()

    def stop_looking(self) -> None:
        """Look for no cluster any more."""
        self._membership.stop()

    def process_attached(self) -> None:
        """A BEAM peer shows us the tracker."""
        self._via = None
        self._shown.set()
        self._entered.set()
        self._sharing.share_with(set(), set())
        self._process_change()

    def process_detached(self) -> None:
        """If no BEAM peer shows us the tracker, share it with the others, and see who is there."""
        if self.mirror.source is not None or not self.node.running:
            return
        late = asyncio.get_running_loop().time() > self._let_in_at + ENTER_TIME
        if self._via in self._sharing.linked or (late and self._via not in self.node.nodes()):
            self._via = None
        online = set(self.others_online())
        # A connected node that is offline here may share, too: only others can't reach it.
        self._sharing.share_with(online, {*self.connected(), *filter(None, [self._via])})
        for name in online.difference(self.node.nodes()):
            self._sharing.check(name)
        _set(self._shown, bool(self._sharing.linked))
        _set(self._entered, bool(self._sharing.linked) and online <= self._sharing.linked)
        self._process_change()

    def process_online(self, name: Atom) -> None:
        """A row says that another node is online."""
        if self.mirror.source is not None:
            self.node.network.connect_soon(name)
        elif self.node.network.is_connected(name):
            self._tell_again(Word.PEERS)
        elif self.node.running:
            self._entered.clear()
            self._sharing.check(name)

    def process_nodeup(self, name: Atom) -> None:
        """A connection has come up."""
        if self.mirror.source is None and self.mirror.table.read(name):
            self._tell_again(Word.PEERS)

    def process_told(self, word: Word) -> None:
        """Links have come or gone, or peers that may be the source have come. What that costs grows
        with the number of all, so it is done once, for the last such word in the mailbox."""
        self._told[word] -= 1
        if self._told[word] > 0:
            return
        if word is Word.PEERS:
            self.mirror.retry()
        self.process_detached()

    def process_nodedown(self, name: Atom) -> None:
        """A connection has gone down."""
        self._sharing.lost(name)
        self.admission.changed()
        if self._sharing.status(name) == ONLINE:
            self.node.spawn(self._sharing.check_lost, name)

    def _tell_again(self, word: Word) -> None:
        self._told[word] += 1
        self._tell(word)

    def _process_change(self) -> None:
        self.admission.changed()
        self._membership.check()


def _set(event: asyncio.Event, on: bool) -> None:
    if on:
        event.set()
    else:
        event.clear()
