"""Tables that a Python node serves: a mirror of them on another, and what ends."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from pybeethoven import Atom, GenServer, Limits, Node, Process, Term
from pybeethoven.errors import (
    Aborted,
    ErlangError,
    ErlangExit,
    MirrorError,
    NoConnection,
    ProcessExit,
)
from pybeethoven.etf import Export, ImproperList, Pid
from pybeethoven.mnesia import (
    DELETE,
    DETAILED,
    EVENT,
    SUBSCRIBER,
    WRITE,
    Change,
    Delete,
    DeleteObject,
    Mirror,
    Row,
    Table,
    TableServer,
    Write,
)
from pybeethoven.mnesia import mirror as mirror_module
from pybeethoven.mnesia.table import TableType
from tests.helpers import LIMIT, Recorder, soon
from tests.net.conftest import StartNode
from tests.timing import UNIT

A, B, C = (f"{letter}@127.0.0.1" for letter in "abc")
TAB = Atom("tab")
WHAT = (Atom("table"), TAB, DETAILED)
ZIPWITH = Export(Atom("lists"), Atom("zipwith"), 3)
APPLY = Export(Atom("erlang"), Atom("apply"), 2)


def row(key: Term, value: Term) -> Row:
    """A record of the table."""
    return (TAB, key, value)


class Copy:
    """A mirror, and what it told."""

    def __init__(self, *peers: str, type: TableType = "set") -> None:
        self.told: asyncio.Queue[Change] = asyncio.Queue()
        self.detached, self.attached = asyncio.Event(), asyncio.Event()
        self.peers = list(peers)
        self.mirror = Mirror(
            Table("tab", type=type),
            peers=lambda: self.peers,
            on_change=self.told.put_nowait,
            on_detached=self.detached.set,
            on_attached=self.attached.set,
            order=lambda row: row[1],
            columns=("key", "value"),
        )

    async def start(self, node: Node) -> Copy:
        """Start the mirror."""
        await soon(node.start(self.mirror))
        return self

    async def next(self) -> Change:
        """The next change."""
        return await soon(self.told.get())

    def rows(self) -> list[Row]:
        """The table."""
        return self.mirror.table.rows()


@pytest.fixture(autouse=True)
def _quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "RETRY_INTERVALS", (0.05 * UNIT, 0.05 * UNIT))


@pytest.fixture
async def b(start_node: StartNode) -> Node:
    """The node that serves."""
    return await start_node(B)


@pytest.fixture
async def a(start_node: StartNode) -> Node:
    """Another."""
    return await start_node(A)


@pytest.fixture
async def origin(b: Node) -> Copy:
    """The served table, which has no source, with two rows."""
    origin = await Copy().start(b)
    for key in (1, 2):
        origin.mirror.write_local(row(key, b"old"))
    return origin


@pytest.fixture
async def server(b: Node, origin: Copy) -> TableServer:
    """What serves it."""
    server = TableServer([origin.mirror])
    await b.start(server, SUBSCRIBER)
    return server


@pytest.fixture
async def copy(a: Node, server: TableServer) -> Copy:
    """A mirror of it."""
    return await Copy(B).start(a)


async def test_snapshot_and_events(origin: Copy, copy: Copy) -> None:
    """A mirror gets the rows that are there, and each change from then on."""
    assert copy.mirror.source == B
    assert copy.rows() == [row(1, b"old"), row(2, b"old")]
    origin.mirror.write_local(row(1, b"new"))
    origin.mirror.change_local(Delete(2))
    origin.mirror.change_local(DeleteObject(row(1, b"other")))
    origin.mirror.change_local(DeleteObject(row(1, b"new")))
    assert await copy.next() == Change(WRITE, row(1, b"new"), [row(1, b"old")])
    assert await copy.next() == Change(DELETE, (TAB, 2), [row(2, b"old")])
    assert await copy.next() == Change(DELETE, row(1, b"other"), [])
    assert await copy.next() == Change(DELETE, row(1, b"new"), [row(1, b"new")])
    assert copy.rows() == origin.rows() == []


async def test_write_through(origin: Copy, copy: Copy) -> None:
    """What a mirror writes is in both tables when that returns, and is told on both nodes."""
    await copy.mirror.transaction(Write(row(3, b"new")), Delete(1), DeleteObject(row(2, b"old")))
    assert copy.rows() == origin.rows() == [row(3, b"new")]
    await copy.mirror.dirty(Write(row(4, b"new")))
    await copy.mirror.dirty(Delete(3))
    assert copy.rows() == origin.rows() == [row(4, b"new")]
    assert await copy.mirror.dirty_update_counter(5, 7) == 7
    assert await copy.mirror.dirty_update_counter(5, -9) == 0
    while not origin.told.empty():
        change = origin.told.get_nowait()
        if change.row not in ((row(1, b"old")), (row(2, b"old"))) or change.operation == DELETE:
            assert await copy.next() == change


async def test_large_rows(origin: Copy, copy: Copy) -> None:
    """The mark behind a write does not overtake an event that is sent in fragments."""
    for size in (200_000, 1, 3_000_000):
        await copy.mirror.dirty(Write(row(1, bytes(size))))
        assert copy.mirror.table.read(1) == [row(1, bytes(size))]


async def test_all_or_nothing(origin: Copy, copy: Copy) -> None:
    """One row that is none of the table keeps the whole transaction from being done."""
    bad = (TAB, 9, 9, 9)
    with pytest.raises(Aborted) as aborted:
        await copy.mirror.transaction(Write(row(3, b"new")), Delete(1), Write(bad))
    assert aborted.value.reason == (Atom("bad_type"), bad)
    with pytest.raises(Aborted):
        await copy.mirror.dirty(Write(bad))
    assert origin.rows() == copy.rows() == [row(1, b"old"), row(2, b"old")]


async def test_source_is_sought_while_the_node_stops(
    a: Node, server: TableServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A mirror finds none then, and ends in order."""
    copy = await Copy().start(a)

    class EndsBefore(GenServer):
        async def terminate(self, reason: Term) -> None:
            copy.detached.clear()
            copy.peers.append(B)
            copy.mirror.retry()
            await soon(copy.detached.wait())

    await a.start(EndsBefore())
    await soon(a.stop())
    assert not caplog.records


async def test_retry_is_followed_by_others(a: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that waits long between its tries soon tries again after `retry`, too."""
    monkeypatch.setattr(mirror_module, "RETRY_INTERVALS", (1000.0, 1000.0))
    copy = await Copy().start(a)
    monkeypatch.setattr(mirror_module, "RETRY_INTERVALS", (0.01 * UNIT, 0.01 * UNIT))
    copy.mirror.retry()
    for _ in range(3):
        await soon(copy.detached.wait())
        copy.detached.clear()


async def test_mirror_that_runs_again_tells_what_has_changed(
    origin: Copy, copy: Copy, a: Node
) -> None:
    """A mirror that ended and is run again tells what has changed in between."""
    a.exit(copy.mirror, Atom("kill"))
    await soon(copy.mirror.wait_end())
    origin.mirror.write_local(row(3, b"new"))
    await copy.start(a)
    assert await copy.next() == Change(WRITE, row(3, b"new"), [])
    assert copy.mirror.source == B
    assert copy.rows() == origin.rows()


async def test_chain(start_node: StartNode, origin: Copy, copy: Copy, a: Node) -> None:
    """A mirror may be the source of another: what that one writes is done by the first source."""
    await a.start(TableServer([copy.mirror]), SUBSCRIBER)
    end = await Copy(A).start(await start_node(C))
    await end.mirror.transaction(Write(row(3, b"new")))
    await end.mirror.dirty(Delete(1))
    assert await end.mirror.dirty_update_counter(4, 2) == 2
    assert end.rows() == copy.rows() == origin.rows()
    with pytest.raises(Aborted):
        await end.mirror.transaction(Write((TAB, 1, 2, 3)))


async def test_source_is_lost_under_a_write(
    copy: Copy, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was passed on, and whose answer is lost, fails as one whose source is lost."""
    await a.start(TableServer([copy.mirror]), SUBSCRIBER)

    async def lose(*_: Term) -> Term:
        raise MirrorError("the source has gone")

    monkeypatch.setattr(copy.mirror, "forward", lose)
    call = [Export(Atom("mnesia"), Atom("write"), 1), [row(1, 1)]]
    with pytest.raises(NoConnection):
        await soon(b.rpc(A, "mnesia", "transaction", call))


@pytest.mark.parametrize("end", ["exit", "kill", "parent"])
async def test_server_ends(origin: Copy, a: Node, b: Node, end: str) -> None:
    """However it ends, its mirrors hear it; from one that is started anew they get what differs."""
    server = TableServer([origin.mirror])

    async def parent(process: Process) -> None:
        await b.start(server, SUBSCRIBER, link=True)
        await process.receive()
        raise ProcessExit(Atom("crash"))

    starter = b.spawn(parent)
    async with asyncio.timeout(LIMIT):
        while b.whereis(SUBSCRIBER) is None or not server.started.done():
            await asyncio.sleep(0)
    copy = await Copy(B).start(a)
    match end:
        case "exit":
            b.end_process(server, Atom("crash"))
        case "kill":
            b.exit(server, Atom("kill"))
        case "parent":
            b.send(starter, Atom("crash"))
    await soon(copy.detached.wait())
    await server.wait_end()
    assert not origin.mirror.listeners
    origin.mirror.write_local(row(3, b"new"))
    origin.mirror.change_local(Delete(1))
    copy.attached.clear()
    await b.start(server, SUBSCRIBER)
    await soon(copy.attached.wait())
    assert await copy.next() == Change(DELETE, (TAB, 1), [row(1, b"old")])
    assert await copy.next() == Change(WRITE, row(3, b"new"), [])
    assert copy.mirror.source == B


async def test_served_mirror_ends(origin: Copy, copy: Copy, b: Node) -> None:
    """The table of a mirror that does not run is not there; once it runs again it is."""
    b.exit(origin.mirror, Atom("crash"))
    await soon(copy.detached.wait())
    with pytest.raises(MirrorError):
        await copy.mirror.dirty(Write(row(1, 1)))
    await soon(origin.mirror.wait_end())
    copy.attached.clear()
    await origin.start(b)
    await soon(copy.attached.wait())
    await copy.mirror.dirty(Write(row(1, 1)))
    assert origin.mirror.table.read(1) == [row(1, 1)]


@pytest.mark.parametrize("end", ["stop", "disconnect"])
async def test_node_ends(copy: Copy, a: Node, b: Node, end: str) -> None:
    """A mirror whose source's node has gone keeps its rows; one that was cut off comes back."""
    copy.attached.clear()
    if end == "stop":
        await b.stop()
        await soon(copy.detached.wait())
        assert copy.rows() == [row(1, b"old"), row(2, b"old")]
    else:
        a.disconnect(B)
        await soon(copy.attached.wait())
        await copy.mirror.dirty(Write(row(3, b"new")))
        assert len(copy.rows()) == 3


async def test_subscribers_are_forgotten(
    server: TableServer, origin: Copy, copy: Copy, a: Node, b: Node
) -> None:
    """One that has ended, or whose node has gone, is told nothing any more, nor dialled."""
    recorder = Recorder()
    a.spawn(recorder)
    assert await a.rpc(B, SUBSCRIBER, "subscribe", [recorder.pid, WHAT]) == (Atom("ok"), B)
    assert len(server.links) == 2
    a.end_process(recorder, Atom("crash"))
    await copy.mirror.catch_up()  # B has heard of the end before this
    assert len(server.links) == 1
    copy.peers.clear()
    watcher = Recorder()
    b.spawn(watcher)
    b.monitor_nodes(watcher)
    a.disconnect(B)
    assert await watcher.next() == (Atom("nodedown"), A)
    origin.mirror.write_local(row(3, b"new"))
    assert not server.links
    assert not b.nodes()


async def test_subscriber_that_does_not_read(start_node: StartNode) -> None:
    """It loses the connection in the end, and with it the subscription; the others get all."""
    slow, quick = await start_node(A), await start_node(C)
    async with Node(B, "cookie", limits=Limits(unsent_size=1 << 20)) as b:
        origin = await Copy().start(b)
        server = TableServer([origin.mirror])
        await b.start(server, SUBSCRIBER)
        copies = [await Copy(B).start(node) for node in (slow, quick)]
        copies[0].peers.clear()
        transport = slow.network._up[Atom(B)]._transport
        assert transport is not None
        transport.pause_reading()
        value = 0
        async with asyncio.timeout(LIMIT):
            while A in b.nodes():
                value += 1
                origin.mirror.write_local(row(value % 4, bytes(60_000)))
                await b.drain(C)
                await asyncio.sleep(0)
        origin.mirror.write_local(row(9, b"last"))
        assert [pid.node for pid in server.links] == [C]
        for _ in range(value):
            assert (await copies[1].next()).row[1] != 9
        assert await copies[1].next() == Change(WRITE, row(9, b"last"), [])


async def test_unsubscribe(server: TableServer, origin: Copy, a: Node) -> None:
    """Nothing comes after it, and the link is gone."""
    recorder = Recorder()
    a.spawn(recorder)
    what = (Atom("table"), TAB)
    ok = (Atom("ok"), B)
    assert await a.rpc(B, SUBSCRIBER, "subscribe", [recorder.pid, what]) == ok
    origin.mirror.change_local(DeleteObject(row(1, b"old")))
    event = (Atom("delete_object"), row(1, b"old"), (Atom("dirty"), origin.mirror.pid))
    assert await recorder.next() == (EVENT, event)
    assert await a.rpc(B, SUBSCRIBER, "unsubscribe", [recorder.pid, what]) == ok
    assert not server.links
    origin.mirror.change_local(Delete(2))
    assert await a.ping(B)
    assert recorder.messages.empty()


async def test_own_processes_are_no_subscribers(
    server: TableServer, origin: Copy, a: Node, b: Node
) -> None:
    """Nobody has a mirror's own events sent to it, nor cuts the server off from who started it."""
    recorder = b.spawn(Recorder())
    for pid in (origin.mirror.pid, server.pid, recorder.pid, Pid(Atom("x@127.0.0.1"), 1, 0, 1)):
        refused = (Atom("error"), Atom("badarg"))
        assert await a.rpc(B, SUBSCRIBER, "subscribe", [pid, WHAT]) == refused


async def test_without_a_server(a: Node, b: Node, server: TableServer) -> None:
    """While none runs, all is answered as by a BEAM whose Mnesia is stopped."""
    b.end_process(server, Atom("shutdown"))
    asker = a.spawn(Recorder())
    stopped = (Atom("node_not_running"), B)
    call = [Export(Atom("mnesia"), Atom("write"), 1), [row(1, 1)]]
    aborted = (Atom("aborted"), stopped)
    assert await a.rpc(B, SUBSCRIBER, "subscribe", [asker.pid, WHAT]) == (Atom("error"), stopped)
    assert await a.rpc(B, "mnesia", "transaction", call) == aborted
    assert await a.rpc(B, "mnesia", "system_info", [Atom("is_running")]) == "no"
    assert await a.rpc(B, "mnesia", "table_info", [TAB, Atom("size")]) == 0
    calls: list[tuple[str, list[Term], Term]] = [
        ("table_info", [TAB, Atom("type")], (Atom("no_exists"), TAB, Atom("type"))),
        ("system_info", [Atom("tables")], stopped),
        ("dirty_read", [TAB, 1], (Atom("no_exists"), [TAB, 1])),
        ("dirty_write", [row(1, 1)], (Atom("no_exists"), TAB)),
        ("dirty_delete", [(TAB, 1)], stopped),
    ]
    for function, args, reason in calls:
        with pytest.raises(ErlangExit) as exit_:
            await a.rpc(B, "mnesia", function, args)
        assert exit_.value.reason == (Atom("aborted"), reason)


JUNK: list[Term] = [
    None,
    1.5,
    b"tab",
    [],
    [[]],
    (),
    (TAB,),
    TAB,
    Atom("_"),
    {TAB: 1},
    row([], {}),
    row(Atom("_"), Atom("$1")),
    WHAT,
    APPLY,
    ImproperList([TAB], 1),
    [ImproperList([1], 2)],
    Export(Atom("mnesia"), Atom("write"), 1),
    Export(Atom("os"), Atom("cmd"), 1),
    [(row(Atom("$1"), Atom("_")), [(Atom("hd"), 1)], [(Atom("hd"), 1)])],
    Pid(Atom("nowhere"), 1, 0, 1),
    Pid(Atom("x@127.0.0.1"), 1, 0, 1),
]


async def test_anything_is_answered(
    a: Node,
    b: Node,
    server: TableServer,
    origin: Copy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the arguments, a call is answered by a BEAM's errors; nothing is logged, no table
    has changed, no process has ended and no other node was called."""
    functions = [
        (module, str(function), count)
        for module, function in b.exports._functions
        if module in ("mnesia", "mnesia_subscr", "lists")
        for count in (1, 2, 3)
    ]
    before = origin.rows()
    chance = random.Random(1)
    answers: list[Term] = []
    zips: list[Term] = [[APPLY, [f], [x]] for f in (APPLY, ZIPWITH, JUNK[-5]) for x in JUNK]
    for module, function, count in functions:
        lists = [[chance.choice(JUNK) for _ in range(count)] for _ in range(5)]
        if function == "zipwith":
            lists += zips
        if function == "transaction":
            lists += [[ZIPWITH, each] for each in zips[count::3]]
        for args in lists:
            try:
                answers.append(await soon(a.rpc(B, module, function, args)))
            except (ErlangExit, ErlangError) as error:
                answers.append(error.reason)
    assert "python_error" not in repr(answers)
    assert [r for r in origin.rows() if r[1] in (1, 2)] == before
    assert server.alive
    assert b.nodes() == [A]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
