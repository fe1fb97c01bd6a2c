"""A DistrServer's table, shared with real Mnesia nodes: created once, mirrored, written through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pybeethoven import (
    Aborted,
    Atom,
    Beethoven,
    ConfigError,
    Delete,
    DeleteObject,
    DistrConfig,
    DistrServer,
    MirrorError,
    Node,
    NotReady,
    TableTimeout,
    Term,
    Write,
)
from pybeethoven.errors import NoConnection
from pybeethoven.mnesia import Row
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, soon
from tests.interop.conftest import Member
from tests.interop.kv import KV, ROWS, Kv, row
from tests.interop.members import A, B
from tests.timing import UNIT

TYPES = ["set", "ordered_set", "bag"]

CREATE = """
{:atomic, :ok} = :mnesia.create_table(Kv,
  type: :TYPE, ram_copies: [node()], attributes: [:key, :value])
:ok
"""
COMMITTED = """
{:atomic, rows} = :mnesia.transaction(fn -> :mnesia.select(Kv, [{:_, [], [:"$_"]}], :read) end)
rows
"""


async def beam_rows(peer: BeamNode) -> list[Row]:
    """What a peer's own Mnesia has, with all that was committed anywhere."""
    return sorted(await peer.eval(COMMITTED), key=repr)


async def python_rows(server: DistrServer) -> list[Row]:
    """What our mirror has."""
    return sorted(await server.fetch_all(), key=repr)


# Creating


@pytest.mark.parametrize("data_type", TYPES)
async def test_created(cluster: Peers, member: Member, data_type: str) -> None:
    """Where no node has the table, all Mnesia nodes get it, we don't, and `create_action` runs."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        kv = Kv(data_type=data_type)
        await py.start(kv)
        assert kv.calls == ["create_action", "entry_point arg"]
        what = "[:type, :ram_copies, :attributes, :index]"
        info = f"for what <- {what}, do: :mnesia.table_info(Kv, what)"
        found_type, copies, attributes, index = await b.eval(info)
        assert found_type == data_type
        assert sorted(copies) == [A, B]
        assert (attributes, index) == (["key", "value"], [3])
        assert await python_rows(kv) == await beam_rows(a) == await beam_rows(b) == [row("made", 1)]
        assert kv.heard.empty()


async def test_created_on_one_node(cluster: Peers, member: Member) -> None:
    """`local` makes one copy; a table that is there is taken as it is."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        kv = Kv(copy_type="local")
        await py.start(kv)
        assert kv.mirror.source == A
        assert await a.eval(":mnesia.table_info(Kv, :ram_copies)") == [A]
        again = Kv()
        await py.start(again)
        assert again.calls == ["entry_point arg"]
        await b.eval(":mnesia.dirty_write({Kv, 1, 2})")
        assert await kv.heard_write() == await again.heard_write() == row(1, 2)


async def test_created_once(cluster: Peers, member: Member) -> None:
    """Of several that start at the same moment, Python nodes and a BEAM, one creates the table."""
    a = await cluster.start(A)
    async with member() as py, member("py2@127.0.0.1") as py2:
        for _ in range(5):
            servers = [Kv(), Kv(), Kv()]
            nodes = [py, py2, py]
            create = f"""
            case {CREATE.replace("TYPE", "set").split("=", 1)[1].split(":ok")[0]} do
              {{:atomic, :ok}} -> :created
              {{:aborted, {{:already_exists, Kv}}}} -> :exists
            end
            """
            beam = asyncio.create_task(a.eval(create))
            pairs = zip(nodes, servers, strict=True)
            await soon(asyncio.gather(*(node.start(server) for node, server in pairs)))
            created = [server for server in servers if "create_action" in server.calls]
            assert len(created) + (await soon(beam) == "created") == 1
            for node, server in zip(nodes, servers, strict=True):
                node.node.exit(server, Atom("shutdown"))
            await a.eval("{:atomic, :ok} = :mnesia.delete_table(Kv)")


async def test_refused_start_leaves_nothing(cluster: Peers, member: Member) -> None:
    """A server whose table can't be had is not there, and nothing of it is mirrored."""
    await cluster.start(A)

    class Wrong(DistrServer):
        def config(self) -> DistrConfig:
            return DistrConfig("schema", ("key", "value"), data_type="bag")

    async with member() as py:
        with pytest.raises(MirrorError, match=r"the cluster's table schema has type"):
            await py.start(Wrong(), name="wrong")
        assert py.node.whereis("wrong") is None


async def test_creating_is_given_up(cluster: Peers, member: Member) -> None:
    """A server that was stopped while its table was being created still has `create_action` to do
    when it is started again; another server of the same table has not."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        kv = Kv()
        b.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5 * UNIT):
                await py.start(kv)
        b.thaw()
        await cluster.until(a, "Kv in :mnesia.system_info(:tables)")
        other = Kv()
        await soon(py.start(other))
        assert other.calls == ["entry_point arg"]
        await kv.wait_end()
        await soon(py.start(kv))
        assert kv.calls == ["create_action", "entry_point arg"]
        assert await python_rows(kv) == await beam_rows(a) == [row("made", 1)]


async def test_subscription_is_killed(cluster: Peers, member: Member) -> None:
    """When somebody on the BEAM ends the subscription, there is another."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        for n in range(3):
            await a.eval(
                "for pid <- :mnesia.table_info(Kv, :subscribers), do: Process.exit(pid, :kill)"
            )
            await a.eval(f":mnesia.dirty_write({{Kv, 1, {n}}})")
            assert await kv.heard_write() == row(1, n)
            await kv.dirty_write(row(2, n))
            assert await kv.heard_write() == row(2, n)


async def test_another_table(cluster: Peers, member: Member) -> None:
    """A table of the cluster that is not as `config()` has it is refused."""
    a = await cluster.start(A)
    await a.eval(CREATE.replace("TYPE", "bag").replace("[:key, :value]", "[:key, :value, :more]"))
    async with member() as py:
        with pytest.raises(MirrorError, match=r"table Elixir.Kv has type .*bag.* has 'set'"):
            await py.start(Kv())
        with pytest.raises(MirrorError, match=r"has attributes .*'more'.* has \['key', 'value'\]"):
            await py.start(Kv(data_type="bag"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"table_name": None}, "name is None; give a str"),
        ({"table_name": ""}, "give a str"),
        ({"columns": "key"}, "columns='key'; give a tuple of names"),
        ({"columns": ("key",)}, "give the key and at least one more"),
        ({"columns": ("key", "key")}, "give the key and at least one more"),
        ({"columns": ("key", 1)}, "give a tuple of names"),
        ({"indexes": ("key",)}, "{'key'} is no column behind the key"),
        ({"indexes": "value"}, "indexes='value'; give a tuple of names"),
        ({"data_type": "duplicate_bag"}, "data_type='duplicate_bag'; use one of .*'bag'"),
        ({"copy_type": "x"}, "copy_type='x'; use one of .*'local'"),
    ],
)
def test_bad_config(changes: Any, text: str) -> None:
    """What can't be a table is refused before anybody is asked."""
    with pytest.raises(ConfigError, match=text):
        DistrConfig(**{"table_name": "Elixir.Kv", "columns": ("key", "value")} | changes)


async def test_not_started() -> None:
    """A server that does not run says so."""
    kv = Kv()
    for use in (kv.fetch(1), kv.fetch_all(), kv.dirty_select([]), kv.dirty_write(row(1, 1))):
        with pytest.raises(MirrorError, match=r"mirror of Elixir.Kv was not started"):
            await use


async def test_no_peer(cluster: Peers, member: Member) -> None:
    """Standalone, no table can be created; the error says so."""
    async with member() as py:
        with pytest.raises(MirrorError, match=r"no peer is connected .* Elixir.Kv"):
            await py.start(Kv())


async def test_table_exists(cluster: Peers, member: Member) -> None:
    """`until_exists` returns once some node has created the table, or says that it did not."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        kv.node = py.node
        assert not await kv.table_exists()
        with pytest.raises(TableTimeout, match=r"Elixir.Kv was not there within 0.1 seconds"):
            await kv.until_exists(timeout=0.1)
        waiting = asyncio.create_task(kv.until_exists(timeout=10 * UNIT))
        await a.eval(CREATE.replace("TYPE", "set"))
        await soon(waiting)
        assert await kv.table_exists()
        assert kv.get_table_name() == KV


# Reading


@pytest.mark.parametrize("data_type", TYPES)
async def test_reading(cluster: Peers, member: Member, data_type: str) -> None:
    """`fetch`, `fetch_all` and `dirty_select` answer what they do on the BEAM."""
    a = await cluster.start(A)
    await a.eval(CREATE.replace("TYPE", data_type))
    await a.eval("""
      for {key, value} <- [{1, :one}, {1.0, :float}, {1, :uno}, {"b", 2}, {[], 3}, {%{a: 1}, 4}],
        do: :mnesia.dirty_write({Kv, key, value})
    """)
    async with member() as py:
        kv = Kv(data_type=data_type)
        await py.start(kv)
        assert await python_rows(kv) == await beam_rows(a)
        if data_type == "ordered_set":
            assert await kv.fetch_all() == await a.eval(ROWS)
        for key, source in [(1, "1"), (1.0, "1.0"), (b"b", '"b"'), (Atom("no"), ":no")]:
            there = await a.eval(f":mnesia.dirty_read(Kv, {source})")
            assert list(map(repr, await kv.fetch(key))) == list(map(repr, there))
        spec = [((KV, Atom("$1"), Atom("$2")), [(Atom("is_number"), Atom("$1"))], [[Atom("$2")]])]
        there = await a.eval("""
          :mnesia.dirty_select(Kv, [{{Kv, :"$1", :"$2"}, [{:is_number, :"$1"}], [[:"$2"]]}])
        """)
        assert sorted(await kv.dirty_select(spec)) == sorted(there)


SHAPES = """
:mnesia.dirty_write({Kv, 1, 1})
:mnesia.dirty_write({Kv, 1, 2})
{:atomic, _} = :mnesia.transaction(fn ->
  :mnesia.write({Kv, 2, 1})
  :mnesia.delete({Kv, 1})
  :mnesia.delete_object({Kv, 2, 1})
end)
:mnesia.dirty_delete_object({Kv, 1, 2})
:mnesia.dirty_delete({Kv, :none})
:mnesia.dirty_write({Kv, 3, 1})
:mnesia.dirty_delete_object({Kv, 3, 1})
:mnesia.dirty_write({Kv, :last, 1})
"""


@pytest.mark.parametrize("data_type", TYPES)
@pytest.mark.parametrize("kind", ["simple", "detailed"])
async def test_shapes_of_events(cluster: Peers, member: Member, data_type: str, kind: str) -> None:
    """`subscribe` gives the very terms that a process on a BEAM gets."""
    a = await cluster.start(A)
    await a.eval(CREATE.replace("TYPE", data_type))
    subscribe = f":mnesia.subscribe({{:table, Kv, :{kind}}})"
    await a.eval(f"ControlShell.collect(:told, setup: fn -> {{:ok, _}} = {subscribe} end)")
    async with member() as py:
        kv, recorder = Kv(data_type=data_type), Recorder()
        await py.start(kv)
        py.node.spawn(recorder)
        await kv.subscribe(kind, recorder)
        await kv.subscribe(kind, recorder)
        await a.eval(SHAPES)
        told = None
        while told is None or told[1][1 if kind == "simple" else 2][1] != "last":
            told = (await a.next_event("told"))[1]
            assert await recorder.next() == told
        assert recorder.messages.empty()


async def test_subscribe_by_a_process(cluster: Peers, member: Member) -> None:
    """The process that calls is the one that subscribes; outside of any, it must be given."""
    await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        told: asyncio.Queue[Term] = asyncio.Queue()

        async def reader(process: Any) -> None:
            await kv.subscribe()
            await kv.dirty_write(row(1, 1))
            told.put_nowait(await process.receive())

        py.node.spawn(reader)
        name, (operation, written, (kind, *_)) = await soon(told.get())
        assert (name, operation, written) == ("mnesia_table_event", "write", row(1, 1))
        assert kind == "dirty"
        with pytest.raises(ConfigError, match="give it one"):
            await kv.subscribe()
        with pytest.raises(ConfigError, match="'loud' is no kind of table events"):
            await kv.subscribe("loud")


async def test_not_subscribed(cluster: Peers, member: Member) -> None:
    """Without `subscribe=True` a server has the table and is told nothing."""
    a = await cluster.start(A)

    class Quiet(Kv, subscribe=False):
        """It only reads."""

    async with member() as py:
        kv = Quiet()
        await py.start(kv)
        await kv.dirty_write(row(1, 1))
        assert await python_rows(kv) == await beam_rows(a)
        await py.node.call(kv, Atom("ping"))
        assert kv.heard.empty()


# Writing


async def test_read_your_own_write(cluster: Peers, member: Member) -> None:
    """What a call has changed is in the mirror when it returns, whoever else writes."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        await b.eval("spawn(fn -> for n <- 1..20_000, do: :mnesia.dirty_write({Kv, n, n}) end)")
        for n in range(100):
            await kv.transaction(Write(row("t", n)), Write(row("u", n)), Delete(b"v"))
            assert await kv.fetch(b"t") == [row("t", n)]
            await kv.dirty_write(row("v", n))
            assert await kv.fetch(b"v") == [row("v", n)]
            assert await kv.dirty_update_counter(b"n", 2) == 2 * n + 2
            assert await kv.fetch(b"n") == [row("n", 2 * n + 2)]
        await kv.dirty_delete(b"t")
        await kv.transaction(DeleteObject(row("u", 99)), DeleteObject(row("v", 0)))
        assert await kv.fetch(b"t") + await kv.fetch(b"u") == []
        await kv.dirty_delete_object(row("v", 98))
        assert await kv.fetch(b"v") == [row("v", 99)]
        for peer in (a, b):
            assert await peer.eval(':mnesia.dirty_read(Kv, "v")') == [row("v", 99)]


async def test_large_rows(cluster: Peers, member: Member) -> None:
    """An event in many fragments can't be overtaken by the answer."""
    await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        for n in range(10):
            big = bytes([n]) * 3_000_000
            await kv.transaction(Write(row(1, big)))
            assert await kv.fetch(1) == [row(1, big)]


async def test_many_writers(cluster: Peers, member: Member) -> None:
    """Each of many writers at once sees its own."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)

        async def write(key: int) -> None:
            await kv.transaction(Write(row(key, 0)))
            assert await kv.fetch(key) == [row(key, 0)]

        await soon(asyncio.gather(*(write(key) for key in range(200))))
        await soon(asyncio.gather(*(kv.dirty_update_counter(Atom("sum"), 1) for _ in range(200))))
        assert await kv.fetch(Atom("sum")) == [row(Atom("sum"), 200)]
        assert await python_rows(kv) == await beam_rows(a)


@pytest.mark.parametrize(
    ("operation", "error", "text"),
    [
        (Write((KV, 1, 2, 3)), Aborted, r"Mnesia aborted with .*bad_type"),
        (Write(("Elixir.Kv", 1, 2, 3)), Aborted, r"Mnesia aborted with .*bad_type"),
        (Write((Atom("other"), 1, 2)), ConfigError, r"no row of Elixir.Kv; it must be a tuple"),
        (Write((KV, 1)), ConfigError, r"no row of Elixir.Kv"),
        (("write", 1), ConfigError, r"is no operation; give a Write"),
    ],
)
async def test_refused_writes(
    cluster: Peers, member: Member, operation: Any, error: type[Exception], text: str
) -> None:
    """What can't be written is a clear error, and nothing of its transaction is done."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        before = await beam_rows(a)
        with pytest.raises(error, match=text):
            await kv.transaction(Write(row(1, 1)), operation)
        with pytest.raises(error, match=text):
            await kv.mirror.dirty(operation)
        await kv.transaction()
        await kv.mirror.catch_up()
        assert await python_rows(kv) == await beam_rows(a) == before


async def test_write_without_peer(cluster: Peers, member: Member) -> None:
    """When the last peer has gone a write is refused, and the mirror is as it was."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        await a.kill()
        for change in (kv.transaction, kv.mirror.dirty):
            with pytest.raises((MirrorError, NoConnection)):
                await change(Write(row("made", 2)))
            assert await python_rows(kv) == [row("made", 1)]
        with pytest.raises(MirrorError, match="was not changed: no peer"):
            await kv.dirty_update_counter(b"made", 1)


async def test_writes_while_sources_end(cluster: Peers, member: Member) -> None:
    """Each write that was confirmed is there when its source has been killed."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        confirmed = []

        async def write() -> None:
            for n in range(1000):
                try:
                    await kv.transaction(Write(row(n, n)))
                except (NoConnection, MirrorError):
                    continue
                confirmed.append(row(n, n))
                assert await kv.fetch(n) == [row(n, n)]

        writing = asyncio.create_task(write())
        while len(confirmed) < 50:
            await soon(kv.heard.get())
        await a.kill()
        await soon(writing)
        assert kv.mirror.source == B
        assert len(confirmed) > 900
        rows = await python_rows(kv)
        assert rows == await beam_rows(b)
        assert all(r in rows for r in confirmed)


async def test_cleared(cluster: Peers, member: Member) -> None:
    """A table that a peer clears is empty here, each row being told as deleted."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv)
        await a.eval("{:atomic, :ok} = :mnesia.clear_table(Kv)")
        _, (operation, _, what, old, _) = await soon(kv.heard.get())
        assert (operation, what, old) == ("delete", (KV, b"made"), [row("made", 1)])
        assert await kv.fetch_all() == []
        await kv.dirty_write(row(1, 1))
        assert await python_rows(kv) == await beam_rows(a) == [row(1, 1)]


@pytest.mark.parametrize("data_type", TYPES)
async def test_delete_object_with_maps(cluster: Peers, member: Member, data_type: str) -> None:
    """Whatever Mnesia deletes along with an object that has maps is gone here, too."""
    a = await cluster.start(A)
    await a.eval(CREATE.replace("TYPE", data_type))
    async with member() as py:
        kv = Kv(data_type=data_type)
        await py.start(kv)
        for key, value in [
            *(("1", value) for value in ("%{}", "%{a: 1}", "%{a: 1, b: 2}", "[%{a: 1}]", "2")),
            *((key, "%{a: 1}") for key in ("%{}", "%{a: 1}", "{%{a: 1}}", "1.0")),
        ]:
            await a.eval(f":mnesia.dirty_write({{Kv, {key}, {value}}})")
        for key, value in [
            ("1", "%{b: 2}"), ("%{}", "%{}"), ("{%{}}", "%{}"), ("1", "[%{}]"), ("1.0", "%{}"),
            ("1", "%{a: 1.0}"), ("1", "%{}"), ("1", "2"),
        ]:  # fmt: skip
            await a.eval(f":mnesia.dirty_delete_object({{Kv, {key}, {value}}})")
            await kv.mirror.catch_up()
            assert await python_rows(kv) == await beam_rows(a)


async def test_restart(cluster: Peers, member: Member) -> None:
    """Run again by a supervisor, it has the table, and hears what changed in between."""
    a = await cluster.start(A)
    async with member() as py:
        kv = Kv()
        await py.start(kv, name="kv")
        py.node.exit(kv, Atom("kill"))
        await a.eval(":mnesia.dirty_write({Kv, 1, 1})")
        await kv.wait_end()
        await py.start(kv, name="kv")
        assert await kv.heard_write() == row(1, 1)
        await a.eval(":mnesia.dirty_write({Kv, 2, 2})")
        assert await kv.heard_write() == row(2, 2)
        assert kv.calls.count("create_action") == 1


async def until(value: Callable[[], Any], done: Callable[[Any], bool]) -> None:
    """Let the loop turn until it is so."""
    while not done(value()):
        await asyncio.sleep(0)


async def test_start_link_and_child_spec(cluster: Peers, member: Member) -> None:
    """`start_link` links the server to its caller and `child_spec` is for a supervisor."""
    await cluster.start(A)
    async with member() as py:
        with pytest.raises(ConfigError, match="give it a node"):
            await Kv.start_link()
        server = await Kv.start_link(node=py.node, name="kv")
        assert py.node.whereis("kv") == server.pid
        linked: asyncio.Queue[Kv] = asyncio.Queue()

        async def parent(process: Any) -> None:
            linked.put_nowait(await Kv.start_link())
            await process.receive()

        process = py.node.spawn(parent)
        child = await soon(linked.get())
        assert process.pid in child.links
        py.node.exit(process, Atom("kill"))
        await soon(until(lambda: py.node.process(child.pid), lambda found: found is None))
        spec = Kv.child_spec(name="other")
        assert (spec.id, spec.name) == ("other", "other")
        assert isinstance(spec.start(), Kv)


async def test_on_a_plain_node(cluster: Peers) -> None:
    """A node without a CoreServer takes the nodes that it is connected to."""
    a = await cluster.start(A)
    async with Node("plain@127.0.0.1", cluster.cookie) as node:
        await node.connect(A)
        kv = Kv()
        await node.start(kv)
        assert await python_rows(kv) == await beam_rows(a) == [row("made", 1)]


def test_without_config() -> None:
    """A DistrServer without a table can't be made."""
    with pytest.raises(NotImplementedError, match="DistrServer must override config"):
        DistrServer()


async def test_member_left(cluster: Peers, member: Member) -> None:
    """Before it has joined, a member says that it has no CoreServer."""
    py: Beethoven = member()
    with pytest.raises(NotReady, match="has not joined"):
        _ = py.core_server
    assert not py.ready()
    with pytest.raises(NotReady, match=r"not ready within 0.05 seconds"):
        await py.until_ready(0.05)
