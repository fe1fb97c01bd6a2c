"""The embedded EPMD, next to OTP's: the same requests, the same program `epmd` as their client."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from pybeethoven.distribution.epmd_server import MIN_CREATION
from pybeethoven.errors import ConfigError
from pybeethoven.net import epmd_server
from pybeethoven.net.epmd import look_up, register
from pybeethoven.net.epmd_server import EpmdServer
from pybeethoven.net.listening import open_listener
from pybeethoven.testing import Epmd, find_epmd, free_port
from tests import epmd_requests as requests
from tests.helpers import has_address, ipv6, soon
from tests.timing import UNIT

HOST = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def embedded(*addresses: str) -> AsyncIterator[int]:
    """An EPMD of ours: its port."""
    port = free_port()
    server = EpmdServer(port, addresses)
    assert await server.start()
    try:
        yield port
    finally:
        await soon(server.stop())


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of an embedded EPMD, which our client uses."""
    async with embedded() as port:
        monkeypatch.setenv("ERL_EPMD_PORT", str(port))
        yield port


async def ask(port: int, request: bytes, host: str = HOST) -> bytes:
    """All that a connection gets for a request, up to its end."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await soon(reader.read())
    except ConnectionResetError:
        return b""
    finally:
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection that may be closed already."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def hold(port: int, request: bytes) -> tuple[bytes, Streams]:
    """The answer to a registration, whose connection stays open."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    tag = await soon(reader.readexactly(1))
    return tag + await soon(reader.readexactly(5 if tag == b"v" else 3)), (reader, writer)


def names_of(answer: bytes, port: int) -> set[bytes]:
    """The lines of an answer to NAMES; the port before them is right."""
    assert struct.unpack(">I", answer[:4]) == (port,)
    return set(answer[4:].splitlines())


async def gone(port: int, line: bytes) -> None:
    """Wait until a name is not listed any more."""
    while line in names_of(await ask(port, requests.NAMES), port):
        pass


# The same as OTP's


def without_creation(answer: bytes) -> bytes:
    """An answer to a registration, with its creation checked and taken out."""
    low, high = (MIN_CREATION, 2**32 - 1) if answer[:1] == b"v" else (1, 3)
    assert answer[1:2] != b"\0" or low <= int.from_bytes(answer[2:]) <= high
    return answer[:2] if answer[1:2] == b"\0" else answer


async def transcript(port: int) -> list[object]:
    """What an EPMD answers to every request, and to several that follow each other."""
    said: list[object] = [names_of(await ask(port, requests.NAMES), port)]
    held = [await hold(port, request) for request in requests.REGISTRATIONS.values()]
    said += [without_creation(answer) for answer, _ in held]
    refused = [await hold(port, request) for request in requests.REFUSED.values()]
    said += [without_creation(answer) for answer, _ in refused]
    for request in (*requests.ANSWERED.values(), *requests.UNANSWERED.values()):
        answer = await ask(port, request)
        said.append(names_of(answer, port) if request[2:3] == b"n" and answer else answer)
    said += await comings_and_goings(port, held)
    for _, (_, writer) in (*held, *refused):
        await close(writer)
    return said


async def comings_and_goings(port: int, held: list[tuple[bytes, Streams]]) -> list[object]:
    """A name is given back, and had again; another is lost because its node says something."""
    said: list[object] = []
    (first, (_, writer)), (_, (reader, talker)) = held[0], held[1]
    await close(writer)
    await gone(port, b"name a at port 4711")
    said.append(await ask(port, requests.LOOK_UPS["registered"]))
    again, (_, writer) = await hold(port, requests.REGISTRATIONS["version 6"])
    said.append((without_creation(again), again == first))
    talker.write(b"more")
    with suppress(ConnectionResetError):
        said.append(await soon(reader.read()))
    await gone(port, b"name old at port 1")
    said.append(names_of(await ask(port, requests.NAMES), port))
    await close(writer)
    return said


async def test_answers_as_otp_does(epmd: Epmd) -> None:
    """Both servers give the same answers, bit by bit save for ports and creations."""
    async with embedded() as port:
        ours = await transcript(port)
    assert ours == await transcript(epmd.port)
    assert len(ours) >= 50


async def test_creations_of_a_name_differ(port: int) -> None:
    """No creation comes twice for a name."""
    creations = set()
    for _ in range(20):
        registration = await soon(register("py", 1, hidden=True))
        creations.add(registration.creation)
        await registration.close()
    assert len(creations) == 20


# The program epmd as a client


async def run_epmd(port: int, *args: str) -> tuple[int, str]:
    """The exit status and output of `epmd` as a client."""
    command = (find_epmd(), "-port", str(port), *args)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await soon(process.communicate())
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.beam
async def test_epmd_names_lists_the_nodes(port: int) -> None:
    """`epmd -names` lists the nodes."""
    registrations = [await register(name, 4711, hidden=True) for name in ("a", "b")]
    lines = ["name b at port 4711", "name a at port 4711"]
    text = "\n".join([f"epmd: up and running on port {port} with data:", *lines, ""])
    assert await run_epmd(port, "-names") == (0, text)
    for registration in registrations:
        await registration.close()


@pytest.mark.beam
async def test_epmd_kill_and_stop_are_ignored(port: int) -> None:
    """`epmd -kill` and `epmd -stop` end neither the server nor a registration."""
    status, text = await run_epmd(port, "-kill")
    assert status == 1
    assert "Killing not allowed" in text
    registration = await register("a", 4711, hidden=True)
    await run_epmd(port, "-stop", "a")
    assert await look_up("a", HOST) == 4711
    await registration.close()


@pytest.mark.beam
async def test_another_epmd_does_not_start(port: int) -> None:
    """`epmd -daemon`, which `erl` runs, finds the running server and leaves it alone."""
    assert (await run_epmd(port, "-daemon"))[0] == 0
    registration = await register("a", 4711, hidden=True)
    assert await look_up("a", HOST) == 4711
    await registration.close()


# Where it listens, and to whom


async def test_second_server_finds_the_port_taken(port: int) -> None:
    """A second server ends, whether the first listens everywhere or on the loopback only."""
    before = len(os.listdir("/proc/self/fd"))
    for addresses in ([], ["0.0.0.0"], ["127.0.0.2"]):
        assert not await EpmdServer(port, addresses).start()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_one_of_several_servers_gets_the_port() -> None:
    """Of several that start at the same time, one gets the port."""
    port = free_port()
    servers = [EpmdServer(port) for _ in range(5)]
    started = await asyncio.gather(*(server.start() for server in servers))
    assert sorted(started) == [False] * 4 + [True]
    for server in servers:
        await server.stop()


@pytest.mark.parametrize(
    ("addresses", "here", "not_here"),
    [
        ([], [HOST, "::1"], ["127.0.0.2"]),
        (["127.0.0.1", "127.0.0.2"], [HOST, "::1", "127.0.0.2"], ["127.0.0.3"]),
        (["0.0.0.0"], [HOST, "::1", "127.0.0.2"], []),
        (["::"], [HOST, "::1", "127.0.0.2"], []),
    ],
    ids=repr,
)
async def test_listens_at_its_addresses(
    addresses: list[str], here: list[str], not_here: list[str]
) -> None:
    """The server listens where it is told to, and always on the loopback."""
    async with embedded(*addresses) as port:
        for host in filter(has_address, here):
            assert await ask(port, requests.NAMES, host) == struct.pack(">I", port)
        for host in not_here:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6), "127.0.0.2"])
async def test_all_of_the_loopback_may_register(host: str) -> None:
    """Loopback clients may register over IPv4, IPv6, and at sockets for both."""
    async with embedded("::") as port:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(requests.alive2(b"a"))
        assert await soon(reader.readexactly(2)) == b"v\0"
        await close(writer)


async def test_address_of_another_machine_is_refused() -> None:
    """The error names the address, and nothing listens."""
    port = free_port()
    with pytest.raises(ConfigError, match=rf"can't listen at 192.0.2.1:{port}.*ERL_EPMD_ADDRESS"):
        await EpmdServer(port, ["192.0.2.1"]).start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, port)


async def test_privileged_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that this user may not have the port."""

    def refuse(address: str, ports: list[int]) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(epmd_server, "open_listener", refuse)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1: .*Permission denied; .*ERL_EPMD_PORT"):
        await EpmdServer(1).start()


async def test_listens_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IPv6 the server listens at the addresses that there are."""

    def open_v4(address: str, ports: list[int]) -> socket.socket:
        if ":" in address:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return open_listener(address, ports)

    monkeypatch.setattr(epmd_server, "open_listener", open_v4)
    async with embedded() as port:
        assert await ask(port, requests.NAMES) == struct.pack(">I", port)


# Limits


async def test_client_without_a_request_times_out(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """A client that makes no request in time is closed; a registered node may be silent."""
    monkeypatch.setattr(epmd_server, "REQUEST_TIME", 0.1 * UNIT)
    registration = await register("a", 4711, hidden=True)
    assert [await ask(port, request) for request in (b"", b"\0", b"\0\5x")] == [b""] * 3
    assert await look_up("a", HOST) == 4711
    await registration.close()


async def test_oldest_idle_clients_make_room(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Clients without a request are closed first; registered nodes stay."""
    monkeypatch.setattr(epmd_server, "MAX_WAITING", 10)
    registration = await register("a", 4711, hidden=True)
    idle = [await asyncio.open_connection(HOST, port) for _ in range(50)]
    assert await look_up("a", HOST) == 4711
    for reader, _ in idle[:40]:
        with suppress(ConnectionResetError):
            assert await soon(reader.read()) == b""
    idle[-1][1].write(requests.LOOK_UPS["registered"])
    assert (await soon(idle[-1][0].read())).startswith(b"w\0")
    for _, writer in idle:
        await close(writer)
    await registration.close()


async def test_limit_holds_within_one_turn(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the clients that connect in one turn of the event loop, the last ones stay."""
    monkeypatch.setattr(epmd_server, "MAX_WAITING", 10)
    # The kernel takes them; the event loop gets to hear of all at once.
    idle = [socket.create_connection((HOST, port)) for _ in range(80)]
    assert await look_up("a", HOST) is None
    closed = []
    for sock in idle:
        sock.setblocking(False)
        try:
            closed.append(sock.recv(1) == b"")
        except ConnectionResetError:
            closed.append(True)
        except BlockingIOError:
            closed.append(False)
        sock.close()
    assert sum(closed) in (70, 71)
    assert all(closed[:70])


async def test_stop_closes_everything(port: int) -> None:
    """When the server stops, its connections are closed, and its port is free."""
    descriptors = []
    for _ in range(2):  # the first time, uvloop opens one for itself
        second = free_port()
        server = EpmdServer(second)
        assert await server.start()
        held = [(await hold(second, requests.alive2(name)))[1] for name in (b"a", b"b")]
        idle = await asyncio.open_connection(HOST, second)
        opening = asyncio.create_task(asyncio.open_connection(HOST, second))
        await soon(server.stop())
        with suppress(OSError):
            held.append(await soon(opening))
        for reader, writer in (*held, idle):
            with suppress(ConnectionResetError):
                assert await soon(reader.read()) == b""
            await close(writer)
        assert await server.start()
        await server.stop()
        descriptors.append(len(os.listdir("/proc/self/fd")))
    assert descriptors[0] == descriptors[1]
