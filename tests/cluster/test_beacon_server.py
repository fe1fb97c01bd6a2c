"""The BeaconServer on a real node, asked over real sockets by Locators and other clients."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pybeethoven import Atom, Node
from pybeethoven.cluster import beacon_server
from pybeethoven.cluster.beacon_server import (
    DIALS_OF_ADDRESS,
    MAX_GUESTS,
    MAX_GUESTS_OF_ADDRESS,
    NAME,
    RECOVER,
    BeaconServer,
)
from pybeethoven.cluster.locator import Locator
from pybeethoven.cluster.seek_chat import MAX_SIZE
from pybeethoven.errors import JoinError, MirrorError, NoConnection
from pybeethoven.net.acceptor import ACCEPT_PAUSE
from pybeethoven.net.finder import Allows
from pybeethoven.net.listening import open_listener
from pybeethoven.testing import Epmd, free_port
from tests.helpers import no_file_descriptors, soon, until_logged
from tests.timing import UNIT

HOST = "127.0.0.1"
PY, OTHER = "py@127.0.0.1", "other@127.0.0.1"
NOTSUP = (Atom("error"), Atom("notsup"))
NODES = ["a@127.0.0.1", "b@127.0.0.1"]


class Cluster:
    """A cluster that records which nodes the beacon adds; `hold` delays adding."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.cancelled: list[str] = []
        self.active = self.most_active = 0
        self.begun = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    async def add_node(self, name: str) -> None:
        """Add a node."""
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        self.begun.set()
        try:
            await self.hold.wait()
            if self.error is not None:
                raise self.error
            self.added.append(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.active -= 1
            self.ended.set()


@pytest.fixture
async def node(epmd: Epmd) -> AsyncIterator[Node]:
    """The node of the beacon."""
    async with Node(PY, "cookie") as node:
        yield node


@pytest.fixture
async def other(epmd: Epmd) -> AsyncIterator[Node]:
    """A node that wants to be let in."""
    async with Node(OTHER, "cookie") as other:
        yield other


@pytest.fixture
def port() -> int:
    """The beacon's port."""
    return free_port("0.0.0.0")


@pytest.fixture
async def cluster() -> Cluster:
    """The cluster of the beacon."""
    return Cluster()


@pytest.fixture
async def beacon(node: Node, port: int, cluster: Cluster) -> BeaconServer:
    """A beacon that runs."""
    server = BeaconServer(port, add_node=cluster.add_node, nodes=lambda: list(NODES))
    await node.start(server, name=NAME)
    return server


def message(sender: str = OTHER, kind: str = "seeking", payload: object = "join") -> bytes:
    """What a Locator sends."""
    return json.dumps({"sender": sender, "type": kind, "payload": payload}).encode()


async def answer(reader: asyncio.StreamReader) -> Any:
    """The payload of a reply, to the end of the connection; None if there is no reply."""
    try:
        data = await soon(reader.read())
    except ConnectionResetError:
        return None
    if not data:
        return None
    reply = json.loads(data)
    assert (reply["sender"], reply["type"]) == (PY, "reply")
    return reply["payload"]


async def ask(port: int, *pieces: bytes, eof: bool = False) -> Any:
    """The beacon's answer to a request."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if eof:
            writer.write_eof()
        return await answer(reader)
    finally:
        writer.close()


async def guests_gone(beacon: BeaconServer) -> None:
    """Wait until the beacon has no client."""
    while guests := set(beacon._guests):
        await soon(asyncio.wait(guests))
        await asyncio.sleep(0)


# What is answered


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (message(PY), "self"),
        (message(PY, "watching", "check"), "self"),
        (message(PY, "reply", "joined"), "self"),
        (message(kind="watching", payload="check"), NODES),
        (message("no name", "watching", "check"), NODES),
        (message(), "join_failed"),
        (message("py2@127.0.0.9"), "join_failed"),
        (message("py@short"), "join_failed"),
        (message("no name"), "error"),
        (message(""), "error"),
        (message("@"), "error"),
        (message("a@127.0.0.1" * 1000), "error"),
        (message("\ud800@127.0.0.1"), "error"),
        (message(kind="reply", payload="joined"), "error"),
        (message(kind="dancing"), "error"),
        (message(payload=1), "error"),
        (b"{}", "error"),
        (b"{", "error"),
        (b'{"sender": oops}', "error"),
        (message() + b" and more", "error"),
        (message() + b"\r\n", "join_failed"),
        (b"GET / HTTP/1.1\r\n\r\n", "error"),
        (b"\x00", "error"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "error"),
        (b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "error"),
        (b'{"a":' + b"9" * 5_000 + b"}", "error"),
        (b"", None),
        (b"\r\n", "error"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_request_is_answered_or_closed(
    request_: bytes,
    payload: object,
    beacon: BeaconServer,
    port: int,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A request gets its answer, or its connection is closed.

    None of these requests adds a node, or has its content logged.
    """
    caplog.set_level(logging.INFO)
    eof = payload in ("error", None)  # else it would be gone before it is answered
    assert await ask(port, request_, eof=eof) == payload
    assert cluster.added == []
    await guests_gone(beacon)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert all(len(record.getMessage()) < 400 for record in caplog.records)


async def test_reachable_node_is_added(
    beacon: BeaconServer, port: int, cluster: Cluster, other: Node, node: Node
) -> None:
    """A node that can be reached is added and told so, even if its request comes byte by byte."""
    assert await ask(port, message()) == "joined"
    pieces = [message()[n : n + 1] for n in range(len(message()))]
    assert await ask(port, *pieces) == "joined"
    assert cluster.added == [OTHER, OTHER]
    assert OTHER in node.nodes()


async def test_locator_joins_through_the_beacon(
    beacon: BeaconServer, port: int, cluster: Cluster, other: Node
) -> None:
    """The Python Locator and the Python beacon understand each other."""
    locator = Locator(OTHER, [HOST], port, lambda: 0.0)
    assert await soon(locator.seek()) == PY
    assert cluster.added == [OTHER]


async def test_node_with_another_cookie_is_not_added(
    beacon: BeaconServer, port: int, cluster: Cluster
) -> None:
    """The beacon does not add a node that does not know the cookie."""
    async with Node(OTHER, "another"):
        with pytest.raises(JoinError, match="the cookie differs"):
            await soon(Locator(OTHER, [HOST], port, lambda: 0.0).seek(rounds=1))
    assert cluster.added == []


@pytest.mark.parametrize("error", [MirrorError("no peer could"), ValueError("a bug")])
async def test_failure_to_add_is_logged(
    error: Exception,
    beacon: BeaconServer,
    port: int,
    cluster: Cluster,
    other: Node,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the reason, and for a bug the traceback; the beacon goes on."""
    cluster.error = error
    assert await ask(port, message()) == "error"
    [record] = [r for r in caplog.records if r.name == beacon_server.__name__]
    expected = isinstance(error, MirrorError)
    assert (record.levelno == logging.WARNING) == expected == (record.exc_info is None)
    assert OTHER in record.getMessage()
    cluster.error = None
    assert await ask(port, message()) == "joined"


async def test_arbitrary_bytes_are_answered_with_an_error(
    beacon: BeaconServer, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer to any bytes is `error`; a client that sends nothing gets no answer."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(b"{".__add__)))
    def check(data: bytes) -> None:
        asked = asyncio.run_coroutine_threadsafe(ask(port, data, eof=True), loop)
        assert asked.result() == ("error" if data else None)

    await asyncio.to_thread(check)
    assert not caplog.records


# How long adding takes


async def test_answer_comes_when_the_node_is_added(
    beacon: BeaconServer, port: int, cluster: Cluster, other: Node
) -> None:
    """A client waits until its node is added; what it sends meanwhile changes nothing."""
    cluster.hold.clear()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(message())
    await soon(cluster.begun.wait())
    writer.write(b"\n")
    assert await ask(port, message(kind="watching")) == NODES
    cluster.hold.set()
    assert await answer(reader) == "joined"
    writer.close()


@pytest.mark.parametrize("way", ["close", "reset", "flood"])
async def test_adding_is_cancelled_when_the_client_leaves(
    way: str, beacon: BeaconServer, port: int, cluster: Cluster, other: Node
) -> None:
    """Adding is cancelled when the client closes the connection, or does not stop sending."""
    cluster.hold.clear()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(message())
    await soon(cluster.begun.wait())
    if way == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    while way == "flood" and not cluster.ended.is_set():
        writer.write(b" ")
        await asyncio.sleep(0)
    writer.close()
    await soon(cluster.ended.wait())
    assert cluster.cancelled == [OTHER]
    await guests_gone(beacon)
    assert await answer(reader) is None
    cluster.hold.set()
    assert await ask(port, message()) == "joined"


async def test_requests_for_one_name_are_served_in_turn(
    beacon: BeaconServer, port: int, cluster: Cluster, other: Node
) -> None:
    """A second client for the same name is served when the first one has left."""
    cluster.hold.clear()
    streams = [await asyncio.open_connection(HOST, port) for _ in range(4)]
    for _, writer in streams:
        writer.write(message())
    await soon(cluster.begun.wait())
    assert await ask(port, message(kind="watching")) == NODES
    streams[0][1].close()
    cluster.ended.clear()
    await soon(cluster.ended.wait())
    cluster.hold.set()
    assert [await answer(reader) for reader, _ in streams[1:]] == ["joined"] * 3
    assert (cluster.added, cluster.most_active) == ([OTHER] * 3, 1)
    for _, writer in streams:
        writer.close()


# Limits


@pytest.mark.parametrize(("sent", "payload"), [(b"", None), (message()[:-1], "error")])
async def test_client_without_a_request_times_out(
    sent: bytes,
    payload: object,
    beacon: BeaconServer,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that does not send its request in time is closed."""
    monkeypatch.setattr(beacon_server, "REQUEST_TIME", 0.3 * UNIT)
    assert await ask(port, sent) == payload
    await guests_gone(beacon)


async def test_size_of_a_request_is_limited(beacon: BeaconServer, port: int) -> None:
    """A request may have 64 KiB, and not one byte more; a megabyte is not read."""
    assert await ask(port, message(kind="watching").ljust(MAX_SIZE)) == NODES
    assert await ask(port, b"{".ljust(MAX_SIZE + 1)) in ("error", None)
    assert await ask(port, b"{" * 1_000_000) in ("error", None)
    await guests_gone(beacon)


async def test_request_in_many_pieces_is_not_read_to_its_end(
    beacon: BeaconServer, port: int
) -> None:
    """A request that would be parsed again and again is closed."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b'{"a":[{}' + b",{}" * 20_000)
    answering = asyncio.create_task(answer(reader))
    sent = 0
    while not answering.done() and sent < 1_000:
        writer.write(b",{}")
        sent += 1
        await asyncio.sleep(0.001)
    assert sent < 200
    assert await answering in ("error", None)
    writer.close()
    await guests_gone(beacon)


async def test_dials_for_clients_that_left_are_bounded(
    beacon: BeaconServer, port: int, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that leaves counts until its node has been dialled.

    So clients cannot cause more dials at once than the limit of their address.
    """
    reached = asyncio.Event()
    dialled: list[str] = []

    async def connect_if(name: str, allows: Allows) -> None:
        dialled.append(name)
        await reached.wait()
        raise NoConnection(name)

    monkeypatch.setattr(node.network, "connect_if", connect_if)
    for number in range(DIALS_OF_ADDRESS.burst):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.write(message(f"n{number}@127.0.0.9"))
        while len(dialled) == number:
            await asyncio.sleep(0)
        writer.close()
    assert await ask(port, message("late@127.0.0.9")) == "join_failed"
    assert len(dialled) == DIALS_OF_ADDRESS.burst
    reached.set()
    await guests_gone(beacon)
    assert await ask(port, message(kind="watching")) == NODES


async def test_client_that_does_not_read_is_closed(
    node: Node, port: int, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not read its reply is closed."""
    monkeypatch.setattr(beacon_server, "REPLY_TIME", 0.05 * UNIT)
    many = ["a@127.0.0.1"] * 2_000_000
    beacon = BeaconServer(port, add_node=cluster.add_node, nodes=lambda: many)
    await node.start(beacon, name=NAME)
    _, writer = await asyncio.open_connection(HOST, port, limit=1)
    writer.write(message(kind="watching"))
    while not beacon._guests:
        await asyncio.sleep(0)
    await guests_gone(beacon)
    writer.close()


@pytest.mark.parametrize("sources", [1, 4])
async def test_number_of_clients_is_limited(
    sources: int, beacon: BeaconServer, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """At most `MAX_GUESTS` clients are served, and half of that from one address, which is logged
    once: the oldest make room."""
    limit = MAX_GUESTS if sources > 1 else MAX_GUESTS_OF_ADDRESS
    streams = [
        await asyncio.open_connection(
            HOST, beacon.port, local_addr=(f"127.0.0.{1 + number % sources}", 0)
        )
        for number in range(limit + 5)
    ]
    for reader, _ in streams[:5]:
        assert await answer(reader) is None
    assert len(beacon._guests) == limit
    [record] = caplog.records
    assert f"turns guests away: {limit} are there" in record.getMessage()
    _, last = streams[-1]
    last.write(message(kind="watching"))
    assert await answer(streams[-1][0]) == NODES
    for _, writer in streams:
        writer.close()
    await guests_gone(beacon)
    assert await ask(beacon.port, message(kind="watching")) == NODES


async def test_connections_closed_at_once_leave_nothing(
    beacon: BeaconServer, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that are closed or reset at once leave nothing behind, not even in the log."""
    for number in range(100):
        _, writer = await asyncio.open_connection(HOST, port)
        if number % 2:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
    assert await ask(port, message(kind="watching")) == NODES
    await guests_gone(beacon)
    assert not caplog.records


async def test_recovers_from_a_lack_of_file_descriptors(
    beacon: BeaconServer, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without file descriptors no client gets in, which is logged once; later all works again."""
    with socket.socket() as client, no_file_descriptors():
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (HOST, port))
        await until_logged(caplog, "can't accept connections: .*Too many open files")
        await asyncio.sleep(5 * ACCEPT_PAUSE)
        assert not beacon._guests
    assert await ask(port, message(kind="watching")) == NODES
    assert len(caplog.records) == 1


# The port


async def test_opened_at(beacon: BeaconServer) -> None:
    """`opened_at` is the time since which it listens."""
    assert beacon.opened_at is not None
    assert 0 <= asyncio.get_running_loop().time() - beacon.opened_at < 10 * UNIT


@pytest.mark.parametrize("by", ["cast", "nodedown", "time"])
async def test_port_in_use_is_taken_over_later(
    by: str,
    node: Node,
    other: Node,
    port: int,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A beacon takes its port when that is free; until then one warning is logged."""
    caplog.set_level(logging.INFO)
    pause = 0.01 if by == "time" else 1000.0
    monkeypatch.setattr(beacon_server, "OPEN_AGAIN", (pause, pause))
    beacon = BeaconServer(port, add_node=cluster.add_node, nodes=lambda: list(NODES))

    async def again() -> None:
        if by == "cast":
            node.cast(NAME, RECOVER)
        elif by == "time":
            await asyncio.sleep(10 * pause)
        else:
            await node.connect(OTHER)
            node.disconnect(OTHER)
            while OTHER in node.nodes():
                await asyncio.sleep(0)
        assert await soon(node.call(NAME, Atom("what"))) == NOTSUP

    with open_listener(HOST, [port]):
        await node.start(beacon, name=NAME)
        await again()
        await again()
        assert beacon.opened_at is None
    texts = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    said = f"another node of this machine is the beacon at port {port} of {HOST}; {PY} is"
    assert texts.count(f"{said} when that one has ended") == 1
    await again()
    assert beacon.opened_at is not None
    assert await ask(port, message(kind="watching")) == NODES
    await again()
    assert await ask(port, message(kind="watching")) == NODES


async def test_port_in_use_by_a_connection_is_an_error(
    node: Node, port: int, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """If a program has the port for a connection of its own, no node can be a beacon."""
    with connection_from(port):
        await node.start(BeaconServer(port, add_node=cluster.add_node, nodes=list), name=NAME)
        async with asyncio.timeout(1 * UNIT):
            await until_logged(caplog, f"others do not find the cluster through {PY}: it can't l")
    [record] = caplog.records
    assert record.levelno == logging.ERROR


async def test_port_that_becomes_free_at_once(
    node: Node, port: int, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A port that a killed process is just giving up is taken over without an error."""
    caplog.set_level(logging.INFO)
    with connection_from(port):
        await node.start(BeaconServer(port, add_node=cluster.add_node, nodes=list), name=NAME)
    await until_logged(caplog, f"{PY} is a beacon at port {port}")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@contextmanager
def connection_from(port: int) -> Iterator[None]:
    """Have a connection whose own port is `port`; afterwards it is free at once."""
    with socket.create_server((HOST, 0)) as server, socket.socket() as client:
        client.bind((HOST, port))
        client.connect(server.getsockname())
        yield
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("interface", ["192.0.2.1", "no address"])
async def test_unusable_interface_is_logged(
    interface: str, node: Node, port: int, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A beacon that cannot listen logs that and stays alive."""
    beacon = BeaconServer(port, add_node=cluster.add_node, nodes=list, interface=interface)
    await node.start(beacon, name=NAME)
    assert beacon.opened_at is None
    [record] = caplog.records
    assert f"port {port} of {interface}" in record.getMessage()
    assert f"others do not find the cluster through {PY}" in record.getMessage()
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize(
    ("name", "interface", "asked", "reached"),
    [
        (PY, None, "127.0.0.2", False),
        (PY, "127.0.0.2", "127.0.0.2", True),
        (PY, "0.0.0.0", "127.0.0.2", True),
        ("py@localhost", None, "127.0.0.2", True),
    ],
)
async def test_listens_at_the_interface(
    name: str,
    interface: str | None,
    asked: str,
    reached: bool,
    epmd: Epmd,
    port: int,
    cluster: Cluster,
) -> None:
    """The beacon listens at its node's address, everywhere if that has none, or as told."""
    async with Node(name, "cookie") as node:
        beacon = BeaconServer(port, add_node=cluster.add_node, nodes=list, interface=interface)
        await node.start(beacon, name=NAME)
        try:
            _, writer = await asyncio.open_connection(asked, port)
        except ConnectionRefusedError:
            assert not reached
        else:
            writer.close()
            assert reached


# The end


@pytest.mark.parametrize("way", ["shutdown", "kill", "stop"])
async def test_end_frees_the_port(
    way: str, beacon: BeaconServer, node: Node, port: int, cluster: Cluster, other: Node
) -> None:
    """When the beacon ends, its port is free, and no client waits for an answer."""
    cluster.hold.clear()
    reader, writer = await asyncio.open_connection(HOST, port)
    idle_reader, idle_writer = await asyncio.open_connection(HOST, port)
    writer.write(message())
    await soon(cluster.begun.wait())
    if way == "stop":
        await soon(node.stop())
    else:
        node.exit(beacon, Atom(way))
    assert await soon(beacon.wait_end())
    assert (beacon.opened_at, cluster.cancelled, beacon._guests) == (None, [OTHER], {})
    assert await answer(reader) is await answer(idle_reader) is None
    open_listener(HOST, [port]).close()
    writer.close()
    idle_writer.close()


async def test_run_again(
    beacon: BeaconServer, node: Node, port: int, cluster: Cluster, other: Node
) -> None:
    """The same object can be run again, as a supervisor does, and is as new."""
    cluster.hold.clear()
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(message())
    await soon(cluster.begun.wait())
    for _ in range(3):
        node.exit(beacon, Atom("kill"))
        assert await soon(beacon.wait_end())
        await node.start(beacon, name=NAME)
        assert beacon.opened_at is not None
    cluster.hold.set()
    assert await ask(port, message()) == "joined"
    writer.close()


async def test_unknown_messages_are_ignored(
    beacon: BeaconServer, node: Node, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown calls, casts and messages do not end the beacon."""
    caplog.set_level(logging.DEBUG, beacon_server.__name__)
    assert await soon(node.call(NAME, Atom("what"))) == NOTSUP
    node.cast(NAME, Atom("what"))
    node.send(NAME, Atom("what"))
    await until_logged(caplog, r"unknown cast Atom\('what'\)")
    assert await ask(port, message(kind="watching")) == NODES
