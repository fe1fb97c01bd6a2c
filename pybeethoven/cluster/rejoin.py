"""Being a member again, without anybody's help.

A node is a member while a BEAM peer shows it the tracker, and the tracker has it online. It is none
before it has found a cluster, when the last BEAM peer has gone, when a peer has marked it offline
although it lives (a split, a frozen process, a connection that failed), and when the cluster that
it was in has begun anew. As long as one `Rejoin` runs, it asks beacons, or the peers that can be
reached, until the node is seen to be a member, which ends it. Of several Python nodes that have no
BEAM peer only the first looks for one; the others are members while it is there.

What Beethoven's Locator has as an idea only, `:watching`, is what such a search is: it asks each
beacon which node it is of, and joins through one that is not of its own cluster.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from pybeethoven.errors import BeethovenError, ConfigError
from pybeethoven.etf import Pid, Term
from pybeethoven.otp import Node, Process
from pybeethoven.otp.process import NORMAL

logger = logging.getLogger(__name__)

REJOIN_INTERVAL: Final = (0.5, 10.0)
"""Seconds between two attempts, the first pause and the longest; each is twice the one before."""
JITTER: Final = (0.5, 1.0)
"""Of an interval so much is waited: a random part in this range."""
STEADY_TIME: Final = 10.0
"""After so many seconds as a member what made us none is over: the pauses begin anew. A BEAM takes
7 seconds to find out that it can't connect to a node."""
MAX_REASONS: Final = 100
"""So many reasons for which it has not succeeded yet are logged, each once."""


class Member(Protocol):
    """A node that is to be a member (see `Standing`)."""

    @property
    def node(self) -> Node:
        """The node."""

    def in_cluster(self) -> bool:
        """Whether a BEAM peer shows us the tracker."""

    def is_online(self) -> bool:
        """Whether the tracker has this node online."""

    def may_recover(self) -> bool:
        """Whether a BEAM peer that the tracker has online is connected: it may show it again."""

    async def add_self(self) -> None:
        """Have a peer add this node. Raises `BeethovenError` when none of them does."""

    def let_in(self, via: str) -> None:
        """The beacon of the node `via` has let us in."""


Seek = Callable[[bool], Awaitable[str | None]]
"""Finds a beacon that lets us in and gives its node's name, or None; raises `JoinError`. It is told
whether an earlier search did not make this node a member."""


class Backoff:
    """How long to wait before each attempt.

    `interval`: (first, longest) in seconds. Raises `ConfigError` unless 0 < first <= longest.
    """

    def __init__(self, interval: tuple[float, float] = REJOIN_INTERVAL) -> None:
        self.first, self.longest = interval
        if not 0 < self.first <= self.longest:
            raise ConfigError(
                f"rejoin_interval is {interval!r}; give the first and the longest pause in "
                f"seconds, like {REJOIN_INTERVAL}"
            )
        self._pause = self.first
        self._member_since: float | None = None

    def next(self) -> float:
        """Seconds to wait now."""
        pause = self._pause
        self._pause = min(max(2 * pause, self.first), self.longest)
        return pause * random.uniform(*JITTER)

    def succeeded(self, now: float) -> None:
        """The node is a member since `now`, seconds of a monotonic clock."""
        if self._member_since is None:
            self._member_since = now

    def failed(self, now: float) -> None:
        """It is none any more; if it was one for long, the next attempt is made at once."""
        if self._member_since is not None and now - self._member_since > STEADY_TIME:
            self._pause = 0.0
        self._member_since = None


class Membership:
    """Sees to it that `member` is one. `seek`: None where there is no network to look in."""

    def __init__(self, member: Member, seek: Seek | None, backoff: Backoff) -> None:
        self._member = member
        self._seek = seek
        self._backoff = backoff
        self._rejoin: Rejoin | None = None

    def check(self) -> None:
        """Called by the member's process whenever it may have become a member, or none."""
        now = asyncio.get_running_loop().time()
        if self._member.in_cluster() and self._member.is_online():
            self._backoff.succeeded(now)
            self.stop()
        elif self._member.node.running and (self._rejoin is None or not self._rejoin.alive):
            self._backoff.failed(now)
            self._rejoin = Rejoin(self._member, self._seek, self._backoff)
            self._member.node.spawn(self._rejoin, link=True)

    def stop(self) -> None:
        """Try no more, until `check` is called."""
        if self._rejoin is not None:
            self._member.node.end_process(self._rejoin, NORMAL)


class Rejoin(Process):
    """Tries, until it is ended, to make `member` one."""

    def __init__(self, member: Member, seek: Seek | None, backoff: Backoff) -> None:
        self._member = member
        self._seek = seek
        self._backoff = backoff
        self._said: set[str] = set()
        self._sought = False

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it: no message is read here."""

    async def run(self) -> None:
        """Try, each time after a pause."""
        loop = asyncio.get_running_loop()
        began, lasted = loop.time(), 0.0
        while True:
            await asyncio.sleep(max(self._backoff.next(), lasted))  # large networks get a rest
            tried = loop.time()
            try:
                await self._try(tried - began)
            except BeethovenError as error:
                self._say(str(error))
            lasted = loop.time() - tried

    async def _try(self, passed: float) -> None:
        if self._member.in_cluster() or not self._member.is_online():
            await self._member.add_self()
        elif self._member.may_recover() and passed < self._backoff.longest:
            # Its beacon would ask a CoreServer whose Mnesia is not there yet, and crash it.
            self._say("a peer is connected, but does not offer the tracker", logging.INFO)
        elif self._seek is not None:
            again, self._sought = self._sought, True
            if (via := await self._seek(again)) is not None:
                logger.info("the beacon of %s lets %s in", via, self.node.name)
                self._member.let_in(via)

    def _say(self, why: str, level: int = logging.WARNING) -> None:
        if why not in self._said and len(self._said) < MAX_REASONS:
            self._said.add(why)
            logger.log(level, "%s is not in the cluster, trying on: %s", self.node.name, why)
