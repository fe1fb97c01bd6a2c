"""Nodes that connect over the real EPMD, to each other and to impostors."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from pybeethoven import Atom, ConfigError, GenServer, Limits, Node, Term
from pybeethoven.distribution.handshake import (
    Completed,
    Handshake,
    Status,
    StatusReceived,
)
from pybeethoven.errors import BeethovenError, NameTaken, NoConnection
from pybeethoven.net import epmd as epmd_client
from pybeethoven.net.connection import Connection
from pybeethoven.net.epmd import Registration, look_up, register
from pybeethoven.net.names import split_name
from pybeethoven.net.network import CLOSING_TIME
from pybeethoven.testing import Epmd, free_port
from tests.helpers import Recorder, atoms, soon, until_unregistered
from tests.net.conftest import StartNode
from tests.net.peers import (
    HOST,
    A,
    B,
    Serve,
    gone,
    identity,
    impostor,
    open_to,
    says_nothing,
    talk,
    watcher,
)
from tests.timing import UNIT

# Names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("py@127.0.0.1", ("py", "127.0.0.1")),
        ("A-b_9@host.example.org", ("A-b_9", "host.example.org")),
        ("py@::1", ("py", "::1")),
        ("0@h", ("0", "h")),
        ("p" * 126 + "@" + "h" * 128, ("p" * 126, "h" * 128)),
    ],
)
def test_split_name(name: str, parts: tuple[str, str]) -> None:
    """A node's name has an alive name and a host."""
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "has no '@'"),
        ("py", "has no '@'; it must look like py@127.0.0.1"),
        ("@127.0.0.1", "before the '@'"),
        ("p y@127.0.0.1", "before the '@'"),
        ("pü@127.0.0.1", "before the '@'"),
        ("py\n@127.0.0.1", "before the '@'"),
        ("py@", "no usable host"),
        ("py@a@b", "no usable host"),
        ("py@h h", "no usable host"),
        ("py@h\n", "no usable host"),
        ("p" * 127 + "@" + "h" * 128, "256 characters; an atom holds 255"),
    ],
)
def test_bad_name_is_refused(name: str, text: str) -> None:
    """The constructor raises, and the error says what is wrong."""
    with pytest.raises(ConfigError) as caught:
        Node(name, "cookie")
    assert text in str(caught.value)


# Starting


async def test_host_of_another_machine_is_refused(epmd: Epmd) -> None:
    """A node can't listen on another machine's address; no name is registered then."""
    node = Node("a@192.0.2.1", "cookie")
    with pytest.raises(ConfigError, match="must be an address of this machine"):
        await soon(node.start_node())
    assert await soon(look_up("a", HOST)) is None


async def test_taken_name_is_refused(start_node: StartNode) -> None:
    """The second node under a name doesn't start; the first is unharmed."""
    a = await start_node(A)
    second = Node(A, "cookie")
    with pytest.raises(NameTaken):
        await soon(second.start_node())
    b = await start_node(B)
    assert await soon(b.ping(a.name))


async def test_cancelled_start_gives_the_name_back(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is cancelled at its last step leaves neither a name nor a listener."""
    ports: list[int] = []

    async def register_and_cancel(name: str, port: int, **settings: Any) -> Registration:
        registration = await register(name, port, **settings)
        ports.append(port)
        starting.cancel()
        return registration

    monkeypatch.setattr(epmd_client, "register", register_and_cancel)
    node = Node(A, "cookie")
    starting = asyncio.create_task(node.start_node())
    with pytest.raises(asyncio.CancelledError):
        await soon(starting)
    await until_unregistered("a")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, ports[0])


# Connecting


async def test_tcp_nodelay_is_set(start_node: StartNode) -> None:
    """Neither end of a connection waits for more to send (TCP_NODELAY)."""
    a, b = await start_node(A), await start_node(B)
    await soon(b.connect(A))
    for node in (a, b):
        [connection] = node.network._up.values()
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Echo(GenServer):
    """Replies with the request."""

    async def handle_call(self, request: Term, from_: Term) -> Term:
        """Reply."""
        return request


async def test_nodes_connect_and_disconnect(start_node: StartNode) -> None:
    """Two nodes connect once, hear of it, and of the end."""
    a, b = await start_node(A), await start_node(B)
    heard_a, heard_b = watcher(a), watcher(b)
    await soon(asyncio.gather(a.connect(B), a.connect(B)))
    await soon(a.connect(B))
    assert await heard_a.next() == atoms("nodeup", B)
    assert await heard_b.next() == atoms("nodeup", A)
    assert a.nodes() == [B]
    assert b.nodes() == [A]
    await b.start(Echo(), name="echo")
    assert await soon(a.call(("echo", B), b"hello")) == b"hello"
    assert a.disconnect(B)
    assert not a.disconnect(B)
    assert await heard_a.next() == atoms("nodedown", B)
    assert await heard_b.next() == atoms("nodedown", A)
    assert a.nodes() == b.nodes() == []
    assert await soon(b.ping(A))


async def test_failed_calls_tell_the_reason(start_node: StartNode) -> None:
    """Calls say why the connection was lost, or could not be made."""
    a, b = await start_node(A), await start_node(B)
    other = await start_node(f"other@{HOST}", cookie="another")
    b.spawn(Recorder(), name="never")
    waiting = [
        asyncio.create_task(a.call(("never", B), 1, timeout=None)),
        asyncio.create_task(a.rpc(B, "m", "f", [], timeout=None)),
    ]
    await soon(a.connect(B))
    a.disconnect(B)
    for task in waiting:
        with pytest.raises(NoConnection, match=f"disconnected from {B}"):
            await soon(task)
    for failing in (a.call(("never", other.name), 1), a.rpc(other.name, "m", "f", [])):
        with pytest.raises(NoConnection, match="cookie"):
            await soon(failing)


async def test_send_connects(start_node: StartNode) -> None:
    """Messages sent before there is a connection arrive over it, in order."""
    a, b = await start_node(A), await start_node(B)
    recorder = Recorder()
    b.spawn(recorder, name="recorder")
    for number in range(100):
        a.send(("recorder", B), number)
    assert [await recorder.next() for _ in range(100)] == list(range(100))


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (f"nobody@{HOST}", f"EPMD on {HOST} knows no node 'nobody'"),
        ("nobody@127.0.0.9", "EPMD cannot be reached at 127.0.0.9"),
        (A, f"{A} is this node itself"),
    ],
)
async def test_unreachable_node_is_explained(start_node: StartNode, peer: str, text: str) -> None:
    """The error says what is missing; calls and monitors fail, too."""
    a = await start_node(A)
    heard = watcher(a)
    with pytest.raises(NoConnection) as caught:
        await soon(a.connect(peer))
    assert text in str(caught.value)
    if peer != A:
        assert not await soon(a.ping(peer))
        with pytest.raises(NoConnection):
            await soon(a.call(("name", peer), 1, timeout=None))
        reference = heard.monitor(("name", peer))
        down = (Atom("DOWN"), reference, Atom("process"), atoms("name", peer), Atom("noconnection"))
        assert await heard.next() == down
    assert heard.messages.empty()


async def test_invalid_name_of_a_peer_is_refused(start_node: StartNode) -> None:
    """An invalid node name is the caller's error."""
    a = await start_node(A)
    with pytest.raises(ConfigError, match="has no '@'"):
        await a.connect("b")
    with pytest.raises(ConfigError, match="cannot send to"):
        a.send(("name", "b"), "hello")
    with pytest.raises(ConfigError, match="has no '@'"):
        await a.ping("b")


@pytest.mark.parametrize("dialler", ["right", "wrong"])
async def test_wrong_cookie_is_reported_by_both_sides(
    start_node: StartNode, dialler: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sides tell the likely cause, and neither shows a cookie."""
    caplog.set_level(logging.DEBUG)
    a, b = await start_node(A, "FIRSTSECRET"), await start_node(B, "SECONDSECRET")
    one, other = (a, b) if dialler == "right" else (b, a)
    heard = watcher(other)
    with pytest.raises(NoConnection, match="cookie") as caught:
        await soon(one.connect(other.name))
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "SECRET" not in str(cause)
        cause = cause.__cause__ or cause.__context__
    assert not await soon(one.ping(other.name))
    assert one.nodes() == other.nodes() == []
    assert heard.messages.empty()
    assert "cookie" in caplog.text
    assert "SECRET" not in caplog.text


async def test_monitor_link_and_exit_between_nodes(start_node: StartNode) -> None:
    """Links and monitors work from node to node, as long as they are connected."""
    a, b = await start_node(A), await start_node(B)
    here, there = Recorder(trap_exit=True), Recorder()
    a.spawn(here)
    b.spawn(there, name="there")
    reference = here.monitor(("there", B))
    here.link(there.pid)
    assert await soon(a.ping(B))
    b.exit(there, Atom("boom"))
    told = [await here.next() for _ in range(2)]
    assert (Atom("EXIT"), there.pid, Atom("boom")) in told
    down = (Atom("DOWN"), reference, Atom("process"), atoms("there", B), Atom("boom"))
    assert down in told


async def test_stop_ends_links_and_calls(start_node: StartNode) -> None:
    """When a node stops, processes that are linked to its own get the reason, and calls end."""
    a = await start_node(A)
    b = Node(B, "cookie")
    await b.start_node()
    here, there = Recorder(trap_exit=True), Recorder()
    a.spawn(here)
    b.spawn(there, name="there")
    here.link(there.pid)
    heard = watcher(a)
    call = asyncio.create_task(a.call(("there", B), "never answered", timeout=None))
    await there.next()
    await b.stop()
    assert await here.next() == (Atom("EXIT"), there.pid, Atom("shutdown"))
    with pytest.raises(BeethovenError):
        await soon(call)
    assert [await heard.next() for _ in range(2)] == [atoms("nodeup", B), atoms("nodedown", B)]


async def test_stop_ends_the_calls_of_the_node(start_node: StartNode) -> None:
    """A call to another node ends when the own node stops; so does one that is made later."""
    b = await start_node(B)
    there = Recorder()
    b.spawn(there, name="there")
    async with Node(A, "cookie") as a:
        call = asyncio.create_task(a.call(("there", B), "never answered", timeout=None))
        await there.next()
    for waiting in (call, a.call(("there", B), "too late", timeout=None), a.connect(B)):
        with pytest.raises(NoConnection):
            await soon(waiting)
    assert there.messages.empty()


# Simultaneous dials


async def exchange(a: Node, b: Node, turns: int, count: int) -> None:
    """Send numbered messages both ways, those of b `turns` turns of the loop later."""
    heard = [watcher(a), watcher(b)]
    recorders = [Recorder(), Recorder()]
    for node, recorder in zip((a, b), recorders, strict=True):
        node.spawn(recorder, name="recorder")
    for number in range(count):
        a.send(("recorder", b.name), number)
    for _ in range(turns):
        await asyncio.sleep(0)
    for number in range(count):
        b.send(("recorder", a.name), number)
    for recorder in recorders:
        assert [await recorder.next() for _ in range(count)] == list(range(count))
    for node, peer, recorder in ((a, b, heard[0]), (b, a, heard[1])):
        assert await soon(node.ping(peer.name))
        assert node.nodes() == [peer.name]
        assert await recorder.next() == atoms("nodeup", peer.name)
        assert recorder.messages.empty()


@pytest.mark.parametrize("at_once", [False, True], ids=["EPMD", "at once"])
@pytest.mark.parametrize("names", [(A, B), (B, A)])
async def test_simultaneous_dials_make_one_connection(
    epmd: Epmd, names: tuple[str, str], at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However two nodes that dial each other interleave, one connection results, and every message
    arrives once and in order. With look-ups that take no time the second dials amid the first's
    handshake."""
    for turns in range(60):
        async with Node(names[0], "cookie") as one, Node(names[1], "cookie") as other:
            if at_once:
                ports = {name: await look_up(name, HOST) for name in ("a", "b")}
                monkeypatch.setattr(epmd_client, "look_up", known(ports))
            await soon(exchange(one, other, turns, 10))


def known(ports: dict[str, int | None]) -> Callable[[str, str], Awaitable[int | None]]:
    """A look-up that knows the ports already."""

    async def look_up(alive_name: str, host: str) -> int | None:
        return ports[alive_name]

    return look_up


class Dance:
    """Look-ups at EPMD that return when the test says, so that it decides who dials when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_dial = {"a": asyncio.Event(), "b": asyncio.Event()}
        monkeypatch.setattr(epmd_client, "look_up", self._look_up)

    async def _look_up(self, alive_name: str, host: str) -> int | None:
        port = await look_up(alive_name, host)
        await self.may_dial["b" if alive_name == "a" else "a"].wait()
        return port


@pytest.mark.parametrize("first", ["a", "b"])
async def test_simultaneous_dials_at_each_step(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The second dials at each possible moment of the first one's handshake."""
    second = "b" if first == "a" else "a"
    a, b = await start_node(A), await start_node(B)
    for turns in range(40):
        dance = Dance(monkeypatch)
        recorders = [Recorder(), Recorder()]
        for node, recorder in zip((a, b), recorders, strict=True):
            node.spawn(recorder, name=f"recorder{turns}")
        for number in range(5):
            a.send((f"recorder{turns}", B), number)
            b.send((f"recorder{turns}", A), number)
        dance.may_dial[first].set()
        for _ in range(turns):
            await asyncio.sleep(0)
        dance.may_dial[second].set()
        for recorder in recorders:
            assert [await recorder.next() for _ in range(5)] == list(range(5))
        assert await soon(a.ping(B))
        assert await soon(b.ping(A))
        heard = watcher(a), watcher(b)
        a.disconnect(B)
        for recorder in heard:
            assert (await recorder.next())[0] == "nodedown"


# Impostors and unauthenticated peers


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close at once."""
    writer.close()


async def closes_after_name(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close when the name came."""
    await reader.read(4096)
    writer.close()


def says(data: bytes) -> Serve:
    """Send `data` and wait."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return serve


async def is_another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a node with another name."""
    await talk(Handshake.acceptor(identity("c"), "cookie", 1), reader, writer)


async def allows_nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse."""
    await reader.read(4096)
    writer.write(b"\0\x0csnot_allowed")


IMPOSTORS: dict[str, Serve] = {
    "closes": closes,
    "closes after the name": closes_after_name,
    "says nothing": says_nothing,
    "http": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "zeros": says(bytes(64)),
    "a huge length": says(b"\xff\xff" + b"s" * 1000),
    "half a status": says(b"\0\3so"),
    "an unknown status": says(b"\0\5swhat"),
    "another name": is_another,
    "not allowed": allows_nobody,
}


@pytest.mark.parametrize("serve", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_impostor_is_not_connected_to(start_node: StartNode, serve: Serve) -> None:
    """A port without a node gives `NoConnection`, nothing stays open, and the node goes on."""
    a = await start_node(A, timeout=0.2 * UNIT)
    heard = watcher(a)
    async with impostor(serve) as left:
        call = asyncio.create_task(a.call(("name", B), 1, timeout=None))
        with pytest.raises(NoConnection, match=rf"no connection to {B}: .+"):
            await soon(a.connect(B))
        with pytest.raises(NoConnection):
            await soon(call)
        await soon(left.wait())
    assert heard.messages.empty()
    b = await start_node(B)
    assert await soon(a.ping(b.name))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(64),
        b"\xff\xff" + b"N" * 100,
        b"\0\1N",
        b"\0\5nwhat",
    ],
    ids=repr,
)
async def test_malformed_handshake_is_closed(start_node: StartNode, data: bytes) -> None:
    """A client that is not a node is cut off in time."""
    a = await start_node(A, timeout=0.1 * UNIT)
    heard = watcher(a)
    reader, writer = await open_to("a")
    writer.write(data)
    await gone(reader)
    writer.close()
    assert a.nodes() == []
    assert heard.messages.empty()
    assert await soon((await start_node(B)).ping(A))


async def test_peer_with_the_same_name_is_refused(start_node: StartNode) -> None:
    """A node that has the name of this one is not let in."""
    await start_node(A)
    reader, writer = await open_to("a")
    events = await soon(talk(Handshake.initiator(identity("a"), A, "cookie", 1), reader, writer))
    assert events == [StatusReceived(Status.NOT_ALLOWED)]
    writer.close()


async def test_returning_peer_replaces_its_old_connection(start_node: StartNode) -> None:
    """The old connection, which seems alive, goes down, and the new one comes up."""
    a = await start_node(A)
    heard = watcher(a)
    old_reader, old_writer = await open_to("a")
    handshake = Handshake.initiator(identity("b"), A, "cookie", 1)
    await soon(talk(handshake, old_reader, old_writer))
    assert await heard.next() == atoms("nodeup", B)
    reader, writer = await open_to("a")
    handshake = Handshake.initiator(identity("b"), A, "cookie", 2)
    events = await soon(talk(handshake, reader, writer))
    assert events[0] == StatusReceived(Status.ALIVE)
    assert isinstance(events[-1], Completed)
    assert [await heard.next() for _ in range(2)] == [atoms("nodedown", B), atoms("nodeup", B)]
    await gone(old_reader)
    assert a.nodes() == [B]
    old_writer.close()
    writer.close()
    assert await heard.next() == atoms("nodedown", B)


async def test_silent_peer_is_down(epmd: Epmd) -> None:
    """A peer that is silent for net_ticktime is down."""
    async with Node(A, "cookie", net_ticktime=0.2 * UNIT) as a:
        heard = watcher(a)
        reader, writer = await open_to("a")
        handshake = Handshake.initiator(identity("b"), A, "cookie", 1)
        await soon(talk(handshake, reader, writer))
        start = time.monotonic()
        assert await heard.next() == atoms("nodeup", B)
        assert await heard.next() == atoms("nodedown", B)
        assert time.monotonic() - start >= 0.15 * UNIT
        await gone(reader)
        writer.close()


async def test_ticks_keep_idle_nodes_connected(epmd: Epmd) -> None:
    """Two nodes that say nothing stay connected."""
    ticktime = 0.2 * UNIT
    async with (
        Node(A, "cookie", net_ticktime=ticktime) as a,
        Node(B, "cookie", net_ticktime=ticktime) as b,
    ):
        await soon(a.connect(B))
        heard = watcher(a)
        await asyncio.sleep(2 * ticktime)
        assert heard.messages.empty()
        assert b.nodes() == [A]


# Stopping


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("said", [b"", b"\0", b"half"])
async def test_stop_closes_handshakes(epmd: Epmd, said: bytes) -> None:
    """Connections whose handshake is under way, in either direction, are closed."""
    before = open_files()
    async with impostor(says_nothing) as left:
        async with Node(A, "cookie") as a:
            connecting = asyncio.create_task(a.connect(B))
            clients = [await open_to("a") for _ in range(3)]
            for _, writer in clients:
                writer.write(said)
            await asyncio.sleep(0.01 * UNIT)
            assert not connecting.done()
            start = time.monotonic()
        assert time.monotonic() - start < CLOSING_TIME + UNIT
        await soon(left.wait())
        with pytest.raises(NoConnection, match="stopped"):
            await soon(connecting)
        for reader, writer in clients:
            await gone(reader)
            writer.close()
            await writer.wait_closed()
    assert open_files() == before


async def test_stop_ends_dials(epmd: Epmd) -> None:
    """At any moment of a dial, callers get `NoConnection`, and no socket is left."""
    before = open_files()
    async with Node(B, "cookie"):
        for turns in range(60):
            async with Node(A, "cookie") as a:
                connecting = asyncio.create_task(a.connect(B))
                for _ in range(turns):
                    await asyncio.sleep(0)
            with suppress(NoConnection):
                await soon(connecting)
    for _ in range(10):
        await asyncio.sleep(0)
    assert open_files() == before


async def test_connection_during_stop_is_closed(epmd: Epmd) -> None:
    """A peer that connects while the node stops is cut off, too."""
    before = open_files()
    for turns in range(20):
        a = Node(A, "cookie")
        await a.start_node()
        opening = asyncio.create_task(open_to("a"))
        stopping = asyncio.create_task(a.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        await soon(stopping)
        try:
            reader, writer = await soon(opening)
        except (OSError, AssertionError):
            continue
        await gone(reader)
        writer.close()
        await writer.wait_closed()
    assert open_files() == before


async def test_messages_sent_before_stop_arrive(start_node: StartNode) -> None:
    """Messages that were sent over a connection that is up go out before it closes."""
    b = await start_node(B)
    recorder = Recorder()
    b.spawn(recorder, name="recorder")
    async with Node(A, "cookie") as a:
        await soon(a.connect(B))
        for number in range(1000):
            a.send(("recorder", B), number)
    assert [await recorder.next() for _ in range(1000)] == list(range(1000))


async def test_connections_survive_the_end_of_epmd(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When EPMD has gone, only new connections fail."""
    async with Node(A, "cookie") as a, Node(B, "cookie"):
        await soon(a.connect(B))
        monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
        assert await soon(a.ping(B))
        with pytest.raises(NoConnection, match="EPMD cannot be reached"):
            await soon(a.connect(f"c@{HOST}"))


async def test_stop_ends_though_a_transport_could_not_be_made(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that no protocol has taken over holds up no stop."""

    def fail(connection: Connection, transport: asyncio.BaseTransport) -> None:
        transport.close()
        raise RuntimeError("no connection is made")

    monkeypatch.setattr(Connection, "connection_made", fail)
    monkeypatch.setattr(Connection, "connection_lost", lambda connection, error: None)
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    a, b = (Node(name, "cookie", limits=Limits(handshake_time=0.2 * UNIT)) for name in (A, B))
    await a.start_node()
    await b.start_node()
    with pytest.raises(NoConnection):
        await soon(a.connect(B))
    await soon(a.stop())
    await soon(b.stop())
    assert failures
