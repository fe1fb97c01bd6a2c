"""A `Connection` on a fake transport, with a fake clock; the sans-IO handshake plays the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from pybeethoven.distribution import control as c
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import MessageReader, encode_message
from pybeethoven.distribution.handshake import (
    Handshake,
    Identity,
    NameReceived,
    Status,
    StatusReceived,
)
from pybeethoven.errors import BeethovenError, HandshakeError
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.net.connection import Connection
from pybeethoven.net.limits import Limits
from pybeethoven.net.ticktime import TickTime

OWN = Identity("py@h", OFFERED, 1)
OURS, THEIRS = Pid(Atom("py@h"), 1, 0, 1), Pid(Atom("x@h"), 1, 0, 2)
LIMITS = Limits(handshake_time=8, message_size=1000, unsent_size=100_000)
STEP = 0.25  # exact in binary
HIGH_WATER = 65_536


def frame(payload: Term) -> bytes:
    """A message of the peer's."""
    return encode_message(OFFERED, *c.send_sender(OFFERED, THEIRS, OURS, payload))


class Clock:
    """The time of the running event loop."""

    def __init__(self) -> None:
        self.now = 0.0

    async def advance(self, seconds: float) -> None:
        """Let time pass, in steps shorter than the interval of ticks; run what is due."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            await turns()


async def turns() -> None:
    """Run what is due, and what that calls soon."""
    for _ in range(4):
        await asyncio.sleep(0)


class FakeTransport(asyncio.Transport):
    """Keeps written data until the peer takes it; while `stuck`, that is the write buffer."""

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.untaken = bytearray()
        self.stuck = self.closing = self.aborted = self.lost = False
        self.reading = True

    def pause_reading(self) -> None:
        assert not self.lost  # uvloop raises an error
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.lost
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing or self.lost

    def write(self, data: Any) -> None:
        assert not self.lost
        self.untaken += data
        if self.get_write_buffer_size() > HIGH_WATER:
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.stuck * len(self.untaken)

    def take(self) -> bytes:
        """The peer reads all data, and the data that is written once there is room."""
        if self.stuck:
            self.stuck = False
            self.connection.resume_writing()
        data = bytes(self.untaken)
        self.untaken.clear()
        if self.closing:
            self.lose()
        return data

    def close(self) -> None:
        self.closing = True
        if not self.get_write_buffer_size():
            self.lose()

    def abort(self) -> None:
        self.aborted = True
        self.untaken.clear()
        self.lose()

    def lose(self, error: Exception | None = None) -> None:
        """The socket is closed."""
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, error)


class Owner:
    """Records its callbacks; `then` has functions to call in them."""

    def __init__(self, status: Status, proceed: bool) -> None:
        self.status, self.proceed = status, proceed
        self.told: list[Term] = []
        self.reasons: list[BeethovenError] = []
        self.then: dict[Term, Callable[[], object]] = {}
        self.crowded, self.paused = False, 0

    def _record(self, what: Term) -> None:
        self.told.append(what)
        if what in self.then:
            self.then[what]()

    def status_for(self, connection: Connection, peer: Identity) -> Status:
        self._record("name")
        return self.status

    def is_connected(self, peer: str) -> bool:
        return False

    def proceed_when_alive(self, connection: Connection) -> bool:
        self._record("alive")
        return self.proceed

    def connection_up(self, connection: Connection) -> None:
        self._record("up")

    def message_received(self, connection: Connection, control: c.Control, message: Term) -> None:
        self.crowded = True  # so that there are many turns
        self._record(message)

    def peer_silent(self, connection: Connection) -> None:
        self._record("silent")

    def connection_down(self, connection: Connection, reason: BeethovenError) -> None:
        self.reasons.append(reason)
        self._record("down")


class Rig:
    """A connection in a role, and its peer in the other.

    `status`, `proceed`: what the acceptor and the initiator decide, whichever of them is the peer.
    """

    def __init__(
        self,
        clock: Clock,
        role: str = "acceptor",
        *,
        status: Status = Status.OK,
        proceed: bool = True,
        cookie: str = "cookie",
        flags: Flag = OFFERED,
        ticktime: float = 4,
    ) -> None:
        self.clock, self.ticktime = clock, TickTime(ticktime)
        self.owner = Owner(status, proceed)
        self.reader = MessageReader(OFFERED)
        peer = Identity("x@h", flags, 2)
        if role == "initiator":
            handshake = Handshake.initiator(OWN, "x@h", "cookie", 1)
            self.peer = Handshake.acceptor(peer, cookie, 2)
        else:
            handshake = Handshake.acceptor(OWN, "cookie", 1)
            self.peer = Handshake.initiator(peer, "py@h", cookie, 2)
        self.connection = Connection(handshake, self.owner, ticktime=self.ticktime, limits=LIMITS)
        self.transport = FakeTransport()
        self.transport.connection = self.connection

    def start(self) -> Iterator[bytes]:
        """Make the connection; give each message that the peer sends in the handshake."""
        self.connection.connection_made(self.transport)
        return self._peer_messages()

    def _peer_messages(self) -> Iterator[bytes]:
        while messages := self._answer():
            while messages:
                size = 2 + int.from_bytes(messages[:2])
                yield messages[:size]
                messages = messages[size:]

    def _answer(self) -> bytes:
        with suppress(HandshakeError):
            for event in self.peer.receive_data(self.transport.take()):
                if isinstance(event, NameReceived):
                    self.peer.send_status(self.owner.status)
                if event == StatusReceived(Status.ALIVE):
                    self.peer.answer_alive(self.owner.proceed)
        return self.peer.data_to_send()

    def shake_hands(self, trailing: bytes = b"", size: int = 1000) -> None:
        """Play the handshake as far as it goes; `trailing` comes with its last message."""
        for message in self.start():
            is_last = message[2:3] in b"ar"
            self.receive(message + trailing * is_last, size)

    def receive(self, data: bytes, size: int = 1000) -> None:
        """The peer sends `data`, which comes in parts of `size`."""
        for start in range(0, len(data), size):
            self.connection.data_received(data[start : start + size])

    def receive_eof(self) -> None:
        """The peer closes its side."""
        if not self.connection.eof_received():
            self.transport.close()

    def send(self, payload: Term) -> None:
        """Send a message to the peer."""
        self.connection.writer.send(*c.send_sender(OFFERED, OURS, THEIRS, payload), None)

    def fill(self) -> None:
        """Send, while nothing leaves, as much as may wait."""
        self.transport.stuck = True
        while not self.connection.writer.busy:
            self.send(bytes(10_000))

    def read(self) -> list[Term]:
        """The messages that the peer gets."""
        return [message for _, message in self.reader.receive_data(self.transport.take())]

    async def end(self) -> str:
        """Check that the connection has ended, and that nothing follows; give the reason."""
        await turns()
        assert self.transport.lost
        assert self.connection.closed.done()
        told = list(self.owner.told)
        self.clock.now += 1000
        await turns()
        assert self.owner.told == told
        assert told.count("down") == 1
        return str(self.owner.reasons[0])
