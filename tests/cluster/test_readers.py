"""`updates()` and `modes()`: order, ends, and readers that are slow or cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, Modes, NodeUpdate, Term, Updates
from pybeethoven.cluster.readers import MAX_UNREAD
from pybeethoven.cluster.tracker import CLUSTERED, ONLINE, STANDALONE
from pybeethoven.errors import UpdatesLost
from tests.helpers import soon

NOW = datetime.now(UTC)


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


async def test_read_waits_for_an_update() -> None:
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
async def test_unread_updates_over_the_limit_are_lost(ended: bool) -> None:
    """The reader gets `MAX_UNREAD` updates, and then `UpdatesLost` at each read."""
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


async def test_known_update_is_dropped_once() -> None:
    """An update that the reader knows already is not given, but only once."""
    updates = Updates([update(1), update(2)])
    for number in (1, 1, 3):
        updates.put(update(number))
    updates.end()
    assert [item async for item in updates] == [update(1), update(3)]


async def test_unread_modes_over_the_limit_are_lost() -> None:
    """The reader gets `UpdatesLost`, as for updates."""
    modes = Modes()
    for number in range(MAX_UNREAD + 1):
        modes.put((STANDALONE, CLUSTERED)[number % 2])
    for _ in range(MAX_UNREAD):
        await anext(modes)
    with pytest.raises(UpdatesLost, match="over 10000 changes of the mode"):
        await soon(anext(modes))


async def test_limit_of_unread_updates_leaves_room_for_the_end() -> None:
    """`MAX_UNREAD` updates and the end fit."""
    updates = Updates()
    for number in range(MAX_UNREAD):
        updates.put(update(number))
    updates.end()
    read: list[Term] = [item async for item in updates]
    assert len(read) == MAX_UNREAD
