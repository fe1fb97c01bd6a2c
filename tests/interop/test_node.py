"""A Python node and a BEAM: pings, messages, calls, links, monitors, exits, both ways."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import ANY

import pytest

from pybeethoven import Atom, From, GenServer, Node, Process, Term
from pybeethoven.errors import (
    CallTimeout,
    NoConnection,
    NoProcess,
    ProcessExit,
    RpcError,
)
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, atoms, soon
from tests.interop.members import PY, A
from tests.interop.nodes import connect_at_once, settled, term
from tests.timing import UNIT


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """A BEAM without Beethoven."""
    return await cluster.start_bare(A)


class Echo(GenServer):
    """Answers calls with what they hold; some words make it do other things."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        match request:
            case "crash":
                raise ValueError("as told")
            case "stop":
                self.node.reply(from_, Atom("stopping"))
                raise ProcessExit(Atom("done"))
            case "never":
                await asyncio.get_running_loop().create_future()
        return request

    async def handle_info(self, message: Term) -> None:
        """Send it back to the pid in it."""
        sender, text = message
        self.node.send(sender, text)


async def test_ping(a: BeamNode, node: Node) -> None:
    """Both can ping the other, and neither a node that is not there."""
    assert await node.ping(A)
    assert not await node.ping("nosuch@127.0.0.1")
    assert await a.eval(f'Node.ping(:"{PY}")') == "pong"
    assert await a.eval(f':net_adm.ping(:"{PY}")') == "pong"


async def test_hidden_and_published(a: BeamNode, node: Node, cluster: Peers) -> None:
    """A node is hidden from nodes() unless told otherwise."""
    async with Node("seen@127.0.0.1", cluster.cookie, hidden=False) as seen:
        await node.connect(A)
        await seen.connect(A)
        assert await a.eval("{Node.list(), Node.list(:hidden)}") == (
            list(atoms("seen@127.0.0.1")),
            list(atoms(PY)),
        )


async def test_messages_keep_their_order(a: BeamNode, node: Node) -> None:
    """10,000 messages to a name and back from there arrive in order."""
    recorder = Recorder()
    node.spawn(recorder, name="recorder")
    await a.eval(f'for n <- 1..10_000, do: send({{:recorder, :"{PY}"}}, {{self(), n}})')
    for n in range(1, 10_001):
        message = await recorder.next()
        assert message[1] == n
    await a.eval("ControlShell.collect(:got, name: :ears)")
    for n in range(1_000):
        node.send(("ears", A), n)
    for n in range(1_000):
        assert await a.next_event("got") == (Atom("got"), n)


async def test_message_to_a_pid(a: BeamNode, node: Node) -> None:
    """A pid that was sent in a message can be answered, on both sides."""
    node.spawn(Echo(), name="echo")
    await a.eval(f'send({{:echo, :"{PY}"}}, {{self(), "hello"}})')
    assert await a.eval("receive do message -> message end") == b"hello"


async def test_message_is_sent_as_it_was(a: BeamNode, node: Node) -> None:
    """What is changed after it was sent, while the connection is still being made, goes unchanged,
    and what can't be sent any more holds up no other."""
    await a.eval("ControlShell.collect(:heard, name: :ears)")
    assert not node.nodes()
    numbers: list[Term] = [1]
    node.send(("ears", A), numbers)
    numbers.append(object())
    node.send(("ears", A), Atom("last"))
    assert await a.next_event("heard") == (Atom("heard"), [1])
    assert await a.next_event("heard") == atoms("heard", "last")


async def test_large_messages(a: BeamNode, node: Node) -> None:
    """Megabytes arrive whole, fragmented by the BEAM, and small ones are not lost among them."""
    node.spawn(Echo(), name="echo")
    await a.eval("big = :binary.copy(<<1, 2, 3>>, 1_000_000)")
    await a.eval(
        f'for _ <- 1..4, do: spawn(fn -> send({{:echo, :"{PY}"}}, {{self(), big}}) end); '
        f'same = GenServer.call({{:echo, :"{PY}"}}, {{big, [1 | big]}})'
    )
    assert await a.eval("same == {big, [1 | big]}") is True


async def test_terms_survive(a: BeamNode, node: Node) -> None:
    """What a BEAM sends and gets back is what it was, funs and identifiers too."""
    await node.start(Echo(), name="echo")
    terms = """[
      self(), make_ref(), hd(Port.list()), &String.length/1, fn x -> x + 1 end, :alias,
      :erlang.alias(), 1, 1.0, -0.0, 2 ** 70, -(2 ** 2100), "é", <<5::3>>, [1 | 2], ~c"text",
      %{1 => :a, 1.0 => :b, true => :c, [] => %{}}, {}, [[]], nil, :undefined, DateTime.utc_now(),
      Enum.to_list(1..70_000), List.to_tuple(Enum.to_list(1..300)), :"ünïcödé", <<>>, %{}
    ]"""
    await a.eval(f"terms = {terms}")
    await a.eval(f'echoed = GenServer.call({{:echo, :"{PY}"}}, terms)')
    assert await a.eval("Enum.zip(terms, echoed) |> Enum.reject(fn {x, y} -> x === y end)") == []
    assert await a.eval("Enum.at(echoed, 4).(1)") == 2


async def test_python_calls_a_beam(a: BeamNode, node: Node) -> None:
    """Calls to a gen_server of a BEAM are answered; those that can't be raise why."""
    assert await node.call(("net_kernel", A), Atom("longnames")) is True
    with pytest.raises(NoProcess):
        await node.call(("nosuch", A), Atom("hello"))
    with pytest.raises(NoConnection):
        await node.call(("nosuch", "nosuch@127.0.0.1"), Atom("hello"))
    await a.eval("Process.register(spawn(fn -> receive do _ -> exit(:sudden) end end), :sudden)")
    with pytest.raises(ProcessExit) as caught:
        await node.call(("sudden", A), Atom("hello"))
    assert caught.value.reason == "sudden"


async def test_late_reply_is_dropped(a: BeamNode, node: Node) -> None:
    """After a time-out the reply, when it comes, disturbs nobody."""
    await a.eval("""
      Process.register(spawn(fn ->
        receive do {:"$gen_call", first, _} ->
          receive do {:"$gen_call", second, _} ->
            GenServer.reply(first, :late)
            GenServer.reply(second, :in_time)
          end
        end
      end), :slow)
    """)
    answer: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

    async def ask(process: Process) -> None:
        with pytest.raises(CallTimeout):
            await node.call(("slow", A), 1, timeout=0.05 * UNIT)
        answer.set_result(await node.call(("slow", A), 2))
        with pytest.raises(TimeoutError):
            await process.receive(timeout=0.05 * UNIT)

    node.spawn(ask)
    assert await soon(answer) == "in_time"


async def test_beam_calls_python(a: BeamNode, node: Node) -> None:
    """A BEAM sees of a Python GenServer what it would see of its own: replies, exits, time-outs."""
    await node.start(Echo(), name="echo")
    call = f'GenServer.call({{:echo, :"{PY}"}}, REQUEST)'
    assert await a.eval(call.replace("REQUEST", "{:a, 1}")) == (Atom("a"), 1)
    assert await a.eval(call.replace("REQUEST", ":stop")) == "stopping"
    await node.start(Echo(), name="echo")
    caught = "try do CALL catch :exit, {reason, _} -> reason end"
    crash = caught.replace("CALL", call.replace("REQUEST", ":crash"))
    assert await a.eval(crash) == (Atom("python_error"), b"ValueError", b"as told")
    assert await a.eval(caught.replace("CALL", call.replace("REQUEST", "1"))) == "noproc"
    await node.start(Echo(), name="echo")
    never = call.replace("REQUEST", ":never, 50")
    assert await a.eval(caught.replace("CALL", never)) == "timeout"
    await a.eval("send(self(), :over); receive do :over -> :ok end")


async def test_stop(a: BeamNode, node: Node) -> None:
    """GenServer.stop ends a server; what else `sys` asks is tested in test_sys.py."""
    pid = await node.start(Echo(), name="echo")
    server = f'{{:echo, :"{PY}"}}'
    assert await a.eval(f"GenServer.stop({server}, :normal)") == "ok"
    assert node.process(pid) is None


async def test_beam_monitors_python(a: BeamNode, node: Node) -> None:
    """DOWN for a name that is not there, and for processes that end, with their reasons."""
    pid = node.spawn(Recorder(), name="recorder").pid
    await a.eval(
        f"""ControlShell.collect(:seen, setup: fn ->
          Process.monitor({{:nosuch, :"{PY}"}})
          Process.monitor({{:recorder, :"{PY}"}})
          Process.monitor(:rpc.call(node(), :erlang, :binary_to_term, [TERM]))
        end)""".replace("TERM", term(pid))
    )
    assert _down(await a.next_event("seen")) == (atoms("nosuch", PY), Atom("noproc"))
    await settled(a)
    node.exit(pid, (Atom("shot"), 1))
    downs = [_down(await a.next_event("seen")) for _ in range(2)]
    assert (atoms("recorder", PY), (Atom("shot"), 1)) in downs
    assert (pid, (Atom("shot"), 1)) in downs


async def test_beam_demonitors(a: BeamNode, node: Node) -> None:
    """A monitor that was taken back says nothing."""
    recorder = node.spawn(Recorder(), name="recorder")
    await a.eval(f'ref = Process.monitor({{:recorder, :"{PY}"}})')
    await settled(a)
    assert len(recorder.watchers) == 1
    await a.eval("Process.demonitor(ref)")
    await settled(a)
    assert recorder.watchers == {}


async def test_monitors_end_with_the_node(a: BeamNode, cluster: Peers) -> None:
    """When the Python node stops, its processes are down for those who monitor them."""
    async with Node(PY, cluster.cookie) as node:
        node.spawn(Recorder(), name="recorder")
        await a.eval(
            f"""ControlShell.collect(:seen, setup: fn ->
              Process.monitor({{:recorder, :"{PY}"}}); Node.monitor(:"{PY}", true)
            end)"""
        )
        await settled(a)
    assert _down(await a.next_event("seen")) == (atoms("recorder", PY), Atom("shutdown"))
    assert await a.next_event("seen") == (Atom("seen"), atoms("nodedown", PY))


async def test_python_monitors_beam(a: BeamNode, node: Node) -> None:
    """A Python process is told when BEAM processes end, are not there, or lose their node."""
    recorder = Recorder()
    node.spawn(recorder)
    pid = await a.eval("pid = spawn(fn -> receive do :never -> 1 end end)")
    reference = recorder.monitor(pid)
    assert await node.ping(A)
    await a.eval("Process.exit(pid, :boom)")
    assert await recorder.next() == (
        *atoms("DOWN"),
        reference,
        *atoms("process"),
        pid,
        *atoms("boom"),
    )
    assert await recorder.next_down(recorder.monitor(pid)) == "noproc"
    assert await recorder.next_down(recorder.monitor(("nosuch", A))) == "noproc"
    assert await recorder.next_down(recorder.monitor(("x", "nosuch@127.0.0.1"))) == "noconnection"
    undone = recorder.monitor(("net_kernel", A))
    recorder.demonitor(undone)
    kept = recorder.monitor(("net_kernel", A))
    await a.kill()
    assert await recorder.next_down(kept) == "noconnection"
    assert recorder.messages.empty()


async def test_links_from_a_beam(a: BeamNode, node: Node) -> None:
    """A BEAM that is linked to Python processes gets their exits, and they get its own."""
    trapper, victim = Recorder(trap_exit=True), Recorder()
    for process in (trapper, victim):
        node.spawn(process)
    await a.eval(f"trapper = :erlang.binary_to_term({term(trapper.pid)}); Process.link(trapper)")
    await a.eval(f"victim = :erlang.binary_to_term({term(victim.pid)}); Process.link(victim)")
    await settled(a)
    node.exit(victim, Atom("poison"))
    exits = "receive do {:EXIT, pid, reason} -> {pid, reason} end"
    assert await a.eval(exits) == (victim.pid, Atom("poison"))
    await a.eval("Process.link(victim)")
    assert await a.eval(exits) == (victim.pid, Atom("noproc"))
    linked = await a.eval("spawn(fn -> Process.link(trapper); exit(:bye) end)")
    assert await trapper.next() == (Atom("EXIT"), linked, Atom("bye"))
    await a.eval("Process.unlink(trapper)")
    await settled(a)
    assert trapper.links == set()


async def test_links_to_a_beam(a: BeamNode, node: Node) -> None:
    """A Python process linked to a BEAM's ends with it, unless it traps exits or unlinks."""
    spawn = "spawn(fn -> receive do reason -> exit(reason) end end)"
    pid = await a.eval(f"pid = {spawn}")
    trapper, victim, free = Recorder(trap_exit=True), Recorder(), Recorder(trap_exit=True)
    watcher = Recorder()
    for process in (trapper, victim, free, watcher):
        node.spawn(process)
    for process in (trapper, victim, free):
        process.link(pid)
    free.unlink(pid)
    reference = watcher.monitor(victim)
    await soon(node.ping(A))
    await a.eval("send(pid, :bang)")
    assert await trapper.next() == (Atom("EXIT"), pid, Atom("bang"))
    assert await watcher.next_down(reference) == "bang"
    trapper.link(pid)
    assert await trapper.next() == (Atom("EXIT"), pid, Atom("noproc"))
    assert free.messages.empty()
    assert free.unlinking == {}


async def test_links_end_with_the_connection(a: BeamNode, node: Node) -> None:
    """When the peer dies, those linked to its processes get noconnection, and nodedown after it."""
    trapper = Recorder(trap_exit=True)
    node.spawn(trapper)
    node.monitor_nodes(trapper)
    await node.connect(A)
    assert await trapper.next() == atoms("nodeup", A)
    pid = await a.eval("self()")
    trapper.link(pid)
    await soon(node.ping(A))
    await a.kill()
    assert await trapper.next() == (Atom("EXIT"), pid, Atom("noconnection"))
    assert await trapper.next() == atoms("nodedown", A)


async def test_exit_signals(a: BeamNode, node: Node) -> None:
    """exit/2 from a BEAM: normal does nothing, kill ends even those who trap exits; and back."""
    trapper, watcher = Recorder(trap_exit=True), Recorder()
    node.spawn(trapper)
    node.spawn(watcher)
    reference = watcher.monitor(trapper)
    await a.eval(f"pid = :erlang.binary_to_term({term(trapper.pid)}); Process.exit(pid, :normal)")
    sender = await a.eval("self()")
    assert await trapper.next() == (Atom("EXIT"), sender, Atom("normal"))
    await a.eval("Process.exit(pid, :kill)")
    assert await watcher.next_down(reference) == "killed"
    beam = await a.eval("pid = spawn(fn -> receive do :never -> 1 end end)")
    down = watcher.monitor(beam)
    node.exit(beam, Atom("enough"))
    assert await watcher.next_down(down) == "enough"


async def test_nothing_is_run_for_a_beam(a: BeamNode, node: Node, tmp_path: Path) -> None:
    """rpc, erpc and spawn of whatever function are refused at once, and nothing runs."""
    proof = tmp_path / "ran"
    args = f':"{PY}", :os, :cmd, [~c"touch {proof}"]'
    undef = (Atom("badrpc"), (Atom("EXIT"), (Atom("undef"), ANY)))
    assert await a.eval(f":rpc.call({args})") == undef
    assert await a.eval(f":rpc.multicall([{args.replace(',', '],', 1)})") == ([undef], [])
    assert await a.eval(f":rpc.block_call({args})") == (Atom("badrpc"), ANY)
    assert await a.eval(f"try do :erpc.call({args}) catch k, r -> {{k, r}} end") == (
        Atom("error"),
        (Atom("exception"), Atom("undef"), ANY),
    )
    assert await a.eval(f":erpc.cast({args})") == "ok"
    assert await a.eval(f":rpc.cast({args})") is True
    await a.eval(f"ref = :erlang.spawn_request({args}, [:monitor, :link])")
    reply = "receive do {:spawn_reply, ^ref, :ok, pid} -> pid end"
    pid = await a.eval(reply)
    reason = (Atom("undef"), [(*atoms("os", "cmd"), ANY, [])])
    assert await a.eval("receive do {:DOWN, ^ref, :process, p, r} -> {p, r} end") == (pid, reason)
    assert await a.eval("receive do {:EXIT, p, r} -> {p, r} end") == (pid, reason)
    await a.eval(f"Node.spawn({args})")
    assert await a.eval(f'Node.ping(:"{PY}")') == "pong"
    assert not proof.exists()


async def test_rpc_to_a_beam(a: BeamNode, node: Node) -> None:
    """What a function of a BEAM returns, throws, exits with or raises, and when it can't be run."""
    assert await node.rpc(A, "lists", "reverse", [[1, 2]]) == [2, 1]
    assert await node.rpc(A, "erlang", "node", []) == A
    cases = [
        ("throw", Atom("ball"), "throw"),
        ("exit", Atom("away"), "exit"),
        ("error", Atom("oops"), "error"),
    ]
    for function, reason, kind in cases:
        with pytest.raises(RpcError) as caught:
            await node.rpc(A, "erlang", function, [reason])
        assert (caught.value.kind, caught.value.reason) == (kind, reason)
    with pytest.raises(RpcError, match="undef"):
        await node.rpc(A, "nosuch", "function", [])
    with pytest.raises(CallTimeout, match="timer:sleep/1"):
        await node.rpc(A, "timer", "sleep", [Atom("infinity")], timeout=0.05 * UNIT)
    with pytest.raises(NoConnection):
        await node.rpc("nosuch@127.0.0.1", "erlang", "node", [])


async def test_peer_with_another_cookie(a: BeamNode, cluster: Peers) -> None:
    """Neither side gets through with a wrong cookie; ours says that this is the likely cause."""
    async with Node(PY, "another") as node:
        with pytest.raises(NoConnection, match="cookie"):
            await node.connect(A)
        assert await a.eval(f'Node.ping(:"{PY}")') == "pang"
        await a.eval(f'Node.set_cookie(:"{PY}", :another)')
        assert await a.eval(f'Node.ping(:"{PY}")') == "pong"


async def test_both_connect_at_once(a: BeamNode, node: Node) -> None:
    """When both dial at the same moment one connection comes of it, and every message arrives."""
    await connect_at_once(a, node, turns=30)


async def test_peer_restarts_under_its_name(a: BeamNode, cluster: Peers, node: Node) -> None:
    """A peer that was killed and started again is connected to anew."""
    assert await node.ping(A)
    await a.kill()
    again = await cluster.start_bare(A)
    assert await again.eval(f'Node.ping(:"{PY}")') == "pong"
    assert await node.ping(A)


def _down(event: Term) -> tuple[Term, Term]:
    tag, (down, _, _, target, reason) = event
    assert (tag, down) == atoms("seen", "DOWN")
    return target, reason
