"""The mirror of a real Mnesia table: live, when its source goes, and when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from pybeethoven import Atom, Node, Term
from pybeethoven.errors import MirrorError
from pybeethoven.mnesia import WRITE, Change, Delete, Mirror, Row, Table, Write
from pybeethoven.mnesia import mirror as mirror_module
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import soon
from tests.interop.members import A, B, C
from tests.timing import UNIT

TAB = Atom("tab")
DELETE = Atom("delete")

CREATE = """
:ok = :mnesia.start()
{:atomic, :ok} = :mnesia.create_table(:tab, type: TYPE, ram_copies: [node()], attributes: [:k, :v])
"""
REPLICATE = f"""
:ok = :mnesia.start()
{{:ok, _}} = :mnesia.change_config(:extra_db_nodes, [:"{A}"])
{{:atomic, :ok}} = :mnesia.add_table_copy(:tab, node(), :ram_copies)
:ok = :mnesia.wait_for_tables([:tab], 5000)
"""
ROWS = ":mnesia.dirty_match_object({:tab, :_, :_})"


def row(key: Term, value: Term) -> Row:
    """A record of the table."""
    return (TAB, key, value)


class Follower:
    """A mirror, and what it told."""

    def __init__(self, node: Node, peers: Sequence[str]) -> None:
        self.peers = list(peers)
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.told: list[Change] = []
        self.detached = asyncio.Event()
        self.detachments = 0
        self.mirror = Mirror(
            Table("tab"),
            peers=lambda: self.peers,
            on_change=self._on_change,
            on_detached=self._on_detached,
            order=lambda row: row[2],
        )
        self._node = node

    async def start(self) -> Follower:
        """Start the mirror."""
        await soon(self._node.start(self.mirror))
        return self

    def _on_change(self, change: Change) -> None:
        self.told.append(change)
        self.changes.put_nowait(change)

    def _on_detached(self) -> None:
        self.detachments += 1
        self.detached.set()

    async def next(self) -> Change:
        """The next change."""
        return await soon(self.changes.get())

    async def until(self, done: Callable[[Change], bool]) -> None:
        """Wait for a certain change."""
        while not done(await self.next()):
            pass

    def rows(self) -> set[Term]:
        """The table."""
        return set(self.mirror.table.rows())


@pytest.fixture(params=[":set", ":ordered_set"])
def table_type(request: pytest.FixtureRequest) -> str:
    """Mnesia's types that have one row to a key."""
    return str(request.param)


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """A BEAM with an empty table."""
    a = await cluster.start_bare(A)
    await a.eval(CREATE.replace("TYPE", ":ordered_set"))
    return a


@pytest.fixture
async def b(cluster: Peers, a: BeamNode) -> BeamNode:
    """Another with a replica of it."""
    b = await cluster.start_bare(B)
    await b.eval(REPLICATE)
    return b


async def test_live(cluster: Peers, node: Node, table_type: str) -> None:
    """Each way to write or delete a row is told, with the row that was there before."""
    a = await cluster.start_bare(A)
    await a.eval(CREATE.replace("TYPE", table_type))
    await a.eval(":mnesia.dirty_write({:tab, 1, :here})")
    follower = await Follower(node, [A]).start()
    assert follower.mirror.source == A
    assert follower.rows() == {row(1, Atom("here"))}
    assert follower.changes.empty()
    await a.eval(
        """
        :mnesia.dirty_write({:tab, 1, 2})
        {:atomic, :ok} = :mnesia.transaction(fn ->
          :mnesia.write({:tab, :two, 1})
          :mnesia.write({:tab, :two, 2})
          :mnesia.delete({:tab, 1})
        end)
        {:aborted, :no} = :mnesia.transaction(fn ->
          :mnesia.write({:tab, :not, 1})
          :mnesia.abort(:no)
        end)
        :mnesia.dirty_delete({:tab, :none})
        :mnesia.dirty_write({:tab, {:key, 1.5}, %{1 => :map}})
        :mnesia.dirty_delete_object({:tab, :two, :other})
        :mnesia.dirty_delete_object({:tab, :two, 2})
        :mnesia.dirty_write({:tab, :last, 1})
        """
    )
    await follower.until(lambda change: change.row[1] == "last")
    told = [(change.operation, change.row[1], change.old_rows) for change in follower.told]
    assert told[0] == (WRITE, 1, [row(1, Atom("here"))])
    assert (DELETE, 1, [row(1, 2)]) in told
    assert (DELETE, Atom("two"), [row(Atom("two"), 2)]) in told
    assert "not" not in [key for _, key, _ in told]
    there = [row(Atom("last"), 1), row((Atom("key"), 1.5), {1: Atom("map")})]
    rows = follower.mirror.table.rows()
    assert rows == there if table_type == ":ordered_set" else all(r in there for r in rows)
    assert sorted(map(repr, await a.eval(ROWS))) == sorted(map(repr, rows))


async def test_write_from_another_peer(a: BeamNode, b: BeamNode, node: Node) -> None:
    """What any replica writes comes through the source."""
    follower = await Follower(node, [A]).start()
    await b.eval(":mnesia.dirty_write({:tab, 1, 1})")
    assert await follower.next() == Change(WRITE, row(1, 1), [])


async def test_keys_that_only_python_takes_for_equal(cluster: Peers, node: Node) -> None:
    """1, 1.0 and true are three rows of a set."""
    a = await cluster.start_bare(A)
    await a.eval(CREATE.replace("TYPE", ":set"))
    await a.eval("for key <- [1, 1.0], do: :mnesia.dirty_write({:tab, key, :before})")
    follower = await Follower(node, [A]).start()
    await a.eval(":mnesia.dirty_write({:tab, true, :live})")
    await a.eval(":mnesia.dirty_delete({:tab, 1.0})")
    await follower.until(lambda change: change.operation == DELETE)
    assert sorted(map(repr, follower.mirror.table.rows())) == sorted(map(repr, await a.eval(ROWS)))
    assert len(follower.mirror.table) == 2


@pytest.mark.parametrize("end", ["kill", "stop", "mnesia", "disconnect"])
async def test_source_ends(a: BeamNode, b: BeamNode, node: Node, end: str) -> None:
    """However the source ends, the other peer takes over; nothing is told twice, and it goes on."""
    await a.eval("for n <- 1..10, do: :mnesia.dirty_write({:tab, n, n})")
    follower = await Follower(node, [A, B]).start()
    follower.peers.remove(A)
    match end:
        case "kill":
            await a.kill()
        case "stop":
            await a.stop()
        case "mnesia":
            await a.eval(":mnesia.stop()")
        case _:
            node.disconnect(A)
    await b.eval(":mnesia.dirty_write({:tab, :after, 11})")
    assert await follower.next() == Change(WRITE, row(Atom("after"), 11), [])
    assert follower.mirror.source == B
    await b.eval(":mnesia.dirty_write({:tab, :more, 12})")
    assert await follower.next() == Change(WRITE, row(Atom("more"), 12), [])
    assert len(follower.mirror.table) == 12
    assert not follower.detached.is_set()


@pytest.mark.parametrize("again", [":ordered_set", ":set", ":bag"])
async def test_table_is_deleted(a: BeamNode, node: Node, again: str) -> None:
    """A table that is deleted has no source; one that is made anew is followed, whatever its
    type."""
    await a.eval("for n <- 1..3, do: :mnesia.dirty_write({:tab, n, n})")
    follower = await Follower(node, [A]).start()
    await a.eval("{:atomic, :ok} = :mnesia.delete_table(:tab)")
    await soon(follower.detached.wait())
    with pytest.raises(MirrorError, match="was not changed: no peer"):
        await follower.mirror.dirty(Write(row(1, 1)))
    assert len(follower.rows()) == 3
    await a.eval(CREATE.replace("TYPE", again))
    await soon(follower.mirror.attached.wait())
    await follower.mirror.dirty(Write(row(7, 7)))
    assert follower.rows() == set(await a.eval(ROWS)) == {row(7, 7)}
    told = [(change.operation, change.row) for change in follower.told]
    assert told == [*((DELETE, (TAB, n)) for n in (1, 2, 3)), (WRITE, row(7, 7))]


async def test_source_drops_its_copy(a: BeamNode, b: BeamNode, node: Node) -> None:
    """A peer that has no copy any more is not the source any more."""
    follower = await Follower(node, [A, B]).start()
    for _ in range(3):
        await a.eval(f'{{:atomic, :ok}} = :mnesia.del_table_copy(:tab, :"{A}")')
        await b.eval(":mnesia.dirty_write({:tab, 1, :after})")
        await follower.until(lambda change: change.row == row(1, Atom("after")))
        assert follower.mirror.source == B
        await a.eval(":mnesia.add_table_copy(:tab, node(), :ram_copies)")
        await b.eval(f'{{:atomic, :ok}} = :mnesia.del_table_copy(:tab, :"{B}")')
        await follower.mirror.dirty(Delete(1))
        assert follower.mirror.source == A
        assert follower.rows() == set(await a.eval(ROWS)) == set()
        await b.eval(":mnesia.add_table_copy(:tab, node(), :ram_copies)")


async def test_differences(a: BeamNode, b: BeamNode, node: Node) -> None:
    """What changed while nobody told us is told when the next peer takes over: each difference
    once, deletes first, then the writes in order."""
    await a.eval("for n <- 1..4, do: :mnesia.dirty_write({:tab, n, n})")
    follower = await Follower(node, [A, B]).start()
    a.freeze()
    await b.eval(
        """
        for {key, value} <- [{6, 30}, {5, 10}, {2, 20}, {4, 4}, {7, 5}, {7, 40}] do
          :mnesia.dirty_write({:tab, key, value})
        end
        :mnesia.dirty_delete({:tab, 1})
        """
    )
    assert follower.changes.empty()
    await a.kill()
    assert [await follower.next() for _ in range(5)] == [
        Change(DELETE, (TAB, 1), [row(1, 1)]),
        Change(WRITE, row(5, 10), []),
        Change(WRITE, row(2, 20), [row(2, 2)]),
        Change(WRITE, row(6, 30), []),
        Change(WRITE, row(7, 40), []),
    ]
    await b.eval(":mnesia.dirty_write({:tab, :last, 50})")
    assert (await follower.next()).row == row(Atom("last"), 50)


async def test_no_peer_left(a: BeamNode, b: BeamNode, node: Node) -> None:
    """The rows stay when the last source has gone; a row may then be written here alone."""
    await a.eval(":mnesia.dirty_write({:tab, 1, 1})")
    follower = await Follower(node, [A, B]).start()
    await a.kill()
    await b.kill()
    await soon(follower.detached.wait())
    assert follower.mirror.source is None
    assert follower.rows() == {row(1, 1)}
    follower.mirror.write_local(row(1, 2))
    assert await follower.next() == Change(WRITE, row(1, 2), [row(1, 1)])
    assert not await soon(node.ping(A))
    assert follower.detachments == 1


async def test_no_table(cluster: Peers, node: Node, a: BeamNode) -> None:
    """A peer without the table is not followed; the mirror doesn't start with none that has it."""
    c = await cluster.start_bare(C)
    for state in (":ok", ":mnesia.start()", CREATE.replace("TYPE", ":set") + ":mnesia.stop()"):
        await c.eval(state)
        with pytest.raises(MirrorError, match="no connected peer offers the table tab"):
            await Follower(node, [C]).start()
    follower = await Follower(node, ["nobody@127.0.0.1", C, A]).start()
    assert follower.mirror.source == A


async def test_no_peers_at_all(node: Node) -> None:
    """With nobody to follow the mirror is empty, and nobody is asked."""
    follower = await Follower(node, []).start()
    assert follower.mirror.source is None
    assert follower.rows() == set()
    assert not follower.detached.is_set()


WRITER = """
parent = self()
spawn(fn ->
  receive do :go -> :ok end
  for n <- 1..2000 do
    key = rem(n * 7, 97)
    if rem(n, 5) == 0 do
      :mnesia.activity(KIND, fn -> :mnesia.delete({:tab, key}) end)
    else
      :mnesia.activity(KIND, fn -> :mnesia.write({:tab, key, n}) end)
    end
  end
  :mnesia.activity(KIND, fn -> :mnesia.write({:tab, :done, 0}) end)
end) |> send(:go)
:ok
"""


def replayed(changes: Sequence[Change]) -> set[Term]:
    """The rows that one has who followed the changes of a table that was empty."""
    table = Table("tab")
    for change in changes:
        old = table.write(change.row) if change.operation == WRITE else table.delete(change.row[1])
        assert old == change.old_rows
    return set(table.rows())


def goes_forward(changes: Sequence[Change]) -> bool:
    """Whether each write of `WRITER` was told once, and none after a later one."""
    writes = [change for change in changes if change.operation == WRITE and change.old_rows]
    return all(change.row[2] > change.old_rows[0][2] for change in writes)


async def test_start_amid_writes(a: BeamNode, node: Node) -> None:
    """A mirror that starts while a peer writes misses nothing, in whatever way it writes."""
    for kind in 3 * [":transaction", ":async_dirty", ":sync_dirty"]:
        await a.eval(WRITER.replace("KIND", kind))
        follower = await Follower(node, [A]).start()
        await a.eval("ControlShell.until(fn -> :mnesia.dirty_read(:tab, :done) != [] end)")
        await a.eval(":mnesia.dirty_write({:tab, :last, 0})")
        await follower.until(lambda change: change.row[1] == "last")
        assert follower.rows() == set(await a.eval(ROWS))
        assert goes_forward(follower.told)
        node.exit(follower.mirror, Atom("kill"))
        await a.eval(":mnesia.clear_table(:tab)")


async def test_source_is_killed_amid_writes(a: BeamNode, b: BeamNode, node: Node) -> None:
    """Nothing is lost or told twice when the source dies while another peer writes."""
    follower = await Follower(node, [A, B]).start()
    await b.eval(WRITER.replace("KIND", ":transaction"))
    await follower.until(lambda change: change.row[2:] == (51,))
    await a.kill()
    await follower.until(lambda change: change.row[1] == "done")
    assert follower.mirror.source == B
    assert follower.rows() == set(await b.eval(ROWS)) == replayed(follower.told)
    assert goes_forward(follower.told)


async def test_frozen_peer_is_asked_again(
    a: BeamNode, b: BeamNode, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that does not answer in time becomes the source once it does, however often asked."""
    monkeypatch.setattr(mirror_module, "ANSWER_TIME", 0.1 * UNIT)
    monkeypatch.setattr(mirror_module, "RETRY_INTERVALS", (0.1 * UNIT, 0.1 * UNIT))
    follower = await Follower(node, [A, B]).start()
    await soon(node.connect(B))
    follower.peers = [B]
    b.freeze()
    await a.kill()
    await soon(follower.detached.wait())
    b.thaw()
    await b.eval(":mnesia.dirty_write({:tab, 1, :after})")
    await follower.until(lambda change: change.row == row(1, Atom("after")))
    assert follower.mirror.source == B
    assert follower.told == [Change(WRITE, row(1, Atom("after")), [])]


async def test_peers_that_cannot_be_reached(
    cluster: Peers, a: BeamNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many peers take a connection and say nothing, all are dialled at once, and the one
    that answers is the source in the time that one of them would take."""
    monkeypatch.setattr(mirror_module, "ANSWER_TIME", 0.3 * UNIT)
    mutes = [f"mute{number}@127.0.0.1" for number in range(5)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        resolve = dict.fromkeys(mutes, address).get
        async with Node("py@127.0.0.1", cluster.cookie, resolve=resolve) as node:
            began = asyncio.get_running_loop().time()
            follower = await Follower(node, [*mutes, A]).start()
            assert asyncio.get_running_loop().time() - began < 1 * UNIT
            assert follower.mirror.source == A


async def test_locked_table(a: BeamNode, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lock keeps the snapshot from being read in a transaction, it is read without."""
    monkeypatch.setattr(mirror_module, "ANSWER_TIME", 0.2 * UNIT)
    await a.eval(":mnesia.dirty_write({:tab, 1, :here})")
    await a.eval("""
      me = self()
      spawn(fn -> :mnesia.transaction(fn ->
        :mnesia.write({:tab, 1, :new}); send(me, :locked); receive do :never -> :ok end
      end) end)
      receive do :locked -> :ok end
    """)
    follower = await Follower(node, [A]).start()
    assert follower.rows() == {row(1, Atom("here"))}
