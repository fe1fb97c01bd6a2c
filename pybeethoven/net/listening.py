"""Sockets that listen: at which address, on which port."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, TypeAlias

from pybeethoven.errors import ConfigError
from pybeethoven.net.sockets import parent_only

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

BACKLOG = 128
"""So many connections may wait to be accepted, as at an OTP node."""
ANY = "0.0.0.0"
"""All IPv4 addresses of this machine."""
ANY6 = "::"
"""All addresses of this machine, those of IPv4, too."""
_NOBODYS: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses that no machine has: they are for examples (RFC 5737, RFC 3849)."""


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def any_address() -> str:
    """`ANY6` on a machine that has IPv6, else `ANY`."""
    if socket.has_dualstack_ipv6():
        with socket.socket(socket.AF_INET6) as probe, suppress(OSError):
            probe.bind((ANY6, 0))
            return ANY6
    return ANY


async def listen_address(host: str) -> str:
    """Where the node of a host listens: an address is listened on alone; a name may mean another
    address here than elsewhere, so that a node with one listens on all, those of IPv6 too where the
    name has one."""
    if is_address(host):
        return host
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ANY
    return any_address() if any(family == socket.AF_INET6 for family, *_ in found) else ANY


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side of a TCP connection is on this machine: `conn_local_peer_check` in
    epmd_srv.c."""
    peer, own = (transport.get_extra_info(key) for key in ("peername", "sockname"))
    if not peer or not own:  # it has gone already
        return False
    return plain_address(peer[0]).is_loopback or peer[0] == own[0]


def plain_address(text: str) -> IPAddress:
    """An IP address without its scope; an IPv4 address that is written as IPv6 is IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_own_address(text: str) -> bool:
    """Whether an IP address is one of this machine's."""
    address = plain_address(text)
    if address.is_loopback:
        return True
    if address.is_unspecified or address.is_multicast:
        return False
    if _can_bind(address) and not _can_bind(ipaddress.ip_address(_NOBODYS[address.version])):
        return True
    # net.ipv4.ip_nonlocal_bind allows to bind to any address. This does not see one of several
    # addresses in a subnet: the kernel's source address is the first of them.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((str(address), 9))  # sends nothing
        return plain_address(probe.getsockname()[0]) == address
    return False


def _can_bind(address: IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((str(address), 0))
        return True
    return False


def port_range(setting: int | tuple[int, int]) -> range:
    """The ports that a node may listen on, from its setting `listen_port`.

    Raises `ConfigError` unless it is a port, 0 for any, or the first and the last of a range.
    """
    try:
        first, last = (setting, setting) if isinstance(setting, int) else setting
        usable = 0 <= first <= last <= 65535 and (first == 0) == (last == 0)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            f"listen_port is {setting!r}; it must be a port, like 9100, the first and the last of "
            f"several, like (9100, 9110), or 0 for any that is free"
        )
    return range(first, last + 1)


def open_listener(address: str, ports: Iterable[int]) -> socket.socket:
    """A socket that listens at `address` on the first of `ports` that is free.

    It does not block, and is closed by the caller. Raises `OSError`: with EADDRINUSE when none of
    them is free.
    """
    taken = OSError(errno.EADDRINUSE, "there is no port")
    for port in ports:
        try:
            listener = _listen(address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = error
        else:
            listener.setblocking(False)
            return listener
    raise taken


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = address == ANY6 and socket.has_dualstack_ipv6()
    listener = parent_only(
        lambda: socket.create_server(
            (address, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    )
    # Accepted sockets have it from here: asyncio sets it on dialled ones only. Without it a message
    # waits for up to 40 ms when the peer has just been sent another.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
