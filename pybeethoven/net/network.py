"""A node among nodes: listens, registers with EPMD, dials, and keeps one connection to each peer.

Who wins when two nodes dial each other at once is told in the "status" part of
https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#distribution-handshake
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakSet

from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import NOTHING, encode_message
from pybeethoven.distribution.handshake import (
    LENGTH_SIZE,
    TLS_LENGTH_SIZE,
    Handshake,
    Identity,
    Status,
)
from pybeethoven.errors import (
    BeethovenError,
    Busy,
    ConfigError,
    EpmdError,
    HandshakeError,
    NoConnection,
    brief,
)
from pybeethoven.etf import Pid, Term, decode, encode
from pybeethoven.net import sockets
from pybeethoven.net.acceptor import first_of_most
from pybeethoven.net.connection import Connection, Refused
from pybeethoven.net.door import Door
from pybeethoven.net.failure_limit import FailureLimit, Rate
from pybeethoven.net.finder import Address, Allows, Finder, Place, Resolve
from pybeethoven.net.limits import Limits
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.net.names import NO_NAME, check_reach, split_name, unnamed_host
from pybeethoven.net.observe import Announcer, ConnectionEvents, NodeInfo, describe
from pybeethoven.net.registrar import EpmdSetting
from pybeethoven.net.tasks import create_task
from pybeethoven.net.ticktime import LONGEST, TickTime, is_time
from pybeethoven.net.tls import TlsContexts, TlsOptions, check_host
from pybeethoven.net.tls_layer import TlsLayer

logger = logging.getLogger(__name__)

NET_TICKTIME = 60.0
"""Seconds of silence after which a peer is down (OTP's net_ticktime)."""
CLOSING_TIME = 0.25
"""Seconds that peers have to take what was sent before `stop` cuts them off."""
PER_ADDRESS: Final = Rate(burst=512, interval=50.0)
"""Maximum number of handshakes of peers that fail or are unfinished, from one address."""
IN_ALL: Final = Rate(burst=1024, interval=25.0)
"""The same for all addresses together."""


IN_CHILD: Final = (
    "{} runs in the process that this one was forked from, not here: create a Node with another "
    "name in this process, or let the parent do the work"
)

_networks: Final[WeakSet[Network]] = WeakSet()


def _leave_to_parent() -> None:
    for network in _networks:
        network.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


class NetworkOwner(Protocol):
    """Who is told what comes from other nodes. None of these may block."""

    def node_named(self, name: str) -> None:
        """A peer has given this node its name; `node_up` of that peer follows."""

    def name_lost(self) -> None:
        """The peer that gave the name is down, and so is every other; the name is not ours now."""

    def node_up(self, peer: str) -> None:
        """A connection to `peer` is up; messages may follow."""

    def node_down(self, peer: str, reason: BeethovenError, *, was_up: bool) -> None:
        """The connection to `peer` ended, or (`was_up` false) could not be made."""

    def message_received(self, peer: str, control: tuple[Term, ...], message: Term) -> None:
        """A control message came, with its payload or `NOTHING`."""

    def peer_silent(self, peer: str) -> None:
        """Nothing has come from `peer` for half of the time after which it is down."""


@dataclass
class _Attempt:
    """A connection that is to be: who waits for it, and what is to be sent over it."""

    up: asyncio.Future[None]
    place: Place | None = None
    unsent: list[tuple[tuple[Term, ...], Term, Pid | None]] = field(default_factory=list)
    unsent_size: int = 0
    handshake: Handshake | None = None
    dialled: Connection | None = None
    superseded: bool = False


class Network:
    """The connections of one node.

    `name`: `alive@host`; None: the first peer gives one, and nobody can connect to this node.
    `cookie`: the cluster's secret. `hidden`: whether peers leave this node out of `nodes()`.
    `net_ticktime` is in seconds. `limits`: what it bears; by default `Limits()`.

    `epmd`: whether to register with EPMD; if none runs and none is installed, or with `embedded`,
    this process becomes the EPMD of its host. `listen_port`: where to listen, a port or the first
    and the last of several, 0 for any. `use_interface`: the address to listen at; by default the
    host part of the name if that is an address, else all. `resolve(peer)`: the host and port of a
    node, or None to ask the EPMD of its host; must not block. `tls`: speak TLS with all peers.
    """

    def __init__(
        self,
        name: str | None,
        cookie: str,
        owner: NetworkOwner,
        *,
        hidden: bool = True,
        net_ticktime: float = NET_TICKTIME,
        epmd: EpmdSetting = True,
        listen_port: int | tuple[int, int] = 0,
        use_interface: str | None = None,
        resolve: Resolve | None = None,
        limits: Limits | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        _check_kinds(limits, tls, resolve)
        self._door: Door | None = None
        if name is not None:
            self._door = Door(
                name,
                hidden=hidden,
                epmd=epmd,
                listen_port=listen_port,
                use_interface=use_interface,
            )
        elif not hidden or listen_port or use_interface:
            raise ConfigError(
                "a node that gets its name from a peer is hidden and does not listen; "
                "give it a name, or leave out hidden, listen_port and use_interface"
            )
        self.name = NO_NAME if name is None else name
        self._cookie = cookie
        self._owner = owner
        self._hidden = hidden
        self._ticktime = TickTime(net_ticktime)
        self._transition: asyncio.TimerHandle | None = None
        self._limits = limits or Limits()
        self._tls = None if tls is None else TlsContexts(tls)
        self._length_size = LENGTH_SIZE if tls is None else TLS_LENGTH_SIZE
        self._finder = Finder(resolve)
        self._running = False
        self._identity: Identity | None = None
        self._named_by: Connection | None = None
        self._up: dict[str, Connection] = {}
        self._all: set[Connection] = set()
        self._attempts: dict[str, _Attempt] = {}
        self._dials: set[asyncio.Task[None]] = set()
        # In the order in which they came.
        self._handshakes: dict[Connection, None] = {}
        # The connections whose handshake is under way, on either side, by the challenge given.
        self._challenges: dict[int, Connection] = {}
        self.crowded, self.paused = False, 0
        """See `ConnectionOwner`."""
        self._failures = FailureLimit("handshakes", per_address=PER_ADDRESS, in_all=IN_ALL)
        self._announcer = Announcer()
        self._log_limit = LogLimit()
        self._in_use = False
        """Whether it was started and has not stopped; unlike `running`, also while it does so."""
        self.in_child = False
        """Whether this process was forked from one in which the node ran."""
        _networks.add(self)

    @property
    def running(self) -> bool:
        """Whether `start` is done and `stop` was not called."""
        return self._running

    @property
    def creation(self) -> int:
        """The number of this incarnation of the node. Raises `NoConnection` if it has no name."""
        return self.check_named().creation

    def check_named(self) -> Identity:
        """Who this node is. Raises `NoConnection` if it has no name."""
        if self.in_child:
            raise NoConnection(IN_CHILD.format(self.name))
        if self._identity is None:
            raise NoConnection(
                "the node has no name: it is not started (`async with` or start_node() does that), "
                "or gets its name from a peer and is not connected: await connect(...) first"
            )
        return self._identity

    def connected(self) -> list[str]:
        """The names of the nodes that a connection is up to."""
        return list(self._up)

    def is_connected(self, peer: str) -> bool:
        """Whether a connection to `peer` is up."""
        return peer in self._up

    def flags_of(self, peer: str) -> Flag:
        """What was negotiated with `peer`, or, not connected, what will be with any BEAM."""
        connection = self._up.get(peer)
        return OFFERED if connection is None else connection.flags

    async def start(self) -> None:
        """Listen and register. Raises `EpmdError` (`NameTaken`, `EpmdUnreachable`) or
        `ConfigError`.

        On an error, or when cancelled, nothing is left open.
        """
        self._in_use = True
        self._naming = asyncio.Lock()
        if self._door is None:
            self._running = True
            return
        try:
            creation = await self._door.open(lambda: self._secured(self._accept(), None))
            flags = OFFERED if self._hidden else OFFERED | Flag.PUBLISHED
            self._identity = Identity(self.name, flags, creation)
            self._running = True
            self._door.serve()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Give the name back and close every connection, within two times `CLOSING_TIME`."""
        try:
            await self._stop()
        finally:
            self._in_use = False
            self._announcer.end()

    async def _stop(self) -> None:
        self._running = False
        self._finder.close()
        self._end_transition()
        if self._door is not None:
            await self._door.close()
        for dial in self._dials:
            dial.cancel()
        if self._dials:
            await asyncio.wait(self._dials)
        closing = list(self._all)
        for connection in closing:
            connection.close(NoConnection(f"{self.name} stopped"))
        if not closing:
            return
        await asyncio.wait([connection.closed for connection in closing], timeout=CLOSING_TIME)
        for connection in closing:
            connection.close(NoConnection(f"{self.name} stopped"), flush=False)
        # A limit here too: a connection whose transport could not be made is never closed.
        await asyncio.wait([connection.closed for connection in closing], timeout=CLOSING_TIME)
        self._all.clear()

    def leave_to_parent(self) -> None:
        """Note that this process is a forked child: a node that runs does so in the parent only."""
        self.in_child = self.in_child or self._in_use
        self._running = False
        self._up.clear()

    def info(self) -> NodeInfo:
        """How this node and its connections are."""
        return NodeInfo(
            name=self.name,
            creation=None if self._identity is None else self._identity.creation,
            hidden=self._hidden,
            connections=[describe(connection) for connection in self._up.values()],
            dialling=list(self._attempts),
            handshakes=len(self._handshakes),
        )

    def events(self) -> ConnectionEvents:
        """What happens to connections from now on, until the node stops."""
        return self._announcer.events()

    def send(
        self,
        peer: str,
        control: tuple[Term, ...],
        message: Term = NOTHING,
        sender: Pid | None = None,
        refusable: bool = False,
    ) -> None:
        """Send to `peer`, over a connection that is made first when there is none.

        `sender`: the process that it is from, where `control` does not tell (see
        `distribution.outgoing`).
        Raises `EncodeError`, and if it is `refusable`, `Busy`. Never blocks; if the connection
        can't be made, or too much waits for it, the owner's `node_down` is called.
        """
        if (connection := self._up.get(peer)) is not None:
            connection.writer.send(control, message, sender, refusable)
            return
        size = len(encode_message(OFFERED, control, message))
        if self.in_child:
            raise NoConnection(IN_CHILD.format(self.name))
        if self._identity is None:  # a process that the loss of the name has ended, still cleaning
            return
        if not self._dialling_is_busy():
            if message is not NOTHING:
                data = encode(message)  # as it is now: its sender may change it
                message = decode(data, max_terms=len(data))
            attempt = self._attempt(peer)
            attempt.unsent.append((control, message, sender))
            attempt.unsent_size += size
            return
        error = Busy(f"too much waits for {peer} and others that are being connected to")
        if refusable:
            raise error
        self._fail_soon(peer, self._attempt(peer), error)

    def is_busy(self, peer: str) -> bool:
        """Whether `drain` would wait, large messages apart."""
        if (connection := self._up.get(peer)) is None:
            return peer != self.name and self._dialling_is_busy()
        return connection.writer.busy

    def has_no_room(self, peer: str) -> bool:
        """Whether `drain` would wait for a peer that is connected."""
        connection = self._up.get(peer)
        return connection is not None and (connection.writer.busy or connection.writer.full)

    async def drain(self, peer: str, *, large: bool = True) -> None:
        """Wait until `peer` takes more, while too much waits for it (`Limits.unsent_size`); with
        `large`, until it takes more large messages, too.

        Raises `NoConnection` if the connection ends, or can't be made, in that time.
        """
        if peer not in self._up and self.is_busy(peer):
            await self.connect(peer)
        if (connection := self._up.get(peer)) is not None:
            await connection.writer.drain(large=large)

    def address_of(self, peer: str) -> str | None:
        """The address at which a connected peer is; None if it is not connected."""
        connection = self._up.get(peer)
        return None if connection is None else connection.peer_address

    def expecting(self, address: str) -> AbstractContextManager[None]:
        """See `FailureLimit.expecting`."""
        return self._failures.expecting(address)

    async def connect_if(self, peer: str, allows: Allows) -> bool:
        """`connect` on behalf of an unauthenticated client: only to those addresses of the peer's
        host that `allows` allows, whose EPMD alone is asked. False if the handshake fails; else
        errors as `connect`."""
        self._check_peer(peer)
        if peer in self._up:
            return True
        try:
            async with asyncio.timeout(self._limits.handshake_time):
                place = await self._finder.allowed_place(peer, allows)
        except (OSError, UnicodeError, EpmdError) as error:
            raise NoConnection(f"no connection to {peer}: {error}") from error
        attempt = self._attempt(peer, place)
        try:
            await asyncio.shield(attempt.up)
        except NoConnection:
            if attempt.dialled is None:
                raise
            return False
        return True

    async def connect(self, peer: str, address: Address | None = None) -> None:
        """Wait until a connection to `peer` is up.

        `address`: its host and port, for this connection and, if it can be made, all later ones;
        EPMD is not asked.
        Raises `NoConnection`; `ConfigError` if a name or address can't be used, or one node has a
        long name and the other a short one. When cancelled, the attempt goes on for whoever else
        waits for it.
        """
        self._check_peer(peer)
        if address is not None:
            self._finder.tell(peer, address)
        if peer == self.name:
            raise NoConnection(f"{peer} is this node itself")
        if peer not in self._up:
            try:
                await asyncio.shield(self._attempt(peer).up)
            except NoConnection:
                if address is not None:
                    self._finder.forget(peer)
                raise

    def connect_soon(self, peer: str) -> None:
        """Start to connect to `peer` unless connected; the owner hears what comes of it."""
        if peer not in self._up and peer != self.name:
            self._attempt(peer)

    def disconnect(self, peer: str) -> bool:
        """Close the connection to `peer`. False when there is none."""
        if (connection := self._up.get(peer)) is None:
            return False
        connection.close(NoConnection(f"disconnected from {peer}"))
        return True

    @property
    def ticktime(self) -> TickTime:
        """How long peers may be silent."""
        return self._ticktime

    def set_ticktime(self, seconds: float, transition_period: float) -> None:
        """Change the tick time, unless a change is under way; see `Node.set_net_ticktime`.

        Raises `ConfigError`.
        """
        if not is_time(transition_period, 0):
            raise ConfigError(
                f"the transition period is {brief(transition_period)}; it takes 0 to {LONGEST} "
                f"seconds, like 60"
            )
        if not self._running:
            self._ticktime.change(seconds)
            self._ticktime.end_change()
            return
        loop = asyncio.get_running_loop()
        self._ticktime.change(seconds)
        self._transition = loop.call_later(transition_period, self._end_transition)
        self._tick_anew()

    def _end_transition(self) -> None:
        if self._transition is not None:
            self._transition.cancel()
            self._transition = None
            self._ticktime.end_change()
            self._tick_anew()

    def _tick_anew(self) -> None:
        for connection in list(self._up.values()):
            connection.tick_anew()

    def _check_peer(self, peer: str) -> None:
        split_name(peer)
        if self._identity is not None:
            check_reach(self.name, peer)

    # Dialling

    def _attempt(self, peer: str, place: Place | None = None) -> _Attempt:
        attempt = self._attempts.get(peer)
        if attempt is None:
            loop = asyncio.get_running_loop()
            attempt = self._attempts[peer] = _Attempt(loop.create_future(), place)
            attempt.up.add_done_callback(lambda done: done.cancelled() or done.exception())
            if not self._running:
                error = NoConnection(f"{self.name} is not running")
                self._fail_soon(peer, attempt, error)
                return attempt
            if self._is_full or len(self._dials) >= self._limits.dials:
                text = f"is connected to {len(self._up)} nodes and dials {len(self._dials)} already"
                error = NoConnection(f"{self.name} {text}")
                self._fail_soon(peer, attempt, error)
                return attempt
            dial = create_task(self._dial(peer, attempt), f"dial {peer}", contextvars.Context())
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)
        return attempt

    @property
    def _is_full(self) -> bool:
        return len(self._up) >= self._limits.peers

    def _dialling_is_busy(self) -> bool:
        waiting = sum(attempt.unsent_size for attempt in self._attempts.values())
        return waiting >= self._limits.unsent_size

    def _fail_soon(self, peer: str, attempt: _Attempt, error: BeethovenError) -> None:
        # Later: who sends may be amid what node_down changes.
        asyncio.get_running_loop().call_soon(self._attempt_failed, peer, attempt, error)

    async def _dial(self, peer: str, attempt: _Attempt) -> None:
        try:
            async with asyncio.timeout(self._limits.handshake_time), self._turn():
                await self._dial_once(peer, attempt)
                await asyncio.shield(attempt.up)
        except Exception as error:
            # Also UnicodeError, which the resolver raises for some hosts.
            self._attempt_failed(peer, attempt, error)
        except asyncio.CancelledError:
            self._attempt_failed(peer, attempt, NoConnection(f"{self.name} stopped"))
            raise

    def _turn(self) -> AbstractAsyncContextManager[None]:
        """A node without a name dials one peer at a time: the first that answers names it."""
        return self._naming if self._identity is None else nullcontext()

    async def _dial_once(self, peer: str, attempt: _Attempt) -> None:
        self._check_peer(peer)
        place = attempt.place or await self._finder.place(peer)
        hosts, port = await self._finder.find(peer, place)
        if attempt.superseded or attempt.up.done():
            return
        own = self._identity
        if own is None:
            own = Identity(await unnamed_host(peer, hosts[0], port), OFFERED | Flag.NAME_ME, 0)
        await sockets.dial(
            hosts, port, lambda: self._secured(self._dialled(peer, attempt, own), peer)
        )

    def _dialled(self, peer: str, attempt: _Attempt, own: Identity) -> Connection:
        handshake = Handshake.initiator(
            own,
            peer,
            self._cookie,
            secrets.randbits(32),
            length_size=self._length_size,
            check_challenge=self._check_challenge,
        )
        attempt.handshake = handshake
        attempt.dialled = self._new_connection(handshake)
        return attempt.dialled

    def _attempt_failed(self, peer: str, attempt: _Attempt, error: BaseException) -> None:
        if attempt.up.done():
            return
        if self._attempts.get(peer) is attempt:
            del self._attempts[peer]
        text = f"no connection to {peer}: {str(error) or 'it did not answer in time'}"
        self._announcer.announce("refused", peer, str(error) or "it did not answer in time")
        attempt.up.set_exception(NoConnection(text))
        if attempt.dialled is not None:
            attempt.dialled.close(NoConnection(text), flush=False)
        self._owner.node_down(peer, NoConnection(text), was_up=False)

    def _secured(self, connection: Connection, dialled: str | None) -> Connection | TlsLayer:
        if self._tls is None:
            return connection
        self._tls.refresh()
        host = None if dialled is None else split_name(dialled)[1]
        return TlsLayer(connection, self._tls, host, time_limit=self._limits.handshake_time)

    def _new_connection(self, handshake: Handshake) -> Connection:
        connection = Connection(
            handshake,
            self,
            ticktime=self._ticktime,
            limits=self._limits,
            log_limit=self._log_limit,
        )
        self._challenges[connection.challenge] = connection
        self._all.add(connection)
        connection.closed.add_done_callback(lambda _: self._all.discard(connection))
        return connection

    def _accept(self) -> Connection:
        assert self._identity is not None
        connection = self._new_connection(
            Handshake.acceptor(
                self._identity,
                self._cookie,
                secrets.randbits(32),
                length_size=self._length_size,
                check_challenge=self._check_challenge,
            )
        )
        if not self._running:
            connection.close(NoConnection(f"{self.name} stopped"), flush=False)
            return connection
        if len(self._handshakes) >= self._limits.handshakes:
            oldest = first_of_most({each: each.peer_address for each in self._handshakes})
            oldest.close(HandshakeError("too many handshakes are under way"), flush=False)
        self._handshakes[connection] = None
        return connection

    def _check_challenge(self, challenge: int) -> None:
        """Refuse a challenge that this node has given in another handshake, which ends as well:
        with the answer, a peer could pass for one that knows the cookie."""
        if (other := self._challenges.get(challenge)) is not None:
            error = HandshakeError(
                f"the peer sent the challenge that this node had given to {other.peer_name}"
            )
            other.close(error, flush=False)
            raise error

    # What the connections tell (ConnectionOwner)

    def status_for(self, connection: Connection, peer: Identity) -> Status:
        """The status message for a peer that has connected to us."""
        if self._tls is not None and self._tls.options.check_client_host:
            check_host(connection.certificate, peer.name.partition("@")[2])
        status = self._status_for(peer)
        if status in (Status.NOK, Status.NOT_ALLOWED):
            return status
        return status if self._failures.begin(connection.peer_address) else Status.NOT_ALLOWED

    def _status_for(self, peer: Identity) -> Status:
        if peer.name == self.name:
            return Status.NOT_ALLOWED
        if peer.name in self._up:
            return Status.ALIVE
        if self._is_full:
            return Status.NOT_ALLOWED
        attempt = self._attempts.get(peer.name)
        if attempt is None or attempt.superseded:
            return Status.OK
        # Our own dial goes on: the peer will refuse it, unless this is not the peer at all.
        return Status.NOK if self.name > peer.name else Status.OK_SIMULTANEOUS

    def proceed_when_alive(self, connection: Connection) -> bool:
        """A peer believes our old connection to be alive; we dialled because it is not."""
        return any(a.dialled is connection and not a.superseded for a in self._attempts.values())

    def connection_up(self, connection: Connection) -> None:
        """A handshake is complete: the connection takes the place of any other to that peer."""
        peer = connection.peer_name
        self._challenges.pop(connection.challenge, None)
        if connection in self._handshakes:
            del self._handshakes[connection]
            self._failures.succeeded(connection.peer_address)
        else:
            self._failures.prove(connection.peer_address)
        if (old := self._up.get(peer)) is not None:
            old.close(NoConnection(f"{peer} connected anew"), flush=False)
        self._up[peer] = connection
        attempt = self._attempts.pop(peer, None)
        if self._identity is None:
            self._take_name(connection, attempt)
        self._announcer.announce("up", peer)
        self._owner.node_up(peer)
        if attempt is None:
            return
        if attempt.dialled not in (None, connection):
            # With its name, so that the peer can tell that this was no stranger.
            attempt.dialled.close(NoConnection("superseded"))
        for control, message, sender in attempt.unsent:
            connection.writer.send(control, message, sender)
        attempt.up.set_result(None)

    def message_received(
        self, connection: Connection, control: tuple[Term, ...], message: Term
    ) -> None:
        """Hand a message on."""
        self._owner.message_received(connection.peer_name, control, message)

    def peer_silent(self, connection: Connection) -> None:
        """Hand it on."""
        self._owner.peer_silent(connection.peer_name)

    def connection_down(self, connection: Connection, reason: BeethovenError) -> None:
        """A connection ended: a peer is down, or an attempt has failed or been superseded."""
        peer = connection.peer_name
        awaits_the_peers_dial = isinstance(reason, Refused) and reason.status is Status.NOK
        self._challenges.pop(connection.challenge, None)
        if connection in self._handshakes:
            del self._handshakes[connection]
            if isinstance(reason, HandshakeError) and not awaits_the_peers_dial:
                level = self._log_limit.level(logging.INFO)
                self._announcer.announce("refused", connection.claimed_name, reason, level)
        if self._up.get(peer) is connection:
            del self._up[peer]
            self._announcer.announce("down", peer, reason)
            self._owner.node_down(peer, reason, was_up=True)
        if self._named_by is connection:
            self._lose_name(peer)
        for name, attempt in self._dialled_by(connection):
            if awaits_the_peers_dial:
                attempt.superseded = True
            elif not attempt.superseded:
                self._attempt_failed(name, attempt, reason)

    def _take_name(self, connection: Connection, attempt: _Attempt | None) -> None:
        assert attempt is not None
        assert attempt.handshake is not None
        own = attempt.handshake.own
        self._identity = Identity(own.name, OFFERED, own.creation)
        self._named_by = connection
        self.name = own.name
        logger.info("%s named this node %s", connection.peer_name, own.name)
        self._owner.node_named(own.name)

    def _lose_name(self, peer: str) -> None:
        # The peer may give the name to another node now: `restart_distr` in net_kernel.erl.
        error = NoConnection(f"{peer}, which named this node {self.name}, is down")
        self._identity = self._named_by = None
        self.name = NO_NAME
        for connection in list(self._up.values()):
            connection.close(error)
        for name, attempt in list(self._attempts.items()):
            self._attempt_failed(name, attempt, error)
        for dial in self._dials:
            dial.cancel()
        self._owner.name_lost()

    def _dialled_by(self, connection: Connection) -> Iterator[tuple[str, _Attempt]]:
        return iter([(n, a) for n, a in self._attempts.items() if a.dialled is connection])


def _check_kinds(limits: object, tls: object, resolve: object) -> None:
    for setting, value, kind in (("limits", limits, Limits), ("tls", tls, TlsOptions)):
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{setting} is {brief(value)}; give it as {kind.__name__}(...)")
    if resolve is not None and not callable(resolve):
        raise ConfigError(f"resolve is {brief(resolve)}; it must be a function")
