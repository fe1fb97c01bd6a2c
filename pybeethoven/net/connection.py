"""One connection to another node, from its first byte to its last.

It drives the handshake, then the frames, and hands what comes out to its `ConnectionOwner` in the
order in which it came in, with no task or await in between.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from pybeethoven.dist.flags import Flag
from pybeethoven.dist.framing import NOTHING, TICK, MessageReader, encode_message
from pybeethoven.dist.handshake import (
    AliveAnswered,
    Completed,
    Event,
    Handshake,
    Identity,
    NameReceived,
    Status,
    StatusReceived,
)
from pybeethoven.errors import BeethovenError, HandshakeError, NoConnection, RemoteError
from pybeethoven.etf import Term

logger = logging.getLogger(__name__)

TICK_INTENSITY = 4
"""A peer is down after so many tick intervals of silence (OTP's net_tickintensity)."""


class ConnectionOwner(Protocol):
    """Who is told what happens on a connection. None of these may block."""

    def status_for(self, connection: Connection, peer: Identity) -> Status:
        """A peer has given its name: the answer to it."""

    def proceed_when_alive(self, connection: Connection) -> bool:
        """The peer believes to be connected to us already: go on with this connection?"""

    def connection_up(self, connection: Connection) -> None:
        """The handshake is complete."""

    def message_received(
        self, connection: Connection, control: tuple[Term, ...], message: Term
    ) -> None:
        """A control message came, with its payload or `NOTHING`."""

    def connection_down(self, connection: Connection, reason: BeethovenError) -> None:
        """The connection ended, up or not. Comes exactly once for each connection."""


class Connection(asyncio.Protocol):
    """The asyncio driver of one connection.

    `net_ticktime` (seconds): silence for longer than this ends it; a tick is sent in each quarter
    of it in which nothing else was. `handshake_timeout` (seconds): the handshake may take this
    long.
    """

    def __init__(
        self,
        handshake: Handshake,
        owner: ConnectionOwner,
        *,
        net_ticktime: float,
        handshake_timeout: float,
    ) -> None:
        self._handshake = handshake
        self._owner = owner
        self._tick_interval = net_ticktime / TICK_INTENSITY
        self._handshake_timeout = handshake_timeout
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader: MessageReader | None = None
        self._silent_intervals = 0
        self._heard = self._sent = False
        self.peer: Identity | None = None
        self.flags = Flag(0)
        self.closed = asyncio.get_running_loop().create_future()
        """Done when the socket is closed."""
        self._ended = False

    @property
    def peer_name(self) -> str:
        """The node at the other end, as far as it is known."""
        return "an unnamed node" if self.peer is None else self.peer.name

    def send(self, control: tuple[Term, ...], message: Term = NOTHING) -> None:
        """Write one message. Raises `EncodeError`, and then nothing is written."""
        frame = encode_message(self.flags, control, message)
        if self._transport is not None and not self._ended:
            self._transport.write(frame)
            self._sent = True

    def close(self, reason: BeethovenError, *, flush: bool = True) -> None:
        """End the connection; the owner hears of it before this returns.

        With `flush`, what was sent before still goes out, as long as the peer reads it.
        """
        self._end(reason)
        if self._transport is None:
            return
        if flush:
            self._transport.close()
        else:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._ended:
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(
            self._handshake_timeout, self._handshake_overdue
        )
        self._write_handshake()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, give events out (called by asyncio)."""
        if self._ended:
            return
        self._heard = True
        try:
            if self._reader is None:
                self._receive_handshake(data)
            else:
                self._receive_messages(self._reader, data)
        except RemoteError as error:
            logger.warning("closing the connection to %s: %s", self.peer_name, error)
            self._write_handshake()
            self.close(error)

    def eof_received(self) -> bool:
        """The peer will send no more (called by asyncio)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed (called by asyncio)."""
        self._end(self._loss_reason(exc))
        self.closed.set_result(None)

    def _loss_reason(self, exc: Exception | None) -> BeethovenError:
        if self._reader is None and exc is None:
            try:
                self._handshake.receive_eof()
            except HandshakeError as error:
                return error
        return NoConnection(
            f"the connection to {self.peer_name} was lost{f': {exc}' if exc else ''}"
        )

    def _end(self, reason: BeethovenError) -> None:
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._owner.connection_down(self, reason)

    def _write_handshake(self) -> None:
        if self._transport is not None and (data := self._handshake.data_to_send()):
            self._transport.write(data)
            self._sent = True

    def _receive_handshake(self, data: bytes) -> None:
        for event in self._handshake.receive_data(data):
            self._process_event(event)
            if self._ended:
                return
        self._write_handshake()

    def _process_event(self, event: Event) -> None:
        match event:
            case NameReceived(peer):
                self.peer = peer
                self._answer_name(self._owner.status_for(self, peer))
            case StatusReceived(Status.ALIVE):
                self._handshake.answer_alive(self._owner.proceed_when_alive(self))
            case StatusReceived(Status.NOK | Status.NOT_ALLOWED as status):
                raise Refused(status)
            case AliveAnswered(False):
                raise HandshakeError(f"{self.peer_name} keeps its older connection")
            case Completed(peer, flags):
                self._become_up(peer, flags)

    def _answer_name(self, status: Status) -> None:
        self._handshake.send_status(status)
        if status in (Status.NOK, Status.NOT_ALLOWED):
            self._write_handshake()
            self.close(HandshakeError(f"{self.peer_name} was answered {status}"))

    def _become_up(self, peer: Identity, flags: Flag) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self.peer, self.flags = peer, flags
        self._reader = MessageReader(flags)
        self._write_handshake()
        self._schedule_tick()
        self._owner.connection_up(self)
        if trailing := self._handshake.trailing_data:
            self._receive_messages(self._reader, trailing)

    def _receive_messages(self, reader: MessageReader, data: bytes) -> None:
        for control, message in reader.receive_data(data):
            self._owner.message_received(self, control, message)
            if self._ended:
                return

    def _handshake_overdue(self) -> None:
        text = f"the handshake with {self.peer_name} took over {self._handshake_timeout:g} seconds"
        self.close(HandshakeError(text), flush=False)

    def _schedule_tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_interval, self._tick)

    def _tick(self) -> None:
        self._silent_intervals = 0 if self._heard else self._silent_intervals + 1
        if self._silent_intervals >= TICK_INTENSITY:
            seconds = TICK_INTENSITY * self._tick_interval
            text = f"{self.peer_name} was silent for net_ticktime, {seconds:g} seconds"
            logger.warning("closing a connection: %s", text)
            self.close(NoConnection(text), flush=False)
            return
        if not self._sent and self._transport is not None:
            self._transport.write(TICK)
        self._heard = self._sent = False
        self._schedule_tick()


class Refused(HandshakeError):
    """The peer answered `nok` (it is connecting to us itself) or `not_allowed`."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"the peer answered {status}")
        self.status = status
