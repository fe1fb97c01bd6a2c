"""The accept loop of every listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from pybeethoven.net import acceptor as module
from pybeethoven.net.acceptor import Acceptor
from pybeethoven.net.listening import open_listener
from tests.helpers import no_file_descriptors, soon, until_logged

HOST = "127.0.0.1"
LACKS = "the test can't accept connections: .*Too many open files"


class Server(Acceptor):
    """A listener, and the connections that it has accepted."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
        super().__init__(open_listener(HOST, [0]), self.accepted.put_nowait, "the test")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that accepts connections."""
    server = Server()
    server.start()
    yield server
    server.close()
    while not server.accepted.empty():
        server.accepted.get_nowait().close()


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """A socket that can connect when no other can be opened."""
    with socket.socket() as client:
        yield client


def connect(client: socket.socket, server: Server) -> None:
    """Connect to a server; the kernel accepts at once."""
    client.connect((HOST, server.port))
    client.setblocking(False)


async def test_connection_waits_for_a_descriptor(
    server: Server, client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """Without descriptors a connection waits, which is logged once; then it is accepted."""
    with no_file_descriptors():
        connect(client, server)
        await until_logged(caplog, LACKS)
        await asyncio.sleep(3 * module.ACCEPT_PAUSE)
        assert server.accepted.empty()
    accepted = await soon(server.accepted.get())
    assert accepted.getpeername() == client.getsockname()
    accepted.close()
    assert len(caplog.records) == 1


async def test_close_while_it_waits_for_a_descriptor(
    server: Server,
    client: socket.socket,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is accepted later, and the client is told."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.01)
    with no_file_descriptors():
        connect(client, server)
        await until_logged(caplog, LACKS)
        server.close()
    with pytest.raises(ConnectionResetError):
        await soon(asyncio.get_running_loop().sock_recv(client, 1))
    await asyncio.sleep(3 * module.ACCEPT_PAUSE)
    assert server.accepted.empty()
