"""Which addresses a node dials on behalf of a request that its beacon has received.

A request carries no proof, and a dial gives a digest of the cookie to the dialled host. So a node
dials only the host that the request comes from, and only in networks in which its cluster is.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from pybeethoven.errors import ConfigError
from pybeethoven.net import sockets
from pybeethoven.net.finder import Allows
from pybeethoven.net.listening import IPAddress, is_own_address, plain_address

logger = logging.getLogger(__name__)

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_AGAIN: Final = 60.0
"""Time after which the name of the first host is looked up again, in seconds."""


def parse_network(text: str) -> IPNetwork:
    """A network such as `10.0.0.0/24`. Raises `ConfigError` for anything else."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a network; it must look like 10.0.0.0/24") from error


class DialPolicy:
    """The policy of one node; without arguments, requests of this machine for itself are allowed.

    `networks`: a host in them may be dialled if the request comes from its address.
    `first_host`: a host, by address or name, for which the same holds.
    `trusted_networks`: a request from them may be for another host in any of these networks.
    """

    def __init__(
        self,
        networks: Iterable[str] = (),
        first_host: str | None = None,
        trusted_networks: Iterable[str] = (),
    ) -> None:
        self._trusted = [parse_network(text) for text in trusted_networks]
        self._networks = [parse_network(text) for text in networks] + self._trusted
        self._first_host = first_host
        self._first: Sequence[str] = ()
        self._resolved_at = -RESOLVE_AGAIN

    async def for_source(self, source: str) -> Allows | None:
        """Which addresses may be dialled for a request that comes from `source`; None: no address.

        Never looks up a name that the request gives.
        """
        address = plain_address(source)
        own = is_own_address(source)
        trusted = _is_in(address, self._trusted)
        if not own and not _is_in(address, self._networks) and not await self._is_first(address):
            return None

        def allows(host: str) -> bool:
            dialled = plain_address(host)
            if own and is_own_address(host):
                return True
            if trusted:
                return _is_in(dialled, self._networks)
            return not own and dialled == address

        return allows

    async def _is_first(self, address: IPAddress) -> bool:
        now = time.monotonic()
        if self._first_host is not None and now >= self._resolved_at + RESOLVE_AGAIN:
            self._resolved_at = now
            try:
                self._first = await sockets.resolve(self._first_host)
            except (OSError, UnicodeError) as error:
                logger.warning("first_host %s has no address: %s", self._first_host, error)
        return any(plain_address(first) == address for first in self._first)


def _is_in(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address in network for network in networks)
