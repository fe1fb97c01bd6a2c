"""Floods: of connections, of refused ones, of small messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import pytest

from pybeethoven import ConnectionEvent, Limits, Node
from pybeethoven.net import epmd_server, observe
from pybeethoven.net.epmd_server import EpmdServer
from pybeethoven.net.observe import ConnectionEvents, EventKind
from pybeethoven.testing import free_port
from tests.helpers import soon
from tests.net.peers import HOST, A, gone

PLACES = 10


@asynccontextmanager
async def node() -> AsyncIterator[int]:
    """A node: its port."""
    port, limits = free_port(), Limits(handshakes=PLACES)
    async with Node(A, "cookie", epmd=False, listen_port=port, limits=limits):
        yield port


@asynccontextmanager
async def epmd_of_ours() -> AsyncIterator[int]:
    """An embedded EPMD: its port."""
    server = EpmdServer(port := free_port())
    assert await server.start()
    yield port
    await soon(server.stop())


@pytest.mark.parametrize("server", [node, epmd_of_ours])
async def test_address_with_most_connections_makes_room(
    server: Callable[[], AbstractAsyncContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of other addresses stay, though they are older; of its own the last ones stay."""
    monkeypatch.setattr(epmd_server, "MAX_WAITING", PLACES)
    async with server() as port:

        async def connect(address: str) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(HOST, port, local_addr=(address, 0))
            writers.append(writer)
            return reader

        writers: list[asyncio.StreamWriter] = []
        others = [await connect(f"127.0.0.{number}") for number in (2, 2, 3)]
        reading = [asyncio.create_task(reader.read()) for reader in others]
        flood = [await connect("127.0.0.9") for _ in range(5 * PLACES)]
        for reader in flood[:-PLACES]:
            await gone(reader)
        reading.append(asyncio.create_task(flood[-1].read()))
        await asyncio.sleep(0)
        assert not any(task.done() for task in reading)
        for writer in writers:
            writer.close()
        await soon(asyncio.wait(reading))


async def test_refused_connections_leave_room_for_other_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that are too many for a slow reader are left out, until it has read some."""
    monkeypatch.setattr(observe, "MAX_UNREAD", PLACES)
    events = ConnectionEvents()

    def put(kind: EventKind, count: int) -> None:
        for _ in range(count):
            events.put(ConnectionEvent(kind, None, None, datetime.now(UTC)))

    put("refused", PLACES + 5)
    put("up", PLACES)
    read = [(await soon(anext(events))).kind for _ in range(PLACES // 2)]
    put("refused", PLACES)
    events.put(None)
    read += [event.kind async for event in events]
    half = ["refused"] * (PLACES // 2)
    assert read == [*half, *half, *["up"] * PLACES, *half]
