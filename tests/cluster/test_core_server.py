"""The rules of CoreServer that need no other node: alerts, `updates()`, and being standalone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, NodeUpdate, Term, TrackerEvent, Updates
from pybeethoven.cluster.core_server import mnesia_notify
from pybeethoven.cluster.readers import MAX_UNREAD
from pybeethoven.cluster.tracker import CORE_TRACKER, OFFLINE, ONLINE
from pybeethoven.errors import UpdatesLost
from pybeethoven.mnesia import EVENT
from tests.helpers import soon

PEER, OWN = Atom("a@127.0.0.1"), Atom("py@127.0.0.1")
NOW = datetime.now(UTC)


def event(operation: str, row: Term, old_status: Atom | None) -> TrackerEvent:
    """What a table event of the tracker says."""
    old = [] if old_status is None else [(CORE_TRACKER, row[1], old_status, None)]
    parsed = TrackerEvent.parse((EVENT, (Atom(operation), CORE_TRACKER, row, old, None)))
    assert parsed is not None
    return parsed


def write(status: Atom, old_status: Atom | None, node: Atom = PEER) -> TrackerEvent:
    """The event of a write."""
    return event("write", (CORE_TRACKER, node, status, None), old_status)


def delete(old_status: Atom | None, node: Atom = PEER) -> TrackerEvent:
    """The event of a delete."""
    return event("delete", (CORE_TRACKER, node), old_status)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (write(ONLINE, None), ONLINE),
        (write(ONLINE, OFFLINE), ONLINE),
        (write(OFFLINE, ONLINE), OFFLINE),
        (write(ONLINE, ONLINE), None),
        (write(OFFLINE, OFFLINE), None),
        (write(OFFLINE, None), None),
        (write(Atom("strange"), ONLINE), None),
        (write(ONLINE, Atom("strange")), None),
        (delete(ONLINE), None),
        (delete(OFFLINE), None),
        (delete(None), None),
    ],
    ids=repr,
)
def test_mnesia_notify(event: TrackerEvent, status: Atom | None) -> None:
    """PROTOCOL section 5, line by line."""
    assert mnesia_notify(event, OWN) == (None if status is None else (PEER, status))


@pytest.mark.parametrize("status", [ONLINE, OFFLINE])
@pytest.mark.parametrize("old_status", [None, ONLINE, OFFLINE])
def test_own_node_never_alerts(status: Atom, old_status: Atom | None) -> None:
    """Whatever happens to the own row, followers hear nothing."""
    assert mnesia_notify(write(status, old_status, OWN), OWN) is None
    assert mnesia_notify(delete(old_status, OWN), OWN) is None


def update(number: int) -> NodeUpdate:
    """One update of many."""
    return NodeUpdate(Atom(f"n{number}@127.0.0.1"), ONLINE, NOW)


async def test_updates_in_order_then_the_end() -> None:
    """Each update comes once and in order; after the end, every read says so."""
    updates = Updates()
    for number in range(3):
        updates.put(update(number))
    updates.end()
    assert [item async for item in updates] == [update(number) for number in range(3)]
    assert [item async for item in updates] == []


async def test_updates_waits() -> None:
    """A read without an update waits for one."""
    updates = Updates()
    reader = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    assert not reader.done()
    updates.put(update(1))
    assert await soon(reader) == update(1)


async def test_updates_end_wakes_all_readers() -> None:
    """Several may read; the end reaches each of them."""
    updates = Updates()

    async def read() -> list[NodeUpdate]:
        return [item async for item in updates]

    readers = asyncio.gather(*(read() for _ in range(3)))
    await asyncio.sleep(0)
    updates.end()
    assert await soon(readers) == [[], [], []]


async def test_cancelled_wait_loses_nothing() -> None:
    """Whether a read is cancelled before or just after an update came, the next read gets it."""
    updates = Updates()
    for number in range(10):
        reader = asyncio.ensure_future(anext(updates))
        await asyncio.sleep(0)
        if number % 2:
            updates.put(update(number))
            reader.cancel()
        else:
            reader.cancel()
            updates.put(update(number))
        await asyncio.gather(reader, return_exceptions=True)
        assert reader.cancelled()
        assert await soon(anext(updates)) == update(number)


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ended"])
async def test_updates_lost(ended: bool) -> None:
    """One more than `MAX_UNREAD`: the reader gets those, then is told, and told again."""
    updates = Updates()
    for number in range(MAX_UNREAD + 1):
        updates.put(update(number))
    if ended:
        updates.end()
    for number in range(MAX_UNREAD):
        assert await anext(updates) == update(number)
    for _ in range(2):
        with pytest.raises(UpdatesLost, match="over 10000 node updates"):
            await soon(anext(updates))


async def test_updates_not_lost() -> None:
    """`MAX_UNREAD` and the end still fit."""
    updates = Updates()
    for number in range(MAX_UNREAD):
        updates.put(update(number))
    updates.end()
    read: list[Term] = [item async for item in updates]
    assert len(read) == MAX_UNREAD
