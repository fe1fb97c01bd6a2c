"""Limits how often unauthenticated hosts can have a handshake begin that does not complete.

Each such handshake may give away a digest of the cookie, tries one, or, where this node dials,
does both. Challenges have 32 bits: a host without the cookie that has N digests gets in with about
2**32 / N tries. At the rates of `network` and `beacon_server` it takes over a week until it is as
likely as not that one does, from one address and from any number of them.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from pybeethoven.net.listening import plain_address

logger = logging.getLogger(__name__)

WARNING_INTERVAL: Final = 60.0
"""Minimum time between two warnings of one limit, in seconds."""
MAX_PROVEN: Final = 4096
"""Maximum number of addresses known to complete handshakes."""
MAX_IDLE: Final = 1024
"""Number of recorded addresses above which those without recent failures are dropped."""

Source: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Network | None
"""An IPv4 address, or the /64 network of an IPv6 address: one host has all of that. None: all."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and one more after each `interval` seconds."""

    burst: int
    interval: float


class FailureLimit:
    """Counts what has begun and has not succeeded, by source address and in all.

        limit = FailureLimit("handshakes", per_address=Rate(512, 50.0), in_all=Rate(1024, 25.0))
        if limit.begin(address):
            ...
            limit.succeeded(address)

    The limit on all addresses does not hold for an address that has succeeded before, so that
    failures elsewhere don't lock it out.
    """

    def __init__(
        self,
        what: str,
        *,
        per_address: Rate,
        in_all: Rate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._per_address = per_address
        self._in_all = in_all
        self._clock = clock
        self._clear_at: dict[Source, float] = {}
        """When the failures of each source are forgotten."""
        self._proven: dict[Source, None] = {}
        """In the order in which they last succeeded."""
        self._expected: set[Source] = set()
        self._warned_at = -WARNING_INTERVAL

    def begin(self, address: str) -> bool:
        """Count a failure, until `succeeded` takes it back. False, and nothing is counted, if there
        were too many; that is logged at most once in `WARNING_INTERVAL`."""
        now, source = self._clock(), _source(address)
        is_known = source in self._proven or source in self._expected
        if self._is_full(source, now) or (not is_known and self._is_full(None, now)):
            self._warn(address, now)
            return False
        self._expected.discard(source)
        self._count(source, now)
        self._count(None, now)
        self._drop_idle(now)
        return True

    def succeeded(self, address: str) -> None:
        """What `begin` has counted was no failure."""
        self.take_back(address)
        self.prove(address)

    def take_back(self, address: str) -> None:
        """What `begin` has counted did no harm."""
        for key in (_source(address), None):
            if key in self._clear_at:
                self._clear_at[key] -= self._rate(key).interval

    @contextmanager
    def expecting(self, address: str) -> Iterator[None]:
        """Until the block ends, the limit on all addresses does not lock this one out, once."""
        source = _source(address)
        self._expected.add(source)
        try:
            yield
        finally:
            self._expected.discard(source)

    def prove(self, address: str) -> None:
        """The limit on all addresses is not to lock this one out."""
        source = _source(address)
        self._proven.pop(source, None)
        self._proven[source] = None
        if len(self._proven) > MAX_PROVEN:
            del self._proven[next(iter(self._proven))]

    def _rate(self, source: Source) -> Rate:
        return self._in_all if source is None else self._per_address

    def _is_full(self, source: Source, now: float) -> bool:
        rate = self._rate(source)
        return self._clear_at.get(source, now) > now + (rate.burst - 1) * rate.interval

    def _count(self, source: Source, now: float) -> None:
        self._clear_at[source] = max(self._clear_at.get(source, now), now) + (
            self._rate(source).interval
        )

    def _drop_idle(self, now: float) -> None:
        if len(self._clear_at) > MAX_IDLE:
            self._clear_at = {
                s: clear_at for s, clear_at in self._clear_at.items() if clear_at > now
            }

    def _warn(self, address: str, now: float) -> None:
        if now >= self._warned_at + WARNING_INTERVAL:
            self._warned_at = now
            logger.warning("too many %s fail; one from %s is refused", self._what, address)


def _source(address: str) -> Source:
    plain = plain_address(address)
    if isinstance(plain, ipaddress.IPv6Address):
        return ipaddress.IPv6Network((plain, 64), strict=False)
    return plain
