"""The clock that follows the times of the cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pybeethoven.cluster.clock import ClusterClock

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


class Clocks:
    """The node's clocks, as the test sets them."""

    def __init__(self, wall: datetime) -> None:
        self.wall = wall
        self.seconds = 100.0
        self.cluster = ClusterClock(lambda: self.wall, lambda: self.seconds)


@pytest.mark.parametrize("jump", [-5 * HOUR, 5 * HOUR])
@pytest.mark.parametrize("wrong", [-HOUR, 0 * HOUR, HOUR])
def test_heard_time_replaces_the_own_clock(wrong: timedelta, jump: timedelta) -> None:
    """The node's clock counts only until a time was heard, however it is set then or later."""
    clocks = Clocks(NOON + wrong)
    assert clocks.cluster.now() == NOON + wrong
    clocks.cluster.hear(NOON)
    assert NOON < clocks.cluster.now() < NOON + SECOND
    clocks.wall += jump
    clocks.seconds += 60
    assert NOON + 60 * SECOND < clocks.cluster.now() < NOON + 61 * SECOND


def test_clock_never_goes_back() -> None:
    """A later time is followed, an earlier one is ignored."""
    clocks = Clocks(NOON)
    for time in (NOON, NOON + HOUR, NOON - HOUR, NOON + HOUR):
        clocks.cluster.hear(time)
    assert NOON + HOUR < clocks.cluster.now() < NOON + HOUR + SECOND


def test_time_far_ahead_is_not_heard() -> None:
    """What is ahead of the node's own clock by a day or more is ignored."""
    clocks = Clocks(NOON)
    for time in (NOON, NOON + 24 * HOUR, datetime.max.replace(tzinfo=UTC)):
        clocks.cluster.hear(time)
    assert NOON < clocks.cluster.now() < NOON + SECOND
    clocks.cluster.hear(NOON + 23 * HOUR)
    assert clocks.cluster.now() > NOON + 23 * HOUR
