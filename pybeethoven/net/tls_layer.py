"""TLS between a socket and a `Connection`.

asyncio's own TLS tells a protocol nothing of a handshake that fails, and the peer neither: its
alerts are not sent. So here it is once more, on `ssl.SSLObject`, which does no I/O.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Any, Final, cast

from pybeethoven.errors import HandshakeError, ProtocolError
from pybeethoven.net.buffered import BufferedProtocol
from pybeethoven.net.connection import Connection
from pybeethoven.net.tls import TlsContexts, check_host, explain

logger = logging.getLogger(__name__)

TLS_SHARE: Final = 0.9
"""So much of the time for a handshake may go into TLS. What it leaves lets this say why it failed
before others who wait for the connection give up."""
_CHUNK_SIZE: Final = 256 * 1024
_RECORDS: Final = b"\x15\x16"
"""Content types of the records that a peer may start with: alert and handshake (RFC 8446, 5.1)."""
_NO_TLS: Final = "it does not speak TLS"


class TlsLayer(BufferedProtocol, asyncio.Transport):
    """The protocol of a socket, and the transport of the `connection` above it.

    `host`: the host that was dialled, which the peer's certificate must be for; None: we were
    dialled. `time_limit` (seconds): that of the connection's handshake, of which TLS may take
    `TLS_SHARE`. The connection is made at once; what it writes goes out when TLS is up. If TLS
    fails, it is closed with a `HandshakeError` that says why.
    """

    _socket: asyncio.Transport

    def __init__(
        self,
        connection: Connection,
        contexts: TlsContexts,
        host: str | None,
        *,
        time_limit: float,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._host = host if contexts.options.check_host else None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._tls_object(contexts, host)
        self._patience = TLS_SHARE * time_limit
        self._timer: asyncio.TimerHandle | None = None
        self._early = bytearray()
        self._ready = self._heard = self._closing = False

    def _tls_object(self, contexts: TlsContexts, host: str | None) -> ssl.SSLObject:
        bios = self._incoming, self._outgoing
        if host is None:
            return contexts.server.wrap_bio(*bios, server_side=True)
        try:
            return contexts.client.wrap_bio(*bios, server_hostname=host)
        except ValueError:  # a host that DNS would not take can't be told to the peer
            return contexts.client.wrap_bio(*bios)

    # The protocol of the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start (called by asyncio)."""
        self._socket = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._timer = asyncio.get_running_loop().call_later(self._patience, self._overdue)
        self._connection.connection_made(self)
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Decrypt, and hand on."""
        if not self._heard and data[0] not in _RECORDS:
            self._fail(_NO_TLS)
            return
        self._heard = True
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """The peer will send no more (called by asyncio)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed (called by asyncio)."""
        try:
            if not self._ready:
                self._fail(f"it has closed the connection{self._hint}")
        finally:
            self._stop_timer()
            self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket is full (called by asyncio)."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The socket has room again (called by asyncio)."""
        self._connection.resume_writing()

    # The transport of the connection

    def pause_reading(self) -> None:
        """Read no more from the socket."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._socket.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; as soon as TLS is up."""
        if self._closing:
            return
        if not self._ready:
            self._early += data
            return
        left = memoryview(data)
        while left:
            left = left[self._tls.write(left[:_CHUNK_SIZE]) :]
            self._write_out()

    def close(self) -> None:
        """Tell the peer, and close the socket when all is sent."""
        if self._ready and not self._closing:
            with suppress(ssl.SSLError):  # it wants the peer's answer, which nobody waits for
                self._tls.unwrap()
            self._write_out()
        self._closing = True
        self._socket.close()

    def abort(self) -> None:
        """Close the socket at once."""
        self._closing = True
        self._socket.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self._socket.is_closing()

    def get_write_buffer_size(self) -> int:
        """How much waits to be sent."""
        return len(self._early) + self._socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the socket knows, and as `ssl_object` what TLS does."""
        return self._tls if name == "ssl_object" else self._socket.get_extra_info(name, default)

    # TLS

    def _advance(self) -> None:
        if self._closing:
            return
        try:
            if not self._ready:
                self._shake_hands()
            self._read()
        except ssl.SSLWantReadError:
            self._write_out()
        except ssl.SSLError as error:
            self._fail(explain(error))
        except HandshakeError as error:
            self._fail(str(error))

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        if self._host is not None:
            check_host(self._tls.getpeercert() or {}, self._host)
        self._ready = True
        self._stop_timer()
        self._write_out()
        early, self._early = self._early, bytearray()
        self.write(early)

    def _read(self) -> None:
        while data := self._tls.read(_CHUNK_SIZE):
            self._connection.data_received(data)
        self._socket.close()  # the peer has said that it will send no more

    def _write_out(self) -> None:
        if data := self._outgoing.read():
            self._socket.write(data)

    def _overdue(self) -> None:
        # A plain node takes what begins with the bytes 22 and 3 for a length, and waits for more.
        self._fail(f"it took over {self._patience:g} seconds{self._hint}")

    @property
    def _hint(self) -> str:
        return "" if self._heard else f"; maybe {_NO_TLS}"

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fail(self, why: str) -> None:
        if self._closing:
            return
        self._write_out()  # the alert
        host, port, *_ = self.get_extra_info("peername") or ("nobody", 0)
        text = f"TLS with {host} port {port} failed: {why}"
        if self._tls.server_side:
            logger.log(self._connection.log_limit.level(logging.WARNING), "%s", text)
        up = self._connection.peer is not None
        self._connection.close(ProtocolError(text) if up else HandshakeError(text))
