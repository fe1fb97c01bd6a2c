"""The time by the cluster's clocks, so that nothing depends on ours agreeing with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

MAX_AHEAD: Final = timedelta(days=1)
"""A time that is so far ahead of our own clock is nobody's: anybody can write the year 9999."""


class ClusterClock:
    """Tells a time that is later than any that was heard, and goes on from that one.

    `wall()` is our clock, an aware UTC time, which counts only until a first time was heard, and
    for what is heard at all; `monotonic()` gives the seconds since whenever.

    Source: the idea is that of hybrid logical clocks, https://cse.buffalo.edu/tech-reports/2014-04.pdf
    """

    def __init__(self, wall: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._heard: datetime | None = None
        self._heard_at = 0.0

    def hear(self, time: datetime) -> None:
        """A peer has written `time`, an aware one; see `MAX_AHEAD`."""
        if time - self._wall() < MAX_AHEAD and (self._heard is None or time > self.now()):
            self._heard, self._heard_at = time, self._monotonic()

    def now(self) -> datetime:
        """The time now, aware and in UTC."""
        if self._heard is None:
            return self._wall()
        passed = timedelta(seconds=self._monotonic() - self._heard_at, microseconds=1)
        return self._heard + passed
