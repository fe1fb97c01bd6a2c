"""The functions that other nodes may run: which they are, and what one of them comes to.

A function is known by module, name and number of arguments, as in Erlang. The shape of what a
caller gets is that of `execute_call/4` in `erpc.erl`, and of stack traces that of
https://www.erlang.org/doc/system/errors.html#the-call-stack-back-trace-stacktrace
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Final, TypeVar

from pybeethoven.errors import (
    ConfigError,
    EncodeError,
    ErlangError,
    ErlangExit,
    ErlangThrow,
    ProcessExit,
)
from pybeethoven.etf import Atom, Reference, Term, decode, encode
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.otp.process import python_error

RETURN: Final = Atom("return")
THROW: Final = Atom("throw")
EXIT: Final = Atom("exit")
ERROR: Final = Atom("error")
UNDEF: Final = Atom("undef")
BADARG: Final = Atom("badarg")
ERLANG: Final = Atom("erlang")
APPLY: Final = Atom("apply")
NOCATCH: Final = Atom("nocatch")

BACKTRACE_DEPTH: Final = 8
"""So many calls are in a stack trace, the innermost, as on a BEAM by default."""

F = TypeVar("F", bound=Callable[..., object])

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@dataclass(frozen=True, slots=True)
class _Exported:
    function: Callable[..., object]
    fewest: int
    most: float

    def takes(self, arity: int) -> bool:
        return self.fewest <= arity <= self.most


@dataclass(slots=True)
class Outcome:
    """What a function came to: the value it returned, or what it raised and where."""

    kind: Atom
    value: Term
    stack: list[Term] = field(default_factory=list)
    error: Exception | None = None

    @property
    def exit_reason(self) -> Term:
        """How a process ends that ran the function and nothing else, if it did not return."""
        match self.kind:
            case "exit":
                return self.value
            case "throw":
                return ((NOCATCH, self.value), self.stack)
        return (self.value, self.stack)


class Exports:
    """The exported functions of a node."""

    def __init__(self) -> None:
        self._functions: dict[tuple[Term, Term], list[_Exported]] = {}
        self.log_limit = LogLimit()

    def add(self, module: str, what: Callable[..., object], name: str | None) -> None:
        """Export a function, or those of a class; see `Node.export`."""
        if isinstance(what, type) and name is not None:
            raise ConfigError(f"a class gives its functions their names; leave out name={name!r}")
        named = _functions_of(what) if isinstance(what, type) else [(name or _name_of(what), what)]
        added = [
            ((check_name(module), check_name(each)), _exported(each, function))
            for each, function in named
        ]
        for key, exported in added:
            if any(_overlap(exported, other) for other in self._functions.get(key, ())):
                raise ConfigError(
                    f"{module}:{key[1]} is exported already for as many arguments; "
                    "give the function another name"
                )
        for key, exported in added:
            self._functions.setdefault(key, []).append(exported)

    async def apply(self, module: Term, function: Term, args: Term) -> Outcome:
        """Run a function, wait for it if it is asynchronous, and tell what came of it.

        Whatever is not exported is `undef`, as on a BEAM.
        """
        if not (_is_name(module) and _is_name(function) and type(args) is list):
            return Outcome(ERROR, BADARG, [(ERLANG, APPLY, [module, function, args], [])])
        found = self._functions.get((module, function), ())
        exported = next((each for each in found if each.takes(len(args))), None)
        if exported is None:
            return Outcome(ERROR, UNDEF, [(module, function, args, [])])
        try:
            value = exported.function(*args)
            if inspect.isawaitable(value):
                value = await value
            return Outcome(RETURN, value)
        except Exception as error:
            return _raised(error, _stack_of(error, module, function, args))

    async def answer(self, result: Reference, module: Term, function: Term, args: Term) -> Term:
        """`apply`, and what erpc's caller waits for; `result` is the reference that it gave."""
        outcome = await self.apply(module, function, args)
        stack = [outcome.stack] if outcome.kind == ERROR else []
        answer = (result, outcome.kind, outcome.value, *stack)
        try:
            encode(answer)
        except EncodeError as error:
            return (result, ERROR, python_error(error), [(module, function, len(args), [])])
        return answer


def _is_name(term: Term) -> bool:
    return isinstance(term, Atom | bool | None)


def check_name(name: object) -> Term:
    """The name of a module or function as it comes in from other nodes: `nil` as None, for one.

    Raises `ConfigError` for what can't be one.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"{name!r} cannot name a module or function; that takes a string, like "
            '"Elixir.Billing" in @node.export("Elixir.Billing")'
        )
    try:
        return decode(encode(Atom(name)))
    except EncodeError as error:
        raise ConfigError(f"{name[:20]!r}... cannot name a module or function: {error}") from error


def _name_of(what: object) -> str:
    name = getattr(what, "__name__", "")
    if not callable(what) or not name.isidentifier():
        raise ConfigError(f"{what!r} is no function with a name; export a function, or give name=")
    return str(name)


def _functions_of(what: type) -> list[tuple[str, Callable[..., object]]]:
    members = {name: each for name, each in vars(what).items() if not name.startswith("_")}
    for name, each in members.items():
        if isinstance(each, FunctionType):
            raise ConfigError(
                f"{what.__name__}.{name} needs an instance: make it a @staticmethod, "
                "or export the method of an instance"
            )
    functions = [n for n, each in members.items() if isinstance(each, staticmethod | classmethod)]
    if not functions:
        raise ConfigError(f"{what.__name__} has no public @staticmethod or @classmethod to export")
    return [(name, getattr(what, name)) for name in functions]


def _exported(name: str, function: Callable[..., object]) -> _Exported:
    if not callable(function):
        raise ConfigError(f"cannot export {function!r} as {name!r}; it is not a function")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise ConfigError(
            f"{name!r} does not tell how many arguments it takes; export a function that calls it"
        ) from error
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty:
            raise ConfigError(
                f"{name!r} needs the keyword argument {each.name!r}; other nodes have none to give"
            )
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    fewest = sum(each.default is each.empty for each in positional)
    any_more = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return _Exported(function, fewest, math.inf if any_more else len(positional))


def _overlap(one: _Exported, other: _Exported) -> bool:
    return one.fewest <= other.most and other.fewest <= one.most


def _raised(error: Exception, stack: list[Term]) -> Outcome:
    match error:
        case ErlangThrow():
            return Outcome(THROW, error.reason, stack, error)
        case ErlangExit() | ProcessExit():
            return Outcome(EXIT, error.reason, stack, error)
        case ErlangError():
            return Outcome(ERROR, error.reason, [*error.stack, *stack], error)
    return Outcome(ERROR, python_error(error), stack, error)


def _stack_of(error: Exception, module: Term, function: Term, args: list[Term]) -> list[Term]:
    """Where `error` was raised, in Erlang's form; the function is called what it is exported as."""
    assert error.__traceback__ is not None
    calls = list(_calls(error.__traceback__.tb_next))
    if not calls:  # it is written in C, like a BEAM's BIFs
        return [(module, function, args, [])]
    calls[0] = (module, function, len(args), calls[0][3])
    return calls[: -BACKTRACE_DEPTH - 1 : -1]


def _calls(raised: TracebackType | None) -> Iterator[Term]:
    for frame, line in traceback.walk_tb(raised):
        code = frame.f_code
        module = str(frame.f_globals.get("__name__", "?"))
        file = [ord(character) for character in Path(code.co_filename).name]
        place = [(Atom("file"), file), (Atom("line"), line)]
        yield (Atom(module[:255]), Atom(code.co_name[:255]), code.co_argcount, place)
