"""Where to dial a node: told by the caller, by a hook, or by the EPMD of the node's host."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from pybeethoven.errors import ConfigError, NoConnection
from pybeethoven.net import epmd
from pybeethoven.net.names import split_name

Address: TypeAlias = tuple[str, int]
"""Where a node listens: a host, by address or name, and a port."""
Resolve: TypeAlias = Callable[[str], Address | None]
"""Gives the address of a node, or None to ask EPMD. It must not block."""


class Finder:
    """Finds nodes. `resolve`: asked first, save for what it was told."""

    def __init__(self, resolve: Resolve | None) -> None:
        self._resolve = resolve
        self._told: dict[str, Address] = {}

    def tell(self, peer: str, address: Address) -> None:
        """Let `peer` be at `address` from now on. Raises `ConfigError` if that is none."""
        self._told[peer] = _check_address(address)

    def forget(self, peer: str) -> None:
        """Take back what `tell` said."""
        self._told.pop(peer, None)

    async def find(self, peer: str) -> Address:
        """The address of `peer`.

        Raises `NoConnection` or `EpmdError`; `ConfigError` for a name or an address that can't be
        used, or if `resolve` raises. When cancelled, nothing is left open.
        """
        address: object = self._told.get(peer)
        if address is None and self._resolve is not None:
            address = _ask(self._resolve, peer)
        if address is not None:
            return _check_address(address)
        alive_name, host = split_name(peer)
        port = await epmd.look_up(alive_name, host)
        if port is None:
            raise NoConnection(f"EPMD on {host} knows no node {alive_name!r}")
        return host, port


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
