"""The registration of a node: who starts EPMD, who is it, and what happens when it goes."""

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
async def test_none_installed(port: int) -> None:
    """Without any, the first node is it; others use that; with the node it ends."""
    async with Node(A, "cookie") as a:
        async with Node(B, "cookie") as b:
            assert await soon(a.ping(B))
            assert await soon(b.ping(A))
        await until_unregistered("b")
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)


async def test_asked_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `embedded`, the installed one is not started."""

    async def start() -> None:
        pytest.fail("epmd was started")

    monkeypatch.setattr(client, "start_daemon", start)
    async with Node(A, "cookie", epmd="embedded"), Node(B, "cookie") as b:
        assert await soon(b.ping(A))
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)


async def test_one_that_runs_is_used(epmd: Epmd) -> None:
    """With `embedded`, too."""
    async with Node(A, "cookie", epmd="embedded"):
        assert await look_up("a", HOST) is not None
    await until_unregistered("a")


@pytest.mark.usefixtures("none_installed")
async def test_race(port: int) -> None:
    """Of many nodes that start at once one becomes EPMD; all are registered there."""
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
async def test_passes_on(port: int) -> None:
    """When the node that is EPMD stops, another becomes it; those connected stay so."""
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
async def test_cancelled_start(port: int) -> None:
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
async def test_listens_where_the_node_does(port: int) -> None:
    """Other nodes of this machine are found at whatever address of the loopback they have."""
    async with Node("a@127.0.0.2", "cookie") as a, Node("b@127.0.0.3", "cookie") as b:
        for host in (HOST, "127.0.0.2", "127.0.0.3"):
            assert await look_up("a", host) is not None
        assert await soon(a.ping("b@127.0.0.3"))
        assert await soon(b.ping("a@127.0.0.2"))


@pytest.mark.usefixtures("none_installed")
async def test_listens_for_us_alone(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only this machine's nodes can reach, no other machine is told."""
    async with Node("a@127.0.0.2", "cookie"):
        monkeypatch.setattr(epmd_server, "is_local", lambda transport: False)
        with pytest.raises(EpmdError):
            await look_up("a", "127.0.0.2")


@pytest.mark.usefixtures("none_installed")
async def test_epmd_address(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """ERL_EPMD_ADDRESS says where it listens besides."""
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.3, 127.0.0.4")
    async with Node("a@127.0.0.2", "cookie"):
        for host in (HOST, "127.0.0.3", "127.0.0.4"):
            assert await look_up("a", host) is not None
        with pytest.raises(EpmdUnreachable):
            await look_up("a", "127.0.0.2")


@pytest.mark.usefixtures("none_installed")
async def test_epmd_address_that_is_not_ours(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node does not start; the error names the variable."""
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.1,192.0.2.1")
    with pytest.raises(ConfigError, match=r"can't listen at 192\.0\.2\.1.*ERL_EPMD_ADDRESS"):
        await soon(Node(A, "cookie").start_node())


@pytest.mark.usefixtures("none_installed")
async def test_port_of_something_else(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else has EPMD's port, the node does not start."""
    monkeypatch.setattr(client, "ANSWER_TIME", 0.05 * UNIT)
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


# One that is started anew


async def test_epmd_restarts(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """A node registers again, with its creation of before, and its connections stay."""
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


async def test_name_taken_meanwhile(
    port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is logged, and the node has its name again as soon as it is free."""
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


async def test_stop_while_epmd_is_away(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """A node that waits for EPMD can stop, and no task is left."""
    async with Epmd(port):
        a = Node(A, "cookie")
        await a.start_node()
    await until_logged(caplog, "EPMD has gone")
    await soon(a.stop())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_installed_epmd_is_not_started_again(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with `erl`, whoever stopped it is not overruled: neither by it nor by the embedded one."""
    monkeypatch.setenv("PATH", str(Path(find_epmd()).parent))
    async with Epmd(port):
        a = Node(A, "cookie")
        await a.start_node()
    await until_logged(caplog, "epmd is installed, and whoever stopped it may start it again")
    with pytest.raises(EpmdUnreachable):
        await look_up("a", HOST)
    await a.stop()


# None


async def test_no_epmd(port: int) -> None:
    """With `epmd=False`, none is looked for to register, and the node has a creation all the same;
    nodes that know the address connect."""
    ports = free_port(), free_port()
    async with (
        Node(A, "cookie", epmd=False, listen_port=ports[0]) as a,
        Node(B, "cookie", epmd=False, listen_port=ports[1]) as b,
    ):
        assert a.network.creation >= 4
        assert a.network.creation != b.network.creation
        await soon(a.connect(B, address=(HOST, ports[1])))
        assert b.nodes() == [A]
