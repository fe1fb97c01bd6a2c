"""A join that is cancelled, or ended by a leave, leaves nothing behind, at any stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pybeethoven import Beethoven, ConfigError, Node, NotReady
from pybeethoven.cluster.locator import Locator
from pybeethoven.cluster.substrate import Substrate
from pybeethoven.testing import Peers
from tests.helpers import soon, until_unregistered
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, PY, A
from tests.leftovers import Leftovers

SILENT_HOST = "127.0.0.3"

STAGES: dict[str, tuple[type, str, Callable[..., bool]]] = {
    "registered at EPMD": (Node, "start_node", lambda: True),
    "supervisor started": (Node, "start", lambda server, *_, **__: isinstance(server, Substrate)),
    "let in by the beacon": (Locator, "seek", lambda *_, **__: True),
    "subscribed, without a snapshot": (
        Node,
        "rpc",
        lambda _, module, function, *__: (module, function) == ("mnesia_subscr", "subscribe"),
    ),
}
"""For each stage: the method that ends it, and which of its calls counts."""
KNOWN_TO_THE_PEER = {"let in by the beacon", "subscribed, without a snapshot"}


def stop_after(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, counts: Callable[..., bool]
) -> asyncio.Event:
    """Make a method wait for ever instead of returning; the event is set then."""
    method, reached = getattr(owner, name), asyncio.Event()

    async def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await method(self, *args, **kwargs)
        if counts(*args, **kwargs):
            reached.set()
            await asyncio.get_running_loop().create_future()
        return result

    monkeypatch.setattr(owner, name, stopping)
    return reached


async def cancel(py: Beethoven, join: asyncio.Task[None]) -> None:
    """Cancel the join."""
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(join)


async def leave(py: Beethoven, join: asyncio.Task[None]) -> None:
    """Leave while it joins."""
    await soon(py.leave())
    with pytest.raises(NotReady, match="left while it was joining"):
        await join


Interrupt = Callable[[Beethoven, asyncio.Task[None]], Any]
each_way = pytest.mark.parametrize("interrupt", [cancel, leave])


@pytest.fixture
async def a_is_unharmed(cluster: Peers) -> Callable[[Beethoven], Any]:
    """A BEAM node, and a check that a member can still join and leave its cluster."""
    a = await cluster.start(A)

    async def check(py: Beethoven) -> None:
        async with py:
            assert py.via == A
            assert await py.core_server.get_mode() == "clustered"
            with pytest.raises(ConfigError, match="has joined already"):
                await py.join()
        await cluster.await_tracker(a, {PY: OFFLINE})

    return check


@asynccontextmanager
async def silent_beacon(port: int) -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """Listen at `SILENT_HOST` without answering; give events for a request, and for its end."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, SILENT_HOST, port):
        yield asked, left


async def nothing_is_left(py: Beethoven, leftovers: Leftovers) -> None:
    """The node is down, its name free, and its sockets and tasks are gone."""
    assert not py.node.running
    await until_unregistered("py")
    await leftovers.gone()


@each_way
@pytest.mark.parametrize("stage", STAGES)
async def test_interrupted_at_a_stage(
    cluster: Peers,
    member: Member,
    a_is_unharmed: Callable[[Beethoven], Any],
    stage: str,
    interrupt: Interrupt,
) -> None:
    """At each stage an interrupted join frees all that it took, and the node can join again."""
    leftovers, py = Leftovers(), member()
    with pytest.MonkeyPatch.context() as monkeypatch:
        reached = stop_after(monkeypatch, *STAGES[stage])
        join = asyncio.create_task(py.join())
        await soon(reached.wait())
        if stage in KNOWN_TO_THE_PEER:
            assert (await cluster.tracker(cluster.nodes[A]))[PY] == "online"
        await interrupt(py, join)
    await nothing_is_left(py, leftovers)
    if stage in KNOWN_TO_THE_PEER:
        await cluster.await_tracker(cluster.nodes[A], {PY: OFFLINE})
    await a_is_unharmed(py)


@each_way
async def test_interrupted_while_a_beacon_is_asked(
    cluster: Peers,
    member: Member,
    a_is_unharmed: Callable[[Beethoven], Any],
    interrupt: Interrupt,
) -> None:
    """While a beacon does not answer, an interrupted join ends that connection, too."""
    py = member(first_host=SILENT_HOST)
    async with silent_beacon(cluster.listener_port) as (asked, left):
        leftovers = Leftovers()
        join = asyncio.create_task(py.join())
        await soon(asked.wait())
        await interrupt(py, join)
        await soon(left.wait())
        await nothing_is_left(py, leftovers)
    await a_is_unharmed(py)


@each_way
async def test_interrupted_while_it_registers(
    member: Member, a_is_unharmed: Callable[[Beethoven], Any], interrupt: Interrupt
) -> None:
    """An interrupted registration at EPMD leaves nothing, at any turn of the event loop."""
    py = member()
    for turns in range(1, 91, 3):
        leftovers = Leftovers()
        join = asyncio.create_task(py.join())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert py._joining is not None
        if py._joining.done():  # on a busy machine more happens in each turn
            await soon(join)
            await soon(py.leave())
            break
        await interrupt(py, join)
        await nothing_is_left(py, leftovers)
    assert turns > 20
    await a_is_unharmed(py)
