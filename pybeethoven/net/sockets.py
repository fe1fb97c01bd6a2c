"""TCP sockets that a forked child does not keep.

A child that is made with `os.fork` (multiprocessing and `ProcessPoolExecutor` do that on Linux up
to Python 3.13) has a copy of each descriptor of its parent. As long as the child has a copy, no
peer sees that the parent has closed a connection or has been killed. So each socket of a node is
made by `parent_only`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias, cast

Found: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""An entry of what `getaddrinfo` gives."""

NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
"""The error numbers for too few file descriptors."""
MORE_DESCRIPTORS: Final = "allow more: ulimit -n 1024"
"""What an error says for these."""

_sockets: Final[dict[int, os.stat_result]] = {}
"""What each socket is, by its descriptor. If a descriptor is now something else, its socket was
closed, and the number was used again."""


_making: Final = threading.RLock()
"""Held while a socket is made, so that no other thread forks before the socket is in `_sockets`."""


def parent_only(make: Callable[[], socket.socket]) -> socket.socket:
    """Return the socket that `make` makes. Each child that is forked closes its copy."""
    with _making:
        sock = make()
        _sockets[sock.fileno()] = os.fstat(sock.fileno())
    return sock


def _release() -> None:
    """Close the copies of all sockets (called in the child)."""
    _making.release()
    for descriptor, stat in _sockets.items():
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), stat):
                os.close(descriptor)
                _occupy(descriptor)
    _sockets.clear()


def _occupy(descriptor: int) -> None:
    """Keep a descriptor in use, by a socket that is not connected: the copy of Python's socket
    object still has this number, and would later close what has it by then."""
    other = socket.socket(socket.AF_UNIX).detach()
    if other != descriptor:
        os.dup2(other, descriptor, inheritable=False)
        os.close(other)


os.register_at_fork(
    before=_making.acquire, after_in_parent=_making.release, after_in_child=_release
)


async def dial(
    hosts: Sequence[str], port: int, factory: Callable[[], asyncio.BaseProtocol]
) -> None:
    """Connect to the first of some addresses that accepts, and give the connection to the protocol
    that `factory` makes then.

    Raises `OSError`, with the text of each address's error. When cancelled, no socket stays open.
    """
    found = [entry for host in hosts for entry in await _resolve(host, port)]
    await give(await _connect(", ".join(hosts), found), factory)


async def resolve(host: str, executor: Executor | None = None) -> list[str]:
    """The addresses of a host. `executor`: runs the look-up, by default that of the event loop.

    Raises `OSError`, or `UnicodeError` for what is not a host name.
    """
    found = await _resolve(host, 0, executor)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def open_stream(
    host: str, port: int, limit: int = 65_536
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a host as `dial` does, like `asyncio.open_connection`; `limit`: bytes that may
    wait to be read. Raises `UnicodeError` for what is not a host name."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = await give(await _connect(host, await _resolve(host, port)), lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def give(
    sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol]
) -> asyncio.WriteTransport:
    """Give a connected socket, accepted or dialled, to the protocol that `factory` makes."""
    # Not create_connection: where a protocol closes its connection at once, uvloop 0.23 leaves
    # `sock` with the number of a closed descriptor, which it closes later, whatever that is then.
    loop = asyncio.get_running_loop()
    try:
        protocol = factory()
    except BaseException:
        sock.close()
        raise
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    return cast(asyncio.WriteTransport, transport)


async def _connect(host: str, found: Sequence[Found]) -> socket.socket:
    loop = asyncio.get_running_loop()
    errors: list[OSError] = []
    for family, kind, protocol, _, address in found:
        try:
            sock = parent_only(partial(socket.socket, family, kind, protocol))
        except OSError as error:  # the kernel may have no IPv6
            if error.errno in NO_DESCRIPTORS:
                raise
            errors.append(error)
            continue
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            errors.append(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if len(errors) == 1:
        raise errors[0]
    raise OSError(f"no address of {host} accepts: {'; '.join(map(str, errors))}")


async def _resolve(host: str, port: int, executor: Executor | None = None) -> Sequence[Found]:
    try:
        family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
    except ValueError:
        loop = asyncio.get_running_loop()
        if executor is None:
            return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return await loop.run_in_executor(executor, look_up)
    # A look-up would be done in a thread.
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
