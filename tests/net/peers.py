"""Peers that a test plays itself, and waiting for connections to come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from pybeethoven import Node
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.handshake import (
    Completed,
    Handshake,
    Identity,
    Status,
    StatusReceived,
)
from pybeethoven.net.epmd import look_up, register
from tests.helpers import Recorder, soon

HOST = "127.0.0.1"
A, B = f"a@{HOST}", f"b@{HOST}"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def watcher(node: Node) -> Recorder:
    """A process that hears of the nodes that come and go."""
    recorder = Recorder()
    node.spawn(recorder)
    node.monitor_nodes(recorder)
    return recorder


@asynccontextmanager
async def impostor(serve: Serve) -> AsyncIterator[asyncio.Event]:
    """A server that EPMD has as node b; the event is set when the other side has closed."""
    left = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            left.set()

    server = await asyncio.start_server(serve_one, HOST, 0)
    registration = await register("b", server.sockets[0].getsockname()[1], hidden=True)
    try:
        yield left
    finally:
        server.close()
        await registration.close()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait."""


def identity(alive_name: str) -> Identity:
    """The identity of a node that the test plays."""
    return Identity(f"{alive_name}@{HOST}", OFFERED, 7)


async def talk(
    handshake: Handshake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> list[object]:
    """Drive a handshake to its end, agreeing to everything, and give its events."""
    events: list[object] = []
    while not any(isinstance(event, Completed) for event in events):
        writer.write(handshake.data_to_send())
        if not (data := await reader.read(4096)):
            break
        for event in handshake.receive_data(data):
            events.append(event)
            if event == StatusReceived(Status.ALIVE):
                handshake.answer_alive(True)
            elif type(event).__name__ == "NameReceived":
                handshake.send_status(Status.OK)
    writer.write(handshake.data_to_send())
    return events


async def open_to(alive_name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A plain connection to a node."""
    port = await look_up(alive_name, HOST)
    assert port is not None
    return await asyncio.open_connection(HOST, port)


async def gone(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has closed."""
    with suppress(ConnectionResetError):
        await soon(reader.read())


@asynccontextmanager
async def silent_peer() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A peer b that completes the handshake with a, and then does what the test does."""
    port = await look_up("a", HOST)
    assert port is not None
    with socket.socket() as sock:
        # Else the kernel takes some more megabytes, when it likes.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
        reader, writer = await asyncio.open_connection(sock=sock.dup())
    try:
        await soon(talk(Handshake.initiator(identity("b"), A, "cookie", 1), reader, writer))
        yield reader, writer
    finally:
        writer.close()


async def until_up(node: Node, peer: str) -> None:
    """Wait until `peer` is connected."""
    events = node.connection_events()
    while peer not in node.nodes():
        await soon(anext(events))
