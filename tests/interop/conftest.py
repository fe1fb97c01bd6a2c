"""Fixtures for tests of Python nodes among BEAM nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

import pytest

from erlang_interop.oracle import Oracle
from pybeethoven import Beethoven, Node
from pybeethoven.cluster import core_server
from pybeethoven.testing import Peers

Member = Callable[..., Beethoven]
"""Makes a member of the test's cluster, given its name."""

WholeAgain = Callable[[float], AbstractAsyncContextManager[None]]
"""`async with whole_again(limit)`: what is in it takes up to `limit` seconds, which are printed."""


@pytest.fixture(scope="session")
def seed() -> int:
    """What all that is random in the differential tests starts from."""
    return int(os.environ["PYBEETHOVEN_SEED"])


@pytest.fixture(scope="session")
def oracle(erl: str) -> Iterator[Oracle]:
    """The BEAM that the differential tests ask."""
    with Oracle(erl) as oracle:
        yield oracle


@pytest.fixture
def cluster(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> Peers:
    """The BEAM nodes of a test, whose EPMD and cookie are those of this process's commands too."""
    for name, value in {**peers.env, "PYBEETHOVEN_COOKIE": peers.cookie}.items():
        monkeypatch.setenv(name, value)
    return peers


@pytest.fixture
def member(cluster: Peers) -> Member:
    """Makes Beethoven nodes that look for the beacon of the test's cluster."""

    def make(
        name: str = "py@127.0.0.1", *, cookie: str | None = None, **settings: Any
    ) -> Beethoven:
        return Beethoven(
            name,
            cookie=cookie or cluster.cookie,
            cluster_net=cluster.cluster_net,
            listener_port=cluster.listener_port,
            **settings,
        )

    return make


@pytest.fixture
async def node(cluster: Peers) -> AsyncIterator[Node]:
    """A plain node, `py@127.0.0.1`, that can connect to the BEAM nodes of the test."""
    async with Node("py@127.0.0.1", cluster.cookie) as node:
        yield node


@pytest.fixture
def whole_again(record_property: Callable[[str, object], None]) -> WholeAgain:
    """Bounds and prints the time that it takes to be whole again after a fault."""

    @asynccontextmanager
    async def measure(limit: float) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(limit):
            yield
        passed = loop.time() - began
        record_property("whole after", f"{passed:.3f} s, at most {limit:g} s")

    return measure


@pytest.fixture(params=[-1, 1], ids=["an hour behind", "an hour ahead"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this process is an hour wrong."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            wrong: Self = super().now(tz) + timedelta(hours=request.param)
            return wrong

    monkeypatch.setattr(core_server, "datetime", Wrong)
