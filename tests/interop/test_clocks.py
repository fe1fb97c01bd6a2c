"""Nothing depends on our clock agreeing with those of the peers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pybeethoven.testing import Peers
from tests.helpers import soon
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, ONLINE, PAUSES, PY, A, B, statuses, whole

HOUR = timedelta(hours=1)


@pytest.mark.usefixtures("wrong_clock")
async def test_our_clock_is_wrong(cluster: Peers, member: Member) -> None:
    """Each change is told once and in order, those that we write ourselves too, and each with a
    time that is right by the peers' clocks."""
    async with member(rejoin_interval=PAUSES, beacon=False) as py:
        [own] = await py.core_server.fetch(PY)
        assert abs(own.last_change - datetime.now(UTC)) > HOUR / 2
        updates = py.core_server.updates()
        a = await cluster.start(A)
        await whole(py)
        b = await cluster.start(B)
        await b.kill()
        await cluster.await_tracker(a, {B: OFFLINE})
        await a.kill()
        a = await cluster.start(A)
        await whole(py)
        told = [await soon(anext(updates)) for _ in range(5)]
        assert [(u.node, u.status) for u in told] == [
            (A, ONLINE), (B, ONLINE), (B, OFFLINE), (A, OFFLINE), (A, ONLINE)
        ]  # fmt: skip
        times = [update.last_change for update in told]
        assert times == sorted(times)
        now = datetime.now(UTC)
        assert all(abs(time - now) < HOUR / 2 for time in times)
        known = {A: ONLINE, B: OFFLINE, PY: ONLINE}
        assert await statuses(py) == await cluster.tracker(a) == known
        assert all(row.last_change < now for row in await py.core_server.fetch_all())
