"""The cluster's time, whatever our clock shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pybeethoven.cluster.clock import ClusterClock

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


class Clocks:
    """Our clocks, as the test sets them."""

    def __init__(self, wall: datetime) -> None:
        self.wall = wall
        self.seconds = 100.0
        self.cluster = ClusterClock(lambda: self.wall, lambda: self.seconds)


@pytest.mark.parametrize("wrong", [-HOUR, 0 * HOUR, HOUR])
def test_ours_is_wrong(wrong: timedelta) -> None:
    """Ours counts until a time was heard, and then no more, however it is set."""
    clocks = Clocks(NOON + wrong)
    assert clocks.cluster.now() == NOON + wrong
    clocks.cluster.hear(NOON)
    assert NOON < clocks.cluster.now() < NOON + SECOND
    clocks.wall += 5 * HOUR
    clocks.seconds += 60
    assert NOON + 60 * SECOND < clocks.cluster.now() < NOON + 61 * SECOND


def test_later_than_all_that_was_heard() -> None:
    """A later time is followed, an earlier one is none of now."""
    clocks = Clocks(NOON)
    for time in (NOON, NOON + HOUR, NOON - HOUR, NOON + HOUR):
        clocks.cluster.hear(time)
    assert NOON + HOUR < clocks.cluster.now() < NOON + HOUR + SECOND


def test_end_of_time() -> None:
    """A time that nothing can be added to is the latest there is."""
    clocks = Clocks(NOON)
    last = datetime.max.replace(tzinfo=UTC)
    for time in (NOON, last, NOON):
        clocks.cluster.hear(time)
    assert clocks.cluster.now() == last
