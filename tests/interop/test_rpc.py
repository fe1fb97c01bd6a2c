"""Functions of a Python node called from a BEAM by every way there is, and the other way round.

Most tests are differential: the same Elixir is run against the Python node and against a BEAM that
has the same functions, and must give the same.
"""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import pytest

from pybeethoven import Atom, Limits, Node, Pid, Reference, Term
from pybeethoven.errors import (
    CallTimeout,
    ErlangError,
    ErlangExit,
    ErlangThrow,
    ExitSignal,
    NoConnection,
)
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, atoms, soon
from tests.interop.members import PY, A, B
from tests.timing import UNIT

TWIN = """
defmodule Twin do
  def echo(term), do: term
  def fail(reason), do: :erlang.error(reason)
  def toss(term), do: throw(term)
  def leave(reason), do: exit(reason)
  def die(), do: Process.exit(self(), :kill)
  def hang() do
    receive do :never -> :ok end
  end
  def tell(pid, term), do: send(pid, term)
  def wait(pid) do
    send(pid, {:waiting, self()})
    receive do {:go, reason} -> exit(reason) end
  end
end
"""
TIME_OUT = round(50 * UNIT)
"""Milliseconds, for calls that get no answer."""


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """The BEAM that calls."""
    return await cluster.start_bare(A)


@pytest.fixture
async def twin(cluster: Peers) -> BeamNode:
    """A BEAM with the functions that the Python node exports."""
    twin = await cluster.start_bare(B)
    await twin.eval(TWIN)
    return twin


@pytest.fixture(autouse=True)
def exported(node: Node) -> None:
    """The functions of `TWIN`, in Python."""

    def toss(term: Term) -> None:
        raise ErlangThrow(term)

    def leave(reason: Term) -> None:
        raise ErlangExit(reason)

    @node.export("Elixir.Twin")
    def fail(reason: Term) -> None:
        raise ErlangError(reason)

    @node.export("Elixir.Twin")
    async def wait(pid: Pid) -> None:
        node.send(pid, (Atom("waiting"), node.caller().pid))
        _, reason = await node.caller().receive()
        raise ErlangExit(reason)

    def tell(pid: Pid, term: Term) -> Term:
        node.send(pid, term)
        return term

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    for function in (toss, leave, tell, hang):
        node.export("Elixir.Twin", function)
    node.export("Elixir.Twin", lambda term: term, name="echo")
    node.export("Elixir.Twin", lambda: node.exit(node.caller(), Atom("kill")), name="die")


CALLS = [
    "rpc.call(NODE, Twin, :echo, ARGS)",
    f"rpc.call(NODE, Twin, :echo, ARGS, {60_000})",
    "rpc.block_call(NODE, Twin, :echo, ARGS)",
    f"rpc.block_call(NODE, Twin, :echo, ARGS, {60_000})",
    "rpc.multicall([NODE], Twin, :echo, ARGS)",
    f"rpc.multicall([NODE, :none@nohost], Twin, :echo, ARGS, {60_000})",
    "rpc.yield(:rpc.async_call(NODE, Twin, :echo, ARGS))",
    "rpc.nb_yield(:rpc.async_call(NODE, Twin, :echo, ARGS), :infinity)",
    "rpc.cast(NODE, Twin, :echo, ARGS)",
    "erpc.call(NODE, Twin, :echo, ARGS)",
    f"erpc.call(NODE, Twin, :echo, ARGS, {60_000})",
    "erpc.multicall([NODE, :none@nohost], Twin, :echo, ARGS)",
    "erpc.receive_response(:erpc.send_request(NODE, Twin, :echo, ARGS))",
    "erpc.wait_response(:erpc.send_request(NODE, Twin, :echo, ARGS), :infinity)",
    "erpc.receive_response(:erpc.send_request(NODE, Twin, :echo, ARGS, 1, %{}), :infinity, true)",
    "erpc.cast(NODE, Twin, :echo, ARGS)",
    "erpc.multicast([NODE], Twin, :echo, ARGS)",
]
"""Every way to call a function by rpc or erpc; `:echo` and `ARGS` are replaced."""

FUNCTIONS = [
    ("echo", "[{:a, [1, 2.5], %{b: nil}}]"),
    ("echo", "[{:EXIT, 1}]"),
    ("fail", "[:oops]"),
    ("fail", "[{:badmatch, 7}]"),
    ("toss", "[:ball]"),
    ("toss", "[{:EXIT, 1}]"),
    ("leave", "[:away]"),
    ("leave", "[:normal]"),
    ("nosuch", "[1]"),
    ("echo", "[]"),
    ("echo", "[1, 2]"),
]

MONITOR = ":erlang.spawn_request(NODE, Twin, :echo, ARGS, [:monitor, "
SPAWNS = {
    "Node.spawn(NODE, Twin, :echo, ARGS)": 0,
    "Node.spawn_link(NODE, Twin, :echo, ARGS)": 1,
    ":erlang.spawn_monitor(NODE, Twin, :echo, ARGS)": 1,
    ":erlang.spawn_opt(NODE, Twin, :echo, ARGS, [:link, :monitor])": 2,
    ":erlang.spawn_opt(NODE, Twin, :echo, ARGS, [:monitor, priority: :high])": 1,
    ":erlang.spawn_opt(NODE, Twin, :echo, ARGS, monitor: [tag: :gone])": 1,
    ":erlang.spawn_opt(NODE, Twin, :echo, ARGS, monitor: [alias: :reply_demonitor])": 1,
    f"{MONITOR} :link])": 3,
    f"{MONITOR} reply_tag: :tag])": 2,
    f"{MONITOR} reply: :no])": 1,
    f"{MONITOR} reply: :error_only])": 1,
    f"{MONITOR} reply: :success_only])": 2,
    ":erlang.spawn_request(NODE, Twin, :echo, ARGS, [:bogus])": 1,
    ":erlang.spawn_request(NODE, Twin, :echo, ARGS, [{:bogus, 1, 2}])": 1,
}
"""Every way to spawn, and how many messages come of it to a process that traps exits."""


def alike(term: Term, names: dict[Term, int] | None = None) -> Any:
    """A term without what differs between two runs: pids and references are numbered as they come,
    places in source text and the name of the node are gone."""
    names = {} if names is None else names
    match term:
        case Pid() | Reference():
            return f"{type(term).__name__} {names.setdefault(term, len(names))}"
        case [("file", _), ("line", _)]:
            return ["a place"]
        case list():
            return [alike(each, names) for each in term]
        case tuple():
            return tuple(alike(each, names) for each in term)
        case "a@127.0.0.1" | "b@127.0.0.1" | "py@127.0.0.1":
            return "a node"
    return term


async def compare(a: BeamNode, sources: list[str]) -> None:
    """Each source must give the same whether `NODE` in it is the Python node or the BEAM."""
    different = {}
    for source in sources:
        caught = f"try do {source} catch kind, reason -> {{:caught, kind, reason}} end"
        ours, theirs = [
            alike(await a.eval(caught.replace("NODE", f':"{peer}"'))) for peer in (PY, B)
        ]
        if ours != theirs:
            different[source] = (ours, theirs)
    assert different == {}


async def test_calls(a: BeamNode, twin: BeamNode) -> None:
    """What is returned, thrown, exited with, raised or not there is told as a BEAM tells it."""
    filled = [
        f":{call}".replace(":echo", f":{function}").replace("ARGS", args)
        for call in CALLS
        for function, args in FUNCTIONS
    ]
    await compare(a, filled)
    assert await a.eval("Process.info(self(), :messages)") == (Atom("messages"), [])


async def test_calls_that_end_otherwise(a: BeamNode, twin: BeamNode) -> None:
    """Killed processes, time-outs, requests that are given up."""
    calls = [
        ":rpc.call(NODE, Twin, :die, [])",
        ":rpc.multicall([NODE], Twin, :die, [])",
        ":erpc.call(NODE, Twin, :die, [])",
        ":erpc.multicall([NODE], Twin, :die, [])",
        f":rpc.call(NODE, Twin, :hang, [], {TIME_OUT})",
        f":rpc.multicall([NODE], Twin, :hang, [], {TIME_OUT})",
        f":erpc.call(NODE, Twin, :hang, [], {TIME_OUT})",
        ":erpc.call(NODE, Twin, :hang, [], 0)",
        ":rpc.nb_yield(:rpc.async_call(NODE, Twin, :hang, []))",
        ":erpc.wait_response(:erpc.send_request(NODE, Twin, :hang, []), 0)",
        f":rpc.block_call(NODE, Twin, :hang, [], {TIME_OUT})",
    ]
    await compare(a, calls)


async def test_casts_arrive(a: BeamNode, twin: BeamNode) -> None:
    """A cast runs the function; the caller sees no result."""
    casts = ["rpc.cast(NODE", "erpc.cast(NODE", "erpc.multicast([NODE]", "rpc.block_call(NODE"]
    sources = [
        f":{cast}, Twin, :tell, [self(), {{:told, {n}}}]); receive do {{:told, n}} -> n end"
        for n, cast in enumerate(casts)
    ]
    await compare(a, sources)


async def test_broadcasts_through_rex(a: BeamNode, twin: BeamNode, node: Node) -> None:
    """`rpc:sbcast` tells which nodes have the name."""
    recorder = Recorder()
    node.spawn(recorder, name="ears")
    await twin.eval("Process.register(self(), :ears)")
    await compare(a, [":rpc.sbcast([NODE], :ears, 1)", ":rpc.sbcast([NODE], :nosuch, 2)"])
    assert await recorder.next() == 1


async def test_spawns(a: BeamNode, twin: BeamNode) -> None:
    """A spawned process is tied to its parent as asked before it runs, and ends as a BEAM's."""
    messages = "Enum.sort(for _ <- 1..COUNT//1, do: (receive do message -> message end))"
    sources = [
        f"spawned = {spawn}; {{spawned, {messages}}}".replace(":echo", f":{function}")
        .replace("ARGS", args)
        .replace("COUNT", str(count))
        for spawn, count in SPAWNS.items()
        for function, args in FUNCTIONS
    ]
    await compare(a, sources)
    assert await a.eval("Process.info(self(), :messages)") == (Atom("messages"), [])


async def test_a_spawned_process(a: BeamNode, twin: BeamNode) -> None:
    """It has the pid that its parent got, can be sent to, monitored, linked to and killed."""
    wait = "receive do {:waiting, ^pid} -> :ok end"
    gone = "receive do {:DOWN, ^ref, _, ^pid, reason} -> reason end"
    exit_ = "receive do {:EXIT, ^pid, reason} -> reason end"
    sources = [
        f"pid = Node.spawn(NODE, Twin, :wait, [self()]); {wait}; ref = Process.monitor(pid); "
        f"send(pid, {{:go, :home}}); {gone}",
        f"pid = Node.spawn_link(NODE, Twin, :wait, [self()]); {wait}; send(pid, {{:go, 1}}); "
        f"{exit_}",
        f"pid = Node.spawn_link(NODE, Twin, :hang, []); Process.exit(pid, :boom); {exit_}",
        f"{{pid, ref}} = :erlang.spawn_monitor(NODE, Twin, :hang, []); Process.exit(pid, :kill); "
        f"{gone}",
        f"pid = Node.spawn_link(NODE, Twin, :hang, []); Process.unlink(pid); "
        f"ref = Process.monitor(pid); Process.exit(pid, :kill); {{{gone}, "
        f"receive do m -> m after 0 -> nil end}}",
    ]
    await compare(a, sources)


async def test_the_end_of_the_parent(a: BeamNode, node: Node) -> None:
    """A linked process ends with its parent, for its reason or that of the lost connection."""
    watcher = Recorder()
    node.spawn(watcher, name="watcher")
    start = f'Node.spawn_link(:"{PY}", Twin, :wait, [watcher])'
    node.export("Elixir.Twin", lambda: watcher.pid, name="watcher")
    await a.eval(f'watcher = :erpc.call(:"{PY}", Twin, :watcher, [])')
    await a.eval(f"parent = spawn(fn -> {start}; receive do reason -> exit(reason) end end)")
    waiting, child = await watcher.next()
    reference = watcher.monitor(child)
    assert waiting == "waiting"
    await a.eval("send(parent, :enough)")
    assert await watcher.next_down(reference) == "enough"
    await a.eval(f"spawn(fn -> {start}; receive do :never -> 1 end end)")
    reference = watcher.monitor((await watcher.next())[1])
    await a.kill()
    assert await watcher.next_down(reference) == "noconnection"


async def test_a_call_outlives_its_caller(a: BeamNode, node: Node) -> None:
    """As on a BEAM, a function goes on when the node that called it is gone."""
    pids: asyncio.Queue[Pid] = asyncio.Queue()
    release = asyncio.Event()

    @node.export("Elixir.Twin")
    async def work() -> None:
        pids.put_nowait(node.caller().pid)
        await release.wait()

    await a.eval(f':erpc.send_request(:"{PY}", Twin, :work, [])')
    pid = await soon(pids.get())
    watcher = Recorder()
    node.spawn(watcher)
    node.monitor_nodes(watcher)
    reference = watcher.monitor(pid)
    await a.kill()
    assert await watcher.next() == atoms("nodedown", A)
    release.set()
    down = await watcher.next()
    assert (down[1], down[4][1:]) == (reference, (*atoms("return"), None))


async def test_a_python_exception(a: BeamNode, node: Node) -> None:
    """It is an error that Elixir can show, with its stack trace."""

    @node.export("Elixir.Twin")
    def broken(number: int) -> float:
        return number / 0

    await a.eval(
        f"{{:error, {{:exception, reason, stack}}}} = "
        f'try do :erpc.call(:"{PY}", Twin, :broken, [7]) catch kind, reason -> {{kind, reason}} end'
    )
    reason = (Atom("python_error"), b"ZeroDivisionError", b"division by zero")
    assert await a.eval("reason") == reason
    text = await a.eval("Exception.format(:error, reason, stack)")
    assert b'ErlangError) Erlang error: {:python_error, "ZeroDivisionError", "division' in text
    assert b"test_rpc.py:" in text
    assert b": Twin.broken/1" in text
    [(module, function, arity, [(file, name), (line, _)])] = await a.eval("stack")
    assert (module, function, arity) == (*atoms("Elixir.Twin", "broken"), 1)
    assert (file, line, bytes(name)) == (*atoms("file", "line"), b"test_rpc.py")
    failed = await a.eval(f':rpc.call(:"{PY}", Twin, :broken, [7])')
    assert failed == (Atom("badrpc"), (Atom("EXIT"), (reason, ANY)))


async def test_a_result_that_is_no_term(a: BeamNode, node: Node) -> None:
    """It is an error that says so; one of many megabytes is none."""
    node.export("Elixir.Twin", lambda: {"it": object()}, name="bad")
    error = await a.eval(
        f'try do :erpc.call(:"{PY}", Twin, :bad, []) catch :error, {{:exception, r, _}} -> r end'
    )
    assert error[:2] == (Atom("python_error"), b"EncodeError")
    node.export("Elixir.Twin", lambda: bytes(5_000_000), name="big")
    assert await a.eval(f'byte_size(:rpc.call(:"{PY}", Twin, :big, []))') == 5_000_000


async def test_a_beam_gives_up(a: BeamNode, node: Node) -> None:
    """It takes its monitor back when it wants to, and when its process was gone before the reply
    came, whose flags tell it that there is a monitor."""
    recorder = Recorder()
    node.spawn(recorder)
    node.export("Elixir.Twin", lambda: recorder.pid, name="recorder")
    await a.eval(f'recorder = :erpc.call(:"{PY}", Twin, :recorder, [])')
    wait = f':"{PY}", Twin, :wait, [recorder]'
    for source in (
        f"{{_, ref}} = :erlang.spawn_monitor({wait}); Process.demonitor(ref)",
        f"spawn(fn -> :erlang.spawn_request({wait}, [:monitor]) end)",
    ):
        await a.eval(source)
        called = node.process((await recorder.next())[1])
        assert await a.eval(f'Node.ping(:"{PY}")') == "pong"
        assert called is not None
        assert called.watchers == {}


async def test_many_calls_at_once(a: BeamNode, node: Node) -> None:
    """Calls run beside each other, each gets its own result, and nothing of them is left."""

    @node.export("Elixir.Twin")
    async def later(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        return number * number

    before = len(node._processes)
    await a.eval(
        f'results = 1..1000 |> Enum.map(&:erpc.send_request(:"{PY}", Twin, :later, [&1])) '
        "|> Enum.map(&:erpc.receive_response/1)"
    )
    assert await a.eval("results == Enum.map(1..1000, & &1 * &1)") is True
    assert len(node._processes) == before


async def test_too_many_calls_at_once(a: BeamNode, cluster: Peers) -> None:
    """What other nodes start beyond the limit fails as on a full BEAM; then all works again."""
    async with Node("full@127.0.0.1", cluster.cookie, limits=Limits(processes=20)) as node:
        go = asyncio.Event()
        casts: list[int] = []

        @node.export("Elixir.Twin")
        async def wait() -> None:
            await go.wait()

        node.export("Elixir.Twin", casts.append, name="cast")
        await a.eval(
            'full = :"full@127.0.0.1"; '
            "requests = for _ <- 1..50, do: :erpc.send_request(full, Twin, :wait, [])"
        )
        assert await a.eval(
            "{:done, :spawned} = {:done, :erlang.spawn_request(full, Twin, :wait, []) "
            "|> then(fn id -> receive do {:spawn_reply, ^id, :error, :system_limit} -> :spawned "
            "end end)}"
        ) == atoms("done", "spawned")
        full = (Atom("badrpc"), (Atom("EXIT"), Atom("system_limit")))
        assert (
            await a.eval("GenServer.call({:rex, full}, {:call, Twin, :wait, [], self()})") == full
        )
        assert await a.eval(":rpc.block_call(full, Twin, :wait, [])") == full
        assert (
            await a.eval(
                "send({:rex, full}, {self(), {:call, Twin, :wait, [], self()}}); "
                "receive do {:rex, answer} -> answer end"
            )
            == full
        )
        await a.eval("GenServer.cast({:rex, full}, {:cast, Twin, :cast, [1], self()})")
        assert await a.eval("Node.ping(full)") == "pong"
        go.set()
        answers = await a.eval(
            "for id <- requests, do: (try do :erpc.receive_response(id) catch _, r -> r end)"
        )
        refused = (Atom("erpc"), Atom("system_limit"))
        assert [answer for answer in answers if answer not in (None, refused)] == []
        assert 30 < answers.count(refused) < 50
        await a.eval(":rpc.call(full, Twin, :cast, [2])")
        assert casts == [2]


async def test_funs_are_not_run(a: BeamNode, node: Node) -> None:
    """A fun is code of the BEAM's: it is `undef` by every way."""
    undef = (Atom("undef"), ANY)
    await a.eval(f'{{pid, ref}} = :erlang.spawn_monitor(:"{PY}", fn -> 1 end)')
    assert await a.eval("receive do {:DOWN, ^ref, _, ^pid, reason} -> reason end") == undef
    assert await a.eval(f'try do :erpc.call(:"{PY}", fn -> 1 end) catch _, r -> r end') == (
        Atom("exception"),
        Atom("undef"),
        ANY,
    )


# From Python


async def test_errors_of_a_beam(a: BeamNode, node: Node) -> None:
    """Each is an exception of its own class, with reason, stack and a text that shows both."""
    await a.eval(TWIN)
    assert await node.rpc(A, "Elixir.Twin", "echo", ["text"]) == b"text"
    assert await node.rpc(A, "erlang", "system_info", [Atom("otp_release")]) is not None
    with pytest.raises(ErlangThrow, match="throw: Atom\\('ball'\\)"):
        await node.rpc(A, "Elixir.Twin", "toss", [Atom("ball")])
    with pytest.raises(ErlangExit, match="exit: Atom\\('away'\\)") as left:
        await node.rpc(A, "Elixir.Twin", "leave", [Atom("away")])
    assert type(left.value) is ErlangExit
    with pytest.raises(ErlangError) as failed:
        await node.rpc(A, "Elixir.Twin", "fail", [Atom("oops")])
    assert (failed.value.kind, failed.value.reason) == ("error", "oops")
    assert failed.value.stack[0][:3] == (*atoms("Elixir.Twin", "fail"), 1)
    assert "error: Atom('oops') in Elixir.Twin:fail/1 (" in str(failed.value)
    with pytest.raises(ErlangError, match=r"Atom\('undef'\) in Elixir.Twin:nosuch/2$") as undefined:
        await node.rpc(A, "Elixir.Twin", "nosuch", [1, 2])
    assert undefined.value.stack == [(*atoms("Elixir.Twin", "nosuch"), [1, 2], [])]
    with pytest.raises(ErlangError, match=r"in erlang:atom_to_list/1"):
        await node.rpc(A, "erlang", "atom_to_list", ["not an atom"])
    with pytest.raises(ExitSignal) as killed:
        await node.rpc(A, "Elixir.Twin", "die", [])
    assert (killed.value.kind, killed.value.reason) == ("exit", "killed")


async def test_time_out_leaves_nothing(a: BeamNode, node: Node) -> None:
    """Nobody monitors the function of a call that was given up, whenever that was."""
    recorder = Recorder()
    node.spawn(recorder, name="py")
    await a.eval(TWIN)
    for timeout in (0, 0.05 * UNIT):
        with pytest.raises(CallTimeout, match="wait/1"):
            await node.rpc(A, "Elixir.Twin", "wait", [recorder.pid], timeout=timeout)
        _, pid = await recorder.next()
        assert await node.ping(A)
        info = await node.rpc(A, "erlang", "process_info", [pid, Atom("monitored_by")])
        assert info == (Atom("monitored_by"), [])
    assert node.ties._monitors == {}


async def test_lost_while_calling(a: BeamNode, node: Node) -> None:
    """The call raises when the node that runs it goes."""
    recorder = Recorder()
    node.spawn(recorder)
    await a.eval(TWIN)
    calling = asyncio.create_task(node.rpc(A, "Elixir.Twin", "wait", [recorder.pid], timeout=None))
    await recorder.next()
    await a.kill()
    with pytest.raises(NoConnection, match=A):
        await soon(calling)


async def test_python_to_python(node: Node, cluster: Peers) -> None:
    """Between two Python nodes the same holds, both ways."""
    async with Node("other@127.0.0.1", cluster.cookie) as other:
        assert await other.rpc(PY, "Elixir.Twin", "echo", [(1, None)]) == (1, None)
        with pytest.raises(ErlangThrow):
            await other.rpc(PY, "Elixir.Twin", "toss", [1])
        with pytest.raises(ErlangError) as caught:
            await other.rpc(PY, "Elixir.Twin", "fail", [1])
        assert caught.value.stack[0][:3] == (*atoms("Elixir.Twin", "fail"), 1)
        with pytest.raises(ExitSignal):
            await other.rpc(PY, "Elixir.Twin", "die", [])
        with pytest.raises(CallTimeout):
            await other.rpc(PY, "Elixir.Twin", "hang", [], timeout=0)
