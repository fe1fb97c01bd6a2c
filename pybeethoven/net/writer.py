"""What goes out on one connection: with the turn of the event loop if it can, else in line, within
a limit.

What is sent in one turn of the loop is one write: a system call, and a peer woken up, cost more
than a message. asyncio takes whatever is written, without a bound. So nothing is written while the
transport is paused; it waits in an `Outbox`, which counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pybeethoven.distribution.control import Control, sender_of
from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.framing import TICK, encode_frame
from pybeethoven.distribution.outgoing import FRAGMENT_SIZE, LargeMessage, Outbox, may_fragment
from pybeethoven.errors import BeethovenError, Busy, NoConnection
from pybeethoven.etf import Pid, Term

CHUNKS_PER_TURN: Final = 16
"""So many writes, of up to 128 KiB each, are made before the event loop gets a turn."""


class Writer:
    """The outgoing half of a connection that is up.

    `peer`: its name, for errors. `flags`: what was negotiated. `limit`: bytes that may wait; see
    `Limits.unsent_size`. `overrun(reason)` is called when what may not be refused exceeds it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        peer: str,
        flags: Flag,
        limit: int,
        overrun: Callable[[BeethovenError], None],
    ) -> None:
        self._transport = transport
        self._peer = peer
        self._flags = int(flags)  # an enum's operators are slow
        self._fragments = may_fragment(flags)
        self._limit = limit
        self._overrun = overrun
        self._loop = asyncio.get_running_loop()
        self._batch = bytearray()  # empty unless _direct
        self._batch_due = False
        self._outbox = Outbox()
        self._direct = True
        self._paused = False
        self._end: BeethovenError | None = None
        self._excess = 0
        self._flushing: asyncio.Handle | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._wrote = True
        self._taken = 0
        self.bytes_out = 0
        """Bytes written, including those that the transport still holds."""
        self.messages_out = 0
        """Messages sent, including those that wait."""

    @property
    def unsent(self) -> int:
        """Bytes that wait: in line, or with the transport."""
        return len(self._batch) + self._outbox.size + self._transport.get_write_buffer_size()

    @property
    def busy(self) -> bool:
        """Whether so much waits, large messages apart, that no more may be sent."""
        return not self._direct and self.unsent - self._outbox.large_size >= self._limit

    @property
    def full(self) -> bool:
        """Whether no more large messages may be sent. They are counted apart, since others don't
        wait for them."""
        return self._outbox.large_size >= self._limit

    def send(
        self, control: Control, message: Term, sender: Pid | None, refusable: bool = False
    ) -> None:
        """Send one message. `sender`: the process that it is from, where `control` does not tell.

        Raises `EncodeError`, and, if it is `refusable`, `Busy`; then nothing is sent.
        """
        if refusable and not self._direct and self.busy:
            raise self.busy_error()
        if self._end is not None:
            return
        frame, payload_at = encode_frame(self._flags, control, message)
        size = len(frame)
        large = size - payload_at > FRAGMENT_SIZE and self._fragments
        if refusable and large and self.full:
            raise self.busy_error()
        self.messages_out += 1
        if self._direct and not large:
            self._batch += frame
            if len(self._batch) > FRAGMENT_SIZE:
                self._write_batch()
            else:
                self.write_soon()
        else:
            from_ = sender_of(control) if sender is None else sender
            self._line_up(from_, LargeMessage(frame, payload_at) if large else frame)

    def write_soon(self) -> None:
        """Write what is sent by those who are to run next: the answers to what came in don't wait
        for another turn of the loop."""
        if not self._batch_due:
            self._batch_due = True
            self._loop.call_soon(self._write_due_batch)

    def busy_error(self) -> Busy:
        """The `Busy` of this peer."""
        return Busy(f"{self.unsent} bytes wait for {self._peer}; the limit is {self._limit}")

    async def drain(self, *, large: bool) -> None:
        """Wait while `busy`, and for `large` messages while `full`. Raises why the connection ended
        if it does."""
        while True:
            if self._end is not None:
                raise self._end
            if not (self.busy or (large and self.full)):
                return
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def tick(self) -> bool:
        """Say that we live, unless something was written since the last tick, or waits. Gives
        whether the peer has taken anything since, or nothing is too much."""
        if not self._wrote:
            self.beat()
        self._wrote = False
        taken = self.bytes_out - self._transport.get_write_buffer_size()
        moved, self._taken = taken != self._taken, taken
        return moved or not (self.busy or self.full)

    def beat(self) -> None:
        """Say that we live, unless something waits that will say so."""
        if self._direct:
            self._write(bytearray(TICK))

    def pause(self) -> None:
        """The transport is full."""
        self._paused, self._direct = True, False

    def resume(self) -> None:
        """The transport has room again."""
        self._paused = False
        self._flush()

    def close(self, reason: BeethovenError, *, flush: bool) -> None:
        """Take no more; with `flush`, give all that waits to the transport. `reason` is what
        `drain` raises then."""
        self._write_batch()
        self._end, self._direct = reason, False
        if self._flushing is not None:
            self._flushing.cancel()
        while flush and (data := self._outbox.next_data()):
            self._write(data)
        self._wake()

    def _write_due_batch(self) -> None:
        self._batch_due = False
        self._write_batch()

    def _write_batch(self) -> None:
        if self._batch:
            data, self._batch = self._batch, bytearray()
            self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        self._transport.write(data)
        self.bytes_out += len(data)
        self._wrote = True

    def _line_up(self, sender: Term, message: bytearray | LargeMessage) -> None:
        self._write_batch()
        large = isinstance(message, LargeMessage)
        over = self.full if large else self.busy
        before = self._outbox.size
        self._outbox.put(sender, message)
        self._direct = False
        if over:
            self._excess += self._outbox.size - before
            if self._excess > self._limit:
                self._end = NoConnection(str(self.busy_error()))
                self._overrun(self._end)
                return
        if not self._paused and self._flushing is None:
            self._flush()

    def _flush(self) -> None:
        self._flushing = None
        for _ in range(CHUNKS_PER_TURN):
            data = self._outbox.next_data()
            if not data:
                self._direct = not self._paused
                break
            self._write(data)
            self._excess = max(0, self._excess - len(data))
            if self._paused:
                break
        else:
            self._flushing = self._loop.call_soon(self._flush)
        if not self.busy:
            if not self.full:
                self._excess = 0
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
