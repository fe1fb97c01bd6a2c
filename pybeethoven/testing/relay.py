"""Connections that pass through this process, and what is done to them on their way."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakSet

_SIZE = 65536
_PACKETS = 64
"""So many reads are on their way in one direction; more wait with the sender, as in TCP."""

Ends: TypeAlias = tuple[StreamReader, StreamWriter]
"""A connection that was accepted."""
Serve: TypeAlias = Callable[[Ends], Coroutine[Any, Any, None]]
"""Serves a connection; when it returns, or raises what `Relays` suppresses, that is closed."""


class Wire:
    """What lies between two nodes: it can be `cut`, and it delays each direction by `delay`
    seconds."""

    def __init__(self) -> None:
        self.delay = 0.0
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return not self._whole.is_set()

    def cut(self) -> None:
        """Let nothing through: neither bytes nor that an end closed its connection."""
        self._whole.clear()

    def mend(self) -> None:
        """Let through what was sent meanwhile, and all that comes."""
        self._whole.set()

    async def passable(self) -> None:
        """Wait until it is not cut."""
        await self._whole.wait()


@dataclass(eq=False)
class Listener:
    """Accepts connections at `address`, one `relays.run(serve)` for each, until `close`."""

    address: tuple[str, int]
    serve: Serve
    relays: Relays

    def __post_init__(self) -> None:
        self._socket = socket.create_server(self.address)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            self.relays.run(self.serve, self._socket.accept()[0])

    def close(self) -> None:
        """Let nobody in any more; whom it let in, stays."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class Relays:
    """The connections under way, each served by a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: WeakSet[StreamWriter] = WeakSet()

    def run(self, serve: Serve, accepted: socket.socket) -> None:
        """Serve a connection."""
        task = asyncio.get_running_loop().create_task(self._run(serve, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all of them at once; what was on its way is lost."""
        await asyncio.sleep(0)  # a task cancelled before it began would not close its socket
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the sockets are closed then

    async def _run(self, serve: Serve, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=accepted)
        self._writers.add(writer)
        try:
            # The last two: any user of this machine may send what can't be read.
            with suppress(OSError, EOFError, ValueError, IndexError):
                await serve((reader, writer))
        finally:
            writer.close()

    async def join(self, wire: Wire, here: Ends, to: tuple[str, int], head: bytes = b"") -> None:
        """Connect to `to`, say `head` and carry all further bytes, until an end closes."""
        reader, writer = here
        await asyncio.sleep(wire.delay)
        await wire.passable()
        if reader.at_eof():
            return
        there, onward = await asyncio.open_connection(*to)
        self._writers.add(onward)
        try:
            onward.write(head)
            await _either(_carry(wire, reader, onward), _carry(wire, there, writer))
            await wire.passable()
        finally:
            onward.close()


async def _either(*directions: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(wire: Wire, reader: StreamReader, writer: StreamWriter) -> None:
    """Carry bytes in one direction; return when the end of the stream has come over the wire."""
    clock = asyncio.get_running_loop().time
    packets: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PACKETS)

    async def receive() -> None:
        data = b"first"
        while data:
            try:
                data = await reader.read(_SIZE)
            except ConnectionError:
                data = b""
            await packets.put((clock(), data))

    receiving = asyncio.ensure_future(receive())
    try:
        while True:
            sent, data = await packets.get()
            await asyncio.sleep(sent + wire.delay - clock())
            await wire.passable()
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        receiving.cancel()
        await asyncio.wait({receiving})
