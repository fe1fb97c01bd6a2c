"""One connection to another node, from its first byte to its last.

It drives the handshake, then the frames, and hands what comes out to its `ConnectionOwner` in the
order in which it came in, with no task or await in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeAlias, cast

from pybeethoven.distribution.control import Control
from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.framing import Large, MessageReader
from pybeethoven.distribution.handshake import (
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
from pybeethoven.net.buffered import BufferedProtocol
from pybeethoven.net.limits import Limits
from pybeethoven.net.listening import ANY6
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.net.ticktime import TickTime
from pybeethoven.net.writer import Writer

logger = logging.getLogger(__name__)

ANSWER_INTERVAL = 0.1
"""Seconds between two looks whether a peer that sends hears anything from us; the shortest tick
interval of OTP is 0.25."""

TURN_TIME = 0.02
"""Seconds after which the event loop gets a turn, though more messages are there."""
MESSAGES_PER_TURN = 64
"""So many messages are handled in a turn if one of them goes to a mailbox that is long, since its
process receives as many in its turn (`otp.process`). No more is read until all are handled."""

_Step: TypeAlias = tuple[Control, Term] | Large

_NEARLY = 0.999  # sums of intervals are not exact


class ConnectionOwner(Protocol):
    """Who is told what happens on a connection. None of these may block."""

    crowded: bool
    """Set when a message goes to a mailbox that is long."""
    paused: int
    """How many connections are to go on with messages in the next turn: they share it."""

    def status_for(self, connection: Connection, peer: Identity) -> Status:
        """A peer has given its name: the answer to it. Raises `HandshakeError` if the name can't
        be its own."""

    def is_connected(self, peer: str) -> bool:
        """Whether a connection to a peer is up."""

    def proceed_when_alive(self, connection: Connection) -> bool:
        """The peer believes to be connected to us already: go on with this connection?"""

    def connection_up(self, connection: Connection) -> None:
        """The handshake is complete."""

    def message_received(
        self, connection: Connection, control: tuple[Term, ...], message: Term
    ) -> None:
        """A control message came, with its payload or `NOTHING`."""

    def peer_silent(self, connection: Connection) -> None:
        """Nothing has come for half of the time after which the peer is down."""

    def connection_down(self, connection: Connection, reason: BeethovenError) -> None:
        """The connection ended, up or not. Comes exactly once for each connection."""


class Connection(BufferedProtocol):
    """The asyncio driver of one connection.

    `ticktime`: silence for longer than its limit ends it; a tick is sent in each of its intervals
    in which nothing else was. `limits`: what the peer may take and send. `log_limit`: bounds what
    is logged before it has authenticated itself.
    """

    writer: Writer
    """The outgoing half; there from the moment the connection is up, as is `_reader`."""

    def __init__(
        self,
        handshake: Handshake,
        owner: ConnectionOwner,
        *,
        ticktime: TickTime,
        limits: Limits,
        log_limit: LogLimit | None = None,
    ) -> None:
        self.log_limit = log_limit or LogLimit()
        self._handshake = handshake
        self._owner = owner
        self._ticktime = ticktime
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader: MessageReader | None = None
        self._next_turn: asyncio.Handle | asyncio.Future[_Step] | None = None
        """When the next messages are handled; none are read meanwhile."""
        self._lost: tuple[Exception | None] | tuple[()] = ()
        """Why the socket is closed, while messages that came before are still to be handled."""
        self._silence = self._stall = self._interval = 0.0
        self._heard = False
        self._next_answer = 0.0
        self._bytes_out_at_answer = 0
        self.peer: Identity | None = None
        self._name = ""
        self.flags = Flag(0)
        self.since = datetime.now(UTC)
        """When it was up."""
        self.bytes_in = self.messages_in = 0
        self.last_heard = self._loop.time()
        """When bytes came last, by the clock of the event loop."""
        self.peer_address = ""
        """The IP address of the other end, once connected; `::` if it has gone by then."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is closed."""
        self._ended = False

    @property
    def claimed_name(self) -> str | None:
        """What the peer calls itself, if it has said so."""
        return self._handshake.peer_name

    @property
    def challenge(self) -> int:
        """The number that the peer has to answer in the handshake."""
        return self._handshake.challenge

    @property
    def peer_name(self) -> str:
        """The node at the other end, as far as it is known."""
        return self._name or self._handshake.peer_name or "an unnamed node"

    @property
    def certificate(self) -> dict[str, Any]:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` gives it; only over TLS."""
        assert self._transport is not None
        return self._transport.get_extra_info("ssl_object").getpeercert() or {}

    def close(self, reason: BeethovenError, *, flush: bool = True) -> None:
        """End the connection; the owner hears of it before this returns.

        With `flush`, what was sent before still goes out, as long as the peer reads it, for up to
        the time that a handshake may take.
        """
        try:
            self._end(reason, flush=flush)
        finally:
            self._close_transport(flush=flush)

    def _close_transport(self, *, flush: bool) -> None:
        if self._transport is None or self.closed.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        if flush:
            self._transport.close()
            self._timer = self._loop.call_later(self._limits.handshake_time, self._transport.abort)
        else:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake (called by asyncio)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.peer_address = str((transport.get_extra_info("peername") or (ANY6,))[0])
        if self._ended:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._limits.handshake_time, self._handshake_overdue)
        self._write_handshake()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, give events out."""
        if self._ended:
            return
        self._heard = True
        self.bytes_in += len(data)
        self.last_heard = self._loop.time()
        try:
            if self._reader is None:
                self._receive_handshake(data)
            else:
                self._receive_messages(self._reader, data)
                if self.last_heard >= self._next_answer:
                    self._answer()
        except RemoteError as error:
            self._fail(error)

    def _fail(self, error: RemoteError) -> None:
        self._log("closing the connection to %s: %s", error)
        self._write_handshake()
        self.close(error)

    def pause_writing(self) -> None:
        """The transport is full (called by asyncio)."""
        if self._reader is not None:
            self.writer.pause()

    def resume_writing(self) -> None:
        """The transport has room again (called by asyncio)."""
        if self._reader is not None and not self._ended:
            self.writer.resume()

    def eof_received(self) -> bool:
        """The peer will send no more (called by asyncio)."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed (called by asyncio)."""
        if self._next_turn is not None:  # what came is handled first; nothing is written any more
            self.writer.close(self._loss_reason(exc), flush=False)
            self._lost = (exc,)
            return
        try:
            self._end(self._loss_reason(exc), flush=False)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.closed.set_result(None)

    def _loss_reason(self, exc: Exception | None) -> BeethovenError:
        if self._reader is None and exc is None:
            try:
                self._handshake.receive_eof()
            except HandshakeError as error:
                if self.peer is not None and self._owner.is_connected(self.peer.name):
                    # The peer has given this one up, since another had come up.
                    return Refused(Status.NOK, str(error))
                return error
        return NoConnection(
            f"the connection to {self.peer_name} was lost{f': {exc}' if exc else ''}"
        )

    def _end(self, reason: BeethovenError, *, flush: bool) -> None:
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
            self._owner.paused -= 1
            if self._lost:
                self._loop.call_soon(self.connection_lost, *self._lost)
        if self._reader is not None:
            self.writer.close(reason, flush=flush)
        self._owner.connection_down(self, reason)

    def _write_handshake(self) -> None:
        if self._transport is not None and (data := self._handshake.data_to_send()):
            self._transport.write(data)

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
                self._answer_name(peer)
            case StatusReceived(Status.ALIVE):
                self._handshake.answer_alive(self._owner.proceed_when_alive(self))
            case StatusReceived(Status.NOK | Status.NOT_ALLOWED as status):
                raise Refused(status, f"the peer answered {status}")
            case AliveAnswered(False):
                # It had dialled when the other connection came up.
                raise Refused(Status.NOK, f"{self.peer_name} keeps its older connection")
            case Completed(peer, flags):
                self._become_up(peer, flags)

    def _answer_name(self, peer: Identity) -> None:
        try:
            status = self._owner.status_for(self, peer)
        except HandshakeError:
            self._handshake.send_status(Status.NOT_ALLOWED)
            raise
        self._handshake.send_status(status)
        if status in (Status.NOK, Status.NOT_ALLOWED):
            self._write_handshake()
            self.close(Refused(status, f"{self.peer_name} was answered {status}"))

    def _become_up(self, peer: Identity, flags: Flag) -> None:
        assert self._timer is not None
        assert self._transport is not None
        self._timer.cancel()
        self.peer, self.flags, self.since = peer, flags, datetime.now(UTC)
        self._name = peer.name
        self._reader = MessageReader(
            flags,
            max_message_size=self._limits.message_size,
            max_unfinished_size=self._limits.unfinished_size,
            max_depth=self._limits.term_depth,
            max_terms=self._limits.terms,
        )
        self._write_handshake()
        self.writer = Writer(
            self._transport, peer.name, flags, self._limits.unsent_size, self._overrun
        )
        self._schedule_tick()
        self._owner.connection_up(self)
        trailing = self._handshake.trailing_data
        if trailing and not self._ended:
            self._receive_messages(self._reader, trailing)

    def _receive_messages(self, reader: MessageReader, data: bytes) -> None:
        messages = reader.receive_in_steps(data)
        if self._next_turn is None:  # else TLS gives what it had read already
            self._handle(messages)

    def _handle(self, messages: Iterator[_Step]) -> None:
        self._owner.crowded, end = False, self._loop.time() + TURN_TIME
        for count, step in enumerate(messages, 1):
            if step is Large.LARGE:
                if self._decode_aside(messages):
                    return
                continue
            self.messages_in += 1
            self._owner.message_received(self, *step)
            if self._ended:
                return
            share = MESSAGES_PER_TURN // max(1, self._owner.paused)
            if (self._owner.crowded and count >= share) or self._loop.time() >= end:
                self._pause(self._loop.call_soon(self._take_turn, messages))
                break
        self.writer.write_soon()

    def _decode_aside(self, messages: Iterator[_Step]) -> bool:
        """Have the next message decoded in a thread, so that all else goes on; False if there can
        be no thread."""
        executor = ThreadPoolExecutor(1, "decode")
        try:
            decoded = self._loop.run_in_executor(executor, next, messages)
        except RuntimeError:
            return False
        finally:
            executor.shutdown(wait=False)
        decoded.add_done_callback(partial(self._take_turn, messages))
        self._pause(decoded)
        self.writer.write_soon()
        return True

    def _pause(self, next_turn: asyncio.Handle | asyncio.Future[_Step]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._next_turn = next_turn
        self._owner.paused += 1

    def _take_turn(
        self, messages: Iterator[_Step], decoded: asyncio.Future[_Step] | None = None
    ) -> None:
        if self._ended:
            return
        self._next_turn = None
        self._owner.paused -= 1
        try:
            self._handle(messages if decoded is None else chain((decoded.result(),), messages))
        except RemoteError as error:
            self._fail(error)
        if self._next_turn is not None or self._ended:
            return
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()
        if self._lost:
            self.connection_lost(*self._lost)

    def _handshake_overdue(self) -> None:
        seconds = self._limits.handshake_time
        text = f"the handshake with {self.peer_name} took over {seconds:g} seconds"
        self.close(HandshakeError(text), flush=False)

    def tick_anew(self) -> None:
        """The tick time has changed: tick now, and go on with its new interval."""
        if self._reader is not None and self._timer is not None and not self._ended:
            self._timer.cancel()
            # So much of the interval is over: with changes again and again it may never be all.
            left = self._timer.when() - self._loop.time()
            self._tick(max(0, self._interval - max(0, left)))

    def _answer(self) -> None:
        """Tick, if nothing was written since the last look: a peer whose tick time is much shorter
        than ours would else believe us to be down. That counts as written, so that two of us don't
        answer each other for ever."""
        self._next_answer = self.last_heard + ANSWER_INTERVAL
        before = self.writer.bytes_out
        if before == self._bytes_out_at_answer:
            self.writer.beat()
        self._bytes_out_at_answer = before

    def _schedule_tick(self) -> None:
        self._interval = interval = self._ticktime.interval
        self._timer = self._loop.call_later(interval, self._tick, interval)

    def _tick(self, interval: float) -> None:
        heard = self._heard or self._next_turn is not None
        self._silence = 0 if heard else self._silence + interval
        self._stall = 0 if self.writer.tick() else self._stall + interval
        self._heard = False
        limit = self._ticktime.limit * _NEARLY
        if max(self._silence, self._stall) < limit:
            self._schedule_tick()
            if self._silence >= limit / 2:
                self._owner.peer_silent(self)
            return
        what = "was silent" if self._silence >= limit else "took nothing of what was sent to it"
        seconds = self._ticktime.limit
        self._give_up(
            NoConnection(f"{self.peer_name} {what} for net_ticktime, {seconds:g} seconds")
        )

    def _overrun(self, reason: BeethovenError) -> None:
        # Later: who sends this may be amid what the end of the connection changes.
        self._loop.call_soon(self._give_up, reason)

    def _give_up(self, reason: BeethovenError) -> None:
        if not self._ended:
            self._log("closing the connection to %s: %s", reason)
            self.close(reason, flush=False)

    def _log(self, text: str, reason: BeethovenError) -> None:
        fields = {"peer": self.peer_name, "reason": str(reason)}
        # Where two dial at once, one connection is enough.
        one_is_up = isinstance(reason, Refused) and reason.status is Status.NOK
        level = logging.INFO if one_is_up else logging.WARNING
        if self._reader is None:
            level = self.log_limit.level(level)
        logger.log(level, text, self.peer_name, reason, extra=fields)


class Refused(HandshakeError):
    """One side answered `nok` (it is connecting to the other itself) or `not_allowed`."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(status, text)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[1])
