"""Where to dial a node: told by the caller, by a hook, or by the EPMD of the node's host."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from pybeethoven.errors import ConfigError, EpmdUnreachable, NoConnection
from pybeethoven.net import epmd, sockets
from pybeethoven.net.names import split_name

Address: TypeAlias = tuple[str, int]
"""Where a node listens: a host, by address or name, and a port."""
Resolve: TypeAlias = Callable[[str], Address | None]
"""Gives the address of a node, or None to ask EPMD. It must not block."""

Allows: TypeAlias = Callable[[str], bool]
"""Whether an address may be dialled."""

MAX_LOOK_UPS: Final = 2
"""Maximum number of host names that are looked up at once on behalf of unauthenticated clients, so
that slow names don't occupy the threads in which the node's own names are looked up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is: the addresses of its host, and its port, or None to ask EPMD there."""

    hosts: Sequence[str]
    port: int | None


class Finder:
    """Finds nodes. `resolve`: asked first, save for what it was told."""

    def __init__(self, resolve: Resolve | None) -> None:
        self._resolve = resolve
        self._told: dict[str, Address] = {}
        self._executor: ThreadPoolExecutor | None = None

    def tell(self, peer: str, address: Address) -> None:
        """Let `peer` be at `address` from now on. Raises `ConfigError` if that is none."""
        self._told[peer] = _check_address(address)

    def forget(self, peer: str) -> None:
        """Take back what `tell` said."""
        self._told.pop(peer, None)

    def close(self) -> None:
        """Wait for no look-up."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    async def place(self, peer: str) -> Place:
        """Where `peer` is.

        Raises `EpmdUnreachable` or `OSError`; `ConfigError` for a name or an address that can't be
        used, or if `resolve` raises.
        """
        host, port = self._host(peer)
        return Place(await _addresses(host, port), port)

    async def allowed_place(self, peer: str, allows: Allows) -> Place:
        """Where `peer` is, for an unauthenticated client: of its host's addresses those that
        `allows` allows. Raises `NoConnection` if it allows none of them; errors as `place`."""
        host, port = self._host(peer)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(MAX_LOOK_UPS, "look-up")
        hosts = await _addresses(host, port, self._executor)
        if not (allowed := [address for address in hosts if allows(address)]):
            raise NoConnection(f"{', '.join(hosts)} may not be dialled for this request")
        return Place(allowed, port)

    async def find(self, peer: str, place: Place) -> tuple[Sequence[str], int]:
        """The addresses and the port of `peer`, which is at `place`. The first is the one whose
        EPMD gave the port.

        Raises `NoConnection` or `EpmdError`. When cancelled, nothing is left open.
        """
        if place.port is not None:
            return place.hosts, place.port
        alive_name, host = split_name(peer)
        reached, port = await _look_up(alive_name, place.hosts)
        if port is None:
            raise NoConnection(f"EPMD on {host} knows no node {alive_name!r}")
        return [reached, *(other for other in place.hosts if other != reached)], port

    def _host(self, peer: str) -> tuple[str, int | None]:
        """The host of `peer`, and its port if that is known."""
        address: object = self._told.get(peer)
        if address is None and self._resolve is not None:
            address = _ask(self._resolve, peer)
        if address is not None:
            return _check_address(address)
        return split_name(peer)[1], None


async def _addresses(host: str, port: int | None, executor: Executor | None = None) -> list[str]:
    try:
        return await sockets.resolve(host, executor)
    except (OSError, UnicodeError) as error:
        if port is not None:
            raise
        text = f"EPMD cannot be reached at {host}:{epmd.epmd_port()}: {error}"
        raise EpmdUnreachable(text) from error


async def _look_up(alive_name: str, hosts: Sequence[str]) -> tuple[str, int | None]:
    """The address at which EPMD was reached, and the port that it gave."""
    *others, last = hosts
    for host in others:
        with suppress(EpmdUnreachable):
            return host, await epmd.look_up(alive_name, host)
    return last, await epmd.look_up(alive_name, last)


def _ask(resolve: Resolve, peer: str) -> object:
    try:
        address: object = resolve(peer)
    except Exception as error:
        raise ConfigError(f"resolve({peer!r}) raised {error!r}") from error
    if inspect.iscoroutine(address):
        address.close()
        raise ConfigError("resolve is called, not awaited; give a function that is not async")
    return address


def _check_address(address: object) -> Address:
    match address:
        case (str() as host, int() as port) if host and 0 < port < 65536:
            return host, port
    raise ConfigError(f"{address!r} is no address of a node; it must be like ('10.0.0.7', 9100)")
