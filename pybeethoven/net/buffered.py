"""How bytes are read from sockets.

For each read, asyncio makes a buffer of 256 KiB for a plain protocol. That costs more than all that
is done here for a short message. So all of a thread share one, and take out at once what came.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final


class _Shared(threading.local):
    """What each thread, with its event loop, has one of."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(256 * 1024))


_shared: Final = _Shared()


class BufferedProtocol(asyncio.BufferedProtocol):
    """Base of the protocols of sockets: override `data_received`."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to (called by asyncio)."""
        return _shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read (called by asyncio)."""
        self.data_received(bytes(_shared.buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        raise NotImplementedError
