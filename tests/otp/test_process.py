"""Processes on one node: messages, names, links, monitors, exits."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from pybeethoven import (
    Atom,
    ChildSpec,
    ConfigError,
    GenServer,
    Node,
    Pid,
    Process,
    Reference,
    Supervisor,
    Term,
)
from pybeethoven.distribution.control import Op
from pybeethoven.errors import NoProcess, ProcessExit, ProtocolError
from pybeethoven.otp.node import STOP_TIME
from pybeethoven.otp.signals import Signals
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon
from tests.otp.processes import (
    BOOM,
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    down,
    exited,
    spawn_recorder,
)
from tests.timing import UNIT

PY = Atom("py@127.0.0.1")


async def for_ever(process: Process) -> None:
    """Live until ended by a signal."""
    await asyncio.get_running_loop().create_future()


async def exit_reason(node: Node, process: Process) -> Term:
    """The reason with which `process` ends, or has ended."""
    watcher = spawn_recorder(node)
    watcher.monitor(process)
    reason = (await watcher.next())[4]
    return process.exit_reason if reason == NOPROC else reason


# Running, names, messages


async def test_spawn(node: Node) -> None:
    """A function runs as a process, with its arguments; when it returns, the process is gone."""
    seen: asyncio.Queue[Term] = asyncio.Queue()

    async def body(process: Process, *args: Term) -> None:
        seen.put_nowait((process.pid, node.whereis("me"), args, await process.receive()))

    process = node.spawn(body, 1, "two", name="me")
    assert node.whereis("me") == process.pid
    node.send("me", "hello")
    assert await soon(seen.get()) == (process.pid, process.pid, (1, "two"), "hello")
    assert await exit_reason(node, process) == NORMAL
    assert node.whereis("me") is None


async def test_spawn_under_a_name_that_is_taken(node: Node) -> None:
    """Nothing runs then, and the name stays with who has it."""
    first = node.spawn(for_ever, name="name")
    ran: list[Process] = []

    async def body(process: Process) -> None:
        ran.append(process)

    with pytest.raises(ConfigError, match="'name' is taken on py@127"):
        node.spawn(body, name="name")
    second = node.spawn(body)
    assert await exit_reason(node, second) == NORMAL
    assert ran == [second]
    assert node.whereis("name") == first.pid


async def test_spawn_twice(node: Node) -> None:
    """A process that runs can't be spawned again; one that has ended can, with another pid."""

    class Once(Process):
        async def run(self) -> None:
            await self.receive()

    process = Once()
    node.spawn(process)
    pid = process.pid
    with pytest.raises(ConfigError, match="Once runs already"):
        node.spawn(process)
    node.send(process, "end")
    assert await exit_reason(node, process) == NORMAL
    await asyncio.sleep(0)
    node.spawn(process)
    assert process.pid != pid


async def test_names(node: Node) -> None:
    """A name is had once; unregistered, or with the end of its process, it is free."""
    one, two = node.spawn(for_ever), node.spawn(for_ever)
    node.register("name", one)
    node.register("other name", one)
    with pytest.raises(ConfigError, match="'name' is taken"):
        node.register("name", two)
    with pytest.raises(ConfigError, match="'undefined' is taken"):
        node.register("undefined", two)
    node.unregister("name")
    with pytest.raises(NoProcess):
        node.unregister("name")
    node.register("name", two)
    node.exit(one, KILL)
    assert node.whereis("other name") is None
    assert node.whereis("name") == two.pid
    with pytest.raises(NoProcess):
        node.register("dead", one)


@pytest.mark.parametrize(
    "address",
    [lambda r: r, lambda r: r.pid, lambda r: "name", lambda r: ("name", PY)],
    ids=["process", "pid", "name", "name and node"],
)
async def test_send(node: Node, address: Callable[[Process], Term]) -> None:
    """A process has four addresses."""
    recorder = spawn_recorder(node, name="name")
    node.send(address(recorder), "hello")
    assert await recorder.next() == "hello"


async def test_send_to_nobody(node: Node) -> None:
    """A name without a process is an error of the sender; what has ended hears nothing."""
    recorder = spawn_recorder(node, name="name")
    node.exit(recorder, KILL)
    for name in ("name", ("name", PY)):
        with pytest.raises(NoProcess):
            node.send(name, "hello")
    node.send(recorder, "hello")
    node.send(recorder.pid, "hello")
    node.send(node.make_reference(), "hello")
    node.cast("name", "hello")
    assert recorder.messages.empty()


@pytest.mark.parametrize("to", [None, 1, b"name", ("name",), ("name", 1), (), (PY, "name")])
async def test_send_to_what_is_no_address(node: Node, to: Term) -> None:
    """The error shows what an address is."""
    with pytest.raises(ConfigError, match="it must be a process, pid, name or"):
        node.send(to, "hello")


@pytest.mark.parametrize("what", ["x", None, 3])
async def test_spawn_of_what_cannot_run(node: Node, what: Any) -> None:
    """The error says what can."""
    with pytest.raises(ConfigError, match=f"{what!r} can't be run; give a process or an async"):
        node.spawn(what)


async def test_monitor_with_a_bad_alias(node: Node) -> None:
    """The error says which kinds there are; nothing is monitored."""
    recorder = spawn_recorder(node)
    bad: Any = "bogus"
    with pytest.raises(ConfigError, match="alias is 'bogus'; it must be None or one of"):
        recorder.monitor(recorder, alias=bad)
    assert recorder.monitors == set()


async def test_order(node: Node) -> None:
    """What each of several senders sends, arrives whole and in its order."""
    received: list[tuple[int, int]] = []

    async def receiver(process: Process) -> None:
        while len(received) < 3000:
            received.append(await process.receive())

    async def sender(process: Process, number: int) -> None:
        for count in range(1000):
            node.send(to, (number, count))
            if count % (number + 2) == 0:
                await asyncio.sleep(0)

    to = node.spawn(receiver)
    for number in range(3):
        node.spawn(sender, number)
    await soon(exit_reason(node, to))
    for number in range(3):
        assert [count for n, count in received if n == number] == list(range(1000))


async def test_receive_timeout(node: Node) -> None:
    """`receive` gives up in time; with a time of 0 it finds what is there already."""
    seen: asyncio.Queue[Term] = asyncio.Queue()

    async def body(process: Process) -> None:
        for timeout in (0, 0.01 * UNIT):
            try:
                await process.receive(timeout)
            except TimeoutError:
                seen.put_nowait("timeout")
        node.send(process, 1)
        seen.put_nowait(await process.receive(0))
        seen.put_nowait(await process.receive(10 * UNIT))

    process = node.spawn(body)
    assert [await soon(seen.get()) for _ in range(3)] == ["timeout", "timeout", 1]
    node.send(process, 2)
    assert await soon(seen.get()) == 2


async def test_cancelled_receive_loses_nothing(node: Node) -> None:
    """Cancelled before or just after a message came, it stays in the mailbox."""
    received: list[Term] = []

    async def body(process: Process) -> None:
        for number in range(10):
            receiving = asyncio.create_task(process.receive())
            await asyncio.sleep(0)
            if number % 2:
                node.send(process, number)
                receiving.cancel()
            else:
                receiving.cancel()
                node.send(process, number)
            await asyncio.gather(receiving, return_exceptions=True)
            received.append(await process.receive())

    await soon(exit_reason(node, node.spawn(body)))
    assert received == list(range(10))


# How a process ends


class Odd(Exception):
    """Its text can't be encoded as UTF-8."""

    def __str__(self) -> str:
        return "odd \ud800"


async def returns(process: Process) -> None:
    """End."""


def raises(error: BaseException) -> Callable[[Process], Awaitable[None]]:
    """A process that ends with `error`."""

    async def body(process: Process) -> None:
        raise error

    return body


PYTHON_ERROR = Atom("python_error")
UNENCODABLE = (PYTHON_ERROR, b"EncodeError")


@pytest.mark.parametrize(
    ("body", "reason", "logged"),
    [
        (returns, NORMAL, False),
        (raises(ProcessExit(SHUTDOWN)), SHUTDOWN, False),
        (raises(ProcessExit((BOOM, [1, 2.5]))), (BOOM, [1, 2.5]), False),
        (raises(ProcessExit(None)), None, False),
        (raises(asyncio.CancelledError()), KILLED, False),
        (raises(ValueError("text ü")), (PYTHON_ERROR, b"ValueError", "text ü".encode()), True),
        (raises(KeyError()), (PYTHON_ERROR, b"KeyError", b""), True),
        (raises(Odd()), (PYTHON_ERROR, b"Odd", b"odd ?"), True),
    ],
)
async def test_exit_reason(
    node: Node,
    body: Callable[[Process], Awaitable[None]],
    reason: Term,
    logged: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What leaves a process's coroutine is its exit reason; unexpected errors are logged."""
    watcher, process = spawn_recorder(node), node.spawn(body)
    reference = watcher.monitor(process)
    assert await watcher.next() == down(reference, process.pid, reason)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * logged


@pytest.mark.parametrize(
    "reason", [object(), (BOOM, [{1, 2}]), Atom("x" * 256), Atom("\ud800"), 1 + 2j]
)
@pytest.mark.parametrize("how", ["raised", "signalled"])
async def test_exit_reason_without_external_form(node: Node, reason: Term, how: str) -> None:
    """Those who watch get a reason that can be sent, in place of one that can't."""
    watcher, trapper = spawn_recorder(node), spawn_recorder(node, trap_exit=True)
    process = node.spawn(raises(ProcessExit(reason)) if how == "raised" else for_ever)
    watcher.monitor(process)
    trapper.link(process.pid)
    if how == "signalled":
        node.exit(process, reason)
    told = (await watcher.next())[4]
    assert told[:2] == UNENCODABLE
    assert await trapper.next() == exited(process, told)


@pytest.mark.parametrize(
    ("reason", "trap_exit", "ends"),
    [
        (SHUTDOWN, False, SHUTDOWN),
        ((BOOM, 1), False, (BOOM, 1)),
        (KILL, False, KILLED),
        (KILL, True, KILLED),
        (NORMAL, False, None),
        (NORMAL, True, None),
        (SHUTDOWN, True, None),
    ],
)
async def test_exit_signal(node: Node, reason: Term, trap_exit: bool, ends: Term) -> None:
    """`exit` ends a process that doesn't trap exits, `kill` all; `normal` none."""
    process, watcher = spawn_recorder(node, trap_exit=trap_exit), spawn_recorder(node)
    reference = watcher.monitor(process)
    node.exit(process, reason)
    if ends is not None:
        assert await watcher.next() == down(reference, process.pid, ends)
        return
    node.send(process, "still there")
    if trap_exit:
        assert (await process.next())[2] == reason
    assert await process.next() == "still there"
    assert watcher.messages.empty()


async def test_normal_exit_signal_to_itself(node: Node) -> None:
    """Only to itself is `normal` more than nothing."""

    async def body(process: Process) -> None:
        node.exit(process, NORMAL)
        await process.receive()

    assert await soon(exit_reason(node, node.spawn(body))) == NORMAL


async def test_killed_before_it_ran(node: Node) -> None:
    """A process that is ended at once never starts."""
    ran: list[Process] = []

    async def body(process: Process) -> None:
        ran.append(process)

    process = node.spawn(body, name="name")
    node.exit(process, KILL)
    assert node.whereis("name") is None
    assert await exit_reason(node, process) == KILLED
    assert ran == []


# Links


@pytest.mark.parametrize("reason", [BOOM, SHUTDOWN, KILL, (BOOM, 1)])
async def test_link(node: Node, reason: Term) -> None:
    """The exit of one ends the other with the same reason, whichever of them linked."""
    for ends, linker in ((0, 0), (0, 1)):
        pair = [node.spawn(for_ever), node.spawn(for_ever)]
        pair[linker].link(pair[1 - linker].pid)
        node.exit(pair[ends], reason)
        assert pair[1 - ends].exit_reason == (KILLED if reason == KILL else reason)


async def test_normal_exit_of_a_linked_process(node: Node) -> None:
    """It leaves the other alone, or is a message if that one traps exits."""
    other, trapper = spawn_recorder(node), spawn_recorder(node, trap_exit=True)

    async def body(process: Process) -> None:
        process.link(other.pid)
        process.link(trapper.pid)

    process = node.spawn(body)
    assert await trapper.next() == exited(process, NORMAL)
    node.send(other, "still there")
    assert await other.next() == "still there"


async def test_trap_exit_stops_the_chain(node: Node) -> None:
    """Who traps exits hears of one, and those linked to it live on."""
    first, middle, last = node.spawn(for_ever), spawn_recorder(node, trap_exit=True), Recorder()
    node.spawn(last)
    middle.link(first.pid)
    middle.link(last.pid)
    node.exit(first, BOOM)
    assert await middle.next() == exited(first, BOOM)
    middle.link(first.pid)
    assert await middle.next() == exited(first, NOPROC)
    node.send(last, "still there")
    assert await last.next() == "still there"


async def test_unlink(node: Node) -> None:
    """After it neither hears of the other's end, and linking again links again."""
    one, two = (spawn_recorder(node, trap_exit=True) for _ in range(2))
    one.link(two.pid)
    two.unlink(one.pid)
    one.unlink(two.pid)
    third = node.spawn(for_ever)
    one.link(third.pid)
    node.exit(two, KILL)
    node.exit(third, BOOM)
    assert await one.next() == exited(third, BOOM)


async def test_unlink_from_one_side(node: Node) -> None:
    """It undoes the link for the other, too."""
    one, two = node.spawn(for_ever), spawn_recorder(node, trap_exit=True)
    one.link(two.pid)
    one.unlink(two.pid)
    node.exit(one, BOOM)
    node.send(two, "last")
    assert await two.next() == "last"


async def test_link_twice_tells_once(node: Node) -> None:
    """A link is there or not; linking again, from either side, changes nothing."""
    one, two = spawn_recorder(node, trap_exit=True), node.spawn(for_ever)
    one.link(two.pid)
    one.link(two.pid)
    two.link(one.pid)
    one.link(one.pid)
    node.exit(two, BOOM)
    node.send(one, "last")
    assert [await one.next(), await one.next()] == [exited(two, BOOM), "last"]


async def test_link_to_nobody(node: Node) -> None:
    """It is as if that process had just ended with `noproc`."""
    dead = node.spawn(for_ever)
    node.exit(dead, KILL)
    trapper, other = spawn_recorder(node, trap_exit=True), node.spawn(for_ever)
    for _ in range(2):
        trapper.link(dead.pid)
        assert await trapper.next() == exited(dead, NOPROC)
    other.link(dead.pid)
    assert other.exit_reason == NOPROC


async def test_chain_of_links(node: Node) -> None:
    """A long chain ends from end to end, in order, and no depth of recursion is in the way."""
    chain = [node.spawn(for_ever) for _ in range(2000)]
    for one, two in itertools.pairwise(chain):
        one.link(two.pid)
    watcher = spawn_recorder(node)
    references = [watcher.monitor(process) for process in chain]
    node.exit(chain[0], BOOM)
    for reference, process in zip(references, chain, strict=True):
        assert await watcher.next() == down(reference, process.pid, BOOM)


async def test_ring_and_mesh_of_links(node: Node) -> None:
    """Links that go round end each process once."""
    ring = [node.spawn(for_ever) for _ in range(20)]
    watcher = spawn_recorder(node)
    for process in ring:
        watcher.monitor(process)
        for other in ring:
            process.link(other.pid)
    node.exit(ring[7], BOOM)
    assert [(await watcher.next())[4] for _ in ring] == [BOOM] * 20
    assert watcher.messages.empty()


# Monitors


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (lambda p: p, lambda p: p.pid),
        (lambda p: p.pid, lambda p: p.pid),
        (lambda p: "name", lambda p: ("name", PY)),
        (lambda p: ("name", PY), lambda p: ("name", PY)),
    ],
    ids=["process", "pid", "name", "name and node"],
)
@pytest.mark.parametrize("alive", [True, False])
async def test_monitor(
    node: Node,
    address: Callable[[Process], Term],
    shown: Callable[[Process], Term],
    alive: bool,
) -> None:
    """DOWN comes once, with the target as it was given, at once if it is dead already."""
    process, watcher = node.spawn(for_ever, name="name"), spawn_recorder(node)
    if not alive:
        node.exit(process, BOOM)
    reference = watcher.monitor(address(process))
    if alive:
        assert watcher.messages.empty()
        node.exit(process, BOOM)
    reason = BOOM if alive else NOPROC
    assert await watcher.next() == down(reference, shown(process), reason)
    assert watcher.messages.empty()


async def test_monitor_of_a_name_stays_with_the_process(node: Node) -> None:
    """Who takes the name over is not monitored."""
    process, watcher = node.spawn(for_ever, name="name"), spawn_recorder(node)
    reference = watcher.monitor("name")
    node.unregister("name")
    heir = node.spawn(for_ever, name="name")
    node.exit(heir, KILL)
    assert watcher.messages.empty()
    node.exit(process, BOOM)
    assert await watcher.next() == down(reference, ("name", PY), BOOM)


async def test_two_monitors(node: Node) -> None:
    """Each monitor gives its own DOWN; one that was undone gives none."""
    process, watcher = node.spawn(for_ever), spawn_recorder(node)
    first, second, third = (watcher.monitor(process) for _ in range(3))
    watcher.demonitor(second)
    watcher.demonitor(second)
    node.exit(process, BOOM)
    told = [await watcher.next() for _ in range(2)]
    assert told == [down(ref, process.pid, BOOM) for ref in (first, third)]
    watcher.demonitor(first)
    assert watcher.messages.empty()


async def test_watcher_ends_first(node: Node) -> None:
    """Nothing of its monitors is left, nor sent to it."""
    process, watcher = node.spawn(for_ever), spawn_recorder(node)
    watcher.monitor(process)
    node.exit(watcher, KILL)
    assert process.watchers == {}
    node.exit(process, BOOM)
    assert watcher.messages.empty()


async def test_monitoring_one_another(node: Node) -> None:
    """A pair that monitors each other and itself comes apart."""
    one, two = (spawn_recorder(node) for _ in range(2))
    one.monitor(one)
    one.monitor(two)
    reference = two.monitor(one)
    node.exit(one, BOOM)
    assert await two.next() == down(reference, one.pid, BOOM)
    assert one.messages.empty()


# The end of the node


async def test_stop_ends_all(epmd: Epmd) -> None:
    """Every process ends with `shutdown`, and can clean up; nobody is left when `stop` returns."""
    cleaned: list[Pid] = []

    async def body(process: Process) -> None:
        try:
            await process.receive()
        finally:
            await asyncio.sleep(0)
            cleaned.append(process.pid)

    async with Node(PY, "cookie") as node:
        processes = [node.spawn(body) for _ in range(5)]
        await asyncio.sleep(0)
    assert [process.exit_reason for process in processes] == [SHUTDOWN] * 5
    assert cleaned == [process.pid for process in processes]


async def test_stop_does_not_wait_for_ever(epmd: Epmd, caplog: pytest.LogCaptureFixture) -> None:
    """A process that won't end is left behind after `STOP_TIME`, and named in the log."""
    let_go = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn(process: Process) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    async with Node(PY, "cookie") as node:
        node.spawn(stubborn, name="stubborn")
        await asyncio.sleep(0)
        start = time.monotonic()
    assert STOP_TIME <= time.monotonic() - start < STOP_TIME + UNIT
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "stubborn did not end within" in record.getMessage()
    let_go.set()
    await soon(ended.wait())


class Last(GenServer):
    """Says in `terminate` which of the names are still there."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    async def terminate(self, reason: Term) -> None:
        await asyncio.sleep(0)
        there = [name for name in ("first", "a", "b", "last") if self.node.whereis(name)]
        self.said.append(f"{self.name} of {' '.join(there)}")
        assert reason == SHUTDOWN


async def test_stop_in_order(epmd: Epmd) -> None:
    """What was started last ends first, a supervisor's children before it, each while all that was
    there when it started still is."""
    said: list[str] = []
    async with Node(PY, "cookie") as node:
        first = Last("first", said)
        await node.start(first, "first")
        children = [ChildSpec(id, partial(Last, id, said), name=id) for id in "ab"]
        supervisor = Supervisor(children)
        await node.start(supervisor)
        await node.start(Last("last", said), "last")
    assert said == ["last of first a b last", "b of first a", "a of first", "first of first"]
    assert (first.exit_reason, supervisor.exit_reason) == (SHUTDOWN, SHUTDOWN)


async def test_stop_with_a_server_that_does_not_end(
    epmd: Epmd, caplog: pytest.LogCaptureFixture
) -> None:
    """One that won't end takes its time only once; the others end all the same."""
    said: list[str] = []
    let_go = asyncio.Event()

    class Stubborn(GenServer):
        async def terminate(self, reason: Term) -> None:
            while not let_go.is_set():
                with suppress(asyncio.CancelledError):
                    await let_go.wait()

    stubborn = Stubborn()
    async with Node(PY, "cookie") as node:
        await node.start(Last("first", said), "first")
        await node.start(stubborn)
        start = time.monotonic()
    assert 2 * STOP_TIME <= time.monotonic() - start < 2 * STOP_TIME + UNIT
    assert [text.split()[0] for text in said] == ["first"]
    assert [r.getMessage().split()[0] for r in caplog.records] == ["Stubborn"]
    let_go.set()
    assert await stubborn.wait_end(1 * UNIT)


async def test_name_of_a_stopped_node_is_free(epmd: Epmd) -> None:
    """A node may be started again under its name at once, and the same `Node` again, too."""
    node = Node(PY, "cookie")
    for _ in range(3):
        async with node:
            recorder = spawn_recorder(node, name="name")
            node.send("name", "hello")
            assert await recorder.next() == "hello"


async def test_cancelled_start(epmd: Epmd) -> None:
    """A start that is cancelled at any moment leaves the name free and no port open."""
    for turns in range(40):
        node = Node(PY, "cookie")
        starting = asyncio.create_task(node.start_node())
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.done():
            await node.stop()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    async with Node(PY, "cookie"):
        pass


async def test_stopped_while_it_starts(epmd: Epmd) -> None:
    """A stop at any moment of a start leaves nothing running, and the start fails if it has not
    succeeded before."""
    failed = 0
    for turns in range(40):
        node = Node(PY, "cookie")
        starting = asyncio.create_task(node.start_node())
        for _ in range(turns):
            await asyncio.sleep(0)
        await soon(node.stop())
        [error] = await soon(asyncio.gather(starting, return_exceptions=True))
        assert not node.running
        assert node._processes == {}
        assert error is None or "stopped" in str(error) or "does not run" in str(error)
        failed += error is not None
    assert failed
    async with Node(PY, "cookie"):
        pass


async def test_started_while_it_stops(epmd: Epmd) -> None:
    """A start that the stop has not left behind fails; the stop would end what was started."""
    failed = 0
    for turns in range(20):
        node = Node(PY, "cookie", epmd=False)
        await node.start_node()
        assert node.network._door is not None
        assert node.network._door._server is not None
        port = node.network._door._server.port
        async with Node("b@127.0.0.1", "cookie", epmd=False) as other:
            await other.connect(PY, ("127.0.0.1", port))
            stopping = asyncio.create_task(node.stop())
            for _ in range(turns):
                await asyncio.sleep(0)
            [error] = await soon(asyncio.gather(node.start_node(), return_exceptions=True))
            await soon(stopping)
        if error is None:
            assert node.running
            assert node.whereis("net_kernel")
        else:
            assert re.search("is being stopped|was started already", str(error))
            failed += 1
        await soon(node.stop())
    assert failed


async def test_started_twice(epmd: Epmd) -> None:
    """The second start is an error that changes nothing, during the first and after it."""
    node = Node(PY, "cookie")
    both = asyncio.gather(node.start_node(), node.start_node(), return_exceptions=True)
    first, second = await soon(both)
    assert first is None
    assert "was started already" in str(second)
    with pytest.raises(ConfigError, match="was started already"):
        await node.start_node()
    recorder = spawn_recorder(node, name="name")
    node.send("name", "hello")
    assert await recorder.next() == "hello"
    await node.stop()


THIRD = Pid(Atom("third@127.0.0.1"), 1, 0, 1)
PEER = Pid(Atom("peer@127.0.0.1"), 1, 0, 1)
REFERENCE = Reference(PEER.node, 1, (1, 2, 3))


@pytest.mark.parametrize(
    "signal",
    [
        (Op.LINK, THIRD, None),
        (Op.LINK, PEER, THIRD),
        (Op.EXIT2, PEER, THIRD, BOOM),
        (Op.EXIT2, THIRD, None, BOOM),
        (Op.EXIT, THIRD, None, BOOM),
        (Op.PAYLOAD_EXIT, PEER, THIRD),
        (Op.MONITOR_P, THIRD, None, REFERENCE),
        (Op.MONITOR_P, PEER, THIRD, REFERENCE),
        (Op.DEMONITOR_P, THIRD, Atom("name"), REFERENCE),
        (Op.MONITOR_P_EXIT, THIRD, None, REFERENCE, BOOM),
        (Op.UNLINK_ID, 1, THIRD, None),
        (Op.UNLINK_ID_ACK, 1, PEER, THIRD),
        (Op.SEND_SENDER, THIRD, None),
        (Op.ALIAS_SEND, THIRD, REFERENCE),
        (Op.SPAWN_REQUEST, REFERENCE, THIRD, THIRD, atoms("m", "f"), []),
        (Op.SPAWN_REPLY, REFERENCE, THIRD, 0, PEER),
        (Op.SPAWN_REPLY, REFERENCE, None, 0, THIRD),
    ],
    ids=lambda signal: signal[0].name,
)
async def test_signal_that_is_not_between_a_peer_and_us(node: Node, signal: Term) -> None:
    """A peer may not speak for the processes of others, nor to them through us."""
    process = node.spawn(for_ever)
    received = tuple(process.pid if element is None else element for element in signal)
    with pytest.raises(ProtocolError, match=signal[0].name):
        Signals(node).message_received(PEER.node, received, BOOM)
    assert node.process(process.pid) is process
    assert process.links == set()
