"""What tracker rows of nodes that can't be reached may cost: work that grows with their number, and
a bounded number of dials at a time. Anybody with the cookie can write them, and a split that takes
hundreds of nodes away leaves such rows, too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from pybeethoven import Atom, Beethoven, NoConnection, Node, Updates
from pybeethoven.cluster.sharing import MAX_CHECKS
from pybeethoven.cluster.standing import MAX_UNREACHED
from pybeethoven.cluster.tracker import CORE_TRACKER, OFFLINE, ONLINE, record
from pybeethoven.mnesia import Row, Table, Write
from pybeethoven.mnesia.operations import transaction
from pybeethoven.net.finder import Address
from pybeethoven.otp.ties import Monitor, Ties
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon
from tests.otp.processes import spawn_recorder

P, EVIL = "p@127.0.0.1", "evil@127.0.0.2"
COUNT = 200
GHOSTS = [f"ghost{number}@127.0.0.3" for number in range(COUNT)]

Writer = Callable[[Node, list[Row]], Awaitable[None]]


def member(resolve: Callable[[str], Address | None] | None = None) -> Beethoven:
    """A member without a cluster."""
    return Beethoven(
        P,
        cookie="cookie",
        cluster_net="127.0.0.254/32",
        listener_port=free_port("0.0.0.0"),
        resolve=resolve,
    )


def rows_of(names: list[str], status: Atom) -> list[Row]:
    """A row of each node, as of now."""
    return [record(name, status, datetime.now(UTC)) for name in names]


async def write_each(evil: Node, rows: list[Row]) -> None:
    """Write each row by itself."""
    await asyncio.gather(*[evil.rpc(P, "mnesia", "dirty_write", [row]) for row in rows])


async def write_at_once(evil: Node, rows: list[Row]) -> None:
    """Write all rows in one transaction."""
    call = transaction(CORE_TRACKER, map(Write, rows))[1]
    await evil.rpc(P, "mnesia", "transaction", call)


async def hear(updates: Updates, status: Atom, count: int = COUNT) -> None:
    """Wait until `count` nodes were told to have that status."""
    while count:
        count -= (await soon(anext(updates))).status == status


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each reading of a whole table has given."""
    counts: list[int] = []
    rows = Table.rows

    def read(table: Table) -> list[Row]:
        found = rows(table)
        counts.append(len(found))
        return found

    monkeypatch.setattr(Table, "rows", read)
    return counts


@pytest.mark.parametrize("write", [write_each, write_at_once])
async def test_work_grows_with_the_number_of_rows(
    epmd: Epmd, rows_read: list[int], write: Writer
) -> None:
    """All nodes are told to be online and then offline; nothing of that goes through all rows for
    each row, or starts processes for all of them."""
    async with member() as p, Node(EVIL, "cookie") as evil:
        updates, before = p.core_server.updates(), p.node.make_pid().id
        await soon(write(evil, rows_of(GHOSTS, ONLINE)))
        await hear(updates, OFFLINE)
        assert sum(rows_read) < 10 * COUNT
        assert p.node.make_pid().id - before < 3 * COUNT


async def test_work_grows_with_the_number_of_lost_nodes(epmd: Epmd, rows_read: list[int]) -> None:
    """As in a split, in which many nodes are lost at once."""
    names = GHOSTS[:40]
    async with member() as p, AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(name, "cookie")) for name in names]
        updates = p.core_server.updates()
        for node in nodes:
            await soon(node.connect(P))
            p.core_server.standing.add_here(node.name)
        await hear(updates, ONLINE, len(names))
        rows_read.clear()
        for name in names:
            p.node.disconnect(name)
        await asyncio.gather(*[node.stop() for node in nodes])
        await hear(updates, OFFLINE, len(names))
        assert sum(rows_read) < 20 * len(names)


async def test_dials_are_bounded(epmd: Epmd) -> None:
    """However many rows there are, few of the nodes are dialled at a time; those that are offline
    when it is their turn are not dialled at all."""
    dialled: set[str] = set()
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as silent:

        def resolve(name: str) -> Address:
            dialled.add(name)
            address: Address = silent.getsockname()
            return address

        async with member(resolve) as p, Node(EVIL, "cookie") as evil:
            updates = p.core_server.updates()
            await soon(write_each(evil, rows_of(GHOSTS, ONLINE)))
            await hear(updates, ONLINE)
            await soon(write_each(evil, rows_of(GHOSTS, OFFLINE)))
            await hear(updates, OFFLINE)
            assert MAX_CHECKS <= len(dialled) <= MAX_CHECKS + MAX_UNREACHED
            silent.close()
            for checker in p.core_server.standing._sharing._checkers:
                await soon(checker.wait_end())
            assert len(dialled) <= MAX_CHECKS + MAX_UNREACHED
            assert not p.core_server.standing._sharing._checked


async def test_lost_node_concerns_what_is_tied_to_it(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dial that fails looks neither at other processes nor at their monitors."""
    looked_at: list[object] = []

    def noted(look: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: object) -> Any:
            looked_at.append(args)
            return look(*args)

        return noting

    async with Node(P, "cookie") as node:
        others = [spawn_recorder(node) for _ in range(COUNT)]
        for other in others:
            other.monitor(others[0])
        monkeypatch.setattr(Ties, "_sever", noted(Ties._sever))
        monkeypatch.setattr(Monitor, "peer", property(noted(vars(Monitor)["peer"].fget)))
        with pytest.raises(NoConnection):
            await soon(node.connect(GHOSTS[0]))
        assert looked_at == []
