"""Hosts of the cluster's network that answer as beacons do, but are not members of a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from pybeethoven import Beethoven, MirrorError, Node
from pybeethoven.cluster import locator, standing
from pybeethoven.cluster.locator import Locator
from pybeethoven.cluster.seek_chat import MAX_PARSED, MAX_SIZE, REPLY, Message, Receiver, encode
from pybeethoven.net import epmd as epmd_client
from pybeethoven.net import network
from pybeethoven.net.failure_limit import Rate
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon
from tests.timing import UNIT

LIAR_HOST = "127.0.0.2"
EVIL = f"evil@{LIAR_HOST}"
P, Q = "p@127.0.0.1", "q@127.0.0.3"

Make = Callable[..., Beethoven]


@pytest.fixture
def port() -> int:
    """The port of the beacons."""
    return free_port("0.0.0.0")


@pytest.fixture
def make(epmd: Epmd, port: int, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes members of a cluster; a node that shows no tracker is soon given up."""
    monkeypatch.setattr(standing, "ENTER_TIME", 0.3 * UNIT)

    def make(name: str, cluster_net: str = "127.0.0.0/29", **settings: Any) -> Beethoven:
        return Beethoven(
            name,
            cookie="cookie",
            cluster_net=cluster_net,
            listener_port=port,
            rejoin_interval=(0.02 * UNIT, 0.1 * UNIT),
            beacon=name != P,
            **settings,
        )

    return make


@pytest.fixture
async def liar(port: int) -> AsyncIterator[list[bytes]]:
    """A host before the real beacon that says `joined`; the requests that it gets."""
    async with lying(port) as requests:
        yield requests


@asynccontextmanager
async def lying(port: int, node: Node | None = None) -> AsyncIterator[list[bytes]]:
    """Have a host say `joined` to each client; a `node` there connects to the client first."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(4096))
        if node is not None and requests[-1]:
            assert await node.ping(json.loads(requests[-1])["sender"])
        writer.write(encode(Message(EVIL, REPLY, "joined")))
        writer.close()

    async with await asyncio.start_server(serve, LIAR_HOST, port):
        yield requests


async def test_beacon_that_lies_is_skipped(make: Make, liar: list[bytes]) -> None:
    """A node that is let in by a host without a tracker joins through the next beacon."""
    async with make(Q, cluster_net="127.0.0.3/32"), make(P) as p:
        assert p.via == Q
        assert [json.loads(request)["type"] for request in liar].count("seeking") >= 1
        assert sorted(await p.get_active_cluster_nodes()) == [P, Q]


async def test_error_when_no_other_beacon_is_left(make: Make, port: int) -> None:
    """The error names the node that showed no tracker, and nothing stays."""
    p = make(P)
    async with Node(EVIL, "cookie") as evil, lying(port, evil):
        with pytest.raises(MirrorError, match=f"{EVIL} has let {P} in, but does not offer"):
            await soon(p.join())
    assert not p.node.running
    assert p.via is None


async def test_node_that_a_beacon_names_is_not_dialled(
    make: Make, liar: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that lets us in has connected to us. Who is dialled gets a digest of the cookie."""
    looked_up: list[str] = []

    async def look_up(alive_name: str, host: str) -> None:
        looked_up.append(f"{alive_name}@{host}")

    monkeypatch.setattr(epmd_client, "look_up", look_up)
    async with make(P) as p:
        while len(liar) < 5:
            await asyncio.sleep(0)
        assert p.core_server.mode == "standalone"
    assert looked_up == []
    said = f"is no beacon: it says that {EVIL} has let us in, but has not connected us to it"
    assert said in caplog.text


async def test_failures_of_strangers_do_not_lock_out_the_node_of_a_beacon(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects to a node that has asked it, though many others have failed there."""
    monkeypatch.setattr(network, "IN_ALL", Rate(1, 1e9))
    q = make("q@127.0.0.1", cluster_net="127.0.0.1/32")
    async with q:
        p = make(P)
        assert p.node.network._failures.begin("127.0.0.9")
        async with p:
            assert p.via == q.node.name


async def test_node_that_others_have_joined_goes_on(make: Make, port: int) -> None:
    """Though a beacon that it has asked refuses it in the end."""
    asked, joined = asyncio.Event(), asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4096):
            asked.set()
            await joined.wait()
            writer.write(encode(Message(EVIL, REPLY, "error")))
        writer.close()

    async with await asyncio.start_server(refuse, LIAR_HOST, port):
        r = make("r@127.0.0.1")
        joining = asyncio.create_task(r.join())
        await soon(asked.wait())
        async with make(P, cluster_net="127.0.0.1/32"):
            joined.set()
            await soon(joining)
            await r.until_mode("clustered", 10 * UNIT)
            await r.leave()


async def test_silent_beacons_cost_little_more_than_one(
    make: Make, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once one has kept silent, the others are asked first whether they answer at all."""
    monkeypatch.setattr(locator, "REPLY_TIMEOUT", 1.0 * UNIT)
    silent: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    async with AsyncExitStack() as stack:
        for host in (f"127.0.0.{number}" for number in range(2, 6)):
            await stack.enter_async_context(
                await asyncio.start_server(lambda *s: silent.append(s), host, port)
            )
        q = make("q@127.0.0.6", cluster_net="127.0.0.6/32")
        async with q, asyncio.timeout(3.0 * UNIT), make(P) as p:
            assert p.via == q.node.name
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize("first_host", [None, LIAR_HOST])
async def test_lone_node_finds_others_behind_a_beacon_that_lies(
    first_host: str | None, make: Make, port: int
) -> None:
    """A node that looks again and again gets past a host that shows no tracker."""
    async with make(P, first_host=first_host) as p:
        assert p.core_server.mode == "standalone"
        async with lying(port) as requests, make(Q, cluster_net="127.0.0.3/32"):
            await p.until_mode("clustered", 10 * UNIT)
            assert requests
            assert p.via == Q


async def test_first_host_is_asked_first_by_a_later_join(make: Make) -> None:
    """That its beacon has let the node in before does not put it behind the others."""
    p = make(P, first_host="127.0.0.3")
    async with make(Q, cluster_net="127.0.0.3/32"), make("r@127.0.0.2"):
        for _ in range(2):
            async with p:
                assert p.via == Q


# What drips


async def test_dripping_beacon_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that comes in small pieces is parsed up to a limit, then the connection is closed."""
    parsed = 0

    def loads(data: bytes) -> Any:
        nonlocal parsed
        parsed += len(data)
        return json.JSONDecoder().decode(data.decode())

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"a":[' + b"0," * 20_000)
        while not writer.is_closing():
            writer.write(b'{"b":1},{"c":"}')
            await asyncio.sleep(0)
        left.set()

    left = asyncio.Event()
    monkeypatch.setattr(json, "loads", loads)
    async with await asyncio.start_server(drip, LIAR_HOST, port):
        assert await soon(Locator(P, [LIAR_HOST], port, lambda: 0.0).look()) == {}
        await soon(left.wait())
    assert 0 < parsed <= MAX_PARSED + MAX_SIZE


def test_long_reply_in_many_pieces_is_read() -> None:
    """What an honest beacon says may come in any number of pieces."""
    message = Message("a@127.0.0.1", REPLY, [f"node{number}@127.0.0.1" for number in range(2500)])
    data, receiver = encode(message), Receiver()
    pieces = [data[start : start + 100] for start in range(0, len(data), 100)]
    assert len(pieces) > 500
    assert [receiver.receive(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [message]
