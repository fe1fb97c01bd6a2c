"""Supervisors of Python processes in the hands of Elixir's `Supervisor`."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from pybeethoven import Atom, From, GenServer, Node, Term
from pybeethoven.errors import ProcessExit
from pybeethoven.otp import ChildSpec, Supervisor
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, atoms, soon
from tests.interop.members import PY, A

SUP = f'{{:sup, :"{PY}"}}'
NOT_FOUND = atoms("error", "not_found")


class Worker(GenServer):
    """Ends when it is told to, and doesn't start when `broken` says so."""

    broken = False

    async def init(self) -> None:
        """Fail if it is to."""
        if self.broken:
            raise ProcessExit(Atom("broken"))

    async def handle_call(self, request: Term, from_: From) -> Term:
        """End with the reason, or give the pid."""
        if request == "pid":
            return self.pid
        raise ProcessExit(request)


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """A BEAM without Beethoven."""
    return await cluster.start_bare(A)


@pytest.fixture
async def worker() -> Worker:
    """The child `one` of the supervisor."""
    return Worker()


@pytest.fixture
async def sup(node: Node, worker: Worker) -> Supervisor:
    """A supervisor of `one` and `two`, registered as `sup`."""
    low = ChildSpec("two", Supervisor, type="supervisor", shutdown="infinity")
    sup = Supervisor([ChildSpec("one", lambda: worker, name="one"), low])
    await node.start(sup, name="sup")
    return sup


async def test_children(a: BeamNode, sup: Supervisor, worker: Worker) -> None:
    """Elixir sees the children, and how many there are."""
    assert await a.eval(f"Supervisor.which_children({SUP})") == [
        (Atom("two"), ANY, *atoms("supervisor", "dynamic")),
        (Atom("one"), worker.pid, *atoms("worker", "dynamic")),
    ]
    counts = {"specs": 2, "active": 2, "supervisors": 1, "workers": 1}
    assert await a.eval(f"Supervisor.count_children({SUP})") == counts


async def test_terminate_restart_delete(
    a: BeamNode, node: Node, sup: Supervisor, worker: Worker
) -> None:
    """Children are stopped, started and forgotten for Elixir, with the answers of its own."""
    assert await a.eval(f"Supervisor.restart_child({SUP}, :one)") == atoms("error", "running")
    assert await a.eval(f"Supervisor.delete_child({SUP}, :one)") == atoms("error", "running")
    assert await a.eval(f"Supervisor.terminate_child({SUP}, :one)") == "ok"
    assert node.whereis("one") is None
    listed = await a.eval(f"Supervisor.which_children({SUP})")
    assert listed[1] == atoms("one", "undefined", "worker", "dynamic")
    worker.broken = True
    assert await a.eval(f"Supervisor.restart_child({SUP}, :one)") == atoms("error", "broken")
    worker.broken = False
    assert await a.eval(f"Supervisor.restart_child({SUP}, :one)") == (Atom("ok"), worker.pid)
    assert await a.eval(f'GenServer.call({{:one, :"{PY}"}}, :pid)') == worker.pid
    assert await a.eval(f"Supervisor.terminate_child({SUP}, :one)") == "ok"
    assert await a.eval(f"Supervisor.delete_child({SUP}, :one)") == "ok"
    for function in ("terminate_child", "restart_child", "delete_child"):
        for id in (":one", '"two"', "[1]", "%{1 => 2}"):
            assert await a.eval(f"Supervisor.{function}({SUP}, {id})") == NOT_FOUND
    assert [child[0] for child in await sup.which_children()] == ["two"]


async def test_start_child_is_refused(a: BeamNode, sup: Supervisor) -> None:
    """A BEAM has no functions for us to run."""
    spec = "%{id: :three, start: {Agent, :start_link, [fn -> 1 end]}}"
    assert await a.eval(f"Supervisor.start_child({SUP}, {spec})") == atoms("error", "notsup")
    assert await a.eval(f"GenServer.cast({SUP}, {{:try_again_restart, :one}})") == "ok"
    assert await a.eval(f"GenServer.cast({SUP}, :what)") == "ok"
    assert (await soon(sup.count_children()))["active"] == 2


async def test_restarted_for_a_beam(a: BeamNode, sup: Supervisor, worker: Worker) -> None:
    """A BEAM that monitors a child sees it end and finds it again under its name."""
    pid = worker.pid
    await a.eval(f'ref = Process.monitor({{:one, :"{PY}"}})')
    call = f'GenServer.call({{:one, :"{PY}"}}, :boom)'
    assert await a.eval(f"try do {call} catch :exit, {{reason, _}} -> reason end") == "boom"
    assert await a.eval("receive do {:DOWN, ^ref, _, _, reason} -> reason end") == "boom"
    assert await a.eval(f"length(Supervisor.which_children({SUP}))") == 2
    assert await a.eval(f'GenServer.call({{:one, :"{PY}"}}, :pid)') == worker.pid != pid


async def test_stop(a: BeamNode, node: Node, sup: Supervisor, worker: Worker) -> None:
    """`Supervisor.stop` ends it with its children; a signal from a BEAM it ignores."""
    watcher = Recorder()
    node.spawn(watcher)
    reference = watcher.monitor(worker)
    await a.eval(f"{{:status, pid, _, _}} = :sys.get_status({SUP}); Process.exit(pid, :shutdown)")
    assert await a.eval(f"Supervisor.count_children({SUP}).active") == 2
    assert await a.eval(f"Supervisor.stop({SUP})") == "ok"
    assert await watcher.next_down(reference) == "shutdown"
    assert sup.exit_reason == "normal"
    assert [node.whereis(name) for name in ("sup", "one")] == [None, None]
