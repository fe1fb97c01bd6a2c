"""Hosts of the cluster's network that answer as beacons do, but are not members of a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pybeethoven import Beethoven, MirrorError
from pybeethoven.cluster import standing
from pybeethoven.cluster.locator import Locator
from pybeethoven.cluster.seek_chat import MAX_PARSED, MAX_SIZE, REPLY, Message, Receiver, encode
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon
from tests.timing import UNIT

LIAR_HOST = "127.0.0.2"
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

    def make(
        name: str, cluster_net: str = "127.0.0.0/29", first_host: str | None = None
    ) -> Beethoven:
        return Beethoven(
            name,
            cookie="cookie",
            cluster_net=cluster_net,
            first_host=first_host,
            listener_port=port,
            rejoin_interval=(0.02 * UNIT, 0.1 * UNIT),
            beacon=name != P,
        )

    return make


@pytest.fixture
async def liar(port: int) -> AsyncIterator[list[bytes]]:
    """A host before the real beacon that says `joined`; the requests that it gets."""
    async with lying(port) as requests:
        yield requests


@asynccontextmanager
async def lying(port: int) -> AsyncIterator[list[bytes]]:
    """Have a host say `joined` to each client."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(4096))
        writer.write(encode(Message(f"evil@{LIAR_HOST}", REPLY, "joined")))
        writer.close()

    async with await asyncio.start_server(serve, LIAR_HOST, port):
        yield requests


async def test_beacon_that_lies_is_skipped(make: Make, liar: list[bytes]) -> None:
    """A node that is let in by a host without a tracker joins through the next beacon."""
    async with make(Q, cluster_net="127.0.0.3/32"), make(P) as p:
        assert p.via == Q
        assert [json.loads(request)["type"] for request in liar].count("seeking") >= 1
        assert sorted(await p.get_active_cluster_nodes()) == [P, Q]


async def test_error_when_no_other_beacon_is_left(make: Make, liar: list[bytes]) -> None:
    """The error names the host that showed no tracker, and nothing stays."""
    p = make(P)
    with pytest.raises(MirrorError, match=f"evil@{LIAR_HOST} has let {P} in, but does not offer"):
        await soon(p.join())
    assert not p.node.running
    assert p.via is None


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
