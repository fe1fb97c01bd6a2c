"""A child that is forked from the process of a node has nothing of the node."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from multiprocessing import get_context
from typing import Any

import pytest

from pybeethoven import Beethoven, Node
from pybeethoven.net.sockets import parent_only
from pybeethoven.testing import free_port
from tests.helpers import Recorder, atoms, soon, until_unregistered
from tests.net.conftest import StartNode
from tests.net.peers import watcher

# Python 3.12 and later warn of each fork of a process with threads, like a worker of pytest-xdist.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

A, B = "a@127.0.0.1", "b@127.0.0.1"


def in_child(look: Callable[[], object]) -> str:
    """What `look` returns in a forked child, as text; an error as its text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(look()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def tcp_sockets() -> int:
    """How many TCP sockets this process has open."""
    return sum(_is_tcp(number) for number in map(int, os.listdir("/proc/self/fd")))


def _is_tcp(number: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.family in (socket.AF_INET, socket.AF_INET6)
    except OSError:  # the descriptor of the listing itself, or no socket
        return False


async def forked_at_each_turn(work: Coroutine[Any, Any, object]) -> int:
    """The greatest number of TCP sockets of a child that was forked while `work` was done."""
    task, most = asyncio.create_task(work), 0
    while not task.done():
        most = max(most, int(in_child(tcp_sockets)))
        await asyncio.sleep(0)
    await task
    return most


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of an EPMD that the first node of this process becomes."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    return port


@pytest.mark.usefixtures("port")
async def test_child_has_no_socket_of_a_node() -> None:
    """Not the listener, EPMD's, those of registrations or connections; the parent keeps all."""
    before = int(in_child(tcp_sockets))
    async with Node(A, "cookie", epmd="embedded") as a, Node(B, "cookie") as b:
        assert await soon(a.ping(B))
        assert tcp_sockets() > before + 8
        assert int(in_child(tcp_sockets)) == before
        assert await soon(b.ping(A))


@pytest.mark.usefixtures("port")
async def test_child_has_no_socket_of_a_start() -> None:
    """None at any point of a start of nodes, or of their connection."""
    before = int(in_child(tcp_sockets))
    a, b = Node(A, "cookie", epmd="embedded"), Node(B, "cookie")
    for step in (a.start_node, b.start_node, lambda: b.connect(A), b.stop, a.stop):
        assert await forked_at_each_turn(step()) == before


@pytest.mark.usefixtures("port")
async def test_child_has_no_socket_of_a_join() -> None:
    """None of the beacon, of its clients, and of the search for another one."""
    before = int(in_child(tcp_sockets))
    beacon_port = free_port("0.0.0.0")
    a, b = (
        Beethoven(name, cookie="cookie", epmd="embedded", listener_port=beacon_port)
        for name in (A, B)
    )
    async with a:
        assert await forked_at_each_turn(b.join()) == before
        assert await b.core_server.get_mode() == "clustered"
        await b.leave()


async def test_peer_sees_the_end_of_a_node_although_a_child_lives(start_node: StartNode) -> None:
    """And another node can have its name."""
    a, b = await start_node(A), await start_node(B)
    seen = watcher(a)
    assert await soon(b.ping(A))
    assert await seen.next() == atoms("nodeup", B)
    child = get_context("fork").Process(target=signal.pause)
    child.start()
    try:
        await b.stop()
        assert await seen.next() == atoms("nodedown", B)
        await until_unregistered("b")
        assert await soon((await start_node(B)).ping(A))
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


async def test_node_can_not_be_used_in_a_child(start_node: StartNode) -> None:
    """What is asked of it there is an error that says what to do."""
    a, b = await start_node(A), await start_node(B)
    recorder = Recorder()
    b.spawn(recorder, name="recorder")
    assert await soon(a.ping(B))

    def start() -> None:
        asyncio.run(a.start_node())

    def call() -> None:
        asyncio.run(a.call(("recorder", B), 1))

    uses = [start, call, lambda: a.cast(("recorder", B), 1), lambda: a.send(("recorder", B), 1)]
    for use in uses:
        assert f"{A} runs in the process that this one was forked from" in in_child(use)
    a.send(("recorder", B), 2)
    assert await recorder.next() == 2


async def test_child_can_have_a_node_of_its_own(start_node: StartNode) -> None:
    """Forked amid the loop of its parent, it runs a loop and a node, and connects to the parent."""
    a = await start_node(A)

    async def use() -> bool:
        async with Node(B, "cookie") as b:
            return await b.ping(A)

    assert await soon(asyncio.to_thread(in_child, lambda: asyncio.run(use()))) == "True"
    assert a.running


async def test_child_can_start_a_node_that_its_parent_has_not_started(
    start_node: StartNode,
) -> None:
    """A node that is created before the fork is that of the process that starts it."""
    await start_node(A)
    b = Node(B, "cookie")

    async def use() -> bool:
        async with b:
            return await b.ping(A)

    assert await soon(asyncio.to_thread(in_child, lambda: asyncio.run(use()))) == "True"
    async with b:
        assert await soon(b.ping(A))


async def test_node_that_starts_is_that_of_the_parent(start_node: StartNode) -> None:
    """A child that is forked meanwhile can't start or stop it, either."""
    await start_node(A)
    b = Node(B, "cookie")
    starting = asyncio.create_task(b.start_node())
    while not b.network._in_use:
        await asyncio.sleep(0)
    assert not b.running
    assert "runs in the process that" in in_child(lambda: asyncio.run(b.start_node()))
    assert in_child(lambda: asyncio.run(b.stop())) == "None"
    await soon(starting)
    await b.stop()


@pytest.mark.usefixtures("port")
async def test_child_does_not_leave_the_cluster() -> None:
    """To leave does nothing there, so that a child may end as its parent would."""
    a = Beethoven(A, cookie="cookie", epmd="embedded", listener_port=free_port("0.0.0.0"))
    async with a:
        assert in_child(lambda: asyncio.run(a.leave())) == "None"
        assert a.ready()


def test_no_thread_forks_while_a_socket_is_made() -> None:
    """A child that another thread forks has no socket that is not known yet."""
    before = in_child(tcp_sockets)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(in_child(tcp_sockets)))

    def make() -> socket.socket:
        sock = socket.socket()
        thread.start()
        thread.join(0.1)
        assert not found
        return sock

    with parent_only(make):
        thread.join()
    assert found == [before]


def test_descriptor_that_is_used_again_is_kept() -> None:
    """What has the number of a socket that was closed is the child's to use."""
    with parent_only(socket.socket) as sock:
        number = sock.fileno()
    read, write = os.pipe()
    try:
        assert number in (read, write)
        assert in_child(lambda: os.write(write, b"seen")) == "4"
        assert os.read(read, 4) == b"seen"
    finally:
        os.close(read)
        os.close(write)


def test_number_of_a_socket_is_not_free_in_the_child() -> None:
    """The socket object, when it is closed there, closes nothing else."""
    with parent_only(socket.socket) as sock:

        def look() -> int:
            _, write = os.pipe()
            sock.close()
            return os.write(write, b"seen")

        assert in_child(look) == "4"
