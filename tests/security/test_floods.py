"""Floods: of connections, of refused ones, of small messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pybeethoven import ConnectionEvent, Limits, Node, Process, Term
from pybeethoven.errors import NoConnection
from pybeethoven.net import epmd_server, observe
from pybeethoven.net.connection import MESSAGES_PER_TURN
from pybeethoven.net.epmd_server import EpmdServer
from pybeethoven.net.observe import ConnectionEvents, EventKind
from pybeethoven.otp import process as process_module
from pybeethoven.testing import Epmd, free_port
from tests.certificates import Authority
from tests.helpers import soon
from tests.net.peers import HOST, A, B, gone
from tests.net.rig import Clock, Rig, frame

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


def lost_and_closed(rig: Rig) -> None:
    """End a connection from both sides."""
    rig.transport.lost = True
    rig.connection.connection_lost(ConnectionResetError())
    rig.connection.close(NoConnection("stopped"))


COUNT = 3 * MESSAGES_PER_TURN + 5
ENDS: dict[str, tuple[Callable[[Rig], object], list[Term]]] = {
    "no end": (lambda rig: None, list(range(COUNT))),
    "more by TLS": (lambda rig: rig.receive(frame(COUNT)), list(range(COUNT + 1))),
    "lost": (lambda rig: rig.transport.lose(ConnectionResetError()), [*range(COUNT), "down"]),
    "closed": (
        lambda rig: rig.connection.close(NoConnection("stopped")),
        [*range(MESSAGES_PER_TURN), "down"],
    ),
    "error": (lambda rig: rig.receive(b"\0\0\0\1x"), [*range(COUNT), "down"]),
    "lost and closed": (lost_and_closed, [*range(MESSAGES_PER_TURN), "down"]),
}


@pytest.mark.parametrize("end", ENDS)
async def test_messages_are_handled_in_turns(end: str) -> None:
    """In order, and before the connection is down, unless this side has closed it."""
    does, told = ENDS[end]
    rig = Rig(Clock())
    rig.shake_hands()
    data = b"".join(map(frame, range(COUNT)))
    rig.receive(data, len(data))
    assert rig.owner.told == ["name", "up", *range(MESSAGES_PER_TURN)]
    assert not rig.transport.reading
    does(rig)
    for _ in range(2 * COUNT // MESSAGES_PER_TURN):
        await asyncio.sleep(0)
    assert rig.owner.told == ["name", "up", *told]
    assert rig.transport.reading or told[-1] == "down"
    assert rig.connection.closed.done() == (told[-1] == "down")


async def test_connections_share_a_turn() -> None:
    """If mailboxes are long, each of several hands on a part of what one alone would."""
    rig = Rig(Clock())
    rig.shake_hands()
    rig.owner.paused = 8
    rig.receive(b"".join(map(frame, range(COUNT))))
    assert rig.owner.told == ["name", "up", *range(MESSAGES_PER_TURN // 8)]
    assert rig.owner.paused == 9
    rig.connection.close(NoConnection("stopped"))
    assert rig.owner.paused == 8


async def test_peers_are_bounded(epmd: Epmd) -> None:
    """One more is refused, and not dialled either, until another goes."""
    c = f"c@{HOST}"
    async with (
        Node(A, "cookie", limits=Limits(peers=1)) as a,
        Node(B, "cookie") as b,
        Node(c, "cookie") as other,
    ):
        await soon(b.connect(A))
        with pytest.raises(NoConnection, match="not_allowed"):
            await soon(other.connect(A))
        with pytest.raises(NoConnection, match="is connected to 1 nodes"):
            await soon(a.connect(c))
        assert a.nodes() == [B]
        a.disconnect(B)
        await soon(a.connect(c))


@pytest.mark.parametrize("tls", [False, True])
async def test_mailbox_of_a_flooded_process_stays_short(
    tls: bool, epmd: Epmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is long, a process receives as many messages in a turn as a connection hands on."""
    monkeypatch.setattr(process_module, "LONG_MAILBOX", MESSAGES_PER_TURN)
    options = None
    if tls:
        authority = Authority(tmp_path, "cluster")
        options = authority.issue("good", HOST).options(authority)
    lengths = []

    async def receive(process: Process) -> None:
        for number in range(50 * MESSAGES_PER_TURN):
            assert await process.receive() == number
            lengths.append(len(process._mailbox))

    async with Node(A, "cookie", tls=options) as a, Node(B, "cookie", tls=options) as b:
        flooded = a.spawn(receive, name="flooded")
        for number in range(50 * MESSAGES_PER_TURN):
            b.send(("flooded", A), number)
        await soon(flooded.wait_end())
    assert len(lengths) == 50 * MESSAGES_PER_TURN
    assert max(lengths) <= 3 * MESSAGES_PER_TURN
