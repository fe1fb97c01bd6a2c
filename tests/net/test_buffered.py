"""Reading through a buffer that connections share."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from pybeethoven.net.buffered import BufferedProtocol
from tests.helpers import LIMIT, soon

THREADS = 2


class Reader(BufferedProtocol):
    """Reads one byte, and then what this thread finds in the buffer when all have read theirs."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier
        self.read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def buffer_updated(self, nbytes: int) -> None:
        """Let the others read before this is taken out."""
        self._barrier.wait(LIMIT)
        super().buffer_updated(nbytes)

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.read.set_result(data)


async def read_back(data: bytes, barrier: threading.Barrier) -> bytes:
    """Send `data` to a reader in this event loop; give what it has read."""
    loop = asyncio.get_running_loop()
    reader = Reader(barrier)
    server = await loop.create_server(lambda: reader, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(data)
        try:
            return await soon(reader.read)
        finally:
            writer.close()


def test_threads_do_not_share() -> None:
    """Event loops in several threads read at the same moment, and don't mix it up."""
    barrier = threading.Barrier(THREADS)
    sent = [b"%d" % number * 1000 for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(asyncio.run, read_back(data, barrier)) for data in sent]
        assert [task.result(LIMIT) for task in tasks] == sent


async def test_what_is_kept_stays() -> None:
    """What one connection has read does not change when another one reads."""
    first = await read_back(b"first", threading.Barrier(1))
    assert await read_back(b"other", threading.Barrier(1)) == b"other"
    assert first == b"first"
