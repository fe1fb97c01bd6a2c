"""Accepts the connections of a socket that listens.

This is not asyncio's server because that one logs a hundred errors a second when there are no file
descriptors, on Python 3.11 loses a connection that it accepts just before its end, and does not
tell which sockets it has accepted (see `net.sockets`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from pybeethoven.net.log_limit import LogLimit
from pybeethoven.net.sockets import give, parent_only

logger = logging.getLogger(__name__)

ACCEPT_PAUSE: Final = 0.1
"""Time until the next try when a connection can't be accepted, in seconds."""


_T = TypeVar("_T")


def first_of_most(addresses: Mapping[_T, str]) -> _T:
    """Of connections in the order in which they came, each with its peer's address, the oldest of
    the address that has the most: an address that floods a node makes room with its own."""
    [(most, _)] = Counter(addresses.values()).most_common(1)
    return next(each for each, address in addresses.items() if address == most)


class Acceptor:
    """Accepts connections from `start` to `close`.

    `listener`: a socket that listens and does not block. `accepted(sock)`: called with each
    connection, which it is to close; must not block. `name`: what accepts, for the log.
    """

    def __init__(
        self, listener: socket.socket, accepted: Callable[[socket.socket], None], name: str
    ) -> None:
        self._listener = listener
        self._accepted = accepted
        self._name = name
        self._pause: asyncio.TimerHandle | None = None
        self._log_limit = LogLimit()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Accept from now on."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Close the listener."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        try:
            sock = parent_only(lambda: self._listener.accept()[0])
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            self._wait(error)
            return
        sock.setblocking(False)
        self._accepted(sock)

    def _wait(self, error: OSError) -> None:
        """Let connections wait for a while: there are no file descriptors, most likely."""
        level = self._log_limit.level(logging.WARNING)
        logger.log(level, "%s can't accept connections: %s", self._name, error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._pause = loop.call_later(ACCEPT_PAUSE, self.start)


class ProtocolServer(Acceptor):
    """An `Acceptor` that gives each connection to a protocol of its own, made by `factory`.

    The protocol is made at once. `close` ends none of them: those whose transport is still to be
    made get it.
    """

    def __init__(
        self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol], name: str
    ) -> None:
        super().__init__(listener, self._connect, name)
        self._factory = factory
        self._connecting: set[asyncio.Task[asyncio.WriteTransport]] = set()

    def _connect(self, sock: socket.socket) -> None:
        try:
            protocol = self._factory()
        except BaseException:
            sock.close()
            raise
        giving = give(sock, lambda: protocol)
        task = asyncio.create_task(giving, name=f"accept for {self._name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
