"""The embedded EPMD: serves the names of this host's nodes, for BEAM nodes and Python nodes alike.

It belongs to whoever started it and ends with it. Nodes that were registered register anew with
the EPMD that takes its place: a BEAM tries that every 2 seconds (`handle_info(reconnect)` in
erl_epmd.erl), and of the Python nodes one becomes that EPMD, see `net.registrar`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import secrets
import socket
from collections.abc import Iterable
from typing import cast

from pybeethoven.distribution.epmd_server import MAX_NAMES, Registry, Session
from pybeethoven.errors import ConfigError
from pybeethoven.net.acceptor import ProtocolServer, first_of_most
from pybeethoven.net.listening import ANY, ANY6, any_address, is_local, open_listener
from pybeethoven.net.sockets import MORE_DESCRIPTORS, NO_DESCRIPTORS

logger = logging.getLogger(__name__)

STOP_TIME = 1.0
"""Timeout for the end of all connections at a stop, in seconds."""
REQUEST_TIME = 10.0
"""Seconds that a connection has to make its request and to read the answer."""
MAX_WAITING = 128
"""So many connections may be without a registration; one more closes the oldest of those from the
address that has the most."""
LOOPBACK_NET = "127.0.0.0/8"
"""All these are addresses of this machine, of nodes that only this machine's nodes can reach."""
_LOOPBACK = ("127.0.0.1", "::1")
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class EpmdServer:
    """An EPMD in this process, on `port`.

    `addresses`: where it listens besides the loopback, as EPMD does with `ERL_EPMD_ADDRESS`; with
    `0.0.0.0` or `::` among them, everywhere. With `LOOPBACK_NET` it serves this machine alone, at
    whatever address it is asked. From wherever it is asked, only this host's nodes may register.

    `host`: where the node listens that starts it. If another process has the port at one address of
    this machine, none can listen everywhere: then this listens on the loopback and at `host`.
    """

    def __init__(self, port: int, addresses: Iterable[str] = (), host: str = "") -> None:
        self._port = port
        self._addresses = [*_LOOPBACK, *(a for a in addresses if a not in _LOOPBACK)]
        self._for_us_alone = LOOPBACK_NET in self._addresses
        if not {ANY, ANY6, LOOPBACK_NET}.isdisjoint(self._addresses):
            others = {host} - {*_LOOPBACK, ANY, ANY6, ""}
            self._addresses = [any_address(), *_LOOPBACK, *others]
        self._asked, other = reversed(_LOOPBACK) if ":" in host and host != ANY6 else _LOOPBACK
        self._dispensable = (ANY, ANY6, other)
        self._registry = Registry(port, lambda: secrets.randbits(32), _max_names())
        self._servers: list[ProtocolServer] = []
        self._connections: dict[_Connection, None] = {}
        self._running = False

    async def start(self) -> bool:
        """Listen. False when something has the port already: another EPMD, most likely.

        Raises `ConfigError` for an address that can't be listened on. When False, on an error, or
        when cancelled, nothing is left open.
        """
        if (listeners := self._open_listeners()) is None:
            return False
        self._running = True
        self._servers = [ProtocolServer(each, self._accept, "EPMD") for each in listeners]
        for server in self._servers:
            server.start()
        where = ", ".join(listener.getsockname()[0] for listener in listeners)
        logger.info("no EPMD ran: this process serves as one at port %d of %s", self._port, where)
        return True

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        self._running = False
        while self._servers:
            self._servers.pop().close()
        closing = list(self._connections)
        for connection in closing:
            connection.abort()
        if closing:
            await asyncio.wait([connection.closed for connection in closing], timeout=STOP_TIME)

    def _open_listeners(self) -> list[socket.socket] | None:
        listeners: list[socket.socket] = []
        taken: list[str] = []
        for address in self._addresses:
            try:
                listeners.append(open_listener(address, [self._port]))
                if address in (ANY, ANY6):
                    break
            except OSError as error:
                if error.errno == errno.EADDRINUSE and address in self._dispensable:
                    taken.append(address)
                    continue
                if address in _LOOPBACK and error.errno in _NOT_HERE:
                    continue  # a machine may lack IPv4 or IPv6
                _close(listeners)
                if error.errno == errno.EADDRINUSE and address == self._asked:
                    return None
                advice = (
                    MORE_DESCRIPTORS
                    if error.errno in NO_DESCRIPTORS
                    else "ERL_EPMD_ADDRESS must have addresses of this machine, and ERL_EPMD_PORT "
                    "a port that it may listen on"
                )
                text = f"the embedded EPMD can't listen at {address}:{self._port}: {error}"
                raise ConfigError(f"{text}; {advice}") from error
        if listeners and taken:
            text = "EPMD can't listen at %s: another process has port %d there, or at a part of it"
            logger.warning(text, ", ".join(taken), self._port)
        return listeners or None

    def _accept(self) -> _Connection:
        connection = _Connection(self._registry, local_only=self._for_us_alone)
        # Those that were aborted just now are still among them.
        waiting = {c: c.address for c in self._connections if not (c.is_registered or c.aborted)}
        if len(waiting) >= MAX_WAITING:
            first_of_most(waiting).abort()
        self._connections[connection] = None
        connection.closed.add_done_callback(lambda _: self._connections.pop(connection))
        if not self._running:
            connection.abort()
        return connection


class _Connection(asyncio.Protocol):
    """One connection to the EPMD: a request, or a registration for as long as it is open."""

    def __init__(self, registry: Registry, *, local_only: bool) -> None:
        self._registry = registry
        self._local_only = local_only
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.address = ""
        self.aborted = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is closed and the name, if there was one, given back."""

    @property
    def is_registered(self) -> bool:
        return self._session is not None and self._session.entry is not None

    def abort(self) -> None:
        """Close the connection; what was not sent is lost."""
        self.aborted = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.address = str((transport.get_extra_info("peername") or (ANY6,))[0])
        local = is_local(transport)
        self._session = Session(self._registry, local=local)
        self._timer = asyncio.get_running_loop().call_later(REQUEST_TIME, self.abort)
        if self.aborted or (self._local_only and not local):
            self.abort()

    def data_received(self, data: bytes) -> None:
        assert self._session is not None
        assert self._transport is not None
        assert self._timer is not None
        if answer := self._session.receive_data(data):
            self._transport.write(answer)
        if (entry := self._session.entry) is not None:
            self._timer.cancel()
            logger.debug("EPMD: %s registered, at port %d", entry.name, entry.port)
        if self._session.closing:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            self._session.close()
        self.closed.set_result(None)


def _max_names() -> int:
    """So many names, and what waits beside them, take a quarter of at least 1024 descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_NAMES
    return min(MAX_NAMES, max(soft // 4 - MAX_WAITING, soft // 8))


def _close(listeners: Iterable[socket.socket]) -> None:
    for listener in listeners:
        listener.close()
