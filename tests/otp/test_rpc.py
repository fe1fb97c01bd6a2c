"""Exported functions: which there can be, how they run, and what their callers get."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import Atom, ConfigError, ImproperList, Node, Pid, Process, Reference, Term
from pybeethoven.distribution.control import NOTHING, Control, Op
from pybeethoven.errors import (
    CallTimeout,
    ErlangError,
    ErlangExit,
    ErlangThrow,
    ExitSignal,
    NoConnection,
    NoProcess,
    ProcessExit,
    ProtocolError,
    RpcError,
    RpcRefused,
)
from pybeethoven.otp import rpc
from pybeethoven.otp.exports import BACKTRACE_DEPTH
from pybeethoven.otp.signals import Signals
from tests.helpers import Recorder, atoms, soon
from tests.timing import UNIT

PY = "py@127.0.0.1"
HERE = Path(__file__).name
BADRPC, EXIT = atoms("badrpc", "EXIT")

Call = Callable[..., Awaitable[Term]]


@pytest.fixture
def call(node: Node) -> Call:
    """Calls a function of module `m` by rpc, on the node that exports it."""

    async def call(function: str, *args: Term) -> Term:
        return await soon(node.rpc(PY, "m", function, args, timeout=None))

    return call


async def raised(awaitable: Awaitable[Term]) -> RpcError:
    """What a call raises."""
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def line_of(text: str) -> int:
    """The line of this file that ends in the comment `text`."""
    lines = Path(__file__).read_text().splitlines()
    [found] = [n for n, line in enumerate(lines, 1) if line.endswith(f"  # {text}")]
    return found


def frame(module: str, function: str, arity: int, text: str) -> Term:
    """A frame of an Erlang stack trace, at the line that `line_of` finds."""
    place = [(Atom("file"), [ord(c) for c in HERE]), (Atom("line"), line_of(text))]
    return (Atom(module), Atom(function), arity, place)


# Which functions there are


async def test_plain_and_asynchronous_functions(node: Node, call: Call) -> None:
    """Both are run, under their own name or the one that is given, and stay what they are."""

    @node.export("m")
    def double(number: int) -> int:
        return 2 * number

    @node.export("m", name="slowly!")
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return 3 * number

    assert node.export("m", str.upper, name="up") is str.upper
    assert double(4) == 8
    assert await call("double", 5) == 10
    assert await call("slowly!", 5) == 15
    assert await call("up", "text") == "TEXT"
    assert (await raised(call("later", 5))).reason == "undef"
    assert (await raised(node.rpc(PY, "n", "double", [5]))).reason == "undef"


async def test_arity(node: Node, call: Call) -> None:
    """A function is found only for as many arguments as it takes; two may share a name by that."""

    def optional(a: Term, b: Term = 2, *, c: Term = 3) -> Term:
        return (a, b, c)

    def many(a: Term, b: Term, c: Term, *rest: Term) -> Term:
        return (a, b, c, *rest)

    node.export("m", optional, name="f")
    node.export("m", many, name="f")
    assert await call("f", 1) == (1, 2, 3)
    assert await call("f", 1, 0) == (1, 0, 3)
    assert await call("f", 1, 2, 3) == (1, 2, 3)
    assert await call("f", *range(9)) == tuple(range(9))
    error = await raised(call("f"))
    assert (error.kind, error.reason, error.stack) == (
        "error",
        "undef",
        [(*atoms("m", "f"), [], [])],
    )


async def test_names_that_python_reads_as_something_else(node: Node) -> None:
    """`nil`, `true` and `false` are names like any other."""
    node.export("nil", lambda: 1, name="true")
    assert await node.rpc(PY, "nil", "true", []) == 1
    node.export("Elixir.Süß", lambda: 2, name="größe?")
    assert await node.rpc(PY, "Elixir.Süß", "größe?", []) == 2


async def test_functions_of_a_class(node: Node, call: Call) -> None:
    """Static and class methods that are public and its own are exported, and nothing else of it."""

    class Base:
        @staticmethod
        def inherited() -> None: ...

    @node.export("m")
    class Billing(Base):
        rate = 3

        @staticmethod
        def charge(cents: int) -> int:
            return cents

        @classmethod
        def convert(cls, cents: int) -> int:
            return cents * cls.rate

        @staticmethod
        def _secret() -> None: ...

    assert await call("charge", 1) == 1
    assert await call("convert", 2) == 6
    for name in ("inherited", "_secret", "rate", "Billing", "__init__"):
        assert (await raised(call(name))).reason == "undef"
    assert Billing.charge(1) == 1


class Needs:
    """Has a method that needs an instance."""

    @staticmethod
    def good() -> None:
        """Would be exported, were it not for the next."""

    def charge(self) -> None:
        """Needs one."""


class Empty:
    """Has nothing to export."""


def keyword(*, must: Term) -> None:
    """Can't be called without a keyword argument."""


def taken(a: Term) -> None:
    """Takes as many arguments as another."""


@pytest.mark.parametrize(
    ("module", "what", "name", "match"),
    [
        ("m", Needs, None, "Needs.charge needs an instance: make it a @staticmethod"),
        ("m", Empty, None, "Empty has no public"),
        ("m", Needs, "x", "leave out name='x'"),
        ("m", keyword, None, "'keyword' needs the keyword argument 'must'"),
        ("m", max, None, "'max' does not tell how many arguments"),
        ("m", lambda: 1, None, "give name="),
        ("m", 7, None, "7 is no function"),
        ("m", 7, "seven", "cannot export 7 as 'seven'"),
        ("m", taken, "f", "m:f is exported already for as many arguments"),
        ("", taken, None, "'' cannot name a module"),
        (7, taken, None, 'takes a string, like "Elixir.Billing" in @node.export'),
        ("m" * 256, taken, None, "an atom of 256 characters"),
        ("m", taken, "f" * 256, "an atom of 256 characters"),
    ],
)
async def test_what_cannot_be_exported(
    node: Node, module: Any, what: Any, name: str | None, match: str
) -> None:
    """It is said why, and nothing is exported."""
    node.export("m", lambda a, b=1: a, name="f")
    with pytest.raises(ConfigError, match=match):
        node.export(module, what, name=name)
    for function in ("good", "keyword", "max", "seven", "taken"):
        assert (await raised(node.rpc(PY, "m", function, []))).reason == "undef"
    assert await node.rpc(PY, "m", "f", [1]) == 1


async def test_decorator_without_a_module(node: Node) -> None:
    """It is an error at once, not a function that is silently not there."""
    with pytest.raises(ConfigError, match="takes a string"):
        node.export(taken)  # type: ignore[call-overload]


async def test_export_before_the_node_is_started() -> None:
    """A module can decorate its functions when it is imported."""
    node = Node(PY, "cookie")
    node.export("m", lambda: 1, name="f")
    assert (await node.exports.apply(Atom("m"), Atom("f"), [])).value == 1


# What callers get


async def test_a_python_exception(node: Node, call: Call) -> None:
    """It is an error with class and text, and a stack trace that ends in the exported function."""

    def inner(text: str) -> None:
        raise ValueError(text)  # in inner

    @node.export("m")
    async def outer(a: Term, b: Term) -> None:
        inner("as told")  # in outer

    error = await raised(call("outer", 1, 2))
    assert isinstance(error, ErlangError)
    assert error.reason == (Atom("python_error"), b"ValueError", b"as told")
    assert error.stack == [
        frame(__name__, "inner", 1, "in inner"),
        frame("m", "outer", 2, "in outer"),
    ]
    place = f"({HERE}:{line_of('in inner')})"
    assert f"b'ValueError', b'as told') in {__name__}:inner/1 {place}, m:outer/2" in str(error)


async def test_an_exception_of_a_function_without_a_frame(node: Node, call: Call) -> None:
    """Its stack has the arguments, as one of a BEAM's built-in functions has."""
    node.export("m", str.encode, name="encode")
    error = await raised(call("encode", b"bytes"))
    assert error.reason[:2] == (Atom("python_error"), b"TypeError")
    assert error.stack == [(*atoms("m", "encode"), [b"bytes"], [])]


async def test_deep_stacks(node: Node, call: Call) -> None:
    """The innermost calls are told; that a text can't be had disturbs nobody."""

    class Nameless(Exception):
        def __str__(self) -> str:
            raise ValueError

    def recurse(left: int) -> None:
        if not left:
            raise Nameless
        recurse(left - 1)  # recursion

    node.export("m", recurse)
    error = await raised(call("recurse", 100))
    assert error.reason == (
        Atom("python_error"),
        b"Nameless",
        b"no text: ValueError in its __str__",
    )
    assert len(error.stack) == BACKTRACE_DEPTH
    assert error.stack[1:] == [frame(__name__, "recurse", 1, "recursion")] * 7
    assert str(error).endswith(", ...")


@pytest.mark.parametrize(
    ("given", "kind", "gotten"),
    [
        (ErlangThrow(1), ErlangThrow, 1),
        (ErlangExit(Atom("away")), ErlangExit, "away"),
        (ProcessExit(Atom("away")), ErlangExit, "away"),
        (NoProcess(Atom("noproc")), ErlangExit, "noproc"),
        (ErlangError(Atom("badarg")), ErlangError, "badarg"),
        (ExitSignal(Atom("killed")), ErlangExit, "killed"),
        (RpcRefused(Atom("notsup")), ErlangError, (Atom("python_error"), b"RpcRefused", b"text")),
    ],
)
async def test_raised_on_purpose(
    node: Node, call: Call, given: Exception, kind: type[RpcError], gotten: Term
) -> None:
    """A throw, an exit or an error is that for the caller, with its reason."""

    def fail() -> None:
        raise given

    node.export("m", fail)
    error = await raised(call("fail"))
    assert type(error) is kind
    if isinstance(given, RpcRefused):
        assert error.reason[:2] == gotten[:2]
    else:
        assert error.reason == gotten


async def test_an_error_that_is_passed_on(node: Node, call: Call) -> None:
    """What a call to a third node raised arrives with its stack, and the way that it went."""

    def first() -> None:
        raise ErlangError(Atom("oops"))  # at first

    async def second() -> None:
        await call("first")  # at second

    node.export("m", first)
    node.export("m", second)
    error = await raised(call("second"))
    assert error.reason == "oops"
    assert error.stack[0] == frame("m", "first", 0, "at first")
    assert error.stack[-1] == frame("m", "second", 0, "at second")


@pytest.mark.parametrize("wrap", [ErlangThrow, ErlangExit, ErlangError, None])
async def test_results_that_are_no_terms(node: Node, call: Call, wrap: Any) -> None:
    """They are an error of the function, whichever way it gives them."""

    def bad() -> object:
        if wrap is not None:
            raise wrap(object())
        return [1, {"key": object()}]

    node.export("m", bad)
    error = await raised(call("bad"))
    assert isinstance(error, ErlangError)
    assert error.reason[:2] == (Atom("python_error"), b"EncodeError")
    assert error.stack == [(*atoms("m", "bad"), 0, [])]


async def test_names_and_arguments_that_are_none(node: Node) -> None:
    """What a stranger sends in their place is `badarg`, and ends nothing but the call."""
    apply = node.exports.apply
    names: list[tuple[Term, Term]] = [(1, Atom("f")), ([], Atom("f")), (Atom("m"), b"f")]
    for module, function in names:
        outcome = await apply(module, function, [])
        assert (outcome.kind, outcome.value) == atoms("error", "badarg")
    outcome = await apply(Atom("m"), Atom("f"), ImproperList([1], 2))
    assert outcome.stack == [
        (*atoms("erlang", "apply"), [*atoms("m", "f"), ImproperList([1], 2)], [])
    ]


# The process that runs it


async def test_each_call_is_a_process(node: Node, call: Call) -> None:
    """It has a pid of its own, gets messages, and is gone when it returns."""
    pids: asyncio.Queue[Pid] = asyncio.Queue()

    @node.export("m")
    async def wait() -> Term:
        pids.put_nowait(node.caller().pid)
        return await node.caller().receive()

    calls = [asyncio.ensure_future(call("wait")) for _ in range(2)]
    first, second = [await soon(pids.get()) for _ in calls]
    node.send(second, 2)
    node.send(first, 1)
    assert await asyncio.gather(*calls) == [1, 2]
    assert first != second
    assert node.process(first) is node.process(second) is None


async def test_a_call_that_is_killed(node: Node, call: Call) -> None:
    """The function is cancelled, and its caller told that a signal did it."""
    pids: asyncio.Queue[Pid] = asyncio.Queue()
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @node.export("m")
    async def hang() -> None:
        pids.put_nowait(node.caller().pid)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set_result(None)

    hanging = asyncio.ensure_future(call("hang"))
    node.exit(await soon(pids.get()), Atom("kill"))
    error = await raised(hanging)
    assert isinstance(error, ExitSignal)
    assert (error.kind, error.reason) == ("exit", "killed")
    await soon(cancelled)


async def test_linked_process(node: Node, call: Call) -> None:
    """The exit of a process that the function is linked to ends the call with its reason."""

    async def fail(process: Process) -> None:
        raise ProcessExit(Atom("boom"))

    @node.export("m")
    async def hang() -> None:
        node.spawn(fail, link=True)
        await asyncio.get_running_loop().create_future()

    error = await raised(call("hang"))
    assert (type(error), error.reason) == (ExitSignal, "boom")


async def test_time_out(node: Node) -> None:
    """The caller gets its time-out, and the function runs to its end."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()

    @node.export("m")
    async def slow() -> None:
        await release.wait()
        ended.set_result(None)

    with pytest.raises(CallTimeout, match=f"m:slow/0 on {PY} took over"):
        await node.rpc(PY, "m", "slow", [], timeout=0.02 * UNIT)
    release.set()
    await soon(ended)


async def test_wrong_use(node: Node) -> None:
    """A peer without a host, or a string for the arguments, is said to be wrong."""
    with pytest.raises(ConfigError, match="'a' has no '@'"):
        await node.rpc("a", "m", "f", [])
    with pytest.raises(ConfigError, match=r"give them as a list: \['abc'\]"):
        await node.rpc(PY, "m", "f", "abc")
    with pytest.raises(NoConnection):
        await node.rpc("nosuch@127.0.0.1", "m", "f", [])


# What a spawned process exits with


async def ended(node: Node, function: str, *args: Term) -> Term:
    """The exit reason of a process that another node has spawned to run a function of `m`."""
    sender, request = Pid(Atom("a@127.0.0.1"), 1, 0, 1), Reference(Atom("a@127.0.0.1"), 1, (1,))
    before = set(node._processes)
    mfa = (*atoms("m", function), len(args))
    control: Control = (Op.SPAWN_REQUEST, request, sender, sender, mfa, [])
    Signals(node).message_received("a@127.0.0.1", control, list(args))
    [pid] = set(node._processes) - before
    process = node.process(pid)
    assert process is not None
    assert await soon(process.wait_end())
    return process.exit_reason


async def test_exit_reasons(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """They are those of a BEAM; errors that are not meant for the caller are logged."""

    def fail(error: Term) -> None:
        raise {1: ValueError("text"), 2: ErlangThrow(2), 3: ErlangExit(3)}[error]  # failing

    node.export("m", fail)
    node.export("m", lambda: object(), name="fine")
    stack = [frame("m", "fail", 1, "failing")]
    with caplog.at_level(logging.ERROR):
        assert await ended(node, "fail", 3) == 3
        assert await ended(node, "nosuch", 3) == (Atom("undef"), [(*atoms("m", "nosuch"), [3], [])])
        assert await ended(node, "fine") == "normal"
        assert not caplog.records
        assert await ended(node, "fail", 1) == (
            (Atom("python_error"), b"ValueError", b"text"),
            stack,
        )
        assert await ended(node, "fail", 2) == ((Atom("nocatch"), 2), stack)
    assert [record.getMessage() for record in caplog.records] == ["m:fail crashed"]


async def test_spawn_for_somebody_else(node: Node) -> None:
    """A peer can't have a process linked to, or reported to, one that is not its own."""
    other, mine = Pid(Atom("b@127.0.0.1"), 1, 0, 1), node.make_pid()
    request = node.make_reference()
    mfa = (*atoms("m", "f"), 0)
    asked: Control = (Op.SPAWN_REQUEST, request, other, other, mfa, [Atom("link")])
    answer: Control = (Op.SPAWN_REPLY, request, mine, 2, other)
    with pytest.raises(ProtocolError, match="SPAWN_REQUEST"):
        Signals(node).message_received("a@127.0.0.1", asked, [])
    with pytest.raises(ProtocolError, match="SPAWN_REPLY"):
        Signals(node).message_received("a@127.0.0.1", answer, NOTHING)


# rex


class Caller(Recorder):
    """Sends requests to `rex`, and keeps its answers."""

    def ask(self, request: Term) -> None:
        """As C nodes do."""
        self.node.send("rex", (self.pid, request))


async def test_rex(node: Node) -> None:
    """The requests of older nodes are answered as `rpc.erl` does, and unknown ones ignored."""
    node.export("m", lambda x: x, name="id")
    caller, named = Caller(), Recorder()
    node.spawn(caller)
    node.spawn(named, name="named")
    rex = Atom("rex")
    caller.ask((*atoms("call", "m", "id"), [1], Atom("user")))
    assert await caller.next() == (rex, 1)
    caller.ask((*atoms("call", "m", "no"), [1], Atom("user")))
    undef = (Atom("undef"), [(*atoms("m", "no"), [1], [])])
    assert await caller.next() == (rex, (BADRPC, (EXIT, undef)))
    caller.ask(Atom("nonsense"))
    node.send("rex", 7)
    caller.ask(Atom("features_request"))
    assert await caller.next() == (*atoms("features_reply", PY), [Atom("erpc")])
    caller.ask((*atoms("sbcast", "named"), 2))
    assert await caller.next() == (rex, *atoms(PY, PY))
    assert await named.next() == 2
    caller.ask((*atoms("send", "named"), 3))
    assert await named.next() == (caller.pid, 3)
    for name in (Atom("nosuch"), [1]):
        caller.ask((Atom("sbcast"), name, 2))
        assert await caller.next() == (rex, Atom(PY), (Atom("nonexisting_name"), name))


async def test_rex_as_a_server(node: Node) -> None:
    """Calls and casts run beside each other; block calls wait for the one before."""
    release: asyncio.Queue[Term] = asyncio.Queue()
    node.export("m", release.get, name="wait")
    node.export("m", release.put_nowait, name="release")

    def ask(kind: str, function: str, *args: Term) -> asyncio.Task[Term]:
        request = (*atoms(kind, "m", function), list(args), node.caller().pid)
        return asyncio.create_task(node.call("rex", request, timeout=None))

    waiting = ask("call", "wait")
    assert await soon(ask("call", "release", 1)) is None
    assert await soon(waiting) == 1
    node.cast("rex", (*atoms("cast", "m", "release"), [2], node.caller().pid))
    assert await soon(ask("block_call", "wait")) == 2
    first, second = ask("block_call", "wait"), ask("block_call", "release", 4)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.done()
    release.put_nowait(3)
    assert await soon(first) == 3
    assert await soon(second) is None
    assert await soon(ask("call", "wait")) == 4


async def test_rex_outlives_what_it_runs(node: Node) -> None:
    """A block call that is ended by a signal, even for a lost connection, is told of as one."""

    def end(reason: Term) -> None:
        node.exit(node.caller(), reason)

    node.export("m", end)
    pid = node.whereis("rex")
    for reason in atoms("boom", "noconnection"):
        request = (*atoms("block_call", "m", "end"), [reason], node.caller().pid)
        assert await soon(node.call("rex", request)) == (BADRPC, (EXIT, reason))
    assert node.whereis("rex") == pid


# The errors


def test_text_of_an_error() -> None:
    """It shows kind and reason, and where; what is no stack frame does no harm."""
    file = [ord(c) for c in "a.erl"]
    place = [(Atom("file"), file), (Atom("line"), 7)]
    stack = [
        (*atoms("lists", "nth"), [0, []], []),
        (*atoms("m", "f"), 1, place),
        (*atoms("m", "g"), 0, [(Atom("file"), [-1]), (Atom("line"), 7)]),
    ]
    text = "error: 'x' in lists:nth/2, m:f/1 (a.erl:7), m:g/0"
    assert str(ErlangError("x", stack)) == text
    assert str(ErlangError("x", [*stack, 1])) == text + ", ..."
    assert str(ErlangError("x", [5, (), place])) == f"error: 'x' in 5, (), {place!r}"
    assert str(ErlangThrow(1)) == "throw: 1"
    assert str(RpcRefused(Atom("notsup"))) == "erpc: Atom('notsup')"


@pytest.mark.parametrize(
    ("reason", "kind", "value"),
    [
        (("R", "throw", 1), ErlangThrow, 1),
        (("R", "exit", 1), ErlangExit, 1),
        (("R", "error", 1, [2]), ErlangError, 1),
        (("R", "error", ("erpc", "system_limit")), RpcRefused, "system_limit"),
        (("Q", "notsup"), RpcRefused, "notsup"),
        (("X", "notsup"), ExitSignal, ("X", "notsup")),
        (("X", "return", 1), ExitSignal, ("X", "return", 1)),
        (("R", "error", 1, 2), ExitSignal, ("error", 1, 2)),
        ("killed", ExitSignal, "killed"),
    ],
)
def test_what_an_exit_reason_means(reason: Term, kind: type[RpcError], value: Term) -> None:
    """As `result/4` in erpc.erl has it; "R" stands for the reference of the result."""
    references = {letter: Reference(Atom(PY), 1, (ord(letter),)) for letter in "RQX"}

    def real(term: Term) -> Term:
        if type(term) is tuple:
            return tuple(real(each) for each in term)
        return references.get(term, term) if isinstance(term, str) else term

    with pytest.raises(RpcError) as caught:
        rpc._value(real(reason), references["R"], references["Q"], PY)
    assert type(caught.value) is kind
    assert caught.value.reason == real(value)
