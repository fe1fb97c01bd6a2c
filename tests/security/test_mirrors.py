"""What peers answer to a mirror, and send to it and to a table server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest

from pybeethoven import Atom, Node, Pid, Process, Term
from pybeethoven.errors import EncodeError, NoConnection
from pybeethoven.etf import Map
from pybeethoven.mnesia import EVENT, SUBSCRIBER, Mirror, Row, Table, TableServer, Write, answers
from pybeethoven.mnesia.events import apply_snapshot
from pybeethoven.mnesia.served import MAX_SUBSCRIBERS
from tests.helpers import Recorder, soon, until_logged
from tests.net.conftest import StartNode, start_node
from tests.security.odd_terms import ODD_TERMS
from tests.security.test_odd_keys import fun
from tests.timing import UNIT

__all__ = ["start_node"]

A, B, C = (f"{letter}@127.0.0.1" for letter in "abc")
Nodes: TypeAlias = tuple[Node, Node, Node]
TAB: Final = Atom("tab")
NO_KEY: Final = fun(held=b"t\0\0\0\2ja\1ja\1")
"""It holds a map that has a key twice: it can be sent, but has no place in the order."""


@pytest.fixture
async def nodes(start_node: StartNode) -> Nodes:
    """The one with the mirror, its source, and another."""
    return await start_node(A), await start_node(B), await start_node(C)


def row(key: Term, value: Term = 1) -> Row:
    """A row of the table."""
    return (TAB, key, value)


def pretend(
    node: Node, key: str, zipwith: Callable[..., Term] = lambda *_: [(Atom("atomic"), [])]
) -> dict[str, Term]:
    """Let a node answer like a BEAM that has the table with a row of that key. Gives the answers,
    which can be changed."""
    answers: dict[str, Term] = {
        "is_running": Atom("yes"),
        "subscribe": (Atom("ok"), node.name),
        "type": Atom("set"),
        "transaction": (Atom("atomic"), [row(Atom(key))]),
        "where_to_read": node.name,
        "cookie": 1,
    }
    node.spawn(Recorder(), name=SUBSCRIBER)
    node.export("mnesia", lambda item: answers[item], name="system_info")
    node.export("mnesia", lambda _, item: answers[item], name="table_info")
    node.export("mnesia", lambda *_: answers["transaction"], name="transaction")
    node.export(SUBSCRIBER, lambda *_: answers["subscribe"], name="subscribe")
    node.export("lists", zipwith, name="zipwith")
    return answers


async def mirror_of(node: Node, *peers: str, **settings: Any) -> Mirror:
    """A mirror of the table that runs."""
    mirror = Mirror(Table(TAB), peers=lambda: peers, **settings)
    await soon(node.start(mirror))
    return mirror


@pytest.mark.parametrize(
    "item", ["is_running", "subscribe", "type", "where_to_read", "transaction"]
)
async def test_peer_that_answers_oddly_is_no_source(nodes: Nodes, item: str) -> None:
    """The next one is."""
    a, b, c = nodes
    answers = pretend(b, "b")
    pretend(c, "c")
    for answer in (*[each.values[0] for each in ODD_TERMS], {}):
        answers[item] = answer
        mirror = await mirror_of(a, B, C, mnesia="yes", brings=True)
        assert mirror.source == C
        assert mirror.table.rows() == [row(Atom("c"))]


async def test_answer_that_python_cannot_compare(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """With one that the peer gave before: it is no source any more, and a warning tells why."""
    a, b, c = nodes
    deep: Term = []
    for _ in range(450):
        deep = Map([([], deep)])
    pretend(b, "b")["cookie"] = deep
    pretend(c, "c")
    mirror = await mirror_of(a, B, C, mnesia="yes", brings=True)
    assert mirror.source == B
    a.disconnect(B)
    await until_logged(caplog, "b@127.0.0.1 cannot be the source: RecursionError")
    await soon(mirror.settle())
    assert mirror.source == C


def test_snapshot_that_cannot_be_applied_changes_nothing() -> None:
    """Be it that only the last of its rows has no place in the order."""
    table = Table(TAB, [row(1), row(2)])
    with pytest.raises(EncodeError):
        apply_snapshot(table, [row(3), row(NO_KEY)])
    assert table.rows() == [row(1), row(2)]


def test_only_keys_need_a_place_in_the_order() -> None:
    """What is in the other columns of a row is kept, and known again."""
    table = Table(TAB)
    for changes in (1, 0):
        assert len(apply_snapshot(table, [row(2, NO_KEY)])) == changes
    assert table.rows() == [row(2, NO_KEY)]


async def test_row_without_a_place_in_the_order_is_left_out(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not keep a mirror from all others."""
    a, b, _ = nodes
    pretend(b, "b")["transaction"] = (Atom("atomic"), [row(NO_KEY), row(1)])
    mirror = await mirror_of(a, B, mnesia="yes")
    assert mirror.table.rows() == [row(1)]
    assert "a row of b@127.0.0.1 was left out" in caplog.text


async def test_source_that_does_not_answer(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had a write passed on to it hears that it is lost; no process waits for ever."""
    a, b, c = nodes
    pretend(c, "c", zipwith=lambda *_: asyncio.get_running_loop().create_future())
    monkeypatch.setattr(answers, "FORWARD_TIME", 0.05 * UNIT)
    await b.start(TableServer([await mirror_of(b, C)]), SUBSCRIBER)
    with pytest.raises(NoConnection):
        await soon(a.rpc(B, "mnesia", "dirty_write", [row(1)], None))


@pytest.fixture
async def server(nodes: Nodes) -> TableServer:
    """What serves the table on node `b`."""
    server = TableServer([await mirror_of(nodes[1])])
    await nodes[1].start(server, SUBSCRIBER)
    return server


@pytest.fixture
async def mirror(nodes: Nodes, server: TableServer) -> Mirror:
    """A mirror of it."""
    return await mirror_of(nodes[0], B)


MESSAGES: Final[dict[str, Term]] = {
    "cast": (Atom("$gen_cast"), Atom("boo")),
    "call": (Atom("$gen_call"), (Pid(Atom(C), 1, 0, 1), 1), Atom("boo")),
    "no key": (EVENT, (Atom("write"), TAB, row(NO_KEY), [], 1)),
    "write": (EVENT, (Atom("write"), TAB, row(9), [], 1)),
    "vague": (EVENT, (Atom("delete"), TAB, row(Atom("_")), [], 1)),
}


def subscriber_of(mirror: Mirror) -> Process:
    """The process that gets the events."""
    assert mirror._subscriber is not None
    return mirror._subscriber


def unlinker(pid: Pid) -> Callable[[Process], Any]:
    """A process that links to another and unlinks."""

    async def run(process: Process) -> None:
        await process.receive()
        process.link(pid)
        process.unlink(pid)

    return run


@pytest.mark.parametrize("name", MESSAGES)
async def test_nothing_of_a_third_node_counts(
    nodes: Nodes, server: TableServer, mirror: Mirror, name: str
) -> None:
    """No message, to whichever process of the two nodes, and no link and unlink: all live on, and
    the table is the source's."""
    subscriber = subscriber_of(mirror)
    for process in (mirror, subscriber, server, *server._mirrors):
        nodes[2].send(process.pid, MESSAGES[name])
    nodes[2].send(nodes[2].spawn(unlinker(subscriber.pid)), 1)
    assert await nodes[2].ping(A)
    assert await nodes[2].ping(B)
    await soon(mirror.dirty(Write(row(1))))
    assert mirror.table.rows() == [row(1)]
    assert mirror._subscriber is subscriber
    assert server.alive


@pytest.mark.parametrize("name", ["no key", "cast"])
async def test_odd_message_of_the_source_is_dropped(
    nodes: Nodes, mirror: Mirror, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """And one warning tells of the events whose rows can't be kept, however many there are."""
    subscriber = subscriber_of(mirror)
    for process in (subscriber, mirror, subscriber):
        nodes[1].send(process.pid, MESSAGES[name])
    await soon(mirror.dirty(Write(row(1))))
    assert mirror.table.rows() == [row(1)]
    assert mirror._subscriber is subscriber
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    dropped = f"{TAB}: an event of {B} was dropped: EncodeError"
    assert [each[: len(dropped)] for each in warnings] == [dropped] * (name == "no key")


async def test_subscriptions_of_a_node_are_limited(nodes: Nodes, server: TableServer) -> None:
    """To those of processes that are linked still; other nodes have as many."""
    what, ok = (Atom("table"), TAB), (Atom("ok"), B)
    a, _, c = nodes
    last = a.spawn(unlinker(server.pid))
    for process in [a.spawn(Recorder()) for _ in range(MAX_SUBSCRIBERS - 1)] + [last]:
        assert await a.rpc(B, SUBSCRIBER, "subscribe", [process.pid, what]) == ok
    more = [a.spawn(Recorder()).pid, what]
    full = (Atom("error"), Atom("system_limit"))
    assert await a.rpc(B, SUBSCRIBER, "subscribe", more) == full
    assert await c.rpc(B, SUBSCRIBER, "subscribe", [c.spawn(Recorder()).pid, what]) == ok
    a.send(last, 1)
    await soon(last.wait_end())
    assert await a.rpc(B, SUBSCRIBER, "subscribe", more) == ok
    assert len(server._subscriptions) == MAX_SUBSCRIBERS + 1


@pytest.mark.parametrize("function", ["subscribe", "unsubscribe"])
async def test_nobody_subscribes_for_another_node(
    nodes: Nodes, server: TableServer, mirror: Mirror, function: str
) -> None:
    """Nor ends its subscriptions."""
    subscriber, other = subscriber_of(mirror).pid, nodes[0].spawn(Recorder()).pid
    for pid in (subscriber, other):
        args = [pid, (Atom("table"), TAB)]
        refused = (Atom("error"), Atom("badarg"))
        assert await nodes[2].rpc(B, SUBSCRIBER, function, args) == refused
    assert list(server._subscriptions) == [subscriber]
