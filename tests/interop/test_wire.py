"""What travels between a Python node and a BEAM: fragments, aliases, slow peers, large reasons."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress

import pytest

from pybeethoven import Atom, Busy, From, GenServer, Limits, NativeRecord, Node, Process, Term
from pybeethoven.errors import CallTimeout, NoConnection
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import LIMIT, Recorder, atoms, soon
from tests.interop.members import PY, A
from tests.interop.nodes import settled, term
from tests.timing import UNIT

MIB = 1024 * 1024
LARGE = 100 * MIB

COLLECTOR = """
defmodule Collector do
  # Keeps the numbers in what it gets, and the sizes of the binaries.
  def loop(got) do
    receive do
      {:"$gen_call", from, :got} -> GenServer.reply(from, Enum.reverse(got)); loop([])
      {:"$gen_call", from, {:hold, _, _}} -> GenServer.reply(from, :held); loop(got)
      message -> loop([shrink(message) | got])
    end
  end
  defp shrink({n, bin}) when is_binary(bin), do: {n, byte_size(bin)}
  defp shrink(other), do: other
end
Process.register(spawn(fn -> Collector.loop([]) end), :collector)
"""


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """A BEAM with a process `collector`."""
    a = await cluster.start_bare(A)
    await a.eval(COLLECTOR)
    return a


async def got(node: Node) -> Term:
    """What the collector has got, once all that this process has sent has."""
    return await node.call(("collector", A), Atom("got"), timeout=LIMIT)


class Echo(GenServer):
    """Replies with the request."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Reply."""
        return request


async def test_order_around_large_messages(a: BeamNode, node: Node) -> None:
    """To a pid, a name or an alias: what a process sends after a large message comes after it."""
    pid = await a.eval("Process.whereis(:collector)")
    for to in (pid, ("collector", A)):
        sizes = [10, 3 * MIB, 1, 200_000, 65_536, 65_530, 2, 5 * MIB, 3]
        for number, size in enumerate(sizes):
            node.send(("collector", A) if number % 2 else to, (number, bytes(size)))
        assert await got(node) == list(enumerate(sizes))


async def test_others_go_on_during_a_large_message(a: BeamNode, node: Node) -> None:
    """A binary of 100 MB is under way while another process's calls are answered and messages from
    the BEAM come in; then it arrives whole."""
    await node.ping(A)
    answered = 0
    done = asyncio.get_running_loop().create_future()

    async def sends(process: Process) -> None:
        node.send(("collector", A), (1, bytes(LARGE)))
        done.set_result(await node.call(("collector", A), Atom("got"), timeout=6 * LIMIT))

    node.spawn(sends)
    async with asyncio.timeout(6 * LIMIT):
        while not done.done():
            assert await node.call(("net_kernel", A), Atom("longnames")) is True
            answered += 1
    assert await done == [(1, LARGE)]
    assert answered > 5


async def test_down_comes_after_large_last_words(a: BeamNode, node: Node) -> None:
    """A process that sends much and ends: DOWN, by pid and by name, comes behind its message."""

    async def last_words(process: Process) -> None:
        to = await process.receive()
        node.send(to, bytes(10 * MIB))

    process = node.spawn(last_words, name="last")
    await a.eval(f'by_name = Process.monitor({{:last, :"{PY}"}})')
    await a.eval(f"by_pid = Process.monitor(:erlang.binary_to_term({term(process.pid)}))")
    await a.eval(f'send({{:last, :"{PY}"}}, self())')
    received = "receive do x when is_binary(x) -> byte_size(x); {:DOWN, ref, _, _, _} -> ref end"
    assert await a.eval(received) == 10 * MIB
    refs = await a.eval("MapSet.new([by_name, by_pid])")
    downs = await a.eval(f"MapSet.new(for _ <- 1..2, do: ({received}))")
    assert downs == refs


async def test_interleaved_fragments_both_ways(a: BeamNode, node: Node) -> None:
    """Several large messages at once, from each side, arrive whole."""
    await node.start(Echo(), name="echo")
    await a.eval(f"""
      tasks = for n <- 1..4 do
        Task.async(fn ->
          big = :binary.copy(<<n>>, 5_000_000 + n)
          big == GenServer.call({{:echo, :"{PY}"}}, big, 60_000)
        end)
      end
      same = Enum.map(tasks, &Task.await(&1, 60_000))
    """)
    assert await a.eval("same") == [True] * 4


async def test_native_records(a: BeamNode, node: Node) -> None:
    """Since OTP 29 they go both ways; a BEAM before it closes the connection, and comes back."""
    record = NativeRecord(Atom("m"), Atom("r"), {Atom("a"): [1, {}]}, exported=False)
    ask = node.rpc(A, "erlang", "hd", [[record]])
    if await a.eval("String.to_integer(System.otp_release())") >= 29:
        assert await ask == record
    else:
        with pytest.raises(NoConnection):
            await ask
    assert await node.ping(A)


async def test_exit_reasons_of_any_size(a: BeamNode, node: Node) -> None:
    """A reason of megabytes arrives, both ways, by link, monitor and exit/2."""
    victim, trapper = node.spawn(Recorder()), Recorder(trap_exit=True)
    node.spawn(trapper)
    await a.eval(f"victim = :erlang.binary_to_term({term(victim.pid)})")
    await a.eval("Process.link(victim); ref = Process.monitor(victim)")
    await settled(a)
    node.exit(victim, (Atom("big"), bytes(3 * MIB)))
    size = "{:big, bin} -> byte_size(bin)"
    assert (
        await a.eval(f"receive do {{:DOWN, ^ref, _, _, r}} -> case r do {size} end end") == 3 * MIB
    )
    assert await a.eval(f"receive do {{:EXIT, ^victim, r}} -> case r do {size} end end") == 3 * MIB
    await a.eval(
        f"Process.exit(:erlang.binary_to_term({term(trapper.pid)}), :binary.copy(<<7>>, {MIB}))"
    )
    assert (await trapper.next())[2] == b"\7" * MIB


async def test_trace_tokens(a: BeamNode, node: Node) -> None:
    """Messages, links, monitors and exits of a process that is traced arrive like any others."""
    trapper = Recorder(trap_exit=True)
    node.spawn(trapper, name="trapper")
    alias = trapper.alias()
    await a.eval(f"""
      spawn(fn ->
        :seq_trace.set_token(:label, 17)
        trapper = :erlang.binary_to_term({term(trapper.pid)})
        Process.link(trapper)
        send({{:trapper, :"{PY}"}}, :named)
        send(trapper, :pid)
        send(:erlang.binary_to_term({term(alias)}), :alias)
        Process.exit(trapper, :shot)
        exit(:bye)
      end)
    """)
    assert [await trapper.next() for _ in range(3)] == list(atoms("named", "pid", "alias"))
    assert [(await trapper.next())[2] for _ in range(2)] == list(atoms("shot", "bye"))
    await a.eval(
        f':seq_trace.set_token(:label, 18); ref = :erlang.spawn_request(:"{PY}", :m, :f, [])'
    )
    reply = await a.eval("receive do {:spawn_reply, ^ref, r, _} -> r after 5000 -> :none end")
    assert reply in atoms("ok", "error")


async def test_aliases_of_python_processes(a: BeamNode, node: Node) -> None:
    """A BEAM sends by an alias of a Python process, until that is taken back."""
    recorder = Recorder()
    node.spawn(recorder)
    alias, once = recorder.alias(), recorder.alias(reply=True)
    await a.eval(f"alias = :erlang.binary_to_term({term(alias)})")
    await a.eval(f"once = :erlang.binary_to_term({term(once)})")
    await a.eval("for n <- 1..3, do: send(alias, n); for n <- 4..6, do: send(once, n)")
    await settled(a)
    recorder.unalias(alias)
    await a.eval("for n <- 7..9, do: send(alias, n)")
    await settled(a)
    assert [await recorder.next() for _ in range(4)] == [1, 2, 3, 4]
    assert recorder.messages.empty()


async def test_monitor_with_an_alias(a: BeamNode, node: Node) -> None:
    """A Python process asks as gen_server does: the first of reply and DOWN is the only one."""
    recorder = Recorder()
    node.spawn(recorder)
    await a.eval("""
      Process.register(spawn(fn ->
        receive do alias -> for n <- 1..2, do: send(alias, n) end; exit(:done)
      end), :once)
    """)
    reference = recorder.monitor(("once", A), alias="reply_demonitor")
    node.send(("once", A), reference)
    assert await recorder.next() == 1
    await settled(a)
    assert recorder.messages.empty()


async def test_aliases_of_a_beam(a: BeamNode, node: Node) -> None:
    """Python sends by an alias of a BEAM process, large messages too; taken back, nothing comes."""
    alias = await a.eval("alias = :erlang.alias()")
    node.send(alias, bytes(MIB))
    node.send(alias, Atom("last"))
    assert await a.eval("receive do bin when is_binary(bin) -> byte_size(bin) end") == MIB
    assert await a.eval("receive do :last -> :last end") == "last"
    await a.eval(":erlang.unalias(alias)")
    node.send(alias, Atom("lost"))
    assert await node.ping(A)
    assert await a.eval("receive do :lost -> :lost after 0 -> :none end") == "none"


async def test_links_that_cross(a: BeamNode, node: Node) -> None:
    """Both sides link and unlink at once, many times: in the end they agree."""
    trapper = Recorder(trap_exit=True)
    node.spawn(trapper)
    pid = await a.eval("self()")
    await a.eval(f"trapper = :erlang.binary_to_term({term(trapper.pid)})")
    for turn in range(20):
        crossing = asyncio.create_task(
            a.eval("for _ <- 1..50, do: (Process.link(trapper); Process.unlink(trapper)); :ok")
        )
        for _ in range(50):
            trapper.link(pid)
            trapper.unlink(pid)
            await asyncio.sleep(0)
        await crossing
        assert await node.ping(A)
        await settled(a)
        linked = "self() |> Process.info(:links) |> elem(1) |> Enum.member?(trapper)"
        assert await a.eval(linked) is (pid in trapper.links), turn
        assert trapper.unlinking == {}
    assert trapper.messages.empty()


async def test_frozen_beam(cluster: Peers) -> None:
    """While a BEAM is frozen casts raise `Busy`, calls time out, memory is bounded and other peers
    are served; when it goes on, so do those who waited."""
    a = await cluster.start_bare(A)
    b = await cluster.start_bare("b@127.0.0.1")
    await a.eval(COLLECTOR)
    async with Node(PY, cluster.cookie, limits=Limits(unsent_size=4 * MIB)) as node:
        assert await node.ping(A)
        a.freeze()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        busy = 0
        for number in range(20_000):
            try:
                node.cast(("collector", A), (number, bytes(10_000)))
            except Busy:
                busy += 1
        assert busy > 15_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
        with pytest.raises(CallTimeout):
            await node.call(("collector", A), Atom("got"), timeout=0.1 * UNIT)
        waiting = asyncio.create_task(node.send_wait(("collector", A), b"waited"))
        assert await node.ping(b.name)
        assert not waiting.done()
        a.thaw()
        await soon(waiting)
        assert len(await got(node)) == 20_000 - busy + 1
        await asyncio.sleep(0)
        [info] = [c for c in node.info().connections if c.peer == A]
        assert info.unsent == 0


async def test_many_large_answers(a: BeamNode, cluster: Peers) -> None:
    """A peer that reads is given all that it has asked for, however much it asks for at once: by
    calls of a process, and of an exported function."""
    limits = Limits(unsent_size=MIB)
    async with Node("large@127.0.0.1", cluster.cookie, limits=limits) as node:

        class Large(GenServer):
            async def handle_call(self, request: Term, from_: From) -> Term:
                return bytes(MIB // 4)

        await node.start(Large(), name="large")
        node.export("Elixir.Large", lambda: bytes(MIB // 4), name="large")
        name = ':"large@127.0.0.1"'
        for call in (
            f"GenServer.call({{:large, {name}}}, :large)",
            f":erpc.call({name}, Large, :large, [])",
        ):
            sizes = await a.eval(f"""
              for(_ <- 1..200, do: Task.async(fn -> byte_size({call}) end)) |> Task.await_many()
            """)
            assert sizes == 200 * [MIB // 4]


async def test_rpc_to_a_busy_peer(a: BeamNode, cluster: Peers) -> None:
    """Its time limit holds while the peer takes nothing, too."""
    async with Node("busy@127.0.0.1", cluster.cookie, limits=Limits(unsent_size=MIB)) as node:
        await node.connect(A)
        a.freeze()
        with suppress(Busy):
            while True:
                node.send(("collector", A), bytes(MIB // 32))
        with pytest.raises(CallTimeout):
            await soon(node.rpc(A, "erlang", "node", [], timeout=0.1 * UNIT))
        a.thaw()
        assert await soon(node.rpc(A, "erlang", "node", [])) == A
