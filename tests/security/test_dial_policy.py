"""Which hosts the beacon has its node dial for a client without the cookie."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from pybeethoven import Beethoven, Node
from pybeethoven.cluster import dial_policy
from pybeethoven.cluster.beacon_server import BeaconServer
from pybeethoven.cluster.dial_policy import DialPolicy
from pybeethoven.errors import ConfigError, EpmdUnreachable
from pybeethoven.net import epmd as epmd_client
from pybeethoven.net import sockets
from pybeethoven.net.finder import Finder, Place
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon

HOST, STRANGER = "127.0.0.1", "127.0.0.9"
Ask = Callable[[str, str], Any]


@pytest.fixture
def one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 127.0.0.1 is an address of this machine."""
    monkeypatch.setattr(dial_policy, "is_own_address", lambda address: address == HOST)


@pytest.mark.parametrize(
    ("source", "dialled", "settings", "allowed"),
    [
        ("10.0.0.5", "10.0.0.5", {}, True),
        ("::ffff:10.0.0.5", "10.0.0.5", {}, True),
        ("10.0.0.5", "10.0.0.6", {}, False),
        ("10.0.0.5", "127.0.0.1", {}, False),
        ("10.0.9.5", "10.0.9.5", {}, None),
        ("10.0.9.5", "10.0.9.5", {"first_host": "10.0.9.5"}, True),
        ("10.0.9.5", "10.0.9.6", {"first_host": "10.0.9.5"}, False),
        ("10.0.9.6", "10.0.9.6", {"first_host": "10.0.9.5"}, None),
        ("127.0.0.1", "127.0.0.1", {}, True),
        ("127.0.0.1", "10.0.0.5", {}, False),
        ("10.0.9.5", "10.0.9.5", {"trusted_networks": ["10.0.9.0/24"]}, True),
        ("10.0.9.5", "10.0.9.6", {"trusted_networks": ["10.0.9.0/24"]}, True),
        ("10.0.9.5", "10.0.0.5", {"trusted_networks": ["10.0.9.0/24"]}, True),
        ("10.0.9.5", "10.0.8.5", {"trusted_networks": ["10.0.9.0/24"]}, False),
        ("10.0.0.5", "10.0.9.5", {"trusted_networks": ["10.0.9.0/24"]}, False),
        ("fd00::5", "fd00::5", {}, None),
        ("fd00::5", "fd00::5", {"trusted_networks": ["fd00::/64"]}, True),
    ],
)
async def test_only_the_source_of_a_request_is_dialled(
    source: str,
    dialled: str,
    settings: dict[str, Any],
    allowed: bool | None,
    one_address: None,
) -> None:
    """A host is dialled for its own requests, in the networks of the cluster; more hosts for
    requests from networks that the user trusts."""
    allows = await DialPolicy(["10.0.0.0/24"], **settings).for_source(source)
    assert (None if allows is None else allows(dialled)) == allowed


async def test_any_address_of_this_machine_may_be_dialled_from_it() -> None:
    """A node at another address of this machine is let in, wherever `cluster_net` is."""
    allows = await DialPolicy(["10.0.0.0/24"]).for_source("127.0.0.1")
    assert allows is not None
    assert [allows(address) for address in ("127.0.0.6", "::1", "192.0.2.1")] == [True, True, False]


def test_trusted_network_is_checked() -> None:
    """What is not a network is refused at once."""
    with pytest.raises(ConfigError, match=r"'10.0.0' is not a network"):
        DialPolicy(trusted_networks=["10.0.0"])


# Through the beacon


async def ignore(name: str) -> None:
    """Add nothing."""


@pytest.fixture
async def beacon(epmd: Epmd, one_address: None) -> AsyncIterator[BeaconServer]:
    """A beacon for whose node 127.0.0.9 is another host, in the cluster's network."""
    policy = DialPolicy(["127.0.0.8/29"])
    port = free_port("0.0.0.0")
    beacon = BeaconServer(port, add_node=ignore, nodes=list, dial_policy=policy)
    async with Node("py@127.0.0.1", "cookie") as node:
        await node.start(beacon)
        yield beacon


async def ask_at(port: int, source: str, name: str) -> Any:
    """Ask a beacon to let a node in, from an address."""
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(source, 0))
    writer.write(json.dumps({"sender": name, "type": "seeking", "payload": "join"}).encode())
    try:
        return json.loads(await soon(reader.read()))["payload"]
    finally:
        writer.close()


@pytest.fixture
def ask(beacon: BeaconServer) -> Ask:
    """Asks the beacon to let a node in, from an address."""
    return partial(ask_at, beacon.port)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts whose EPMD was asked; each gives a port."""
    hosts: list[str] = []

    async def look_up(alive_name: str, host: str) -> int:
        hosts.append(host)
        return 7777

    monkeypatch.setattr(epmd_client, "look_up", look_up)
    return hosts


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What was dialled."""
    dials: list[tuple[list[str], int]] = []

    async def dial(hosts: list[str], port: int, factory: object) -> None:
        dials.append((list(hosts), port))
        raise ConnectionRefusedError("nobody is there")

    monkeypatch.setattr(sockets, "dial", dial)
    return dials


@pytest.mark.parametrize(
    ("source", "host", "expected"),
    [
        (STRANGER, STRANGER, [STRANGER]),
        (STRANGER, "127.0.0.10", []),
        (STRANGER, "127.0.0.1", []),
        (STRANGER, "localhost", []),
        ("127.0.0.20", "127.0.0.20", []),
        ("127.0.0.1", STRANGER, []),
    ],
)
async def test_beacon_asks_no_other_host(
    source: str,
    host: str,
    expected: list[str],
    ask: Ask,
    asked: list[str],
    dialled: list[tuple[list[str], int]],
) -> None:
    """No EPMD but that of the host which asks is asked, and no other host is dialled."""
    assert await ask(source, f"x@{host}") == "join_failed"
    assert asked == expected
    assert dialled == [([host], 7777) for host in expected]


async def test_beacon_of_a_member_has_its_settings(
    epmd: Epmd, one_address: None, asked: list[str], dialled: list[tuple[list[str], int]]
) -> None:
    """It dials hosts in `cluster_net` and `beacon_nets`, and the first host, and no others."""
    hosts, port = ["127.0.0.9", "127.0.0.20", "127.0.0.33", "127.0.0.40"], free_port("0.0.0.0")
    async with Beethoven(
        "py@127.0.0.1",
        cookie="cookie",
        cluster_net="127.0.0.8/29",
        first_host=hosts[1],
        beacon_nets=["127.0.0.32/29"],
        listener_port=port,
    ):
        for host in hosts:
            assert await ask_at(port, host, f"x@{host}") == "join_failed"
    assert asked == hosts[:3]


async def test_connected_node_is_let_in_for_its_own_host_alone(
    beacon: BeaconServer, ask: Ask
) -> None:
    """Another host can't make a member of a node that is connected for other reasons."""
    async with Node("tool@127.0.0.1", "cookie") as tool:
        await soon(tool.connect(beacon.node.name))
        assert await ask(STRANGER, tool.name) == "join_failed"
        assert await ask("127.0.0.20", tool.name) == "join_failed"  # outside of the networks
        assert await ask(HOST, tool.name) == "joined"


async def test_source_outside_the_network_is_logged_once(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the address and the setting."""
    for number in range(20, 30):
        assert await ask(f"127.0.0.{number}", f"x@127.0.0.{number}") == "join_failed"
    [record] = caplog.records
    assert "in from 127.0.0.20, which is not in cluster_net; give" in record.getMessage()
    assert "beacon_nets" in record.getMessage()


async def test_address_that_was_checked_is_dialled(
    ask: Ask,
    asked: list[str],
    dialled: list[tuple[list[str], int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that means another host when it is looked up again gets no dial there."""
    meanings = iter([STRANGER, "127.0.0.88"])

    def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        assert host == "rebind.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(meanings), port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert await ask(STRANGER, "x@rebind.example") == "join_failed"
    assert (asked, dialled) == ([STRANGER], [([STRANGER], 7777)])


async def test_address_whose_epmd_gave_the_port_is_dialled_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not the port of another host, whose EPMD could not be reached."""

    async def look_up(alive_name: str, host: str) -> int:
        if host == "127.0.0.8":
            raise EpmdUnreachable("nobody is there")
        return 7777

    monkeypatch.setattr(epmd_client, "look_up", look_up)
    place = Place(["127.0.0.8", STRANGER], None)
    assert await Finder(None).find(f"x@{STRANGER}", place) == ([STRANGER, "127.0.0.8"], 7777)


async def test_slow_names_of_clients_do_not_delay_other_look_ups(
    beacon: BeaconServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that clients give are looked up in threads of their own."""
    real, answer = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith("slow.example"):
            answer.wait()
            raise socket.gaierror("slow")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    loop = asyncio.get_running_loop()
    seekers = [asyncio.create_task(ask(STRANGER, f"x@n{n}.slow.example")) for n in range(30)]
    try:
        while sum(guest.request is not None for guest in beacon._guests.values()) < len(seekers):
            await asyncio.sleep(0)
        assert await soon(loop.getaddrinfo("localhost", 80))
        assert not any(seeker.done() for seeker in seekers)
    finally:
        answer.set()
    assert set(await soon(asyncio.gather(*seekers))) == {"join_failed"}
