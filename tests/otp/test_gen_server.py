"""GenServers on one node: calls, casts, starting and ending."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from pybeethoven import (
    NO_REPLY,
    Atom,
    ChildSpec,
    ConfigError,
    From,
    GenServer,
    ImproperList,
    Node,
    Pid,
    Process,
    Reference,
    Supervisor,
    Term,
)
from pybeethoven.errors import CallTimeout, NoProcess, ProcessExit
from pybeethoven.net.tasks import create_task
from pybeethoven.otp.gen_server import GEN_CALL, GEN_CAST, SYSTEM, reply_address
from pybeethoven.otp.process import MESSAGES_PER_TURN
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon
from tests.timing import UNIT

T = TypeVar("T")

PY = Atom("py@127.0.0.1")
KILL, KILLED, NORMAL, NOPROC, SHUTDOWN = atoms("kill", "killed", "normal", "noproc", "shutdown")
BOOM, PYTHON_ERROR = atoms("boom", "python_error")


class Server(GenServer):
    """Does what it is asked to, and keeps what it was told."""

    def __init__(self, *, trap_exit: bool = False) -> None:
        self.trap_exit = trap_exit
        self.casts: list[Term] = []
        self.infos: asyncio.Queue[Term] = asyncio.Queue()
        self.waiting: asyncio.Queue[From] = asyncio.Queue()
        self.terminated: asyncio.Queue[Term] = asyncio.Queue()

    async def handle_call(self, request: Term, from_: From) -> Any:
        """Do what the request says."""
        match request:
            case ("echo", value):
                return value
            case "casts":
                return list(self.casts)
            case "wait":
                self.waiting.put_nowait(from_)
                return NO_REPLY
            case "reply_twice":
                self.node.reply(from_, 1)
                return 2
            case "hang":
                self.waiting.put_nowait(from_)
                await asyncio.get_running_loop().create_future()
            case ("exit", reason):
                raise ProcessExit(reason)
            case "crash":
                raise ValueError("crashed")
            case ("call", other, inner):
                return await self.node.call(other, inner)
        raise AssertionError(request)

    async def handle_cast(self, message: Term) -> None:
        """Keep it."""
        self.casts.append(message)

    async def handle_info(self, message: Term) -> None:
        """Keep it."""
        self.infos.put_nowait(message)

    async def terminate(self, reason: Term) -> None:
        """Keep it."""
        self.terminated.put_nowait(reason)


class FailsInInit(Server):
    """Its `init` raises what it was made with."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def init(self) -> None:
        """Fail."""
        raise self.error


class SlowInit(Server):
    """Its `init` waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def init(self) -> None:
        """Wait."""
        self.began.set()
        await self.go.wait()


@pytest.fixture
async def server(node: Node) -> Server:
    """A server, registered as `server`."""
    server = Server()
    await node.start(server, name="server")
    return server


# Calls


@pytest.mark.parametrize("to", ["server", ("server", PY), "pid", "process"])
async def test_call(node: Node, server: Server, to: Any) -> None:
    """A call gives the reply, however the server is addressed."""
    addresses: dict[Any, Any] = {"pid": server.pid, "process": server}
    address = addresses.get(to, to)
    values: list[Term] = [1, None, (Atom("error"), b"x"), []]
    for value in values:
        assert await soon(node.call(address, (Atom("echo"), value))) == value


async def test_calls_and_casts_in_order(node: Node, server: Server) -> None:
    """A call sees all casts that were sent before it, and none sent after."""
    for number in range(1000):
        node.cast(server, number)
    call = asyncio.create_task(node.call(server, Atom("casts")))
    await asyncio.sleep(0)
    node.cast(server, "late")
    assert await soon(call) == list(range(1000))


async def test_many_callers(node: Node, server: Server) -> None:
    """Each of many callers gets its own reply."""
    calls = [node.call(server, (Atom("echo"), number)) for number in range(200)]
    assert await soon(asyncio.gather(*calls)) == list(range(200))


async def test_call_from_a_server(node: Node, server: Server) -> None:
    """A server may call another; one that calls itself gets a time-out, as nobody is there."""
    other = Server()
    await node.start(other)
    assert await soon(node.call(other, (Atom("call"), server.pid, (Atom("echo"), 1)))) == 1


async def test_reply_later(node: Node, server: Server) -> None:
    """With `NO_REPLY` the caller waits until anybody replies; the server goes on meanwhile."""
    calls = [asyncio.create_task(node.call(server, Atom("wait"))) for _ in range(2)]
    first, second = await soon(server.waiting.get()), await soon(server.waiting.get())
    assert await soon(node.call(server, (Atom("echo"), 1))) == 1
    assert not any(call.done() for call in calls)
    node.reply(second, "second")
    node.reply(first, "first")
    node.reply(first, "again")
    assert await soon(asyncio.gather(*calls)) == ["first", "second"]


async def test_second_reply_is_dropped(node: Node, server: Server) -> None:
    """The first of two replies counts, and the next call is not confused."""
    assert await soon(node.call(server, Atom("reply_twice"))) == 1
    assert await soon(node.call(server, (Atom("echo"), 3))) == 3


async def test_timeout_and_late_reply(node: Node, server: Server) -> None:
    """After a time-out the late reply reaches nobody: neither a mailbox nor the next call."""
    results: asyncio.Queue[Term] = asyncio.Queue()

    async def caller(process: Any) -> None:
        try:
            await node.call(server, Atom("wait"), timeout=0.02 * UNIT)
        except CallTimeout as error:
            results.put_nowait(str(error))
        node.reply(server.waiting.get_nowait(), "late")
        results.put_nowait(await node.call(server, (Atom("echo"), 1)))
        node.send(process, "only this")
        results.put_nowait(await process.receive())

    node.spawn(caller)
    assert await soon(results.get()) == f"Server did not answer within {0.02 * UNIT:g} seconds"
    assert [await soon(results.get()) for _ in range(2)] == [1, "only this"]
    assert server.watchers == {}


async def test_cancelled_call(node: Node, server: Server) -> None:
    """It leaves neither a monitor nor a place for the reply."""
    call = asyncio.create_task(node.call(server, Atom("wait"), timeout=None))
    from_ = await soon(server.waiting.get())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert server.watchers == {}
    node.reply(from_, "late")
    assert await soon(node.call(server, (Atom("echo"), 1))) == 1


async def test_call_to_nobody(node: Node, server: Server) -> None:
    """A name or pid that is not there is `NoProcess`, at once."""
    node.exit(server, KILL)
    for to in ("nobody", ("nobody", PY), server, server.pid):
        with pytest.raises(NoProcess) as caught:
            await soon(node.call(to, Atom("casts"), timeout=None))
        assert caught.value.reason == NOPROC


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Atom("crash"), (PYTHON_ERROR, b"ValueError", b"crashed")),
        ((Atom("exit"), BOOM), BOOM),
        ((Atom("exit"), NORMAL), NORMAL),
    ],
    ids=repr,
)
async def test_server_ends_during_a_call(
    node: Node,
    server: Server,
    request_: Term,
    reason: Term,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every caller that waits gets the exit reason; an end that is no good one is logged."""
    waiting = asyncio.create_task(node.call(server, Atom("wait"), timeout=None))
    await soon(server.waiting.get())
    for call in (node.call(server, request_), waiting):
        with pytest.raises(ProcessExit) as caught:
            await soon(call)
        assert caught.value.reason == reason
    assert await soon(server.terminated.get()) == reason
    assert node.whereis("server") is None
    logged = [record.getMessage() for record in caplog.records]
    end = "crashed" if request_ == "crash" else "exited: Atom('boom')"
    assert logged == ([] if reason == NORMAL else [f"Server server of {PY} {end}"])


async def test_failed_call_is_no_exit_reason_of_its_own(
    node: Node, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A server whose call of another fails does not end as the other did, and it is logged."""

    class Caller(GenServer):
        async def handle_call(self, request: Term, from_: From) -> Term:
            return await self.node.call(request, (Atom("exit"), NORMAL))

    for called, reason in (("server", NORMAL), ("nobody", NOPROC)):
        caller = Caller()
        await node.start(caller, name="caller")
        with pytest.raises(ProcessExit, match=f"{called}|caller") as caught:
            await soon(node.call(caller, Atom(called)))
        told, (module, function, [who]) = caught.value.reason
        assert (told, module, function) == (reason, *atoms("gen_server", "call"))
        assert called in who
        assert f"Caller caller of {PY} exited: {reason!r}" in caplog.messages
        await caller.wait_end()


@pytest.mark.parametrize("message", ["call", "cast", "continue"])
async def test_missing_callback_is_logged(
    node: Node, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What ends a server that lacks a callback is said, without what it was sent."""
    server = GenServer()
    await node.start(server, name="bare")
    match message:
        case "call":
            with pytest.raises(ProcessExit):
                await soon(node.call(server, b"secret"))
        case "cast":
            node.cast(server, b"secret")
        case "continue":
            server.continue_with(b"secret")
            node.send(server, b"go")
    await soon(server.wait_end())
    ended = [text for text in caplog.messages if "exited" in text]
    assert ended == [f"GenServer bare of {PY} exited: Atom('bad_{message}')"]
    assert "secret" not in caplog.text


async def test_messages_and_reasons_are_not_logged(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """What others send stays out of the log, wherever it stands in a message or an exit reason."""
    child = GenServer()
    spec = ChildSpec("child", lambda: child, restart="temporary")
    sup = Supervisor([spec])
    await node.start(sup)
    for message in (b"secret", (b"secret", 1), ([b"secret"],)):
        node.send(child, message)
    node.cast(child, b"secret")
    await soon(child.wait_end())
    server = GenServer()
    await node.start(server, name="bare")
    node.send(server, (Atom("system"), (server.pid, 1), (Atom("terminate"), b"secret")))
    await soon(server.wait_end())
    await soon(node.call(sup, Atom("which_children")))
    assert "child 'child' ended: Atom('bad_cast')" in caplog.messages
    assert f"GenServer bare of {PY} exited: a bytes" in caplog.messages
    assert "GenServer has no handle_info for a message a list" in caplog.messages
    assert "secret" not in caplog.text


async def test_server_killed_during_a_call(node: Node, server: Server) -> None:
    """A kill reaches a server in the middle of a callback, and its caller."""
    call = asyncio.create_task(node.call(server, Atom("hang"), timeout=None))
    await soon(server.waiting.get())
    node.exit(server, KILL)
    with pytest.raises(ProcessExit) as caught:
        await soon(call)
    assert caught.value.reason == KILLED
    assert await soon(server.terminated.get()) == KILLED


async def test_unknown_call_and_cast(node: Node) -> None:
    """Without a handler a server ends as one in Elixir does; other messages are only logged."""
    for reason in ("bad_call", "bad_cast"):
        plain, watcher = GenServer(), Recorder()
        node.spawn(watcher)
        await node.start(plain)
        watcher.monitor(plain)
        node.send(plain, "info")
        if reason == "bad_call":
            with pytest.raises(ProcessExit) as caught:
                await soon(node.call(plain, "what"))
            assert caught.value.reason == (Atom(reason), "what")
        else:
            node.cast(plain, "what")
        assert (await watcher.next())[4] == (Atom(reason), "what")


@pytest.mark.parametrize(
    "message",
    [
        (GEN_CALL, 1, 2),
        (GEN_CALL, (1, 2), 3),
        (GEN_CALL, (), 3),
        (GEN_CALL,),
        (GEN_CAST,),
        (GEN_CAST, 1, 2),
        [GEN_CAST, 1],
        (b"$gen_cast", 1),
        (),
        None,
    ],
    ids=repr,
)
async def test_malformed_call_or_cast(node: Node, server: Server, message: Term) -> None:
    """It is a message like any other, and ends nothing."""
    node.send(server, message)
    assert await soon(server.infos.get()) == message
    assert await soon(node.call(server, Atom("casts"))) == []


@pytest.mark.parametrize("crashes", [object(), {1, 2}], ids=["object", "set"])
async def test_reply_without_external_form(node: Node, epmd: Epmd, crashes: Term) -> None:
    """To another node it ends the server with a reason that says so, and the caller hears it."""
    server = Server()
    await node.start(server, name="server")

    async def handle_call(request: Term, from_: From) -> Term:
        return crashes

    server.handle_call = handle_call  # type: ignore[method-assign]
    async with Node("other@127.0.0.1", "cookie") as other:
        with pytest.raises(ProcessExit) as caught:
            await soon(other.call(("server", PY), Atom("what")))
    assert caught.value.reason[:2] == (PYTHON_ERROR, b"EncodeError")


class Runner(Process):
    """Runs what it is told to, as itself."""

    def __init__(self, *, trap_exit: bool = False) -> None:
        self.trap_exit = trap_exit
        self.work: asyncio.Queue[tuple[Awaitable[Any], asyncio.Future[Any]]] = asyncio.Queue()

    def tell(self, what: Awaitable[Any]) -> asyncio.Future[Any]:
        """Have something awaited by the process."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.work.put_nowait((what, result))
        return result

    async def run_there(self, what: Awaitable[T]) -> T:
        """What it gives or raises when it is awaited by the process."""
        result: T = await self.tell(what)
        return result

    async def run(self) -> None:
        """Go on until ended."""
        while True:
            what, result = await self.work.get()
            try:
                result.set_result(await what)
            except Exception as error:
                result.set_exception(error)


async def spawn_link(node: Node, body: Any) -> Process:
    """Spawn with a link to the process that runs this."""
    return node.spawn(body, link=True)


REFERENCE = Reference(Atom(PY), 1, (1, 2, 3))
CALLER = Pid(PY, 7, 0, 1)


@pytest.mark.parametrize(
    ("tag", "address"),
    [
        (REFERENCE, CALLER),
        ((REFERENCE, PY), CALLER),
        (ImproperList([Atom("alias")], REFERENCE), REFERENCE),
        ([ImproperList([Atom("alias")], REFERENCE), 1], REFERENCE),
        (ImproperList([ImproperList([Atom("alias")], REFERENCE)], 1), REFERENCE),
        ([REFERENCE, 1], CALLER),
        (ImproperList([Atom("other")], REFERENCE), CALLER),
        (ImproperList([Atom("alias")], (Atom("a"), [])), CALLER),
        ([], CALLER),
    ],
    ids=[
        "ref",
        "{ref, node}",
        "alias",
        "alias, id",
        "alias / id",
        "list",
        "no alias",
        "no ref",
        "nil",
    ],
)
def test_reply_address(tag: Term, address: Term) -> None:
    """The tags of gen_server, gen_statem and rpc: replies go to the alias in them, if one is."""
    assert reply_address((CALLER, tag)) == address


async def test_turns(node: Node, server: Server) -> None:
    """A server with a long mailbox lets others run in between."""
    for number in range(10 * MESSAGES_PER_TURN):
        node.cast(server, number)
    turns = 0
    while len(server.casts) < 10 * MESSAGES_PER_TURN:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10


# Starting


async def test_init_runs_first(node: Node) -> None:
    """`start` returns when `init` has; messages sent before wait for it."""
    server = SlowInit()
    starting = asyncio.create_task(node.start(server, name="slow"))
    await soon(server.began.wait())
    node.cast("slow", 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not starting.done()
    assert server.casts == []
    server.go.set()
    assert await soon(starting) == server.pid == node.whereis("slow")
    assert await soon(node.call(server, Atom("casts"))) == [1]


@pytest.mark.parametrize(
    "error", [ValueError("no"), ProcessExit(BOOM), TimeoutError("late"), CallTimeout("x")], ids=repr
)
async def test_init_fails(node: Node, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The starter gets the very error, nothing is logged, and the name is free at once."""
    with pytest.raises(type(error)) as caught:
        await soon(node.start(FailsInInit(error), name="name"))
    assert caught.value is error
    assert caplog.records == []
    await soon(node.start(Server(), name="name"))


async def test_init_fails_of_a_linked_server(node: Node) -> None:
    """Who linked to it on the way gets the exit signal with the reason."""
    trapper = Recorder(trap_exit=True)
    node.spawn(trapper)
    server = FailsInInit(ValueError("no"))
    starting = create_task(node.start(server), "start")
    await asyncio.sleep(0)
    trapper.link(server.pid)
    await asyncio.gather(starting, return_exceptions=True)
    told = (Atom("EXIT"), server.pid, (PYTHON_ERROR, b"ValueError", b"no"))
    assert await trapper.next() == told


@pytest.mark.parametrize("turns", range(6))
async def test_start_cancelled(node: Node, turns: int) -> None:
    """The server is killed then, whether its `init` had begun or not, and its name is free.

    `terminate` isn't called, as in OTP: there is nothing yet for it to end.
    """
    server = SlowInit()
    starting = asyncio.create_task(node.start(server, name="name"))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert node.whereis("name") is None
    await soon(node.start(Server(), name="name"))
    assert server.terminated.empty()


@pytest.mark.parametrize("turns", range(1, 6))
async def test_killed_before_or_in_init(node: Node, turns: int) -> None:
    """The starter hears that the server was killed, even if it never ran."""
    server = SlowInit()
    starting = create_task(node.start(server, name="name"), "start")
    for _ in range(turns):
        await asyncio.sleep(0)
    assert server.began.is_set() == (turns > 1)
    node.exit(server, KILL)
    with pytest.raises(ProcessExit) as caught:
        await soon(starting)
    assert caught.value.reason == KILLED
    assert node.whereis("name") is None


async def test_name_taken(node: Node, server: Server) -> None:
    """A server under a name that is taken isn't started, and may be under another."""
    second = Server()
    with pytest.raises(ConfigError, match="'server' is taken"):
        await node.start(second, name="server")
    assert node.whereis("server") == server.pid
    await soon(node.start(second, name="second"))
    with pytest.raises(ConfigError, match="Server runs already"):
        await node.start(second)
    assert await soon(node.call("second", (Atom("echo"), 1))) == 1


# Links from the start


async def test_start_link(node: Node) -> None:
    """One that is started with a link ends with its parent, even if it traps exits."""
    parent = node.spawn(run_calls := Runner())
    children = [Server(), Server(trap_exit=True)]
    for child in children:
        await soon(run_calls.run_there(node.start(child, link=True)))
    assert [child.parent_pid for child in children] == [parent.pid] * 2
    node.exit(parent, BOOM)
    assert [await soon(child.terminated.get()) for child in children] == [BOOM] * 2


async def test_spawn_link(node: Node) -> None:
    """The link is there before the process runs: its parent hears of the shortest life."""
    runner = Runner(trap_exit=True)
    node.spawn(runner)

    async def body(process: Process) -> None:
        raise ProcessExit(BOOM)

    child = await soon(runner.run_there(spawn_link(node, body)))
    assert await soon(runner.run_there(runner.receive())) == (Atom("EXIT"), child.pid, BOOM)


async def test_start_link_fails(node: Node) -> None:
    """A parent that traps exits gets the error and no message; another ends with the child."""
    runner = Runner(trap_exit=True)
    node.spawn(runner)
    starting = runner.run_there(node.start(FailsInInit(ProcessExit(BOOM)), link=True))
    with pytest.raises(ProcessExit):
        await soon(starting)
    assert runner.links == set()
    node.send(runner, "first")
    assert await soon(runner.run_there(runner.receive())) == "first"
    victim, watcher = Runner(), Recorder()
    node.spawn(victim)
    node.spawn(watcher)
    reference = watcher.monitor(victim)
    victim.tell(node.start(FailsInInit(ProcessExit(BOOM)), link=True))
    assert await watcher.next_down(reference) == BOOM


async def test_link_needs_a_process(node: Node) -> None:
    """Code that is no process has nothing to link to, nor has one that has ended."""
    with pytest.raises(ConfigError, match="link=True"):
        await node.start(Server(), name="name", link=True)
    ended: asyncio.Queue[BaseException] = asyncio.Queue()

    class Late(Server):
        async def terminate(self, reason: Term) -> None:
            try:
                self.node.spawn(Server(), link=True)
            except ConfigError as error:
                ended.put_nowait(error)

    late = Late()
    await node.start(late)
    node.exit(late, BOOM)
    assert "link=True" in str(await soon(ended.get()))
    assert node.whereis("name") is None


async def test_task_cancelled_before_it_ran(node: Node) -> None:
    """The process is killed then, as it is when its task is cancelled later."""
    watcher = Recorder()
    node.spawn(watcher)
    process = node.spawn(Runner(), name="name")
    reference = watcher.monitor(process)
    assert process._task is not None
    process._task.cancel()
    assert await watcher.next_down(reference) == KILLED
    assert node.whereis("name") is None


# Continuing, time-outs


class Steps(GenServer):
    """Keeps what is called, in order; messages say what to do next."""

    def __init__(self, *first: Term) -> None:
        self.first = first
        self.steps: asyncio.Queue[Term] = asyncio.Queue()

    def do(self, what: Term) -> None:
        """Keep it and do it."""
        self.steps.put_nowait(what)
        match what:
            case ("continue", *args):
                for arg in args:
                    self.continue_with(arg)
            case ("timeout", seconds):
                self.set_timeout(seconds)

    async def init(self) -> None:
        """Do all that it was made with."""
        for what in self.first:
            self.do(what)

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Do it."""
        self.do(request)
        return "done"

    async def handle_cast(self, message: Term) -> None:
        """Do it."""
        self.do(message)

    async def handle_info(self, message: Term) -> None:
        """Do it."""
        self.do(message)

    async def handle_continue(self, arg: Any) -> None:
        """Do it."""
        self.do(arg)

    async def next(self, count: int) -> list[Term]:
        """What has been done."""
        return [await soon(self.steps.get()) for _ in range(count)]


async def test_continue(node: Node) -> None:
    """It runs after the callback that asked for it, `init` or another, before any message."""
    server = Steps(("continue", 1, ("continue", 3), 2))
    starting = asyncio.create_task(node.start(server, name="steps"))
    await asyncio.sleep(0)
    node.send("steps", "message")
    await soon(starting)
    first, *rest = await server.next(6)
    assert first == server.first[0]
    assert rest == [1, ("continue", 3), 2, 3, "message"]
    for message in (("continue", "a"), "b"):
        node.cast(server, message)
    assert await soon(node.call(server, ("continue", "c"))) == "done"
    assert await server.next(5) == [("continue", "a"), "a", "b", ("continue", "c"), "c"]


async def test_continue_without_a_handler(node: Node) -> None:
    """It ends the server, as a call without one does."""

    class Plain(GenServer):
        async def init(self) -> None:
            self.continue_with(1)

    watcher = Recorder()
    node.spawn(watcher)
    plain = Plain()
    starting = create_task(node.start(plain), "start")
    await asyncio.sleep(0)
    reference = watcher.monitor(plain)
    await soon(starting)
    assert await watcher.next_down(reference) == (Atom("bad_continue"), 1)


async def test_continuing_for_ever(node: Node) -> None:
    """A server that always has to go on lets others run, and can be ended."""

    class Endless(Steps):
        async def handle_continue(self, arg: Any) -> None:
            self.continue_with(arg)

    server = Endless(("continue", 1))
    await soon(node.start(server))
    node.exit(server, KILL)
    assert await soon(server.wait_end())


@pytest.mark.parametrize("seconds", [0, 0.02 * UNIT])
async def test_timeout(node: Node, seconds: float) -> None:
    """Without a message in that time, `handle_info` gets `timeout`, once."""
    server = Steps(("timeout", seconds))
    await node.start(server)
    assert await server.next(2) == [("timeout", seconds), "timeout"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.steps.get(), 0.05 * UNIT)
    assert await soon(node.call(server, ("timeout", seconds))) == "done"
    assert await server.next(2) == [("timeout", seconds), "timeout"]


async def test_message_before_the_timeout(node: Node) -> None:
    """It takes the time-out back, even if it came while the callback ran; so does None."""
    server = Steps(("timeout", 0))
    starting = create_task(node.start(server, name="steps"), "start")
    await asyncio.sleep(0)
    node.send("steps", "message")
    await soon(starting)
    assert await server.next(2) == [("timeout", 0), "message"]
    node.send(server, ("timeout", 0.05 * UNIT))
    node.send(server, "message")
    node.send(server, ("continue", ("timeout", 0.05 * UNIT), ("timeout", None)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(never_times_out(server), 0.1 * UNIT)


async def never_times_out(server: Steps) -> None:
    """Return when a time-out comes."""
    while await server.steps.get() != "timeout":
        pass


async def test_timeout_outlasts_sys(node: Node) -> None:
    """What `sys` sends is no message; but a server that is suspended has no time-outs."""
    asker = Recorder()
    node.spawn(asker)
    server = Steps(("timeout", 0.02 * UNIT))
    starting = asyncio.create_task(node.start(server, name="steps"))
    await asyncio.sleep(0)
    node.send("steps", (SYSTEM, (asker.pid, 1), Atom("suspend")))
    await soon(starting)
    assert await asker.next() == (1, "ok")
    assert await server.next(1) == [("timeout", 0.02 * UNIT)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.steps.get(), 0.05 * UNIT)
    node.send("steps", (SYSTEM, (asker.pid, 2), Atom("resume")))
    assert await server.next(1) == ["timeout"]
    assert await soon(node.call(server, "once")) == "done"
    assert await server.next(1) == ["once"]


# Ending


@pytest.mark.parametrize(
    ("signal", "trap_exit", "reason"),
    [(SHUTDOWN, False, SHUTDOWN), ((BOOM, 1), False, (BOOM, 1)), (KILL, True, KILLED)],
)
async def test_terminate_after_a_signal(
    node: Node, signal: Term, trap_exit: bool, reason: Term
) -> None:
    """`terminate` is called with the reason of the signal that ended the server."""
    server = Server(trap_exit=trap_exit)
    await node.start(server)
    node.exit(server, signal)
    assert await soon(server.terminated.get()) == reason
    assert server.terminated.empty()


async def test_trapped_exit(node: Node) -> None:
    """One that traps exits gets them in `handle_info`."""
    server = Server(trap_exit=True)
    await node.start(server)
    node.exit(server, BOOM)
    message = await soon(server.infos.get())
    assert message[0] == "EXIT"
    assert message[2] == BOOM
    assert await soon(node.call(server, (Atom("echo"), 1))) == 1


async def test_terminate_when_the_node_stops(epmd: Epmd) -> None:
    """Every server's `terminate` is called with `shutdown`, and awaited."""
    ended: list[Term] = []

    class Slow(Server):
        async def terminate(self, reason: Term) -> None:
            await asyncio.sleep(0.02 * UNIT)
            ended.append(reason)

    async with Node(PY, "cookie") as node:
        for _ in range(3):
            await node.start(Slow())
    assert ended == [SHUTDOWN] * 3


async def test_terminate_fails(node: Node, server: Server) -> None:
    """A crash in `terminate` is the reason then."""

    async def terminate(reason: Term) -> None:
        raise ValueError("in terminate")

    server.terminate = terminate  # type: ignore[method-assign]
    with pytest.raises(ProcessExit) as caught:
        await soon(node.call(server, (Atom("exit"), BOOM)))
    assert caught.value.reason == (PYTHON_ERROR, b"ValueError", b"in terminate")


async def test_call_when_the_node_stops(epmd: Epmd) -> None:
    """A call that waits ends with its server."""
    async with Node(PY, "cookie") as node:
        server = Server()
        await node.start(server)
        call = asyncio.create_task(node.call(server, Atom("wait"), timeout=None))
        await soon(server.waiting.get())
    with pytest.raises(ProcessExit) as caught:
        await soon(call)
    assert caught.value.reason == SHUTDOWN


async def survive_cancel() -> None:
    """What many do: end a task of theirs, and so swallow being cancelled themselves."""
    task = asyncio.ensure_future(asyncio.get_running_loop().create_future())
    await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("where", ["init", "callback"])
async def test_ended_process_does_nothing_more(node: Node, where: str) -> None:
    """A process that survives being cancelled ends all the same, with nothing handled after."""
    handled: list[Term] = []

    class Survivor(GenServer):
        async def init(self) -> None:
            if where == "init":
                ready.set()
                await survive_cancel()

        async def handle_cast(self, message: Term) -> None:
            handled.append(message)
            ready.set()
            await survive_cancel()

    ready, server = asyncio.Event(), Survivor()
    starting = asyncio.ensure_future(node.start(server))
    if where == "callback":
        await soon(starting)
        for number in range(3):
            node.cast(server, number)
    await soon(ready.wait())
    node.exit(server, KILL)
    assert await soon(server.wait_end())
    assert handled == ([] if where == "init" else [0])
    if where == "init":
        with pytest.raises(ProcessExit):
            await soon(starting)


async def test_kills_itself(node: Node) -> None:
    """Nothing is handled once a handler has ended its own process."""
    handled: list[Term] = []

    class Suicidal(GenServer):
        async def handle_cast(self, message: Term) -> None:
            handled.append(message)
            self.node.exit(self, KILL)

    server = Suicidal()
    await node.start(server)
    for number in range(3):
        node.cast(server, number)
    await soon(server.wait_end())
    assert handled == [0]


class Unprintable(Exception):
    """A crash whose text can't be had."""

    def __str__(self) -> str:
        raise ValueError("no")


async def test_crash_without_text(node: Node) -> None:
    """It is a crash all the same, and `terminate` is called."""
    ended: list[Term] = []

    class Crashing(GenServer):
        async def handle_cast(self, message: Term) -> None:
            raise Unprintable

        async def terminate(self, reason: Term) -> None:
            ended.append(reason)

    server = Crashing()
    await node.start(server)
    node.cast(server, 1)
    await soon(server.wait_end())
    assert (
        ended
        == [server.exit_reason]
        == [(PYTHON_ERROR, b"Unprintable", b"no text: ValueError in its __str__")]
    )


async def test_time_out_of_a_linked_start(node: Node) -> None:
    """Who gives up starting a linked server lives on, and hears nothing of it."""

    class Slow(GenServer):
        async def init(self) -> None:
            await asyncio.get_running_loop().create_future()

    class Parent(GenServer):
        trap_exit = True

        async def handle_call(self, request: Term, from_: From) -> Term:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01 * UNIT):
                    await self.node.start(Slow(), link=True)
            return [len(self.links), len(self._mailbox)]

    parent = Parent()
    await node.start(parent)
    assert await soon(node.call(parent, Atom("start"))) == [0, 0]


async def test_lists_are_no_tuples(node: Node, server: Server) -> None:
    """What looks like a system message but for being a list is none."""
    recorder = Recorder()
    node.spawn(recorder)
    node.send(server, (SYSTEM, (recorder.pid, 1), [Atom("terminate"), BOOM]))
    assert (await recorder.next())[1][0] == "error"
    assert await soon(node.call(server, (Atom("echo"), 1))) == 1
