"""The Locator: asks every host of the cluster's network for a beacon, and has it let us in.

Source: the module Beethoven.Locator of Beethoven 0.3.9; unlike it, this one asks many hosts at
once.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from pybeethoven.cluster import seek_chat
from pybeethoven.cluster.seek_chat import Message, SeekChatError
from pybeethoven.errors import ConfigError, JoinError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 0.25
"""Seconds that a host has to accept the connection."""
REPLY_TIMEOUT = 10.0
"""Seconds that a beacon has to answer; adding a node takes it up to 5 of them."""
ROUNDS = 3
BACKOFF = (0.150, 0.300)
"""Between two rounds: a random time in this range, in seconds."""
TIMED_OUT = "timeout"
"""The `answer` of a `JoinError` where none came."""
AT_ONCE = 256
"""So many hosts are asked at the same time."""
MAX_HOSTS = 65536
MAX_SAID = 100
"""So many different things are logged until a beacon lets us in."""

Beacon = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def hosts_of(cluster_net: str) -> list[str]:
    """The host addresses of a network such as `10.0.0.0/24`.

    Raises `ConfigError` when it is none or has more than 65,536 hosts.
    """
    try:
        network = ipaddress.ip_network(cluster_net, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{cluster_net!r} is not a network; it must look like 10.0.0.0/24"
        ) from error
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

    `backoff()` gives the seconds to wait between rounds.
    """

    name: str
    hosts: list[str]
    port: int
    backoff: Callable[[], float]
    _refusals: list[JoinError] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    async def seek(self, rounds: int = ROUNDS) -> str | None:
        """Join through the first beacon that lets us in: its node's name, or None if there is none.

        The hosts are gone through up to `rounds` times. Raises `JoinError` if beacons were found in
        the last round and none let us in. A beacon of our own node does not count, but when there
        is no other it is a `JoinError`. When cancelled, no connection is left.
        """
        for round_number in range(1, rounds + 1):
            self._refusals.clear()
            if (via := await self._seek_once()) is not None:
                self._said.clear()
                return via
            self._say(logging.INFO, f"no beacon let us in in round {round_number} of {rounds}")
            if any(refusal.answer == TIMED_OUT for refusal in self._refusals):
                break
            if round_number < rounds:
                await asyncio.sleep(self.backoff())
        if self._refusals:
            raise min(self._refusals, key=lambda refusal: refusal.answer == "self")
        return None

    async def _seek_once(self) -> str | None:
        hosts = iter(self.hosts)
        while chunk := list(islice(hosts, AT_ONCE)):
            found = await self._connect_all(chunk)
            try:
                if (via := await self._join_first(found)) is not None:
                    return via
            finally:
                for _, writer in found.values():
                    self._take_leave(writer)
        return None

    def _take_leave(self, writer: asyncio.StreamWriter) -> None:
        # A beacon logs an error when we go without a word; `watching` is harmless.
        writer.write(seek_chat.encode(Message(self.name, seek_chat.WATCHING, "check")))
        writer.close()

    async def _connect_all(self, hosts: list[str]) -> dict[str, Beacon]:
        attempts = [asyncio.ensure_future(self._connect(host)) for host in hosts]
        try:
            beacons = await asyncio.gather(*attempts)
        except BaseException:
            for attempt in attempts:
                attempt.cancel()
            for result in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(result, tuple):
                    result[1].close()
            raise
        return {host: beacon for host, beacon in zip(hosts, beacons, strict=True) if beacon}

    async def _connect(self, host: str) -> Beacon | None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await asyncio.open_connection(host, self.port, limit=seek_chat.MAX_SIZE)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise JoinError(f"too few file descriptors to seek: {error}", "error") from error
            return None

    async def _join_first(self, found: dict[str, Beacon]) -> str | None:
        for host, beacon in _taken_from(found):
            try:
                if (via := await self._join(host, *beacon)) is not None:
                    return via
            finally:
                beacon[1].close()
        return None

    async def _join(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str | None:
        try:
            reply = await self._ask(reader, writer, Message(self.name, seek_chat.SEEKING, "join"))
        except TimeoutError:
            self._refusals.append(_silence(host, self.port))
            return None
        except (OSError, SeekChatError) as error:
            self._say(logging.WARNING, f"{host}:{self.port} is no beacon: {error}")
            return None
        if reply.payload == "joined" and reply.sender != self.name:
            return reply.sender
        self._refusals.append(_refusal(self.name, host, reply))
        return None

    def _say(self, level: int, text: str) -> None:
        """Log a text once: who is in no cluster seeks for as long as that lasts."""
        if text not in self._said and len(self._said) < MAX_SAID:
            self._said.add(text)
            logger.log(level, "%s", text)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Message
    ) -> Message:
        writer.write(seek_chat.encode(message))
        data = b""
        async with asyncio.timeout(REPLY_TIMEOUT):
            while (reply := seek_chat.decode(data)) is None:
                if not (received := await reader.read(seek_chat.MAX_SIZE)):
                    raise SeekChatError("it closed the connection without a reply")
                data += received
        if reply.type != seek_chat.REPLY:
            raise SeekChatError(f"it sent {reply.type!r} in place of a reply")
        return reply


def _taken_from(beacons: dict[str, Beacon]) -> Iterator[tuple[str, Beacon]]:
    while beacons:
        host = next(iter(beacons))
        yield host, beacons.pop(host)


def _silence(host: str, port: int) -> JoinError:
    return JoinError(
        f"{host}:{port} took the connection but did not answer within {REPLY_TIMEOUT:g} seconds: "
        f"it is no beacon, or a node of its cluster is stuck",
        TIMED_OUT,
    )


def _refusal(name: str, host: str, reply: Message) -> JoinError:
    causes = {
        "join_failed": f"it could not reach {name}: the cookie differs, only one of the two uses "
        "TLS or has a long name (one with a dot in its host part), or the name's host part is not "
        f"an address at which {reply.sender} can reach this machine",
        "self": f"it says that it is {name} itself: give this node another name",
        "error": "it had an error; see the log of that node",
    }
    answer = str(reply.payload)
    cause = causes.get(answer, "that is not an answer to a node that wants to join")
    return JoinError(f"the beacon of {reply.sender} at {host} answered {answer!r}: {cause}", answer)
