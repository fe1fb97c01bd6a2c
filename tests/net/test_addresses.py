"""Where a node listens, where it dials, and which names go together."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from pybeethoven import ConfigError, Node
from pybeethoven.errors import NoConnection
from pybeethoven.net.epmd import look_up
from pybeethoven.net.listening import listen_address
from pybeethoven.net.names import check_reach, unnamed_host
from pybeethoven.testing import Epmd, free_port
from tests.helpers import ipv6, soon
from tests.net.conftest import StartNode

HOST = "127.0.0.1"
A, B = f"a@{HOST}", f"b@{HOST}"


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free."""
    while True:
        first = free_port()
        with suppress(OSError):
            for port in range(first, first + count):
                socket.create_server((HOST, port)).close()
            return first


# Ports and interfaces


async def test_listens_on_its_port(epmd: Epmd) -> None:
    """A node listens on the port it is given, and EPMD has it."""
    port = free_port()
    async with Node(A, "cookie", listen_port=port):
        assert await look_up("a", HOST) == port
    async with Node(A, "cookie", listen_port=port):  # at once again
        assert await look_up("a", HOST) == port


async def test_first_free_port_of_a_range_is_taken(epmd: Epmd) -> None:
    """Nodes take the first free port of a range; when all are taken, the error says which."""
    first = free_ports(3)
    ports = (first, first + 2)
    async with Node("n0@127.0.0.1", "cookie", listen_port=ports) as n0:
        async with (
            Node("n1@127.0.0.1", "cookie", listen_port=ports),
            Node("n2@127.0.0.1", "cookie", listen_port=ports),
        ):
            found = [await look_up(f"n{number}", HOST) for number in range(3)]
            assert found == [first, first + 1, first + 2]
            with pytest.raises(ConfigError) as caught:
                await soon(Node(A, "cookie", listen_port=ports).start_node())
        async with Node("n3@127.0.0.1", "cookie", listen_port=ports) as n3:
            assert await look_up("n3", HOST) == first + 1
            assert await soon(n3.ping(n0.name))
    text = f"cannot listen at {HOST}: each port of {first} to {first + 2} is taken"
    assert str(caught.value).startswith(text)


async def test_taken_port_is_refused(epmd: Epmd) -> None:
    """The error names the port, and no name is registered."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"the port {port} is taken; give a free listen_port"):
            await soon(Node(A, "cookie", listen_port=port).start_node())
    assert await look_up("a", HOST) is None


async def test_listens_at_its_interface(epmd: Epmd) -> None:
    """`use_interface` is where the node listens, whatever its name says."""
    async with Node(A, "cookie", use_interface="127.0.0.2"):
        port = await look_up("a", HOST)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        _, writer = await asyncio.open_connection("127.0.0.2", port)
        writer.close()
        await writer.wait_closed()
    async with Node("a@192.0.2.1", "cookie", use_interface="0.0.0.0"), Node(B, "cookie") as b:
        port = await look_up("a", HOST)
        assert port is not None
        await soon(b.connect("a@192.0.2.1", address=("127.0.0.7", port)))


async def test_interface_of_another_machine_is_refused(epmd: Epmd) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match=r"use_interface='192\.0\.2\.1'"):
        await soon(Node(A, "cookie", use_interface="192.0.2.1").start_node())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"listen_port": -1}, "listen_port is -1; it must be a port, like 9100"),
        ({"listen_port": 65536}, "listen_port is 65536"),
        ({"listen_port": (9110, 9100)}, "listen_port is (9110, 9100)"),
        ({"listen_port": (0, 9100)}, "listen_port is (0, 9100)"),
        ({"listen_port": "9100"}, "listen_port is '9100'"),
        ({"listen_port": (9100, "9110")}, "listen_port is (9100, '9110')"),
        ({"listen_port": (9100,)}, "listen_port is (9100,)"),
        ({"use_interface": "eth0"}, "use_interface is 'eth0'; it must be an address"),
        ({"epmd": "yes"}, "epmd is 'yes'; it must be True, False or 'embedded'"),
        ({"limits": {}}, "limits is {}; give it as Limits(...)"),
        ({"tls": {}}, "tls is {}; give it as TlsOptions(...)"),
        ({"resolve": "a"}, "resolve is 'a'; it must be a function"),
    ],
)
def test_bad_setting_is_refused(settings: dict[str, Any], text: str) -> None:
    """The constructor raises, and the error says what is wrong."""
    with pytest.raises(ConfigError) as caught:
        Node(A, "cookie", **settings)
    assert text in str(caught.value)


@pytest.mark.parametrize("settings", [{"hidden": False}, {"listen_port": 9100}], ids=repr)
def test_unnamed_node_is_hidden_and_does_not_listen(settings: dict[str, Any]) -> None:
    """A node without a name can be neither visible nor listen at a port."""
    with pytest.raises(
        ConfigError, match="gets its name from a peer is hidden and does not listen"
    ):
        Node(None, "cookie", **settings)


# Where to dial


async def test_resolve_is_asked_before_epmd(epmd: Epmd) -> None:
    """The hook is asked for each connection; if it gives None, EPMD is asked."""
    asked: list[str] = []
    known: dict[str, tuple[str, int]] = {}

    def resolve(peer: str) -> tuple[str, int] | None:
        asked.append(peer)
        return known.get(peer)

    port = free_port()
    async with (
        Node(A, "cookie", resolve=resolve) as a,
        Node(B, "cookie", epmd=False, listen_port=port),
        Node("c@127.0.0.1", "cookie") as c,
    ):
        assert await soon(a.ping(c.name))
        with pytest.raises(NoConnection, match="knows no node 'b'"):
            await soon(a.connect(B))
        known[B] = (HOST, port)
        assert await soon(a.ping(B))
        assert asked == [c.name, B, B]


async def test_address_is_remembered(start_node: StartNode) -> None:
    """An address that was given once is used for all later dials of that node."""
    a, port = await start_node(A), free_port()
    async with Node(B, "cookie", epmd=False, listen_port=port):
        await soon(a.connect(B, address=(HOST, port)))
        a.disconnect(B)
        assert await soon(a.ping(B))


async def test_failed_address_is_forgotten(start_node: StartNode) -> None:
    """After an address did not work, the next attempt asks EPMD."""
    a, b = await start_node(A), await start_node(B)
    with pytest.raises(NoConnection):
        await soon(a.connect(B, address=(HOST, free_port())))
    assert await soon(a.ping(b.name))


@pytest.mark.parametrize("address", [("h", 0), ("", 1), ("h", 65536), "h:1", ("h",), 1], ids=repr)
async def test_bad_address_is_refused(start_node: StartNode, address: Any) -> None:
    """A bad address is the caller's error; from the hook, it fails the attempt."""
    a = await start_node(A)
    with pytest.raises(ConfigError, match=r"no address of a node; it must be like \('10.0.0.7',"):
        await soon(a.connect(B, address=address))
    async with Node(B, "cookie", resolve=lambda peer: address) as b:
        with pytest.raises(NoConnection, match="no address of a node"):
            await soon(b.connect(A))


async def test_attempt_fails_with_the_error_of_resolve(epmd: Epmd) -> None:
    """The attempt fails with what the hook raised."""

    def resolve(peer: str) -> None:
        raise KeyError(f"no {peer} here")

    async with Node(A, "cookie", resolve=resolve) as a:
        with pytest.raises(NoConnection, match=rf"resolve\('{B}'\) raised KeyError.*no {B} here"):
            await soon(a.connect(B))


async def test_async_resolve_is_refused(epmd: Epmd) -> None:
    """The error says that the hook is called, not awaited."""

    async def resolve(peer: str) -> None:
        """Nobody awaits it."""

    hook: Any = resolve
    async with Node(A, "cookie", resolve=hook) as a:
        with pytest.raises(NoConnection, match="resolve is called, not awaited"):
            await soon(a.connect(B))


async def test_another_node_at_the_address_is_refused(start_node: StartNode) -> None:
    """A node with another name than the dialled one is not connected to."""
    a, port = await start_node(A), free_port()
    async with Node(B, "cookie", epmd=False, listen_port=port):
        with pytest.raises(NoConnection, match=f"'c@{HOST}' was dialled, '{B}' answered"):
            await soon(a.connect(f"c@{HOST}", address=(HOST, port)))


# Short and long names


@pytest.mark.parametrize(
    ("name", "peer", "fits"),
    [
        ("a@h", "b@i", True),
        ("a@h.org", "b@127.0.0.1", True),
        ("a@::1", "b@h", True),
        ("a@h.org", "b@::1", True),
        ("a@h", "b@h.org", False),
        ("a@127.0.0.1", "b@h", False),
    ],
)
def test_short_and_long_names_do_not_go_together(name: str, peer: str, fits: bool) -> None:
    """Short and long names do not go together; an IPv6 address goes with both."""
    for one, other in ((name, peer), (peer, name)):
        if fits:
            check_reach(one, other)
        else:
            with pytest.raises(ConfigError, match=r"has a (short|long) name and .* a (long|short)"):
                check_reach(one, other)


async def test_nodes_with_short_names_connect(epmd: Epmd) -> None:
    """Nodes with short names connect with each other, but not with a long name."""
    async with (
        Node("a@localhost", "cookie") as a,
        Node("b@localhost", "cookie") as b,
        Node("c@127.0.0.1", "cookie") as c,
    ):
        assert await soon(a.ping(b.name))
        for one, other in ((a, c), (c, a)):
            with pytest.raises(ConfigError, match="such nodes can't connect; give both"):
                await soon(one.connect(other.name))
            assert not await soon(one.ping(other.name))


# IPv6


@ipv6
async def test_ipv6_nodes_connect(epmd: Epmd) -> None:
    """Nodes with IPv6 addresses listen there alone, and find each other over EPMD at ::1."""
    async with Node("a@::1", "cookie") as a, Node("b@::1", "cookie") as b:
        assert await soon(a.ping(b.name))
        port = await look_up("a", "::1")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)


@ipv6
async def test_host_with_an_ipv6_address_is_reached_over_both(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose host name has an IPv6 address listens at IPv6 and IPv4."""
    loop = asyncio.get_running_loop()
    look = loop.getaddrinfo

    async def getaddrinfo(host: Any, *args: Any, **settings: Any) -> Any:
        if host != "six.example":
            return await look(host, *args, **settings)
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with Node("a@six.example", "cookie"), Node(B, "cookie") as b:
        port = await look_up("a", HOST)
        assert port is not None
        for host in ("::1", "127.0.0.9"):
            await soon(b.connect("a@six.example", address=(host, port)))
            assert b.disconnect("a@six.example")


async def test_unknown_host_listens_everywhere(epmd: Epmd) -> None:
    """A host name without an address does not keep a node from listening."""
    assert await listen_address("nosuch.invalid") == "0.0.0.0"
    assert await listen_address("x" * 70 + ".org") == "0.0.0.0"


# Names that peers give


@pytest.mark.parametrize("peer", ["a@127.0.0.1", pytest.param("a@::1", marks=ipv6)])
async def test_host_that_an_unnamed_node_tells(peer: str) -> None:
    """A long name is told the address of the node, a short one its host name."""
    host = peer.partition("@")[2]
    assert await unnamed_host(peer, host, 1) == host
    assert await unnamed_host("a@localhost", host, 1) == socket.gethostname().partition(".")[0]


async def test_unnamed_node_has_to_connect_first() -> None:
    """An unnamed node is nonode@nohost, without EPMD, and errors say to connect first."""
    async with Node(None, "cookie") as node:
        assert node.name == "nonode@nohost"
        assert node.nodes() == []
        assert not await soon(node.ping(A))
        for act in (
            lambda: node.spawn(lambda process: asyncio.sleep(0)),
            lambda: node.send(("x", A), 1),
            lambda: node.cast(("x", A), 1),
            node.make_reference,
        ):
            with pytest.raises(NoConnection, match=r"await connect\(\.\.\.\) first"):
                act()


async def test_python_peer_gives_no_name(start_node: StartNode) -> None:
    """A Python node gives no names: both sides say so, and the dialler goes on without one."""
    await start_node(A)
    async with Node(None, "cookie") as node:
        with pytest.raises(NoConnection, match=f"no connection to {A}"):
            await soon(node.connect(A))
        assert node.name == "nonode@nohost"
