"""Dialling: which address is connected to, and what is left where that fails."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

from pybeethoven.net import sockets
from pybeethoven.net.listening import open_listener
from tests.helpers import soon

V4, V6 = (
    (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 0))
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
)


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6."""
    make = sockets.parent_only

    def refuse(function: Callable[[], socket.socket]) -> socket.socket:
        sock = make(function)
        if sock.family == socket.AF_INET6:
            sock.close()
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return sock

    monkeypatch.setattr(sockets, "parent_only", refuse)


def resolve_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let each host name have an address of IPv6 and one of IPv4, in this order."""

    async def resolve(host: str, _: int) -> list[object]:
        return [(*row[:4], (row[4][0], port)) for row in (V6, V4)]

    monkeypatch.setattr(sockets, "_resolve", resolve)


@pytest.mark.usefixtures("no_ipv6")
async def test_next_address_is_dialled_where_the_kernel_has_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host with addresses of both kinds is reached by IPv4."""
    with open_listener("127.0.0.1", [0]) as listener:
        resolve_to(monkeypatch, listener.getsockname()[1])
        _, writer = await soon(sockets.open_stream("host", 0))
        assert writer.get_extra_info("peername") == listener.getsockname()
        writer.close()
        await writer.wait_closed()


@pytest.mark.usefixtures("no_ipv6")
async def test_error_of_each_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none accepts, the error has the reason of each."""
    resolve_to(monkeypatch, 1)
    told = r"no address of host accepts: .*not supported.*; .*(refused|failed)"
    with pytest.raises(OSError, match=told):
        await soon(sockets.open_stream("host", 0))


async def test_socket_is_closed_where_no_protocol_is_made() -> None:
    """The peer sees the end of its connection; no resource warning is given."""

    def fail() -> asyncio.BaseProtocol:
        raise RuntimeError("no protocol")

    with open_listener("127.0.0.1", [0]) as listener:
        with pytest.raises(RuntimeError, match="no protocol"):
            await soon(sockets.dial(["127.0.0.1"], listener.getsockname()[1], fail))
        peer, _ = listener.accept()
        with peer:
            peer.setblocking(False)
            assert await soon(asyncio.get_running_loop().sock_recv(peer, 1)) == b""
