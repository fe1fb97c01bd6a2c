"""Objects that were used in one event loop can be used in another, when they have ended there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from pybeethoven import Atom, Beethoven, GenServer, NameTaken, Node, Term
from pybeethoven.mnesia import SUBSCRIBER, Mirror, Table, TableServer, Write
from pybeethoven.otp.gen_server import From
from pybeethoven.testing import free_port
from tests.helpers import soon

A, B = "a@127.0.0.1", "b@127.0.0.1"
TAB = Atom("tab")

Use = Callable[[], Coroutine[Any, Any, None]]


class Echo(GenServer):
    """Answers what it is asked."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        return request


def use_nodes() -> Use:
    """Nodes and a server; one node asks two others at once for a name, which only a BEAM gives."""
    named, unnamed, echo = Node(A, "c", epmd="embedded"), Node(None, "c"), Echo()

    async def use() -> None:
        assert await echo.wait_end()
        async with Node(A, "c", epmd="embedded"):
            with pytest.raises(NameTaken):
                await named.start_node()
        async with named, unnamed, Node(B, "c") as b:
            for answer in await asyncio.gather(
                *map(unnamed.connect, (A, B)), return_exceptions=True
            ):
                assert "the peer answered not_allowed" in str(answer)
            await named.start(echo, name="echo")
            assert await b.call(("echo", A), 1) == 1

    return use


def use_members() -> Use:
    """Two members of a cluster."""
    port = free_port("0.0.0.0")
    members = [Beethoven(n, cookie="c", epmd="embedded", listener_port=port) for n in (A, B)]

    async def use() -> None:
        async with Node(A, "c", epmd="embedded"):
            with pytest.raises(NameTaken):
                await members[0].join()
            await members[0].leave()
        async with AsyncExitStack() as stack:
            for member in members:
                await stack.enter_async_context(member)
            # Each looks for a beacon while the other one does.
            await asyncio.gather(*(member._seek_again() for member in members for _ in range(2)))
            for member in members:
                await member.until_mode("clustered")

    return use


def use_mirrors() -> Use:
    """A table of one node, and its mirror at another."""
    table, mirror = Mirror(Table("tab"), peers=list), Mirror(Table("tab"), peers=lambda: [A])
    server = TableServer([table])

    async def use() -> None:
        async with Node(A, "c", epmd="embedded") as a, Node(B, "c") as b:
            await a.start(table)
            await a.start(server, SUBSCRIBER)
            starting = asyncio.create_task(b.start(mirror))
            await asyncio.sleep(0)
            await mirror.attached.wait()
            await starting
            a.exit(server, Atom("kill"))
            await server.wait_end()
            writing = asyncio.create_task(mirror.dirty(Write((TAB, 1, 2))))
            await a.start(server, SUBSCRIBER)
            await writing
            assert table.table.rows() == [(TAB, 1, 2)]

    return use


@pytest.mark.parametrize("make", [use_nodes, use_members, use_mirrors])
def test_objects_of_another_loop_work(
    make: Callable[[], Use], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In loops one after the other, and of another kind."""
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
    use = make()
    for run in (asyncio.run, asyncio.run, uvloop.run):
        run(soon(use()))
