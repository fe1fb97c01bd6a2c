"""The BeaconServer: answers those who look for the cluster, and has them let in.

Source: the module Beethoven.BeaconServer of Beethoven 0.3.9; unlike it, this one bears whatever a
stranger sends.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pybeethoven.cluster import seek_chat
from pybeethoven.cluster.dial_policy import DialPolicy
from pybeethoven.cluster.prover import MAX_SKEW, Prover, Way
from pybeethoven.cluster.seek_chat import Message, SeekChatError
from pybeethoven.errors import BeethovenError, ConfigError, NoConnection, brief
from pybeethoven.etf import Atom, Term
from pybeethoven.net import sockets
from pybeethoven.net.acceptor import Acceptor
from pybeethoven.net.failure_limit import FailureLimit, Rate
from pybeethoven.net.finder import Allows
from pybeethoven.net.listening import listen_address, open_listener
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.net.names import split_name
from pybeethoven.net.tasks import create_task
from pybeethoven.otp import GenServer, Own
from pybeethoven.otp.gen_server import From
from pybeethoven.otp.node import CALL_TIMEOUT
from pybeethoven.otp.process import first_word

logger = logging.getLogger(__name__)

NAME: Final = Atom("Elixir.Beethoven.BeaconServer")
RECOVER: Final = Atom("recover")

MAX_GUESTS: Final = 64
"""Maximum number of connections at once. With one more the oldest is closed, first of all one that
has not asked yet."""
MAX_GUESTS_OF_ADDRESS: Final = 32
"""The same for the connections from one address."""
DIALS_OF_ADDRESS: Final = Rate(burst=32, interval=12.0)
"""Maximum number of dials that reach a node and fail or are unfinished, for requests from one
address."""
DIALS_IN_ALL: Final = Rate(burst=64, interval=12.0)
"""The same for all addresses together."""
REQUEST_TIME: Final = 5.0
"""Seconds that a guest has to send its request."""
REPLY_TIME: Final = 5.0
"""Seconds that it has to take the reply."""
PROBE_TIME: Final = 0.25
"""Seconds that who has the port has to accept a connection."""
OPEN_AGAIN: Final = (0.01, 10.0)
"""The first and the longest pause between two tries to have the port, in seconds; each is twice the
one before. One try when a node has gone is not enough: of one that was killed the connections often
end a moment before its port is free."""
FREED_AFTER: Final = 0.1
"""Time in which the port of a killed process becomes free, in seconds. Until then the port is in
use, but connections to it are refused."""
SAY_AGAIN: Final = 60.0
"""A warning that strangers can cause is logged once in so many seconds."""
EXTRA_READS: Final = 64
"""A guest that sends so often when it has only to wait is taken to be gone."""

Payload = str | list[str]


@dataclass(slots=True)
class _Guest:
    """A connection to the beacon: where it comes from, its request once that is there, and whether
    that was proven."""

    address: str
    request: Message | None = None
    is_proven: bool = False


class BeaconServer(GenServer):
    """Listens on `port`, and has whoever asks for it let in with `await add_node(name)`.

    `add_node` may take its time, and is cancelled when the seeker gives up; a `BeethovenError` that
    it raises is the seeker's `error`. `nodes()`: what those who only watch are told.
    `interface`: the address to listen at, by default the host of the node's name if that is an
    address, else all. `dial_policy`: which hosts are dialled, by default only this machine.
    `prover`: checks the proofs of requests, and proves the replies to those; requests that are
    proven are not counted. `needs_proof`: nobody is let in without.

    Where the port can't be had, that is logged: a warning if it is taken, else an error. It is
    tried again and again, see `OPEN_AGAIN`, anew from the first pause whenever a node goes down,
    for it may have been one of this machine that had it, and at the cast `recover`.
    """

    def __init__(
        self,
        port: int,
        *,
        add_node: Callable[[str], Awaitable[None]],
        nodes: Callable[[], list[str]],
        interface: str | None = None,
        dial_policy: DialPolicy | None = None,
        prover: Prover | None = None,
        needs_proof: bool = False,
    ) -> None:
        self.port = port
        self.opened_at: float | None = None
        """Since when it listens, in the loop's time; None while it doesn't."""
        self._add_node = add_node
        self._nodes = nodes
        self._interface = interface
        self._dial_policy = dial_policy or DialPolicy()
        self._prover = prover
        self._needs_proof = needs_proof
        self._failures = FailureLimit(
            "dials for the beacon", per_address=DIALS_OF_ADDRESS, in_all=DIALS_IN_ALL
        )
        self._forget()

    def _forget(self) -> None:
        """Be as if it had never run."""
        self.opened_at = None
        self._acceptor: Acceptor | None = None
        self._again: asyncio.TimerHandle | None = None
        self._pause = OPEN_AGAIN[0]
        self._guests: dict[asyncio.Task[None], _Guest] = {}
        """In the order in which they came."""
        self._adding: dict[str, asyncio.Task[Any]] = {}
        self._silent: dict[str, float] = {}
        self._log_limit = LogLimit()

    async def init(self) -> None:
        """Listen, if the port can be had."""
        self._forget()
        self.node.monitor_nodes(self)
        await self._open()

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Answer `{error, notsup}`, so that no caller can end us."""
        level = self._log_limit.level(logging.WARNING)
        logger.log(level, "BeaconServer got an unknown call from %s", brief(from_[0].node))
        return (Atom("error"), Atom("notsup"))

    async def handle_cast(self, message: Term) -> None:
        """Take `recover`: listen, if it doesn't."""
        if message == RECOVER:
            await self._open_anew()
        else:
            level = self._log_limit.level(logging.WARNING)
            logger.log(level, "BeaconServer got an unknown cast %s", first_word(message))

    async def handle_info(self, message: Term) -> None:
        """Take what the node monitor sends, and the end of a pause."""
        match message:
            case Own(("nodedown", _)):
                await self._open_anew()
            case "recover":
                await self._open()

    async def terminate(self, reason: Term) -> None:
        """Close everything, whoever waits for an answer."""
        self._close()
        for guest in self._staying():
            guest.cancel()
        if self._guests:
            await asyncio.wait(self._guests)

    # The port

    async def _open_anew(self) -> None:
        self._pause = OPEN_AGAIN[0]
        await self._open()

    async def _open(self) -> None:
        if self._acceptor is not None:
            return
        address = self._interface or await listen_address(split_name(self.node.name)[1])
        try:
            listener = open_listener(address, [self.port])
        except OSError as error:
            await self._report(error, address)
            if self._again is not None:
                self._again.cancel()
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(self._pause, self.deliver, RECOVER)
            self._pause = min(2 * self._pause, OPEN_AGAIN[1])
            return
        self._silent.clear()
        self.opened_at = asyncio.get_running_loop().time()
        self._acceptor = Acceptor(listener, self._accepted, f"the beacon of {self.node.name}")
        self._acceptor.start()
        logger.info("%s is a beacon at port %d of %s", self.node.name, self.port, address)

    async def _report(self, error: OSError, address: str) -> None:
        """Log why the port can't be had, unless a process that was killed is just giving it up."""
        where, taken = f"port {self.port} of {address}", error.errno == errno.EADDRINUSE
        if taken and await self._is_beacon(address):
            text = f"another node of this machine is the beacon at {where}; {self.node.name} is"
            self._say(f"{text} when that one has ended")
        elif not taken or self._pause > FREED_AFTER:
            text = f"others do not find the cluster through {self.node.name}"
            self._say(f"{text}: it can't listen at {where}: {error}", level=logging.ERROR)

    async def _is_beacon(self, address: str) -> bool:
        """Whether somebody listens at our port; else a program has it for a connection."""
        watching = seek_chat.encode(Message(self.node.name, seek_chat.WATCHING, "check"))
        try:
            async with asyncio.timeout(PROBE_TIME):
                _, writer = await sockets.open_stream(address, self.port)
        except OSError:
            return False
        writer.write(watching)
        writer.close()
        return True

    def _close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._acceptor is not None:
            self._acceptor.close()
        self._acceptor = self.opened_at = None

    def _accepted(self, sock: socket.socket) -> None:
        try:
            guest = _Guest(sock.getpeername()[0])
        except OSError:  # it has gone already
            sock.close()
            return
        self._make_room(guest.address)
        task = create_task(self._serve(sock, guest), f"guest of {self.node.name}")
        self._guests[task] = guest
        task.add_done_callback(lambda _: self._guests.pop(task))
        task.add_done_callback(lambda _: sock.close())  # also when it was cancelled before it ran

    def _make_room(self, address: str) -> None:
        """Close a connection, if there are too many for one more from an address."""
        staying = self._staying()
        same = [task for task in staying if self._guests[task].address == address]
        if len(same) >= MAX_GUESTS_OF_ADDRESS:
            staying = same
        elif len(staying) < MAX_GUESTS:
            return
        min(staying, key=lambda task: self._guests[task].request is not None).cancel()
        text = f"the beacon of {self.node.name} turns guests away: {len(staying)} are there"
        self._say(f"{text}, and one more from {address}", SAY_AGAIN, key="full")

    def _staying(self) -> list[asyncio.Task[None]]:
        """The guests that are not told to go: a second cancellation would cut their end off."""
        return [task for task in self._guests if not task.cancelling()]

    def _say(
        self,
        text: str,
        again: float = math.inf,
        level: int = logging.WARNING,
        key: str | None = None,
    ) -> None:
        """Log a text, but not the same one within `again` seconds, as long as it listens or does
        not; of several texts with one `key`, only one."""
        now = asyncio.get_running_loop().time()
        key = key or text
        if now >= self._silent.get(key, 0.0):
            self._silent[key] = now + again
            logger.log(level, "%s", text)

    # The guests

    async def _serve(self, sock: socket.socket, guest: _Guest) -> None:
        """One connection: a request, a reply."""
        try:
            if (payload := await self._payload(sock, guest)) is None:
                return
            reply = Message(self.node.name, seek_chat.REPLY, payload)
            if payload == seek_chat.JOINED and guest.is_proven and self._prover is not None:
                way = Way(sock.getsockname()[0], guest.address)
                reply = self._prover.prove(reply, way, request=guest.request)
            async with asyncio.timeout(REPLY_TIME):
                await asyncio.get_running_loop().sock_sendall(sock, seek_chat.encode(reply))
        except OSError as error:
            logger.debug("a guest of the beacon went away: %s", error)

    async def _payload(self, sock: socket.socket, guest: _Guest) -> Payload | None:
        """What a guest is told; None if it has gone."""
        try:
            message = await _receive(sock)
        except SeekChatError as error:
            logger.debug("a guest of the beacon is no Locator: %s", error)
            return seek_chat.ERROR
        if message is None:
            return None
        guest.request = message
        if message.sender == self.node.name:
            return seek_chat.SELF
        if message.type == seek_chat.SEEKING:
            if self._prover is not None and message.proof:
                way = Way(guest.address, sock.getsockname()[0])
                guest.is_proven = self._prover.is_proven(message, way)
            return await self._let_in(message.sender, sock, guest)
        return self._nodes() if message.type == seek_chat.WATCHING else seek_chat.ERROR

    async def _let_in(self, name: str, sock: socket.socket, guest: _Guest) -> Payload | None:
        """Have a node added, if it can be reached; one that is being added already after that.
        None if the guest goes before it is added."""
        try:
            split_name(name)
        except ConfigError:
            level = self._log_limit.level(logging.INFO)
            logger.log(level, "a guest of the beacon calls itself %s, no node name", brief(name))
            return seek_chat.ERROR
        if self._needs_proof and not guest.is_proven:
            self._say(
                f"{self.node.name} lets nobody in from {guest.address} without a proof: the cookie "
                f"differs, or a clock by over {MAX_SKEW:g} seconds, or an address is translated",
                SAY_AGAIN,
                key="proof",
            )
            return seek_chat.JOIN_FAILED
        while (earlier := self._adding.get(name)) is not None:
            await asyncio.wait({earlier})
        task = asyncio.current_task()
        assert task is not None
        self._adding[name] = task
        try:
            # Also when the guest goes: so does the dial.
            if not await self._reaches(name, guest):
                level = self._log_limit.level(logging.INFO)
                logger.log(level, "%s asked to be let in, but can't be reached", name)
                return seek_chat.JOIN_FAILED
            if not await _unless_gone(sock, self._add_node(name)):
                return None
        except BeethovenError as error:
            level = self._log_limit.level(logging.WARNING)
            logger.log(level, "%s was not let in: %s", name, error)
            return seek_chat.ERROR
        except Exception:
            logger.exception("letting %s in failed", name)
            return seek_chat.ERROR
        finally:
            del self._adding[name]
        logger.info("the beacon of %s has let %s in", self.node.name, name)
        return seek_chat.JOINED

    async def _reaches(self, name: str, guest: _Guest) -> bool:
        """Whether a node can be reached, and may be let in for the request of a guest."""
        address = guest.address
        if (allows := await self._dial_policy.for_source(address)) is None:
            text = f"{self.node.name} lets no node in from {address}, which is not in cluster_net"
            self._say(f"{text}; give its network as one of beacon_nets", SAY_AGAIN, key="outside")
            return False
        if (connected := self.node.network.address_of(name)) is None:
            if not await self._dials(name, guest, allows):
                return False
        elif not allows(connected):
            return False
        return await self.node.ping(name)

    async def _dials(self, name: str, guest: _Guest, allows: Allows) -> bool:
        address, counts = guest.address, not guest.is_proven
        if counts and not self._failures.begin(address):
            return False
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                is_up = await self.node.network.connect_if(name, allows)
        except TimeoutError:
            return False
        except (NoConnection, ConfigError) as error:
            logger.debug("%s was not reached for %s: %s", name, address, error)
            if counts:
                self._failures.take_back(address)
            return False
        if counts and is_up:
            self._failures.succeeded(address)
        return is_up


async def _receive(sock: socket.socket) -> Message | None:
    """The request of a guest, or None if it says nothing.

    Raises `SeekChatError` for what is none, or not all of one, `OSError`.
    """
    loop = asyncio.get_running_loop()
    receiver = seek_chat.Receiver()
    with suppress(TimeoutError):
        async with asyncio.timeout(REQUEST_TIME):
            while piece := await loop.sock_recv(sock, seek_chat.MAX_SIZE):
                if (message := receiver.receive(piece)) is not None:
                    return message
    if receiver.data:
        raise SeekChatError(f"{len(receiver.data)} bytes are not a whole message")
    return None


async def _unless_gone(sock: socket.socket, work: Awaitable[None]) -> bool:
    """Do `work`; False, and it is cancelled, if the guest closes the connection before it is done.
    Raises what it raises."""
    working, going = asyncio.ensure_future(work), asyncio.create_task(_until_gone(sock))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        going.cancel()
        await asyncio.wait({working, going})


async def _until_gone(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        for _ in range(EXTRA_READS):
            if not await loop.sock_recv(sock, seek_chat.MAX_SIZE):
                return
    except OSError as error:
        logger.debug("a guest of the beacon went away: %s", error)
