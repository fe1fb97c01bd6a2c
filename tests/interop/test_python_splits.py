"""A cluster that Python nodes have begun is split, and healed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pybeethoven import Beethoven
from pybeethoven.testing import Cluster
from tests.interop.crowd import Crowd
from tests.interop.members import OFFLINE, ONLINE, PAUSES
from tests.interop.nodes import until_down

P1, P2, P3, P4 = (f"p{i}@127.0.0.{i}" for i in range(1, 5))
A = "a@127.0.0.6"
GONE_AND_BACK = [ONLINE, OFFLINE, ONLINE]


@pytest.fixture
async def crowd(beam_cluster: Cluster) -> AsyncIterator[Crowd]:
    """The nodes of a test."""

    def make(name: str, **settings: Any) -> Beethoven:
        return Beethoven(**beam_cluster.settings(name), rejoin_interval=PAUSES, **settings)

    for name in (P1, P2, P3, P4):
        beam_cluster.settings(name)
    async with Crowd(beam_cluster, make) as crowd:
        yield crowd


async def start(crowd: Crowd, beam_cluster: Cluster, *names: str) -> None:
    """Start nodes, one after the other."""
    for name in names:
        await crowd.start(name)
        if name in crowd.pythons:
            beam_cluster.light(name)
    await crowd.one_cluster()


async def split(crowd: Crowd, cluster: Cluster, here: list[str], there: list[str]) -> None:
    """Cut two halves apart, and wait until the followers in each hear that the other is offline."""
    pairs = [(one, other) for one in here for other in there]
    downs = []
    for pair in pairs:
        cluster.cut(*pair)
        for one, other in (pair, pair[::-1]):
            if one in crowd.pythons:
                downs.append(until_down(crowd.pythons[one].node, other))
    for down in downs:
        await down
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            await crowd.witnesses[one].hears_last(other, OFFLINE)


async def test_node_that_was_cut_off_comes_back(crowd: Crowd, beam_cluster: Cluster) -> None:
    """A node that is cut off and the others are offline for each other, once.

    Healed, all are one cluster again, which a BEAM joins.
    """
    await start(crowd, beam_cluster, P1, P2, P3)
    p1, p2, p3 = crowd.witnesses.values()
    await split(crowd, beam_cluster, [P1], [P2, P3])
    beam_cluster.heal()
    await crowd.one_cluster()
    await p1.hears(*[(name, status) for status in GONE_AND_BACK for name in (P2, P3)])
    await p2.hears((P3, ONLINE), (P1, OFFLINE), (P1, ONLINE))
    await p3.hears((P1, OFFLINE), (P1, ONLINE))
    await crowd.start(A)
    await crowd.one_cluster()


async def test_halves_become_one_cluster(crowd: Crowd, beam_cluster: Cluster) -> None:
    """Each half goes on; healed, each follower has heard once of the nodes of the other half."""
    halves = [P1, P2], [P3, P4]
    await start(crowd, beam_cluster, P1, P2, P3, P4)
    p1, p2, p3, p4 = crowd.witnesses.values()
    await split(crowd, beam_cluster, *halves)
    beam_cluster.heal()
    await crowd.one_cluster()
    others = [(name, status) for status in (OFFLINE, ONLINE) for name in halves[1]]
    await p1.hears(*[(name, ONLINE) for name in (P2, P3, P4)], *others)
    await p2.hears(*[(name, ONLINE) for name in (P3, P4)], *others)
    others = [(name, status) for status in (OFFLINE, ONLINE) for name in halves[0]]
    await p3.hears((P4, ONLINE), *others)
    await p4.hears(*others)


async def test_half_without_a_beam_goes_on(crowd: Crowd, beam_cluster: Cluster) -> None:
    """The half without a BEAM takes in one more node; healed, the BEAM leads all."""
    await start(crowd, beam_cluster, P1, P2, P3, A)
    p1, p2, p3, _ = crowd.witnesses.values()
    for name in (P1, A):
        beam_cluster.cut(P4, name)
    await split(crowd, beam_cluster, [P1, A], [P2, P3])
    p4 = await crowd.start(P4)
    beam_cluster.light(P4)
    for witness in (p2, p3):
        await witness.hears_last(P4, ONLINE)
    beam_cluster.heal()
    await crowd.one_cluster()
    for ear in p1.ears:
        assert ear.of(P2) == ear.of(P3) == GONE_AND_BACK
        assert ear.of(A) == ear.of(P4) == [ONLINE]
    for witness, beside in ((p2, P3), (p3, P2), (p4, P2), (p4, P3)):
        for ear in witness.ears:
            # For the BEAM it was offline: so it is for who has found that one first.
            assert OFFLINE not in ear.of(beside) or ear.of(beside)[-2:] == [OFFLINE, ONLINE]
            assert ear.of(P1)[-1] == ear.of(A)[-1] == ONLINE


async def test_nodes_that_a_third_reaches_stay_online(crowd: Crowd, beam_cluster: Cluster) -> None:
    """Two nodes that can't reach each other, but a third, are not offline for good."""
    await start(crowd, beam_cluster, P1, P2, P3)
    p1, p2, p3 = crowd.witnesses.values()
    await split(crowd, beam_cluster, [P1], [P2])
    for witness, other in ((p1, P2), (p2, P1), (p3, P1), (p3, P2)):
        await witness.hears_last(other, ONLINE)
    beam_cluster.heal()
    await crowd.one_cluster()
