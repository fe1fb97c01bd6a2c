"""Tick times that change, and nodes whose tick times differ."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from pybeethoven import Atom, Node
from pybeethoven.distribution.framing import TICK
from pybeethoven.errors import ConfigError, brief
from pybeethoven.net import connection
from pybeethoven.net.ticktime import TickTime
from pybeethoven.testing import Epmd
from tests.helpers import atoms, soon
from tests.net.peers import HOST, A, B, silent_peer, until_up, watcher
from tests.timing import UNIT

BAD = [0, -1.0, 0.001, 2**32, 10**350, float("inf"), float("nan"), True, None, "60", b"60", [60]]


def test_change_takes_the_longer_limit_and_the_shorter_interval() -> None:
    """During a change the longer time limits silence, and the shorter one sets the ticks."""
    ticktime = TickTime(8)
    assert (ticktime.limit, ticktime.interval, ticktime.changing) == (8, 2, False)
    for seconds in (4, 16):
        ticktime.change(seconds)
        assert (ticktime.limit, ticktime.interval) == (max(8, seconds), min(8, seconds) / 4)
        assert ticktime.changing
        ticktime.end_change()
        assert (ticktime.limit, ticktime.interval) == (seconds, seconds / 4)
        ticktime = TickTime(8)


@pytest.mark.parametrize("seconds", BAD, ids=brief)
def test_bad_ticktime_is_refused(seconds: Any) -> None:
    """A tick time that is too short, too long or not a number is refused."""
    with pytest.raises(ConfigError, match="net_ticktime is"):
        Node(A, "cookie", net_ticktime=seconds)
    node = Node(A, "cookie")
    with pytest.raises(ConfigError, match="net_ticktime is"):
        node.set_net_ticktime(seconds)
    assert node.net_ticktime == 60
    with pytest.raises(ConfigError, match="transition period"):
        node.set_net_ticktime(8, -1)


async def test_ticktime_changes_one_at_a_time(epmd: Epmd) -> None:
    """A stopped node changes at once, a running one after a transition, one at a time.

    The transition ends with the node at the latest.
    """
    node = Node(A, "cookie", net_ticktime=8)
    assert node.set_net_ticktime(4) == "change_initiated"
    assert node.set_net_ticktime(4) == "unchanged"
    async with node:
        assert node.set_net_ticktime(2, 0) == "change_initiated"
        assert node.net_ticktime == 2
        await asyncio.sleep(0.01 * UNIT)
        assert node.set_net_ticktime(60) == "change_initiated"
        assert node.set_net_ticktime(8) == (Atom("ongoing_change_to"), 60)
        assert node.net_ticktime == 60
    assert node.set_net_ticktime(60) == "unchanged"


@pytest.mark.parametrize(
    "period", [-1, 2**32, 10**350, float("inf"), float("nan"), False, "60"], ids=brief
)
async def test_bad_transition_period_changes_nothing(epmd: Epmd, period: Any) -> None:
    """A bad transition period is refused, and changes nothing."""
    async with Node(A, "cookie") as node:
        with pytest.raises(ConfigError, match="transition period"):
            node.set_net_ticktime(8, period)
        assert node.set_net_ticktime(60) == "unchanged"


@pytest.mark.parametrize("times", [(0.4, 0.2), (0.2, 0.4)])
async def test_silent_peer_has_the_longer_time_in_a_transition(
    epmd: Epmd, times: tuple[float, float]
) -> None:
    """A peer that falls silent when a change has begun has the longer of the two times."""
    before, after = (each * UNIT for each in times)
    async with Node(A, "cookie", net_ticktime=before) as a:
        heard = watcher(a)
        start = time.monotonic()
        async with silent_peer():
            assert await heard.next() == atoms("nodeup", B)
            a.set_net_ticktime(after, 10 * UNIT)
            assert await heard.next() == atoms("nodedown", B)
            assert time.monotonic() - start >= 0.4 * UNIT


async def test_repeated_changes_do_not_hide_silence(epmd: Epmd) -> None:
    """Each change begins a new interval, and the elapsed part of the last one counts."""
    async with Node(A, "cookie", net_ticktime=0.4 * UNIT) as a:
        heard = watcher(a)
        async with silent_peer():
            assert await heard.next() == atoms("nodeup", B)
            times = itertools.cycle([0.41 * UNIT, 0.4 * UNIT])
            start = time.monotonic()
            while time.monotonic() - start < 1.5 * UNIT:
                a.set_net_ticktime(next(times), 0)
                await asyncio.sleep(0.05 * UNIT)
            assert a.nodes() == []


async def test_nodes_with_different_ticktimes_stay_connected(epmd: Epmd) -> None:
    """Each node judges the other by its own time; meanwhile a silent peer is lost."""
    async with (
        Node(A, "cookie", net_ticktime=0.4 * UNIT) as a,
        Node(f"c@{HOST}", "cookie", net_ticktime=400 * UNIT) as c,
    ):
        await soon(a.connect(c.name))
        heard = watcher(a)
        for _ in range(2):
            async with silent_peer():
                assert await heard.next() == atoms("nodeup", B)
                assert await heard.next() == atoms("nodedown", B)
        assert heard.messages.empty()
        assert c.nodes() == [A]


async def test_every_second_tick_is_answered(epmd: Epmd, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle node answers every second tick, so that two do not answer each other for ever."""
    monkeypatch.setattr(connection, "ANSWER_INTERVAL", 0)
    async with Node(A, "cookie") as a, silent_peer():
        await until_up(a, B)
        before = a.info().connections[0].bytes_out
        for _ in range(10):
            a.network._up[B].data_received(TICK)
        assert a.info().connections[0].bytes_out - before in (4 * len(TICK), 5 * len(TICK))


async def test_idle_nodes_stop_answering(epmd: Epmd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes that answer without pause are quiet at once."""
    monkeypatch.setattr(connection, "ANSWER_INTERVAL", 0)
    async with Node(A, "cookie") as a, Node(B, "cookie") as b:
        for node, peer in ((a, B), (b, A), (a, B)):
            assert await node.ping(peer)
            node.cast(("nobody", peer), 1)
        await asyncio.sleep(0.1 * UNIT)
        before = sum(node.info().connections[0].bytes_out for node in (a, b))
        await asyncio.sleep(0.1 * UNIT)
        assert sum(node.info().connections[0].bytes_out for node in (a, b)) == before
