"""How a BEAM and a Python node find each other: EPMD in Python, none at all, IPv6, names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from pybeethoven import Atom, Beethoven, ConfigError, From, GenServer, Node, Term
from pybeethoven.errors import EpmdError, NoConnection
from pybeethoven.net.epmd import look_up
from pybeethoven.testing import BeamError, BeamNode, Peers, free_port
from tests.helpers import Recorder, atoms, ipv6, soon
from tests.timing import UNIT

HOST = "127.0.0.1"
A, B, PY = (f"{name}@{HOST}" for name in ("a", "b", "py"))


class Start:
    """Starts BEAMs and Python nodes that have EPMD on `port`, or nowhere."""

    def __init__(self, peers: Peers, port: int, stack: AsyncExitStack) -> None:
        self.port = port
        self.cookie = peers.cookie
        self._peers = peers
        self._stack = stack

    async def beam(self, name: str, flags: Sequence[str] = ()) -> BeamNode:
        """A BEAM without Beethoven."""
        env = {"ERL_EPMD_PORT": str(self.port)}
        return await self._peers.start_bare(name, flags=flags, env=env)

    async def beethoven(self, name: str, flags: Sequence[str] = ()) -> BeamNode:
        """A BEAM with Beethoven."""
        env = {"ERL_EPMD_PORT": str(self.port)}
        return await self._peers.start(name, flags=flags, env=env)

    async def python(self, node: Node) -> Node:
        """A Python node, stopped with the test."""
        return await self._stack.enter_async_context(node)


@pytest.fixture
async def start(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Nodes with EPMD on a port where there is none yet."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    async with AsyncExitStack() as stack:
        yield Start(peers, port, stack)


@pytest.fixture
async def found(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Nodes with OTP's EPMD."""
    for name, value in peers.env.items():
        monkeypatch.setenv(name, value)
    async with AsyncExitStack() as stack:
        yield Start(peers, peers.epmd.port, stack)


async def both_ways(beam: BeamNode, node: Node) -> None:
    """Each connects to the other, first one, then the other."""
    assert await soon(node.ping(beam.name))
    assert node.disconnect(beam.name)
    gone = f'ControlShell.until(fn -> :"{node.name}" not in Node.list(:hidden) end)'
    assert await beam.eval(gone) is True
    assert await beam.eval(f'Node.ping(:"{node.name}")') == "pong"


# EPMD in Python


async def test_embedded_epmd(start: Start) -> None:
    """A BEAM registers with it, both find each other, and net_adm:names lists them."""
    py = await start.python(Node(PY, start.cookie, epmd="embedded", hidden=True))
    a, b = await start.beam(A), await start.beam(B)
    await both_ways(a, py)
    assert await b.eval(f'Node.ping(:"{A}")') == "pong"
    assert await a.eval('{:ok, names} = :net_adm.names(~c"127.0.0.1"); length(names)') == 3
    port = await look_up("a", HOST)
    assert await a.eval(f'Enum.member?(names, {{~c"a", {port}}})') is True
    await b.kill()
    with pytest.raises(NoConnection, match="knows no node 'b'"):
        await soon(py.connect(B))


async def test_name_that_is_taken(start: Start) -> None:
    """A BEAM does not start under a name that another node has at it."""
    await start.python(Node(A, start.cookie, epmd="embedded"))
    with pytest.raises(BeamError, match=f"the name {A} seems to be in use"):
        await start.beam(A)


async def test_embedded_epmd_moves(start: Start) -> None:
    """When the node that is EPMD stops, BEAMs register with the one that another node becomes."""
    first = await start.python(Node(PY, start.cookie, epmd="embedded"))
    second = await start.python(Node("second@127.0.0.1", start.cookie, epmd="embedded"))
    a = await start.beam(A)
    await soon(second.connect(A))
    await first.stop()
    async with asyncio.timeout(10 * UNIT):  # erl_epmd.erl tries each 2 seconds
        while await looked_up("a") is None:
            await asyncio.sleep(0.02 * UNIT)
    assert second.nodes() == [A]
    third = await start.python(Node("third@127.0.0.1", start.cookie))
    await both_ways(a, third)


async def test_cluster(start: Start, peers: Peers) -> None:
    """A Beethoven cluster that has its EPMD in Python, and a member on a port of its own."""
    port = free_port()
    await start.python(Node("owner@127.0.0.1", start.cookie, epmd="embedded"))
    await start.beethoven(A)
    async with Beethoven(
        PY,
        cookie=start.cookie,
        cluster_net=peers.cluster_net,
        listener_port=peers.listener_port,
        listen_port=port,
        use_interface="0.0.0.0",
    ) as py:
        assert py.via == A
        assert await py.get_active_cluster_nodes() == list(atoms(A, PY))
        assert await look_up("py", HOST) == port


async def looked_up(alive_name: str) -> int | None:
    """A node's port, None while there is no EPMD."""
    try:
        return await look_up(alive_name, HOST)
    except EpmdError:
        return None


# Without EPMD


async def test_no_epmd(start: Start) -> None:
    """All nodes on one port, as with `-erl_epmd_port`: no EPMD is asked for anything."""
    port = free_port()
    a = await start.beam(A, flags=("-erl_epmd_port", str(port)))
    py = await start.python(
        Node(
            "py@127.0.0.2",
            start.cookie,
            epmd=False,
            listen_port=port,
            resolve=lambda peer: (peer.partition("@")[2], port),
        )
    )
    await both_ways(a, py)


async def test_cluster_without_epmd(start: Start, peers: Peers) -> None:
    """A Beethoven cluster of nodes that are all on one port."""
    port = free_port()
    await start.beethoven(A, flags=("-erl_epmd_port", str(port)))
    async with Beethoven(
        "py@127.0.0.2",
        cookie=start.cookie,
        cluster_net=peers.cluster_net,
        listener_port=peers.listener_port,
        epmd=False,
        listen_port=port,
        resolve=lambda peer: (peer.partition("@")[2], port),
    ) as py:
        assert py.via == A
        assert await py.get_active_cluster_nodes() == list(atoms(A, "py@127.0.0.2"))


async def test_port_of_a_beam(start: Start) -> None:
    """A BEAM with a static port is connected to at that, though its EPMD has gone."""
    port = free_port()
    listen = ("-kernel", "inet_dist_listen_min", str(port), "inet_dist_listen_max", str(port))
    owner = await start.python(Node("owner@127.0.0.1", start.cookie, epmd="embedded"))
    a = await start.beam(A, flags=listen)
    await owner.stop()
    py = await start.python(Node(PY, start.cookie, epmd=False))
    with pytest.raises(NoConnection, match="EPMD cannot be reached"):
        await soon(py.connect(A))
    await soon(py.connect(A, address=(HOST, port)))
    assert await a.eval("Node.list(:hidden)") == [Atom(PY)]


# IPv6


@ipv6
async def test_ipv6(found: Start) -> None:
    """A BEAM that speaks IPv6 and a Python node find each other; EPMD is at ::1."""
    py = await found.python(Node("py@::1", found.cookie))
    await both_ways(await found.beam("a@::1"), py)


@ipv6
async def test_ipv6_and_embedded_epmd(start: Start) -> None:
    """So they do with ours."""
    py = await start.python(Node("py@::1", start.cookie, epmd="embedded"))
    await both_ways(await start.beam("a@::1"), py)


# Short and long names

KNOW_LOCALHOST = """
:inet_db.add_host({127, 0, 0, 1}, [~c"localhost"])
:inet_db.set_lookup([:file, :native])
"""
"""For a BEAM in a root without /etc/hosts."""


async def test_short_names(found: Start) -> None:
    """Short names meet; a node with a long one is told before it dials, and a BEAM refuses, too."""
    a = await found.beam("a@localhost")
    await a.eval(KNOW_LOCALHOST)
    py = await found.python(Node("py@localhost", found.cookie))
    long = await found.python(Node("long@127.0.0.1", found.cookie))
    await both_ways(a, py)
    with pytest.raises(ConfigError, match="a@localhost a short one, and such nodes can't connect"):
        await soon(long.connect(a.name))
    assert await a.eval(f'Node.ping(:"{long.name}")') == "pang"
    async with asyncio.timeout(10 * UNIT):  # the log comes when it comes
        while "System NOT running to use fully qualified hostnames" not in a.output:
            await asyncio.sleep(0.01 * UNIT)


# Names that peers give


class Echo(GenServer):
    """Replies with the request and its node's name."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Reply."""
        return (request, self.node.name)


async def test_dynamic_name(found: Start) -> None:
    """A node without a name has one as soon as it is connected, for other nodes, too."""
    a, b = await found.beam(A), await found.beam(B)
    py = await found.python(Node(None, found.cookie))
    await soon(py.connect(A))
    name = py.name
    assert name.endswith(f"@{HOST}")
    assert await a.eval("Node.list(:hidden)") == [name]
    await py.start(Echo(), name="echo")
    assert await a.eval(f'GenServer.call({{:echo, :"{name}"}}, :hello)') == (Atom("hello"), name)
    assert await a.eval(f'Node.ping(:"{name}")') == "pong"
    assert await soon(py.call(("net_kernel", A), Atom("longnames"))) is True
    assert await soon(py.ping(B))
    assert py.name == name
    assert await b.eval(f'GenServer.call({{:echo, :"{name}"}}, 1)') == (1, name)


async def test_dynamic_name_is_lost_with_its_giver(found: Start) -> None:
    """Then all connections and processes end, and the next connection brings another name."""
    a, b = await found.beam(A), await found.beam(B)
    py = await found.python(Node(None, found.cookie))
    assert await soon(py.ping(A))
    await soon(py.connect(B))
    name, process = py.name, Recorder()
    py.spawn(process, name="recorder")
    call = asyncio.create_task(py.call(process, 1, timeout=None))
    await process.next()
    await a.kill()
    with pytest.raises(NoConnection):
        await soon(call)
    assert (py.name, py.nodes(), py.whereis("recorder")) == ("nonode@nohost", [], None)
    assert process.exit_reason == "noconnection"
    assert await b.eval("ControlShell.until(fn -> Node.list(:hidden) == [] end)") is True
    with pytest.raises(NoConnection, match="first"):
        py.spawn(Recorder())
    await soon(py.connect(B))
    assert py.name not in (name, "nonode@nohost")
    assert await b.eval("Node.list(:hidden)") == [py.name]
    py.spawn(recorder := Recorder(), name="recorder")
    await b.eval(f'send({{:recorder, :"{py.name}"}}, :again)')
    assert await recorder.next() == "again"


async def test_dynamic_names_of_one_giver(found: Start) -> None:
    """Nodes that one peer names have different names, and each its own creation if not."""
    await found.beam(A)
    seen = set()
    for _ in range(5):
        async with Node(None, found.cookie) as one, Node(None, found.cookie) as other:
            await soon(asyncio.gather(one.connect(A), other.connect(A)))
            assert one.name != other.name
            seen |= {(node.name, node.network.creation) for node in (one, other)}
        assert one.name == "nonode@nohost"
    assert len(seen) == 10


async def test_dynamic_name_from_one_of_several(found: Start) -> None:
    """Of peers dialled at once, one gives the name; all know the node by it."""
    beams = [await found.beam(name) for name in (A, B)]
    for _ in range(5):
        async with Node(None, found.cookie) as py:
            nobody = py.connect(f"nobody@{HOST}")
            results = await soon(
                asyncio.gather(nobody, py.connect(A), py.connect(B), return_exceptions=True)
            )
            assert isinstance(results[0], NoConnection)
            assert sorted(py.nodes()) == sorted(atoms(A, B))
            for beam in beams:
                assert await beam.eval("Node.list(:hidden)") == [py.name]
        for beam in beams:
            assert await beam.eval("ControlShell.until(fn -> Node.list(:hidden) == [] end)")


async def test_dynamic_short_name(found: Start) -> None:
    """A peer with a short name gives a short one."""
    a = await found.beam("a@localhost")
    py = await found.python(Node(None, found.cookie))
    await soon(py.connect(a.name))
    assert "." not in py.name
    assert await a.eval("Node.list(:hidden)") == [py.name]


async def test_dynamic_name_and_wrong_cookie(found: Start) -> None:
    """A peer with another cookie names nobody."""
    await found.beam(A)
    py = await found.python(Node(None, "another"))
    with pytest.raises(NoConnection, match="cookie"):
        await soon(py.connect(A))
    assert py.name == "nonode@nohost"
