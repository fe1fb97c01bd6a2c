"""Supervisors on one node: starting, restarting and stopping children."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pybeethoven import Atom, ConfigError, From, GenServer, Node, Pid, Process, Term
from pybeethoven.errors import ProcessExit, SupervisorError
from pybeethoven.net.tasks import create_task
from pybeethoven.otp import ChildSpec, Supervisor, supervisor
from pybeethoven.otp.node import STOP_TIME
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon
from tests.timing import UNIT

KILL, KILLED, NORMAL, SHUTDOWN, BOOM = atoms("kill", "killed", "normal", "shutdown", "boom")
UNDEFINED, RESTARTING, WORKER, DYNAMIC = atoms("undefined", "restarting", "worker", "dynamic")

SHORT = 0.05 * UNIT


class World:
    """What the workers of a test do, in order, and what they are told to do."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.on_init: dict[str, Callable[[], Awaitable[None]]] = {}
        self.on_terminate: dict[str, Callable[[], Awaitable[None]]] = {}

    def spec(self, id: str, **options: Any) -> ChildSpec:
        """A child that is a new worker each time."""
        return ChildSpec(id, lambda: Worker(self, id), name=id, **options)

    def same(self, id: str, **options: Any) -> ChildSpec:
        """A child that is the same worker each time."""
        worker = Worker(self, id)
        return ChildSpec(id, lambda: worker, name=id, **options)

    async def next(self, *events: str) -> None:
        """Check what happens next: `+id` is the start of a worker, `-id` the end of one."""
        assert [await soon(self.events.get()) for _ in events] == list(events)

    def check_nothing_else(self) -> None:
        """Check that there was nothing more."""
        assert self.events.empty()


class Worker(GenServer):
    """Tells the world that it starts and ends; a call `(exit, reason)` ends it."""

    def __init__(self, world: World, id: str) -> None:
        self.world, self.id = world, id

    async def init(self) -> None:
        """Tell it, then do what the world says."""
        self.world.events.put_nowait(f"+{self.id}")
        if self.id in self.world.on_init:
            await self.world.on_init[self.id]()

    async def handle_call(self, request: Term, from_: From) -> Term:
        """End, or give the pid."""
        match request:
            case ("exit", reason):
                raise ProcessExit(reason)
        return self.pid

    async def terminate(self, reason: Term) -> None:
        """Do what the world says, then tell it."""
        if self.id in self.world.on_terminate:
            await self.world.on_terminate[self.id]()
        self.world.events.put_nowait(f"-{self.id}")


class Gate:
    """What `wait` waits for, and whether somebody does."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        """Wait until it is opened."""
        self.reached.set()
        await self.opened.wait()

    async def wait_and_fail(self) -> None:
        """Wait, then fail."""
        await self.wait()
        raise ProcessExit(BOOM)

    async def wait_stubbornly(self) -> None:
        """Wait, and don't be cancelled."""
        while not self.opened.is_set():
            try:
                await self.wait()
            except asyncio.CancelledError:
                continue


async def fail() -> None:
    """Fail."""
    raise ProcessExit(BOOM)


@pytest.fixture
def world() -> World:
    """The world of a test."""
    return World()


async def start(node: Node, world: World, *ids: str, **options: Any) -> Supervisor:
    """A supervisor of new workers."""
    sup = Supervisor([world.spec(id) for id in ids], **options)
    await soon(node.start(sup, name="sup"))
    await world.next(*(f"+{id}" for id in ids))
    return sup


def end(node: Node, name: str, reason: Term) -> None:
    """Send an exit signal to a registered process."""
    pid = node.whereis(name)
    assert pid is not None
    node.exit(pid, reason)


def watch(node: Node, process: Process) -> Callable[[], Awaitable[Term]]:
    """Watch a process: what is returned waits for its end and gives the reason."""
    watcher = Recorder()
    node.spawn(watcher)
    reference = watcher.monitor(process)
    return lambda: watcher.next_down(reference)


async def stop(node: Node, sup: Supervisor) -> Term:
    """Stop a supervisor as Elixir's `Supervisor.stop` does; its exit reason."""
    reason = watch(node, sup)
    node.send(sup, (Atom("system"), (sup.pid, 1), (Atom("terminate"), SHUTDOWN)))
    return await reason()


# Starting and stopping


async def test_start_and_stop_in_order(node: Node, world: World) -> None:
    """Each child starts when the `init` of the one before has returned, and ends before it."""
    gate = Gate()
    world.on_init["b"] = gate.wait
    sup = Supervisor([world.spec(id) for id in "abc"])
    starting = asyncio.create_task(node.start(sup))
    await world.next("+a", "+b")
    for _ in range(10):
        await asyncio.sleep(0)
    world.check_nothing_else()
    assert not starting.done()
    gate.opened.set()
    await soon(starting)
    await world.next("+c")
    children = await sup.which_children()
    pids = [node.whereis(id) for id in "cba"]
    assert children == [
        (*atoms(id), pid, WORKER, DYNAMIC) for id, pid in zip("cba", pids, strict=True)
    ]
    assert await stop(node, sup) == SHUTDOWN
    await world.next("-c", "-b", "-a")
    assert [node.whereis(id) for id in "abc"] == [None] * 3


async def test_child_fails_to_start(node: Node, world: World) -> None:
    """Then the supervisor doesn't start, with the very error; what was started is stopped."""
    error = ValueError("no")

    async def fail_in_init() -> None:
        raise error

    world.on_init["c"] = fail_in_init
    sup = Supervisor([world.spec(id) for id in "abcd"])
    with pytest.raises(ValueError, match="no") as caught:
        await soon(node.start(sup, name="sup"))
    assert caught.value is error
    assert error.__notes__ == ["child 'c' of a supervisor did not start"]
    await world.next("+a", "+b", "+c", "-b", "-a")
    assert [node.whereis(name) for name in ("a", "b", "c", "sup")] == [None] * 4


async def test_a_start_that_gives_no_process(node: Node) -> None:
    """It is an error like any other, and so is a name that is taken."""
    with pytest.raises(ConfigError, match="start gave 1, no Process"):
        await node.start(Supervisor([ChildSpec("a", lambda: 1)]))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="'net_kernel' is taken"):
        await node.start(Supervisor([ChildSpec("a", Recorder, name="net_kernel")]))


async def test_start_cancelled(node: Node, world: World) -> None:
    """Nothing of it is left then, neither the children that ran nor the one that started."""
    gate = Gate()
    world.on_init["b"] = gate.wait
    starting = asyncio.create_task(node.start(Supervisor([world.spec(id) for id in "ab"])))
    await soon(gate.reached.wait())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await world.next("+a", "+b", "-a")
    assert [node.whereis(id) for id in "ab"] == [None] * 2


async def test_plain_processes_as_children(node: Node) -> None:
    """A process that is no GenServer is a child, too; it is started when it is spawned."""
    sup = Supervisor([ChildSpec("a", Recorder, name="a")])
    await node.start(sup)
    first = node.process("a")
    assert isinstance(first, Recorder)
    end(node, "a", BOOM)
    assert (await sup.which_children())[0][1] == node.whereis("a") != first.pid


@pytest.mark.parametrize("trap_exit", [False, True])
async def test_killed_after_its_time(
    node: Node, world: World, trap_exit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that does not end in its time is killed, and that is logged."""
    gate = Gate()
    world.on_terminate["a"] = gate.wait
    spec = world.same("a", shutdown=SHORT)
    spec.start().trap_exit = trap_exit
    sup = Supervisor([spec])
    await node.start(sup)
    assert await stop(node, sup) == SHUTDOWN
    assert spec.start().exit_reason == (KILLED if trap_exit else SHUTDOWN)
    assert await soon(spec.start().wait_end())
    assert caplog.messages[0] == f"child 'a' did not end in {SHORT} seconds and is killed"


@pytest.mark.parametrize(
    ("shutdown", "reason"), [("brutal_kill", KILLED), ("infinity", SHUTDOWN), (0, KILLED)]
)
async def test_ways_to_shut_down(
    node: Node, world: World, shutdown: Any, reason: Term, caplog: pytest.LogCaptureFixture
) -> None:
    """`brutal_kill` kills at once, silently; `infinity` waits as long as it takes."""
    gate = Gate()
    world.on_terminate["a"] = gate.wait
    spec = world.same("a", shutdown=shutdown)
    spec.start().trap_exit = True
    sup = Supervisor([spec])
    await node.start(sup)
    ended = watch(node, spec.start())
    stopping = asyncio.create_task(stop(node, sup))
    await soon(gate.reached.wait())
    gate.opened.set()
    assert (await ended(), await soon(stopping)) == (reason, SHUTDOWN)
    assert (caplog.messages == []) == (shutdown != 0)


async def test_killed_supervisor(node: Node, world: World) -> None:
    """Its children go with it, even those that trap exits."""
    spec = world.same("b")
    spec.start().trap_exit = True
    sup = Supervisor([world.spec("a"), spec])
    await node.start(sup)
    await world.next("+a", "+b")
    node.exit(sup, KILL)
    assert {await soon(world.events.get()) for _ in range(2)} == {"-a", "-b"}
    assert spec.start().exit_reason == KILLED


async def test_other_signals_and_messages(
    node: Node, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The exit of a process that is neither parent nor child is ignored, as is what else comes."""
    sup = await start(node, world, "a")
    other = node.spawn(Recorder())
    other.link(sup.pid)
    node.exit(other, BOOM)
    node.exit(sup, SHUTDOWN)
    node.send(sup, "hello")
    node.cast(sup, "hello")
    assert await node.call(sup, "hello") == atoms("error", "notsup")
    assert len(caplog.messages) == 4
    world.check_nothing_else()


# Restarting


@pytest.mark.parametrize(
    ("strategy", "events"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
async def test_strategies(node: Node, world: World, strategy: Any, events: list[str]) -> None:
    """Which children are restarted with one that ends."""
    sup = await start(node, world, *"abc", strategy=strategy)
    for _ in range(2):
        end(node, "b", BOOM)
        await world.next("-b", *events)
    assert await soon(sup.count_children()) == {
        "specs": 3,
        "active": 3,
        "supervisors": 0,
        "workers": 3,
    }
    world.check_nothing_else()


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, (SHUTDOWN, 1), BOOM], ids=repr)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_restart_types(
    node: Node, world: World, restart: Any, reason: Term, caplog: pytest.LogCaptureFixture
) -> None:
    """Which children are restarted after which end; what is no good end is logged as an error."""
    sup = Supervisor([world.spec("a", restart=restart)])
    await node.start(sup)
    await world.next("+a")
    with pytest.raises(ProcessExit):
        await node.call("a", (Atom("exit"), reason))
    await world.next("-a")
    children = await soon(sup.which_children())
    restarted = restart == "permanent" or (restart == "transient" and reason == BOOM)
    if restarted:
        await world.next("+a")
        assert children == [(Atom("a"), node.whereis("a"), WORKER, DYNAMIC)]
    else:
        gone = (Atom("a"), UNDEFINED, WORKER, DYNAMIC)
        assert children == ([] if restart == "temporary" else [gone])
    reports = [record for record in caplog.records if record.name.endswith(".supervisor")]
    levels = [record.levelno for record in reports]
    warned = [logging.WARNING] if restart == "permanent" else []
    assert levels == ([logging.ERROR] if reason == BOOM else warned)
    world.check_nothing_else()


async def test_temporary_among_others(node: Node, world: World) -> None:
    """It is stopped with the others and not started again with them."""
    specs = [world.spec("a", restart="temporary"), world.spec("b")]
    sup = Supervisor(specs, strategy="one_for_all")
    await node.start(sup)
    end(node, "b", BOOM)
    await world.next("+a", "+b", "-b", "-a", "+b")
    assert (await soon(sup.count_children()))["specs"] == 1


async def test_too_many_restarts(
    node: Node, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With one more than `max_restarts` it stops the other children and exits with `shutdown`."""
    sup = await start(node, world, *"abc", max_restarts=2)
    ended = watch(node, sup)
    for _ in range(2):
        end(node, "b", BOOM)
        await world.next("-b", "+b")
    end(node, "b", BOOM)
    assert await ended() == SHUTDOWN
    await world.next("-b", "-c", "-a")
    assert "over 2 restarts in 5.0 seconds" in caplog.messages[-1]


async def test_restarts_are_forgotten(node: Node, world: World) -> None:
    """Those of more than `max_seconds` ago don't count."""
    await start(node, world, "a", max_restarts=1, max_seconds=SHORT)
    for _ in range(3):
        end(node, "a", BOOM)
        await world.next("-a", "+a")
        await asyncio.sleep(2 * SHORT)


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
async def test_restart_fails(node: Node, world: World, strategy: Any) -> None:
    """It is tried again, each time a restart that counts."""
    sup = await start(node, world, *"ab", strategy=strategy)
    ended = watch(node, sup)
    world.on_init["b"] = fail
    end(node, "b", BOOM)
    assert await ended() == SHUTDOWN
    events = []
    while not world.events.empty():
        events.append(world.events.get_nowait())
    assert events.count("+b") == sup.max_restarts
    assert events[-1] == "-a"


async def test_restart_succeeds_in_the_end(node: Node, world: World) -> None:
    """In between, a child that can't be restarted is `restarting`, and others are served."""
    sup = await start(node, world, "a", "b", max_restarts=10)
    gate = Gate()
    world.on_init["a"] = gate.wait_and_fail
    end(node, "a", BOOM)
    await soon(gate.reached.wait())
    calls: list[Awaitable[Any]] = [
        sup.which_children(),
        sup.restart_child("a"),
        sup.delete_child("a"),
        sup.start_child(world.spec("a")),
        node.call("b", Atom("pid")),
    ]
    asking = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    del world.on_init["a"]
    gate.opened.set()
    await soon(asyncio.wait(asking))
    children, *refused, _ = asking
    assert children.result()[1] == (Atom("a"), RESTARTING, WORKER, DYNAMIC)
    errors: list[Any] = [task.exception() for task in refused]
    assert [error.reason for error in errors] == ["restarting", "restarting", "already_present"]
    await world.next("-a", "+a", "+a")
    assert (await soon(sup.which_children()))[1][1] == node.whereis("a")


async def test_stop_a_child_that_is_restarting(node: Node, world: World) -> None:
    """It is not tried again then."""
    sup = await start(node, world, "a")
    gate = Gate()
    world.on_init["a"] = gate.wait_and_fail
    end(node, "a", BOOM)
    await soon(gate.reached.wait())
    stopping = asyncio.create_task(sup.terminate_child("a"))
    await asyncio.sleep(0)
    gate.opened.set()
    await soon(stopping)
    await world.next("-a", "+a")
    assert (await soon(sup.which_children()))[0][1] == UNDEFINED
    world.check_nothing_else()


@pytest.mark.parametrize(
    ("strategy", "events"),
    [
        ("one_for_one", "-b +b -a -c +a +c"),
        ("rest_for_one", "-b -c +b -a +c -c -b +a +b +c"),
        ("one_for_all", "-b -c -a +a +b -a +c -c -b +a +b +c"),
    ],
)
async def test_end_during_a_restart(node: Node, world: World, strategy: Any, events: str) -> None:
    """Children that end while another is restarted are noticed after it, each once."""
    await start(node, world, *"abc", strategy=strategy)
    gate = Gate()
    world.on_init["b"] = gate.wait
    end(node, "b", BOOM)
    await soon(gate.reached.wait())
    for id in "ac":
        if node.whereis(id) is not None:
            end(node, id, BOOM)
    for _ in range(10):
        await asyncio.sleep(0)
    gate.opened.set()
    await world.next(*events.split())
    world.check_nothing_else()


async def test_dies_as_soon_as_it_has_started(node: Node, world: World) -> None:
    """A child that ends between its start and our noticing it is restarted."""
    sup = Supervisor([world.spec("a"), world.spec("b")])
    gate = Gate()
    world.on_init["b"] = gate.wait
    starting = asyncio.create_task(node.start(sup))
    await soon(gate.reached.wait())
    end(node, "a", BOOM)
    gate.opened.set()
    await soon(starting)
    await world.next("+a", "+b", "-a", "+a")


async def test_task_of_a_child_cancelled(node: Node, world: World) -> None:
    """It has been killed then, and is restarted."""
    await start(node, world, "a")
    process = node.process("a")
    assert process is not None
    assert process._task is not None
    process._task.cancel()
    await world.next("-a", "+a")
    assert process.exit_reason == KILLED


# The same object again


@pytest.mark.parametrize("kind", ["same", "spec"])
async def test_same_object(node: Node, world: World, kind: str) -> None:
    """It is started again when its old run has ended, `terminate` included, and not before.

    So is a new object for the same child, since the old one may hold what the new one needs.
    """
    make = getattr(world, kind)
    sup = Supervisor([make("a"), make("b")])
    await node.start(sup)
    await world.next("+a", "+b")
    gate = Gate()
    world.on_terminate["a"] = gate.wait
    end(node, "a", BOOM)
    await soon(gate.reached.wait())
    end(node, "b", BOOM)
    await world.next("-b")
    for _ in range(10):
        await asyncio.sleep(0)
    world.check_nothing_else()
    gate.opened.set()
    await world.next("-a", "+a", "+b")
    assert (await soon(sup.count_children()))["active"] == 2


async def test_terminate_is_slow(node: Node, world: World) -> None:
    """A `terminate` that heeds being cancelled gets the shutdown time of the child, no more."""
    sup = Supervisor([world.same("a", shutdown=SHORT)])
    await node.start(sup)
    world.on_terminate["a"] = Gate().wait
    end(node, "a", BOOM)
    await world.next("+a", "+a")
    assert (await soon(sup.count_children()))["active"] == 1


async def test_terminate_never_ends(
    node: Node, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that doesn't is left behind: the same object can't be started, the supervisor lives."""
    monkeypatch.setattr(supervisor, "KILL_TIME", SHORT)
    sup = Supervisor([world.same("a", shutdown=SHORT), world.spec("b")], max_restarts=1)
    await node.start(sup)
    await world.next("+a", "+b")
    ended, gate = watch(node, sup), Gate()
    world.on_terminate["a"] = gate.wait_stubbornly
    end(node, "a", BOOM)
    assert await ended() == SHUTDOWN
    await world.next("-b")
    assert "child 'a' was killed and still runs; it is left behind" in caplog.messages
    assert any("child 'a' did not start: " in message for message in caplog.messages)
    gate.opened.set()
    await world.next("-a")


# Supervisors of supervisors


@pytest.mark.parametrize("same", [True, False])
async def test_tree(node: Node, world: World, same: bool) -> None:
    """A supervisor that is killed is restarted by its own, with its first children.

    These are the same objects: each is waited for until it has ended.
    """
    a, b, gate = world.same("a"), world.same("b"), Gate()
    made: list[Supervisor] = []

    def make() -> Supervisor:
        if not made or not same:
            made.append(Supervisor([a, b]))
        return made[-1]

    spec = ChildSpec("low", make, name="low", type="supervisor", shutdown="infinity")
    top = Supervisor([spec])
    await node.start(top)
    await soon(made[0].start_child(world.spec("c")))
    await world.next("+a", "+b", "+c")
    world.on_terminate["b"] = gate.wait
    end(node, "low", KILL)
    assert {await soon(world.events.get()) for _ in range(3)} == {"-a", "-c", "+a"}
    for _ in range(10):
        await asyncio.sleep(0)
    world.check_nothing_else()
    gate.opened.set()
    await world.next("-b", "+b")
    assert (await soon(top.count_children()))["supervisors"] == 1
    assert await stop(node, top) == SHUTDOWN
    await world.next("-b", "-a")


@pytest.mark.parametrize("patient", [True, False])
async def test_stopped_during_a_restart(node: Node, world: World, patient: bool) -> None:
    """Told to stop while a child starts, a supervisor stops when it has, or is killed with it."""
    low = Supervisor([world.spec("a"), world.spec("b")])
    shutdown: Any = "infinity" if patient else SHORT
    top = Supervisor([ChildSpec("low", lambda: low, type="supervisor", shutdown=shutdown)])
    await node.start(top)
    await world.next("+a", "+b")
    gate = Gate()
    world.on_init["b"] = gate.wait
    end(node, "b", BOOM)
    await soon(gate.reached.wait())
    stopping = asyncio.create_task(top.terminate_child("low"))
    if patient:
        for _ in range(10):
            await asyncio.sleep(0)
        gate.opened.set()
    await soon(stopping)
    await world.next("-b", "+b", *(["-b", "-a"] if patient else ["-a"]))
    assert low.exit_reason == (SHUTDOWN if patient else KILLED)
    assert [node.whereis(id) for id in "ab"] == [None] * 2


async def test_node_stops_during_a_restart(epmd: Epmd, world: World) -> None:
    """Nothing is left then, and nothing is started any more."""
    async with Node("py@127.0.0.1", "cookie") as node:
        await start(node, world, "a", "b")
        gate = Gate()
        world.on_init["a"] = gate.wait
        end(node, "a", BOOM)
        await soon(gate.reached.wait())
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < STOP_TIME
    await world.next("-a", "+a", "-b")
    world.check_nothing_else()


# What it can be asked


async def test_start_child(node: Node, world: World) -> None:
    """A child is added when it has started, and is one like the others."""
    sup = await start(node, world, "a")
    assert await soon(sup.start_child(world.spec("b"))) == node.whereis("b")
    with pytest.raises(SupervisorError, match="already_started") as caught:
        await soon(sup.start_child(world.spec("b")))
    assert caught.value.reason == (Atom("already_started"), node.whereis("b"))
    error = ValueError("no")

    async def fail_in_init() -> None:
        raise error

    world.on_init["c"] = fail_in_init
    with pytest.raises(ValueError, match="no") as failed:
        await soon(sup.start_child(world.spec("c")))
    assert failed.value is error
    end(node, "b", BOOM)
    await world.next("+b", "+c", "-b", "+b")
    assert [child[0] for child in await sup.which_children()] == ["b", "a"]
    assert await stop(node, sup) == SHUTDOWN
    await world.next("-b", "-a")


async def test_cancelled_start_child(node: Node, world: World) -> None:
    """The child is started all the same."""
    sup = await start(node, world, "a")
    gate = Gate()
    world.on_init["b"] = gate.wait
    starting = asyncio.create_task(sup.start_child(world.spec("b")))
    await soon(gate.reached.wait())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    gate.opened.set()
    assert (await soon(sup.which_children()))[0][1] == node.whereis("b")


async def test_terminate_restart_delete(node: Node, world: World) -> None:
    """A child that was stopped stays so until it is restarted or deleted."""
    sup = await start(node, world, "a", "b")
    for ask in (sup.restart_child, sup.delete_child):
        with pytest.raises(SupervisorError, match="running"):
            await soon(ask("a"))
    await soon(sup.terminate_child("a"))
    await soon(sup.terminate_child("a"))
    assert await soon(sup.count_children()) == {
        "specs": 2,
        "active": 1,
        "supervisors": 0,
        "workers": 2,
    }
    with pytest.raises(SupervisorError, match="already_present"):
        await soon(sup.start_child(world.spec("a")))
    world.on_init["a"] = fail
    with pytest.raises(ProcessExit):
        await soon(sup.restart_child("a"))
    del world.on_init["a"]
    assert await soon(sup.restart_child("a")) == node.whereis("a")
    await soon(sup.terminate_child("a"))
    await soon(sup.delete_child("a"))
    await world.next("-a", "+a", "+a", "-a")
    asks: list[Callable[[str], Awaitable[Pid | None]]]
    asks = [sup.terminate_child, sup.restart_child, sup.delete_child]
    for again in asks:
        with pytest.raises(SupervisorError, match="not_found"):
            await soon(again("a"))
    world.check_nothing_else()


async def test_terminate_a_temporary_child(node: Node, world: World) -> None:
    """It is deleted with that."""
    sup = Supervisor([world.spec("a", restart="temporary")])
    await node.start(sup)
    await soon(sup.terminate_child("a"))
    await world.next("+a", "-a")
    assert await soon(sup.which_children()) == []


async def test_ended_before_it_is_stopped(
    node: Node, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that ends just before it is stopped is stopped, not restarted, and not reported."""
    sup = await start(node, world, "a")
    stopping = create_task(sup.terminate_child("a"), "stop")
    await asyncio.sleep(0)
    end(node, "a", SHUTDOWN)
    await soon(stopping)
    assert (await soon(sup.which_children()))[0][1] == UNDEFINED
    await world.next("-a")
    world.check_nothing_else()
    assert caplog.messages == []


@pytest.mark.parametrize(
    "options",
    [
        {"id": 1},
        {"id": "a" * 256},
        {"restart": "always"},
        {"type": "server"},
        {"shutdown": -1},
        {"shutdown": "soon"},
        {"shutdown": None},
    ],
    ids=str,
)
def test_bad_child_spec(options: dict[str, Any]) -> None:
    """What can't be used is refused where it is given."""
    with pytest.raises(ConfigError, match="child"):
        ChildSpec(**{"id": "a", "start": Recorder, **options})


@pytest.mark.parametrize(
    "options", [{"strategy": "simple_one_for_one"}, {"max_restarts": -1}, {"max_seconds": None}]
)
def test_bad_supervisor(options: dict[str, Any]) -> None:
    """So it is here."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        Supervisor([], **options)
    with pytest.raises(ConfigError, match="same id"):
        Supervisor([ChildSpec("a", Recorder), ChildSpec("a", Recorder)])
