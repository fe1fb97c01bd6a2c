"""The Locator: asks every host of the cluster's network for a beacon, and has it let us in.

Source: the module Beethoven.Locator of Beethoven 0.3.9; unlike it, this one asks many hosts at
once.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from pybeethoven.cluster import seek_chat
from pybeethoven.cluster.dial_policy import parse_network
from pybeethoven.cluster.prover import Prover, Way
from pybeethoven.cluster.seek_chat import Message, SeekChatError
from pybeethoven.errors import ConfigError, JoinError, MirrorError, brief
from pybeethoven.net import sockets
from pybeethoven.net.listening import is_local
from pybeethoven.net.names import split_name

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 0.25
"""Seconds that a host has to accept the connection."""
REPLY_TIMEOUT = 10.0
"""Seconds that a beacon has to answer; adding a node takes it up to 5 of them."""
QUICK_TIMEOUT = 0.25
"""Seconds in which a beacon answers to `watching`. Once one has kept silent, all others are asked
that first, so that any number of silent ones does not cost much more than one."""
ROUNDS = 3
ROUNDS_TIME = 5.0
"""Seconds after which no further round is begun."""
BACKOFF = (0.150, 0.300)
"""Between two rounds: a random time in this range, in seconds."""
TIMED_OUT = "timeout"
"""The `answer` of a `JoinError` where none came."""
AT_ONCE = 512
"""So many hosts are asked at the same time, each with a socket: half of the 1,024 that a process
mostly may open, and never more than half of what it may."""
MAX_HOSTS = 65536
MAX_SAID = 100
"""So many different things are logged until a beacon lets us in."""

T = TypeVar("T")
Beacon = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Enter = Callable[[str], Awaitable[None]]


def hosts_of(cluster_net: str) -> list[str]:
    """The host addresses of a network such as `10.0.0.0/24`.

    Raises `ConfigError` when it is none or has more than 65,536 hosts.
    """
    network = parse_network(cluster_net)
    if network.num_addresses - 2 > MAX_HOSTS:
        raise ConfigError(
            f"the network {cluster_net} has over {MAX_HOSTS} hosts; give a smaller one, "
            f"e.g. {network.network_address}/{network.max_prefixlen - 16}"
        )
    return [str(host) for host in network.hosts()]


def check_port(port: int) -> int:
    """Give `port` back if it is one, else raise `ConfigError`."""
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigError(f"the listener port is {port!r}; it must be from 1 to 65535, e.g. 33000")
    return port


@dataclass
class Locator:
    """Looks for a beacon for the node `name` on `port` of `hosts`.

    `backoff()` gives the seconds to wait between rounds. `first`: a host, or its name, that is
    asked before all others. `on_progress(asked, all)` is told how many of the hosts were asked.
    `connected()` gives the nodes that this one is connected to. A beacon's node connects to us
    before the beacon says that it has let us in; if it has not, the beacon is skipped.
    `expecting(address)` is entered while the beacon at an address is asked, and so may connect.
    `prover`: proves that we have the cookie. `needs_proof`: a beacon that has let us in must do so,
    too, or is passed over.
    """

    name: str
    hosts: list[str]
    port: int
    backoff: Callable[[], float]
    first: str | None = None
    on_progress: Callable[[int, int], None] | None = None
    connected: Callable[[], Collection[str]] | None = None
    expecting: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    prover: Prover | None = None
    needs_proof: bool = False
    _refusals: list[JoinError | MirrorError] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _used: dict[str, None] = field(default_factory=dict)
    """The hosts whose beacons have let us in since `forget`, the one longest ago first. They are
    asked after all others, since a further search shows that it did not help."""

    def forget(self) -> None:
        """Ask the hosts in their own order again."""
        self._used.clear()

    async def seek(
        self,
        rounds: int = ROUNDS,
        known: Collection[str] = frozenset(),
        enter: Enter | None = None,
    ) -> str | None:
        """Join through the first beacon that lets us in: its node's name, or None if there is none.

        `enter(node)` makes this node a member through the node of a beacon that has let it in. If
        it raises `MirrorError` the search goes on, and raises that if no other beacon is found.

        The hosts are gone through up to `rounds` times, but no more after `ROUNDS_TIME`. Raises
        `JoinError` if beacons were found in the last round and none let us in. This node's own
        beacon does not count; one of the same name on another machine does, but when there is no
        other it is a `JoinError`. `known`: nodes of the cluster that we are in; their beacons are
        not asked to let us in. When cancelled, no connection is left.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROUNDS_TIME
        for round_number in range(1, rounds + 1):
            self._refusals.clear()
            if (via := await self._seek_once(known, enter)) is not None:
                self._said.clear()
                return via
            self._say(logging.INFO, f"no beacon let us in in round {round_number} of {rounds}")
            silent = any(_answer(refusal) == TIMED_OUT for refusal in self._refusals)
            if silent or loop.time() > deadline:
                break
            if round_number < rounds:
                await asyncio.sleep(self.backoff())
        if self._refusals:
            raise min(self._refusals, key=lambda refusal: _answer(refusal) == seek_chat.SELF)
        return None

    async def look(self) -> dict[str, list[str]]:
        """Ask every beacon which nodes it sees, without joining: those nodes by the beacon's node.

        The hosts are gone through once; this node's own beacon is left out. Raises `JoinError` when
        there are too few file descriptors. When cancelled, no connection is left.
        """
        seen: dict[str, list[str]] = {}
        async with aclosing(self._sweep(self._watch)) as sweep:
            async for host, reply in sweep:
                if isinstance(reply.payload, list):
                    seen[reply.sender] = reply.payload
                elif reply.sender != self.name:
                    text = f"the beacon at {host} answered {brief(reply.payload)} to watching"
                    self._say(logging.WARNING, text)
        seen.pop(self.name, None)
        return seen

    async def _seek_once(self, known: Collection[str], enter: Enter | None) -> str | None:
        if known:
            return await self._seek_strangers({self.name, *known}, enter)
        async with aclosing(self._sweep(self._connect)) as sweep:
            async for host, beacon in sweep:
                if (via := await self._join(host, beacon, enter)) is not None:
                    return via
        return None

    async def _seek_strangers(self, known: Collection[str], enter: Enter | None) -> str | None:
        async with aclosing(self._sweep(self._watch)) as sweep:
            async for host, reply in sweep:
                if reply.sender in known or (beacon := await self._connect(host)) is None:
                    continue
                if (via := await self._join(host, beacon, enter)) is not None:
                    return via
        return None

    async def _sweep(
        self, meet: Callable[[str], Coroutine[Any, Any, T | None]]
    ) -> AsyncGenerator[tuple[str, T], None]:
        """What `meet` gives for each host where it gives something, in the hosts' order.

        The next hosts are met meanwhile. Connections among what is not taken are closed.
        """
        if self.first is not None and self.first not in self._used:
            if (met := await meet(self.first)) is None:
                self._say(logging.WARNING, f"{self.first}, asked first, is no beacon")
            else:
                yield self.first, met
        at_once = _at_once()
        hosts = [h for h in self.hosts if h != self.first and h not in self._used] + [*self._used]
        rest = iter(hosts)
        window: deque[asyncio.Task[T | None]] = deque()
        try:
            for asked, host in enumerate(hosts, 1):
                for next_host in islice(rest, at_once - len(window)):
                    window.append(asyncio.create_task(meet(next_host)))
                if not window[0].done():
                    await asyncio.wait({window[0]})
                if (met := window.popleft().result()) is not None:
                    yield host, met
                if self.on_progress and (asked % at_once == 0 or asked == len(hosts)):
                    self.on_progress(asked, len(hosts))
        finally:
            await self._leave_all(window, CONNECT_TIMEOUT if meet == self._connect else 0.0)

    async def _leave_all(self, window: Collection[asyncio.Task[Any]], patience: float) -> None:
        """Close what `window` has connected, and what it connects within `patience` seconds."""
        for task in window:
            task.add_done_callback(self._take_leave)
        try:
            if window:
                await asyncio.wait(window, timeout=patience)
        finally:
            for task in window:
                task.cancel()
            if window:
                await asyncio.wait(window)

    def _take_leave(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is None and isinstance(task.result(), tuple):
            # A beacon logs an error when we go without a word; `watching` is harmless.
            _, writer = task.result()
            writer.write(seek_chat.encode(self._watching()))
            writer.close()

    def _watching(self) -> Message:
        return Message(self.name, seek_chat.WATCHING, "check")

    async def _connect(self, host: str) -> Beacon | None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await sockets.open_stream(host, self.port, limit=seek_chat.MAX_SIZE)
        except OSError as error:
            if error.errno in sockets.NO_DESCRIPTORS:
                text = f"too few file descriptors to seek: {error}; {sockets.MORE_DESCRIPTORS}"
                raise JoinError(text, seek_chat.ERROR) from error
            return None
        except UnicodeError:  # `first` is no name that a host can have
            return None

    async def _watch(self, host: str, timeout: float | None = None) -> Message | None:
        """What the beacon of a host answers to `watching`; None if there is none."""
        if (beacon := await self._connect(host)) is None:
            return None
        try:
            return await self._ask(*beacon, self._watching(), timeout)
        except (OSError, SeekChatError) as error:
            self._say_no_beacon(host, error)
            return None
        finally:
            beacon[1].close()

    async def _join(self, host: str, beacon: Beacon, enter: Enter | None) -> str | None:
        """The node whose beacon has let us in, if it has, and if `enter` makes us a member."""
        if (via := await self._ask_beacon(host, beacon)) is None:
            return None
        if self.connected is not None and via not in self.connected():
            text = f"it says that {via} has let us in, but has not connected us to it"
            self._say_no_beacon(host, SeekChatError(text))
            return None
        self._used.pop(host, None)
        self._used[host] = None
        if enter is None:
            return via
        try:
            await enter(via)
        except MirrorError as error:
            self._say(logging.WARNING, f"{error}; it is skipped")
            self._refusals.append(error)
            return None
        return via

    async def _ask_beacon(self, host: str, beacon: Beacon) -> str | None:
        is_quick = not any(_answer(refusal) == TIMED_OUT for refusal in self._refusals)
        if not is_quick or beacon[0].at_eof():  # it had to wait until another had answered
            beacon[1].close()
            if not is_quick and await self._watch(host, QUICK_TIMEOUT) is None:
                return None
            if (again := await self._connect(host)) is None:
                return None
            beacon = again
        try:
            return await self._ask_to_join(host, *beacon)
        finally:
            beacon[1].close()

    async def _ask_to_join(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str | None:
        request = Message(self.name, seek_chat.SEEKING, "join")
        try:
            here, there = _addresses(writer)
            if self.prover is not None:
                request = self.prover.prove(request, Way(here, there))
            with self.expecting(there):
                reply = await self._ask(reader, writer, request)
            _check_sender(reply)
        except TimeoutError:
            self._refusals.append(_silence(host, self.port))
            return None
        except (OSError, SeekChatError) as error:
            self._say_no_beacon(host, error)
            return None
        if reply.payload == seek_chat.JOINED and reply.sender != self.name:
            if not self.needs_proof or self._is_proven(reply, Way(there, here), request):
                return reply.sender
            self._refusals.append(_unproven(reply.sender, host))
            return None
        if reply.payload == seek_chat.SELF and is_local(writer.transport):
            return None  # our own beacon
        self._refusals.append(_refusal(self.name, host, reply))
        return None

    def _is_proven(self, reply: Message, way: Way, request: Message) -> bool:
        return self.prover is not None and self.prover.is_proven(reply, way, request=request)

    def _say_no_beacon(self, host: str, error: Exception) -> None:
        why = "it does not answer" if isinstance(error, TimeoutError) else error
        self._say(logging.WARNING, f"{host}:{self.port} is no beacon: {why}")

    def _say(self, level: int, text: str) -> None:
        """Log a text once: who is in no cluster seeks for as long as that lasts."""
        if text not in self._said and len(self._said) < MAX_SAID:
            self._said.add(text)
            logger.log(level, "%s", text)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        message: Message,
        timeout: float | None = None,
    ) -> Message:
        writer.write(seek_chat.encode(message))
        receiver, received = seek_chat.Receiver(), b""
        async with asyncio.timeout(timeout or REPLY_TIMEOUT):
            while (reply := receiver.receive(received)) is None:
                if not (received := await reader.read(seek_chat.MAX_SIZE)):
                    raise SeekChatError("it closed the connection without a reply")
        if reply.type != seek_chat.REPLY:
            raise SeekChatError(f"it sent {brief(reply.type)} in place of a reply")
        return reply


def _at_once() -> int:
    """How many hosts are asked at the same time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return AT_ONCE if soft == resource.RLIM_INFINITY else max(1, min(AT_ONCE, soft // 2))


def _addresses(writer: asyncio.StreamWriter) -> tuple[str, str]:
    """Those of this end of a connection and of the other."""
    ends = [writer.get_extra_info(end) for end in ("sockname", "peername")]
    if None in ends:
        raise ConnectionError("it closed the connection")
    return ends[0][0], ends[1][0]


def _check_sender(reply: Message) -> None:
    try:
        split_name(reply.sender)
    except ConfigError as error:
        raise SeekChatError(f"it calls itself {brief(reply.sender)}, no node name") from error


def _answer(refusal: JoinError | MirrorError) -> str:
    return refusal.answer if isinstance(refusal, JoinError) else seek_chat.JOINED


def _silence(host: str, port: int) -> JoinError:
    return JoinError(
        f"{host}:{port} took the connection but did not answer within {REPLY_TIMEOUT:g} seconds: "
        f"it is no beacon, or a node of its cluster is stuck",
        TIMED_OUT,
    )


def _unproven(node: str, host: str) -> JoinError:
    return JoinError(
        f"the beacon of {node} at {host} does not prove that it has the cookie: it is no Python "
        f"node, or the cookie differs, or a clock, or an address is translated on the way",
        seek_chat.JOINED,
    )


def _refusal(name: str, host: str, reply: Message) -> JoinError:
    causes = {
        "join_failed": f"it could not reach {name}: the cookie differs, only one of the two uses "
        "TLS or has a long name (one with a dot in its host part), or the name's host part is not "
        f"the address from which {reply.sender} sees this machine, in its cluster_net",
        "self": f"it says that it is {name} itself: give this node another name",
        "error": "it had an error; see the log of that node",
    }
    answer = str(reply.payload)
    cause = causes.get(answer, "that is not an answer to a node that wants to join")
    said = brief(reply.payload)
    return JoinError(f"the beacon of {reply.sender} at {host} answered {said}: {cause}", answer)
