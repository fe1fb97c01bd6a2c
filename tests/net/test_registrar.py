"""The registration of a node: which process is EPMD, and what happens when it ends."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import ConfigError, Node
from pybeethoven.errors import EpmdError, EpmdUnreachable
from pybeethoven.net import epmd as client
from pybeethoven.net import epmd_server, registrar
from pybeethoven.net.epmd import Registration, look_up, register
from pybeethoven.testing import Epmd, find_epmd, free_port
from tests.helpers import soon, until_logged, until_unregistered
from tests.timing import UNIT

HOST = "127.0.0.1"
A, B, C = (f"{name}@{HOST}" for name in "abc")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of EPMD, where none runs yet; nodes look for a lost one at once."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    monkeypatch.setattr(registrar, "FIRST_INTERVAL", 0.005 * UNIT)
    monkeypatch.setattr(registrar, "LAST_INTERVAL", 0.02 * UNIT)
    return port


@pytest.fixture
def none_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `epmd` is to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))


async def found(alive_name: str) -> int:
    """The port of a node, once EPMD has it."""
    while True:
        try:
            port = await soon(look_up(alive_name, HOST))
        except EpmdError:
            port = None
        if port is not None:
            return port
        await asyncio.sleep(0.002 * UNIT)


# The embedded one


@pytest.mark.usefixtures("none_installed")
async def test_first_node_becomes_epmd(port: int) -> None:
    """If `epmd` is not installed, the first node is EPMD until it ends; the others use it."""
    async with Node(A, "cookie") as a:
        async with Node(B, "cookie") as b:
            assert await soon(a.ping(B))
            assert await soon(b.ping(A))
        await until_unregistered("b")
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)


async def test_embedded_epmd_is_preferred(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `embedded`, the installed EPMD is not started."""

    async def start() -> None:
        pytest.fail("epmd was started")

    monkeypatch.setattr(client, "start_daemon", start)
    async with Node(A, "cookie", epmd="embedded"), Node(B, "cookie") as b:
        assert await soon(b.ping(A))
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)


async def test_running_epmd_is_used(epmd: Epmd) -> None:
    """A running EPMD is used, even with `embedded`."""
    async with Node(A, "cookie", epmd="embedded"):
        assert await look_up("a", HOST) is not None
    await until_unregistered("a")


@pytest.mark.usefixtures("none_installed")
async def test_one_of_many_nodes_becomes_epmd(port: int) -> None:
    """Of nodes that start at once one becomes EPMD; all are registered there."""
    nodes = [Node(f"n{number}@{HOST}", "cookie") for number in range(8)]
    await soon(asyncio.gather(*(node.start_node() for node in nodes)))
    try:
        assert len({await found(f"n{number}") for number in range(8)}) == 8
        assert await soon(nodes[0].ping(nodes[7].name))
    finally:
        await soon(asyncio.gather(*(node.stop() for node in nodes)))
    with pytest.raises(EpmdUnreachable):
        await look_up("n0", HOST)


@pytest.mark.usefixtures("none_installed")
async def test_another_node_takes_over_epmd(port: int) -> None:
    """When the node that is EPMD stops, another one becomes it; connections stay."""
    a = Node(A, "cookie")
    await a.start_node()
    async with Node(B, "cookie") as b, Node(C, "cookie") as c:
        await soon(b.connect(C))
        creation = b.network.creation
        await soon(a.stop())
        await soon(found("b"))
        await soon(found("c"))
        assert b.nodes() == [C]
        assert c.nodes() == [B]
        assert b.network.creation == creation
        async with Node(A, "cookie") as again:
            assert await soon(again.ping(C))


@pytest.mark.usefixtures("none_installed")
async def test_cancelled_start_leaves_no_epmd(port: int) -> None:
    """A start that is cancelled at any moment leaves no EPMD, and no name."""
    for turns in range(40):
        node = Node(A, "cookie")
        starting = asyncio.create_task(node.start_node())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await soon(node.stop())
        with pytest.raises(EpmdUnreachable):
            await look_up("a", HOST)


@pytest.mark.usefixtures("none_installed")
async def test_epmd_listens_on_the_loopback(port: int) -> None:
    """Nodes are found at any loopback address that they have."""
    async with Node("a@127.0.0.2", "cookie") as a, Node("b@127.0.0.3", "cookie") as b:
        for host in (HOST, "127.0.0.2", "127.0.0.3"):
            assert await look_up("a", host) is not None
        assert await soon(a.ping("b@127.0.0.3"))
        assert await soon(b.ping("a@127.0.0.2"))


@pytest.mark.usefixtures("none_installed")
async def test_epmd_answers_this_machine_only(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD for the loopback does not answer other machines."""
    async with Node("a@127.0.0.2", "cookie"):
        monkeypatch.setattr(epmd_server, "is_local", lambda transport: False)
        with pytest.raises(EpmdError):
            await look_up("a", "127.0.0.2")


@pytest.mark.usefixtures("none_installed")
async def test_epmd_listens_at_epmd_address(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded EPMD listens at ERL_EPMD_ADDRESS and at the loopback address."""
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.3, 127.0.0.4")
    async with Node("a@127.0.0.2", "cookie"):
        for host in (HOST, "127.0.0.3", "127.0.0.4"):
            assert await look_up("a", host) is not None
        with pytest.raises(EpmdUnreachable):
            await look_up("a", "127.0.0.2")


@pytest.mark.usefixtures("none_installed")
async def test_epmd_address_of_another_machine_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node does not start; the error names the variable."""
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.1,192.0.2.1")
    with pytest.raises(ConfigError, match=r"can't listen at 192\.0\.2\.1.*ERL_EPMD_ADDRESS"):
        await soon(Node(A, "cookie").start_node())


@pytest.mark.usefixtures("none_installed")
async def test_other_service_on_the_port_of_epmd_is_an_error(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another service has EPMD's port, the node does not start."""
    monkeypatch.setattr(client, "ANSWER_TIME", 0.25 * UNIT)
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(say_nothing, HOST, port)
    with pytest.raises(EpmdUnreachable, match="EPMD did not answer"):
        await soon(Node(A, "cookie").start_node())
    await soon(left.wait())
    server.close()


# EPMD that restarts


@pytest.mark.beam
async def test_node_registers_again_when_epmd_restarts(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A node registers again, and keeps its creation and its connections."""
    caplog.set_level(logging.INFO)
    async with Epmd(port):
        a, b = Node(A, "cookie"), Node(B, "cookie", hidden=False)
        await a.start_node()
        await b.start_node()
        await soon(a.connect(B))
        creation, listening = a.network.creation, await look_up("a", HOST)
    await until_logged(caplog, "EPMD has gone or dropped 'a'")
    await until_logged(caplog, "'a' is not registered, trying on: EPMD cannot be reached")
    assert a.nodes() == [B]
    async with Epmd(port):
        assert await soon(found("a")) == listening
        await soon(found("b"))
        await until_logged(caplog, "'a' is registered with EPMD again")
        assert (a.network.creation, a.nodes()) == (creation, [B])
        await a.stop()
        await b.stop()
        await until_unregistered("a")
    assert caplog.text.count("'a' is not registered") == 1


@pytest.mark.beam
async def test_taken_name_is_registered_when_it_is_free(
    port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken meanwhile is logged, and registered as soon as it is free."""
    may_register = asyncio.Event()

    async def register_later(*args: Any, **settings: Any) -> Registration:
        await may_register.wait()
        return await register(*args, **settings)

    async with Epmd(port):
        a = Node(A, "cookie")
        await a.start_node()
        listening = await look_up("a", HOST)
        monkeypatch.setattr(client, "register", register_later)
    async with Epmd(port):
        other = await register("a", 1, hidden=True)
        may_register.set()
        await until_logged(caplog, "the name 'a' is already registered")
        assert await look_up("a", HOST) == 1
        await other.close()
        while await soon(found("a")) != listening:
            pass
        await a.stop()


@pytest.mark.beam
async def test_node_can_stop_while_epmd_is_away(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that waits for EPMD can stop, and no task is left."""
    async with Epmd(port):
        a = Node(A, "cookie")
        await a.start_node()
    await until_logged(caplog, "EPMD has gone")
    await soon(a.stop())
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.beam
async def test_installed_epmd_is_not_started_again(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An installed EPMD that was stopped is neither started nor replaced by the embedded one."""
    monkeypatch.setenv("PATH", str(Path(find_epmd()).parent))
    async with Epmd(port):
        a = Node(A, "cookie")
        await a.start_node()
    await until_logged(caplog, "epmd is installed, and whoever stopped it may start it again")
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)
    await a.stop()


# Without EPMD


async def test_nodes_without_epmd_connect(port: int) -> None:
    """With `epmd=False` nodes are not registered; nodes that know the address connect."""
    ports = free_port(), free_port()
    async with (
        Node(A, "cookie", epmd=False, listen_port=ports[0]) as a,
        Node(B, "cookie", epmd=False, listen_port=ports[1]) as b,
    ):
        assert a.network.creation >= 4
        assert a.network.creation != b.network.creation
        await soon(a.connect(B, address=(HOST, ports[1])))
        assert b.nodes() == [A]
