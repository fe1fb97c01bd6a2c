"""How often a host without the cookie has handshakes begin, and how many clients a beacon has."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pybeethoven import Node
from pybeethoven.cluster import beacon_server
from pybeethoven.cluster.beacon_server import DIALS_IN_ALL, DIALS_OF_ADDRESS, BeaconServer
from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.errors import NoConnection
from pybeethoven.net import epmd as epmd_client
from pybeethoven.net import failure_limit, network
from pybeethoven.net.failure_limit import FailureLimit, Rate
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon
from tests.net.peers import identity

HOST = "127.0.0.1"
PY, OTHER = f"py@{HOST}", f"other@{HOST}"
WEEK = 7 * 24 * 3600


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the test's limits."""
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> FailureLimit:
    """Few failures."""
    return FailureLimit("attempts", per_address=Rate(3, 10.0), in_all=Rate(5, 100.0), clock=clock)


def test_failures_of_an_address_are_limited(limit: FailureLimit, clock: Clock) -> None:
    """There are `burst` at once, and then one in each interval; a success does not count."""
    assert [limit.begin("10.0.0.1") for _ in range(4)] == [True] * 3 + [False]
    limit.succeeded("10.0.0.1")
    assert [limit.begin("10.0.0.1") for _ in range(2)] == [True, False]
    clock.now += 10
    assert [limit.begin("10.0.0.1") for _ in range(2)] == [True, False]
    assert limit.begin("10.0.0.2")


def test_failures_in_all_are_limited(limit: FailureLimit) -> None:
    """Many addresses fail no more often, but one that has succeeded before is not locked out."""
    assert limit.begin("10.0.0.1")
    limit.succeeded("10.0.0.1")
    begun = [limit.begin(f"10.0.1.{number}") for number in range(10)]
    assert begun == [True] * 5 + [False] * 5
    assert limit.begin("10.0.0.1")


def test_expected_address_is_let_through_once(limit: FailureLimit) -> None:
    """The failures of others do not lock out a host that was just asked, but may lie."""
    for number in range(5):
        assert limit.begin(f"10.0.1.{number}")
    with limit.expecting("10.0.0.1"):
        assert not limit.begin("10.0.0.2")
        assert [limit.begin("10.0.0.1") for _ in range(2)] == [True, False]
    with limit.expecting("10.0.0.1"):
        pass
    assert not limit.begin("10.0.0.1")


def test_addresses_of_one_ipv6_network_are_one(limit: FailureLimit) -> None:
    """A host with IPv6 has a whole /64 network, and IPv4 in IPv6 is IPv4."""
    assert [limit.begin(f"fd00::{n}") for n in range(1, 5)] == [True] * 3 + [False]
    assert limit.begin("::ffff:10.0.0.1")
    assert limit.begin("10.0.0.1")


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses without recent failures are forgotten, and so are those proven long ago."""
    monkeypatch.setattr(failure_limit, "MAX_IDLE", 10)
    monkeypatch.setattr(failure_limit, "MAX_PROVEN", 10)
    limit = FailureLimit("attempts", per_address=Rate(3, 1.0), in_all=Rate(3, 1.0), clock=clock)
    for number in range(100):
        clock.now += 1
        assert limit.begin(f"10.0.0.{number}")
        limit.prove(f"10.0.1.{number}")
    assert len(limit._clear_at) <= 11
    assert len(limit._proven) == 10


def test_warning_comes_once_a_minute(
    limit: FailureLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the address."""
    for _ in range(100):
        clock.now += 1.0
        for _ in range(10):
            limit.begin("10.0.0.1")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert all("10.0.0.1" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("dials", "handshakes"),
    [(DIALS_OF_ADDRESS, network.PER_ADDRESS), (DIALS_IN_ALL, network.IN_ALL)],
)
def test_dictionary_of_digests_takes_over_a_week(dials: Rate, handshakes: Rate) -> None:
    """A host that collects digests through the beacon, and meanwhile looks for one of their
    challenges on the node's port and in what the node says when it dials, is less likely than not
    to find one within a week."""
    digests = dials.burst + WEEK / dials.interval
    tries = WEEK / handshakes.interval + WEEK / dials.interval
    mean = (dials.burst + digests) / 2
    hits = (mean * tries + digests * (handshakes.burst + dials.burst)) / 2**32
    assert hits < math.log(2)


# A real node


async def test_handshakes_that_fail_are_limited(
    epmd: Epmd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that fails too often gets no further challenge, which is logged with its address."""
    monkeypatch.setattr(network, "PER_ADDRESS", Rate(3, 1000.0))
    monkeypatch.setattr(network, "IN_ALL", Rate(100, 1000.0))
    async with Node(PY, "cookie"), Node(OTHER, "wrong") as wrong:
        errors = []
        for _ in range(5):
            with pytest.raises(NoConnection) as caught:
                await soon(wrong.connect(PY))
            errors.append("not_allowed" in str(caught.value))
    assert errors == [False] * 3 + [True] * 2
    [warning] = [r for r in caplog.records if r.name == failure_limit.__name__]
    assert "too many handshakes fail; one from 127.0.0.1 is refused" in warning.getMessage()


async def test_handshakes_that_complete_are_not_limited(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer with the cookie connects as often as it likes."""
    monkeypatch.setattr(network, "PER_ADDRESS", Rate(3, 1000.0))
    monkeypatch.setattr(network, "IN_ALL", Rate(3, 1000.0))
    async with Node(PY, "cookie"), Node(OTHER, "cookie") as other:
        for _ in range(10):
            await soon(other.connect(PY))
            other.disconnect(PY)


async def test_failures_elsewhere_do_not_lock_out_a_peer_that_was_dialled(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on all addresses holds for those with which no handshake was ever complete."""
    monkeypatch.setattr(network, "IN_ALL", Rate(1, 1000.0))
    name = messages.build_name(identity("evil"))
    async with Node(PY, "cookie") as py, Node(OTHER, "cookie") as other:
        await soon(py.connect(OTHER))
        py.disconnect(OTHER)
        while other.nodes():
            await asyncio.sleep(0)
        port = await epmd_client.look_up("py", HOST)
        for source, status in (("127.0.0.2", b"\0\3sok"), ("127.0.0.3", b"\0\x0csnot_allowed")):
            stream = await asyncio.open_connection(HOST, port, local_addr=(source, 0))
            stream[1].write(len(name).to_bytes(2) + name)
            assert await soon(stream[0].readexactly(len(status))) == status
            stream[1].close()
        await soon(other.connect(PY))


Ask = Callable[[str, str], Any]


class Cluster:
    """Counts what the beacon adds; while `hold` is not set, adding takes its time."""

    def __init__(self) -> None:
        self.added = 0
        self.begun, self.hold = asyncio.Event(), asyncio.Event()
        self.hold.set()

    async def add_node(self, name: str) -> None:
        """Add a node."""
        self.begun.set()
        await self.hold.wait()
        self.added += 1


@pytest.fixture
async def cluster() -> Cluster:
    """The cluster of the beacon."""
    return Cluster()


@pytest.fixture
async def beacon(epmd: Epmd, cluster: Cluster) -> AsyncIterator[BeaconServer]:
    """The beacon of a node."""
    beacon = BeaconServer(free_port("0.0.0.0"), add_node=cluster.add_node, nodes=list)
    async with Node(PY, "cookie") as node:
        await node.start(beacon)
        yield beacon


async def ask(beacon: BeaconServer, name: str, source: str = HOST) -> Any:
    """What a beacon answers to a node that wants to join."""
    reader, writer = await asyncio.open_connection(HOST, beacon.port, local_addr=(source, 0))
    writer.write(json.dumps({"sender": name, "type": "seeking", "payload": "join"}).encode())
    try:
        return json.loads(await soon(reader.read()))["payload"]
    finally:
        writer.close()


@asynccontextmanager
async def stranger(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[None]]:
    """A server without the cookie, which EPMD has as each node whose name begins with x; the
    connections to it."""
    dials: list[None] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dials.append(None)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def look_up(alive_name: str, host: str) -> int | None:
            return port if alive_name.startswith("x") else None

        monkeypatch.setattr(epmd_client, "look_up", look_up)
        yield dials


async def test_dials_that_reach_nobody_are_not_limited(
    beacon: BeaconServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They give nothing away; were they counted, they would lock honest nodes out for nothing."""
    async with stranger(monkeypatch) as dials:
        for number in range(2 * DIALS_OF_ADDRESS.burst):
            assert await ask(beacon, f"nobody{number}@127.0.0.1") == "join_failed"
        assert await ask(beacon, "x@127.0.0.1") == "join_failed"
        assert len(dials) == 1


@pytest.mark.parametrize(("addresses", "rate"), [(1, DIALS_OF_ADDRESS), (100, DIALS_IN_ALL)])
async def test_dials_that_fail_are_limited(
    addresses: int,
    rate: Rate,
    beacon: BeaconServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A beacon's node dials no more for an address for which it has dialled in vain too often, nor
    for others when it has done so for many. What it logs of that is two lines."""
    async with stranger(monkeypatch) as dials:
        caplog.set_level(logging.INFO, beacon_server.__name__)
        caplog.clear()
        for number in range(2 * rate.burst):
            source = f"127.0.0.{1 + number % addresses}"
            assert await ask(beacon, f"x{number}@127.0.0.1", source) == "join_failed"
        assert rate.burst <= len(dials) <= rate.burst + 3
    unreached, warning = (record.getMessage() for record in caplog.records)
    assert unreached == "x0@127.0.0.1 asked to be let in, but can't be reached"
    assert "too many dials for the beacon fail; one from 127.0.0." in warning


async def test_requests_of_nodes_with_the_cookie_are_not_limited(
    beacon: BeaconServer, cluster: Cluster
) -> None:
    """200 requests of one address, each of which takes a handshake, succeed one after the other."""
    async with Node(OTHER, "cookie") as other:
        for _ in range(200):
            assert await ask(beacon, OTHER) == "joined"
            other.disconnect(PY)
            while beacon.node.nodes():
                await asyncio.sleep(0)
    assert cluster.added == 200


async def test_silent_clients_do_not_displace_one_that_waits(
    beacon: BeaconServer, cluster: Cluster
) -> None:
    """A client that has asked stays, and the last one is served, however many say nothing."""
    cluster.hold.clear()
    async with Node(OTHER, "cookie"):
        waiting = asyncio.create_task(ask(beacon, OTHER))
        await soon(cluster.begun.wait())
        silent = [
            await asyncio.open_connection(
                HOST, beacon.port, local_addr=(f"127.0.0.{1 + number % 4}", 0)
            )
            for number in range(2 * beacon_server.MAX_GUESTS)
        ]
        assert await ask(beacon, PY) == "self"
        cluster.hold.set()
        assert await waiting == "joined"
    for _, writer in silent:
        writer.close()
