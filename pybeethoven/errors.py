"""Every exception that pybeethoven raises on purpose.

    BeethovenError
    ├── ConfigError              a setting that cannot be used (also ValueError)
    ├── EncodeError              a value that has no external form (also TypeError)
    ├── MatchSpecError           a match specification that ETS would not take (also ValueError)
    ├── RemoteError              somebody else did what the protocol does not allow
    │   ├── DecodeError          bytes that are not an external term, or exceed a limit
    │   ├── ProtocolError        frames or control messages out of form
    │   └── HandshakeError       a distribution handshake that was refused or went wrong
    ├── EpmdError                EPMD answered with something unexpected
    │   ├── EpmdUnreachable      no EPMD listens, and none could be started
    │   └── NameTaken            a live node has registered this name already
    ├── NoConnection             a node cannot be reached (Erlang's noconnection)
    ├── Busy                     too much waits to be sent to that node already
    ├── ProcessExit              a process ended; `.reason` is its exit reason
    │   └── NoProcess            there is no such process (Erlang's noproc)
    ├── SupervisorError          a supervisor can't do that with its child; `.reason` tells why
    ├── CallTimeout              no answer within the time given (also TimeoutError)
    ├── TableTimeout             a table was not there within the time given (also TimeoutError)
    ├── NotReady                 Beethoven was not ready within the time given (also TimeoutError)
    ├── RpcError                 a remote function did not return; `.kind`, `.reason` tell why
    │   ├── ErlangThrow          it threw
    │   ├── ErlangExit           it exited
    │   │   └── ExitSignal       an exit signal ended the process that ran it
    │   ├── ErlangError          it raised an error; `.stack` tells where
    │   └── RpcRefused           it was not run at all
    ├── JoinError                a beacon was found, but it did not let us in
    ├── MirrorError              no peer offers the table
    ├── Aborted                  Mnesia refused a change, none was made; `.reason` tells why
    └── UpdatesLost              updates or events came faster than they were read

`ConfigError`, `EncodeError` and `MatchSpecError` are the caller's doing; all others come from
outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Final

_SHOWN_FRAMES: Final = 3
"""So many frames of an Erlang stack trace are in the text of an error."""


_SHOWN_SIZE: Final = 200
"""Maximum number of characters that an error message shows of a term."""
_TERMS: Final = "pybeethoven.etf.terms"
"""The module with the dataclasses among the terms; it is in a layer above this one."""


def brief(term: Any) -> str:
    """A term for an error message: at most 200 characters of it, at a cost that is bounded."""
    try:
        return repr(_beginning(term, iter(range(_SHOWN_SIZE))))[:_SHOWN_SIZE]
    except (ValueError, RecursionError):  # Python shows no integer of over 4,300 digits
        return f"a {type(term).__name__} too large to show"


def _beginning(term: Any, left: Iterator[int]) -> Any:
    """A term without what is not shown of it: `left` has an item for each element still shown."""
    kind = type(term)
    if kind in (str, bytes):
        return term[:_SHOWN_SIZE]
    if kind in (list, tuple):
        return kind(_beginning(each, left) for each, _ in zip(term, left, strict=False))
    if kind is dict:
        pairs = zip(term.items(), left, strict=False)
        return {_beginning(key, left): _beginning(value, left) for (key, value), _ in pairs}
    if kind.__module__ != _TERMS or not is_dataclass(kind):
        return term
    shown = object.__new__(kind)
    for each in fields(kind):
        object.__setattr__(shown, each.name, _beginning(getattr(term, each.name), left))
    return shown


class BeethovenError(Exception):
    """Base of everything below."""


class ConfigError(BeethovenError, ValueError):
    """A setting that cannot be used; the message says what is wrong and shows a right one."""


class EncodeError(BeethovenError, TypeError):
    """A Python value that has no external form."""


class MatchSpecError(BeethovenError, ValueError):
    """A match specification that ETS would refuse with `badarg`; the message names the part."""


class RemoteError(BeethovenError):
    """A peer sent what the protocol does not allow."""


class DecodeError(RemoteError):
    """Bytes that are not an external term, or one that exceeds a limit."""


class ProtocolError(RemoteError):
    """A frame or control message out of form; it closes that one connection."""


class HandshakeError(RemoteError):
    """A distribution handshake that was refused, went wrong or took too long."""


class EpmdError(BeethovenError):
    """EPMD answered with something unexpected."""


class EpmdUnreachable(EpmdError):
    """No EPMD listens at the address, and none could be started."""


class NameTaken(EpmdError):
    """A live node on this host has registered the name already."""


class NoConnection(BeethovenError):
    """A node cannot be reached: Erlang's `noconnection`."""


class Busy(BeethovenError):
    """A node does not take what is sent to it fast enough: too much waits, this was not sent.

    Wait with `await node.drain(peer)`, or send with `await node.send_wait(...)`.
    """


class ProcessExit(BeethovenError):
    """A process that was called ended with `reason`, a term; `process` says which one, if known.

    Raised by a process itself, with no `process`, it is how that process is to end.
    """

    def __init__(self, reason: Any, process: str | None = None) -> None:
        super().__init__(reason, process)
        self.reason = reason
        self.process = process

    def __str__(self) -> str:
        return f"{self.process or 'the process'} exited with reason {brief(self.reason)}"


class NoProcess(ProcessExit):
    """There is no such process: Erlang's `noproc`."""

    def __str__(self) -> str:
        return f"there is no process {self.process or 'any more'}"


class SupervisorError(BeethovenError):
    """A supervisor was asked what its child is in no state for.

    `reason` is what OTP's answers: `not_found`, `running`, `restarting`, `already_present` or
    `(already_started, pid)`.
    """

    def __init__(self, child: Any, reason: Any) -> None:
        super().__init__(child, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"child {brief(self.args[0])}: {brief(self.reason)}"


class CallTimeout(BeethovenError, TimeoutError):
    """No answer came within the time given; a late one is dropped."""


class TableTimeout(BeethovenError, TimeoutError):
    """A table was not there within the time given."""


class NotReady(BeethovenError, TimeoutError):
    """Beethoven had not fully initialised within the time given."""


class RpcError(BeethovenError):
    """A function on another node did not return.

    `kind` is `throw`, `exit`, `error` (what the function did) or `erpc` (it was not run at all);
    `reason` is the term that came with it, `stack` Erlang's stack trace, innermost call first, or
    empty.

    There is a class below for each. An exported function may raise `ErlangThrow`, `ErlangExit` and
    `ErlangError` itself: its caller, on whatever node, gets the same.
    Source: https://www.erlang.org/doc/apps/kernel/erpc.html#call/5
    """

    kind: ClassVar[str] = "error"

    def __init__(self, reason: Any, stack: Sequence[Any] = ()) -> None:
        super().__init__(reason, stack)
        self.reason = reason
        self.stack = stack

    def __str__(self) -> str:
        frames = [_frame_text(frame) for frame in self.stack[:_SHOWN_FRAMES]]
        more = ["..."] if len(self.stack) > _SHOWN_FRAMES else []
        where = f" in {', '.join(frames + more)}" if frames else ""
        return f"{self.kind}: {brief(self.reason)}{where}"


class ErlangThrow(RpcError):
    """The function threw `reason`: Erlang's `throw`."""

    kind = "throw"


class ErlangExit(RpcError):
    """The function exited with `reason`: Erlang's `exit`."""

    kind = "exit"


class ExitSignal(ErlangExit):
    """The process that ran the function was ended with `reason`: erpc's `{signal, Reason}`."""


class ErlangError(RpcError):
    """The function raised an error: Erlang's `error`. `reason` is `undef` when there is no such
    function, `(python_error, class, text)` for an exception of a Python node."""


class RpcRefused(RpcError):
    """The other node did not run the function, for `reason`: erpc's `{erpc, Reason}`."""

    kind = "erpc"


def _frame_text(frame: Any) -> str:
    """`module:function/arity (file:line)`; a frame that is none as `brief` shows it."""
    match frame:
        case (str() as module, str() as function, list() | int() as arity, list() as location):
            count = len(arity) if isinstance(arity, list) else arity
            return f"{module}:{function}/{brief(count)}{_location_text(location)}"
    return brief(frame)


def _location_text(location: list[Any]) -> str:
    match location:
        case [("file", list() as file), ("line", int() as line), *_]:
            try:
                return f" ({''.join(map(chr, file[:200]))}:{line})"
            except (TypeError, ValueError, OverflowError):
                return ""  # not a string of Erlang's, a list of characters
    return ""


class JoinError(BeethovenError):
    """A beacon was found, but it did not let this node in. `answer` is what it said."""

    def __init__(self, message: str, answer: str) -> None:
        super().__init__(message, answer)
        self.answer = answer

    def __str__(self) -> str:
        return str(self.args[0])


class MirrorError(BeethovenError):
    """No connected peer offers the table that is to be mirrored."""


class Aborted(BeethovenError):
    """Mnesia refused to change a table; nothing was changed. `reason` is the term it gave."""

    def __init__(self, table: str, reason: Any) -> None:
        super().__init__(table, reason)
        self.table = table
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.table} was not changed: Mnesia aborted with {brief(self.reason)}"


class UpdatesLost(BeethovenError):
    """Node updates or connection events came faster than they were read; the queue was full."""
