"""Names of nodes: their two parts, and which nodes can talk with each other.

Short and long names: `splitnode` in
https://github.com/erlang/otp/blob/OTP-25.2.3/lib/kernel/src/inet_tcp_dist.erl
"""

from __future__ import annotations

import asyncio
import re
import socket

from pybeethoven.errors import ConfigError
from pybeethoven.net.listening import is_address

NO_NAME = "nonode@nohost"
"""What a node is called that has no name yet."""

_ALIVE_NAME = re.compile(r"[0-9A-Za-z_-]+")
_HOST = re.compile(r"[0-9A-Za-z_.:-]+")
_HOST_NAME = re.compile(r"[0-9A-Za-z_.-]+")


def split_name(name: str) -> tuple[str, str]:
    """`name@host` in its two parts. Raises `ConfigError` that says what is wrong with it."""
    example = "it must look like py@127.0.0.1"
    if not isinstance(name, str):
        raise ConfigError(f"the node name is {name!r}, no str; {example}")
    name = str(name)  # not an Atom, whose repr says so
    alive_name, at, host = name.partition("@")
    if not at:
        raise ConfigError(f"the node name {name!r} has no '@'; {example}")
    if not _ALIVE_NAME.fullmatch(alive_name):
        raise ConfigError(
            f"the node name {name!r} must have letters, digits, '_' or '-' before the '@'; "
            f"{example}"
        )
    if not _HOST.fullmatch(host):
        raise ConfigError(f"the node name {name!r} has no usable host behind the '@'; {example}")
    if len(name) > 255:
        raise ConfigError(f"the node name has {len(name)} characters; an atom holds 255")
    return alive_name, host


def check_host(host: str, what: str) -> str:
    """Give `host` back if it is an address or can be a host's name, else raise `ConfigError`, which
    says `what` it is for."""
    if isinstance(host, str) and (is_address(host) or _HOST_NAME.fullmatch(host)):
        return host
    raise ConfigError(f"{what} is {host!r}; it must be a host's name or address, like 10.0.0.7")


def is_long(host: str) -> bool | None:
    """Whether the name of a node on `host` is long, which has a dot; None: it passes for both."""
    if "." in host:
        return True
    return None if is_address(host) else False


def check_reach(name: str, peer: str) -> None:
    """Raise `ConfigError` unless OTP would let node `name` connect to `peer`.

    A BEAM with a short name does not dial one with a long name, nor the other way round. Neither do
    we, for it could not dial back. Who dials is let in by both all the same: OTP does not look.
    """
    own_long, peer_long = (is_long(split_name(n)[1]) for n in (name, peer))
    if None not in (own_long, peer_long) and own_long != peer_long:
        one, other = ("long", "short") if own_long else ("short", "long")
        raise ConfigError(
            f"{name} has a {one} name and {peer} a {other} one, and such nodes can't connect; "
            f"give both a host with a dot in it, or both one without"
        )


async def unnamed_host(peer: str, host: str, port: int) -> str:
    """What a node that `peer` is to name gives as its host.

    To a peer with a short name it is this machine's name, to others the address from which it
    reaches `host` and `port`. Raises `OSError` if there is no way to it.
    """
    if is_long(split_name(peer)[1]) is False:
        return socket.gethostname().partition(".")[0]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0]).partition("%")[0]
