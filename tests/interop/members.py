"""Names of nodes, and waiting for a member to be clustered and ready."""

from __future__ import annotations

import asyncio

from pybeethoven import Beethoven, Updates
from pybeethoven.testing import BeamNode
from tests.helpers import Recorder, soon
from tests.timing import UNIT

A, B, C, D = (f"{letter}@127.0.0.1" for letter in "abcd")
PY, PY2 = "py@127.0.0.1", "py2@127.0.0.1"
ONLINE, OFFLINE = "online", "offline"

PAUSES = (0.05 * UNIT, 0.4 * UNIT)
REJOIN_LIMIT = PAUSES[1] + 1 * UNIT
"""The longest pause, and the work."""

TICKTIME = max(1, round(UNIT))
"""Seconds of silence after which a peer is down, in the tests that wait for that."""
TICKS = ("-kernel", "net_ticktime", str(TICKTIME))
DETECTION_LIMIT = 1.25 * TICKTIME + 1 * UNIT
"""A node counts in quarters of the tick time, and is one late at most."""


async def statuses(member: Beethoven) -> dict[str, str]:
    """What the member's own tracker says."""
    return {row.node: row.status for row in await member.core_server.fetch_all()}


async def heard(updates: Updates, count: int) -> list[tuple[str, str]]:
    """The next updates."""
    rows = [await soon(anext(updates)) for _ in range(count)]
    return [(row.node, row.status) for row in rows]


async def whole(member: Beethoven) -> None:
    """Wait until it is clustered, and has the cluster's tables."""
    await member.until_mode("clustered", None)
    await member.until_ready(60 * UNIT)


async def follow(member: Beethoven) -> Recorder:
    """A process that is alerted."""
    follower = Recorder()
    member.node.spawn(follower)
    await member.core_server.alert_me(follower)
    return follower


async def kill_all(*peers: BeamNode) -> None:
    """All at the same moment."""
    await asyncio.gather(*(peer.kill() for peer in peers))
