"""The pauses between attempts to join; what an attempt does is in tests/interop/test_rejoin.py."""

from __future__ import annotations

import pytest

from pybeethoven import Beethoven, ConfigError
from pybeethoven.cluster import rejoin
from pybeethoven.cluster.rejoin import STEADY_TIME, Backoff


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is as long as it can be."""
    monkeypatch.setattr(rejoin, "JITTER", (1.0, 1.0))


def pauses(backoff: Backoff, count: int) -> list[float]:
    """The next pauses."""
    return [backoff.next() for _ in range(count)]


def test_doubling() -> None:
    """From the first to the longest, each twice the one before."""
    assert pauses(Backoff((0.5, 3.0)), 6) == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is a random part of that."""
    monkeypatch.setattr(rejoin, "JITTER", (0.5, 1.0))
    found = {Backoff((1.0, 1.0)).next() for _ in range(1000)}
    assert len(found) > 900
    assert 0.5 <= min(found) < 0.6
    assert 0.9 < max(found) <= 1.0


def test_lost_after_long() -> None:
    """What was a member for long tries at once, and then as at first."""
    backoff = Backoff((0.5, 3.0))
    assert pauses(backoff, 2) == [0.5, 1.0]
    backoff.succeeded(100.0)
    backoff.succeeded(100.0 + STEADY_TIME)
    backoff.failed(101.0 + STEADY_TIME)
    assert pauses(backoff, 3) == [0.0, 0.5, 1.0]


def test_lost_at_once() -> None:
    """What is lost as soon as it was gained goes on waiting longer and longer."""
    backoff = Backoff((0.5, 3.0))
    for expected in (0.5, 1.0, 2.0, 3.0, 3.0):
        backoff.failed(100.0)
        assert backoff.next() == expected
        backoff.succeeded(100.0)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_no_interval(interval: tuple[float, float]) -> None:
    """What can't be used is refused at once."""
    with pytest.raises(ConfigError, match=r"rejoin_interval is .*; give the first and the longest"):
        Beethoven("py@127.0.0.1", cookie="c", rejoin_interval=interval)
