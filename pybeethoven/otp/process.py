"""A process: a mailbox, links and monitors, and a coroutine that reads the mailbox.

What a process is and how signals reach it:
https://www.erlang.org/doc/system/ref_man_processes.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from pybeethoven.errors import ProcessExit, brief
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.etf.terms import ATOM_TYPES

if TYPE_CHECKING:
    from pybeethoven.otp.aliases import AliasKind
    from pybeethoven.otp.node import Node, Target

logger = logging.getLogger(__name__)

NORMAL: Final = Atom("normal")
SHUTDOWN: Final = Atom("shutdown")
KILL: Final = Atom("kill")
KILLED: Final = Atom("killed")
NOPROC: Final = Atom("noproc")
NOCONNECTION: Final = Atom("noconnection")
EXIT: Final = Atom("EXIT")
DOWN: Final = Atom("DOWN")
PROCESS: Final = Atom("process")
SYSTEM_LIMIT: Final = Atom("system_limit")

MESSAGES_PER_TURN = 64
"""So many messages are received before the event loop gets a turn."""
TURN_TIME: Final = 0.01
"""Or those of so many seconds, when they take long."""

LONG_MAILBOX: Final = 1000
"""With more messages in a mailbox, less is read from connections than its process receives."""

current_process: ContextVar[Process | None] = ContextVar("current_process", default=None)
"""The process that runs this code, if one does."""


class Own(tuple[Term, ...]):
    """A message that this node itself has made: none that a peer sends is one, though it may be
    equal to one."""

    __slots__ = ()


class Process:
    """Base class of processes: override `run`. It runs when `Node.spawn` or `Node.start` is given
    one.

    `pid`, `node`: what others send to, and where it runs; there as soon as it is started.
    `trap_exit`: exit signals of linked processes arrive as messages `(EXIT, pid, reason)`, each an
    `Own`, instead of ending this process.
    """

    trap_exit: bool = False
    node: Node
    """The node it runs on; there from the moment it is started, as `pid` is."""
    pid: Pid
    parent_pid: Pid | None
    """The process that started it with a link, if one did."""

    _task: asyncio.Task[None] | None = None

    def attach(self, node: Node, pid: Pid) -> None:
        """Make it a process of `node` (called by the node, which then runs it)."""
        self.node = node
        self.pid = pid
        self.parent_pid = None
        self.alive = True
        """Until it has ended; `exit_reason` tells how then, though `terminate` may be under way."""
        self._shut_down = False
        self.exit_reason: Term = None
        self.links: set[Pid] = set()
        self._tied_to: set[Atom] = set()
        self.unlinking: dict[Pid, int] = {}
        self.watchers: dict[Reference, tuple[Pid, Term]] = {}
        self.monitors: set[Reference] = set()
        self.aliases: set[Reference] = set()
        self._mailbox: deque[Term] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._received = 0
        self._turn_end = time.monotonic() + TURN_TIME

    async def run(self) -> None:
        """What the process does; it exits with reason `normal` when this returns.

        A `ProcessExit` raised here gives the exit reason; any other exception becomes
        `(python_error, class, text)` and is logged.
        """
        raise NotImplementedError

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Put a message into the mailbox (called by the node). `sender` is None when unknown."""
        self._mailbox.append(message)
        if len(self._mailbox) > LONG_MAILBOX:
            self.node.network.crowded = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self, timeout: float | None = None) -> Term:
        """The next message, waiting up to `timeout` seconds (None: for ever).

        Raises `TimeoutError`. When cancelled, no message is lost. Once the process has ended, there
        is none: it is cancelled again, should it have survived that.
        """
        await self._take_turn()
        if self.alive and not self._mailbox:
            if timeout is None:
                await self._message_arrival()
            else:
                async with asyncio.timeout(timeout):
                    await self._message_arrival()
        if not self.alive:
            raise asyncio.CancelledError
        return self._mailbox.popleft()

    async def _take_turn(self) -> None:
        """Let others run now and then, however much there is to do."""
        self._received += 1
        if self._received % MESSAGES_PER_TURN == 0 or time.monotonic() >= self._turn_end:
            await asyncio.sleep(0)
            self._turn_end = time.monotonic() + TURN_TIME

    async def _message_arrival(self) -> None:
        while not self._mailbox:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._turn_end = time.monotonic() + TURN_TIME

    async def wait_end(self, timeout: float | None = None) -> bool:
        """Wait until nothing of it runs any more, its last words (`terminate`) said; whether that
        was so within `timeout` seconds (None: for ever)."""
        if self._task is not None and self._task.done():
            await asyncio.sleep(0)  # not wait: the loop in which it ended may be closed
        elif self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout)
        return self._task is None or self._task.done()

    async def shut_down(self, timeout: float) -> None:
        """Have it end with reason `shutdown`, registered and linked until its last words are said,
        within `timeout` seconds; after these it goes on (called by the node that stops)."""
        if self._task is not None and self.alive:
            self._shut_down = True
            self._task.cancel()
            await self.wait_end(timeout)

    def link(self, pid: Pid) -> None:
        """Link to `pid`: the exit of one is a signal to the other. One that is not there exits with
        `noproc`."""
        self.node.ties.link(self, pid)

    def unlink(self, pid: Pid, *, flush: bool = False) -> None:
        """Undo `link`; no exit signal of `pid` arrives after this. `flush`: one that is in the
        mailbox already is dropped, too."""
        self.node.ties.unlink(self, pid)
        if flush:
            left = [m for m in self._mailbox if not (isinstance(m, Own) and m[:2] == (EXIT, pid))]
            self._mailbox = deque(left)

    def unlinked(self, pid: Pid) -> None:
        """Called when a process of another node that was linked to this one has unlinked itself.
        Must not block."""

    def monitor(self, target: Target, *, alias: AliasKind | None = None) -> Reference:
        """Get `(DOWN, reference, process, pid or (name, node), reason)` when `target` exits, or at
        once with `noproc` or `noconnection` if it is not there.

        `alias`: let the reference be an alias of this process, too, until `unalias`
        (`explicit_unalias`), until `demonitor` or the `DOWN` (`demonitor`), or until these or the
        first message by it (`reply_demonitor`). Source: `monitor/3` in https://www.erlang.org/doc/apps/erts/erlang.html
        """
        return self.node.monitor(self, target, alias=alias)

    def demonitor(self, reference: Reference) -> None:
        """Undo `monitor`; a `DOWN` that is in the mailbox already stays there."""
        self.node.ties.demonitor(reference)
        self.node.aliases.monitor_ended(self, reference)

    def alias(self, *, reply: bool = False) -> Reference:
        """A reference that others can send to as to this process, on any node, until `unalias` or
        its end; messages that come by it later are dropped. `reply`: only the first one counts.

        Source: `alias/1` in https://www.erlang.org/doc/apps/erts/erlang.html
        """
        reference = self.node.make_reference()
        self.node.aliases.add(reference, self, "reply" if reply else "explicit_unalias")
        return reference

    def unalias(self, reference: Reference) -> bool:
        """Take an alias back; False when it is none of this process any more."""
        return self.node.aliases.remove(self, reference)


def label(process: Process) -> str:
    """What a log calls a process: its class, and its name or number."""
    return process._task.get_name() if process._task else type(process).__name__


def is_normal(reason: Term) -> bool:
    """Whether a process that ended with this reason did as it should."""
    match reason:
        case "normal" | "shutdown" | tuple(("shutdown", _)):
            return True
    return False


def first_word(term: Term) -> str:
    """What a log tells of a message or an exit reason: the atom that it is or begins with, as in
    `{bad_cast, Message}`, or else its type. All the rest may be what somebody has sent."""
    word = term[0] if isinstance(term, tuple) and term else term
    return brief(word) if isinstance(word, ATOM_TYPES) else f"a {type(word).__name__}"


def exit_reason_of(error: BaseException, process: Process) -> Term:
    """The exit reason of a process whose `run` was left by `error`."""
    if isinstance(error, ProcessExit):
        # Another's end is no wish to end likewise: `normal` would pass for one's own.
        call = (Atom("gen_server"), Atom("call"), [str(error.process)])
        return error.reason if error.process is None else (error.reason, call)
    if isinstance(error, asyncio.CancelledError):
        if not process.alive:
            return process.exit_reason
        return SHUTDOWN if process._shut_down else KILLED
    return python_error(error)


def python_error(error: BaseException) -> Term:
    """A Python exception as a term, `(python_error, class, text)` with two binaries."""
    try:
        text = str(error)
    except Exception as failure:
        text = f"no text: {type(failure).__name__} in its __str__"
    return (Atom("python_error"), type(error).__name__.encode(), text.encode(errors="replace"))
