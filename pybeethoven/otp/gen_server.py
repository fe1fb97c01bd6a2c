"""GenServer: a process that answers calls and takes casts, one at a time.

Sources: https://www.erlang.org/doc/apps/stdlib/gen_server.html, https://hexdocs.pm/elixir/GenServer.html
What it answers to `sys` is in `sys.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from pybeethoven.errors import ProcessExit
from pybeethoven.etf import Atom, ImproperList, Pid, Reference, Term
from pybeethoven.otp import sys
from pybeethoven.otp.process import EXIT, SYSTEM_LIMIT, Own, Process, exit_reason_of, first_word

logger = logging.getLogger(__name__)

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
SYSTEM: Final = Atom("system")
ALIAS: Final = Atom("alias")
TIMEOUT: Final = Atom("timeout")

From: TypeAlias = tuple[Pid, Term]
"""Who called: what `Node.reply` needs, echoed whole."""


class _NoReply(Enum):
    NO_REPLY = "NO_REPLY"


NO_REPLY: Final = _NoReply.NO_REPLY
"""What `handle_call` returns when it has answered, or will, with `Node.reply`."""


class GenServer(Process):
    """Base class: override the callbacks that are needed. `ProcessExit(reason)` raised in one ends
    the process with that reason; another exception does too, and is logged."""

    def attach(self, node: Any, pid: Pid) -> None:
        """Make it a process of `node` (called by the node)."""
        super().attach(node, pid)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.__continuations: deque[Any] = deque()
        self.__timeout: float | None = None
        self.__suspended = False
        self.__held: list[Term] = []

    @property
    def failed_to_start(self) -> bool:
        """Whether its `init` has failed, which `Node.start` raises."""
        done = self.started.done() and not self.started.cancelled()
        return done and self.started.exception() is not None

    def unhandled(self) -> list[Term]:
        """The messages that it got, or had got when it ended, and did not handle."""
        return [] if not hasattr(self, "node") else [*self.__held, *self._mailbox]

    async def init(self) -> None:
        """Called first; `Node.start` returns when it does, and raises what it raises."""

    async def handle_call(self, request: Term, from_: From) -> Term | Literal[_NoReply.NO_REPLY]:
        """Answer a call: what is returned is the reply; `NO_REPLY` when `Node.reply(from_, reply)`
        was called or will be later. Unless overridden, the process exits with `{bad_call,
        request}`, as one in Elixir does."""
        raise ProcessExit((Atom("bad_call"), request))

    async def handle_cast(self, message: Term) -> None:
        """Take a cast. Unless overridden, the process exits with `{bad_cast, message}`."""
        raise ProcessExit((Atom("bad_cast"), message))

    async def handle_info(self, message: Term) -> None:
        """Take any other message, or `timeout` (see `set_timeout`). Unless overridden, it is
        logged."""
        word = first_word(message)
        logger.warning("%s has no handle_info for a message %s", type(self).__name__, word)

    async def handle_continue(self, arg: Any) -> None:
        """Go on with what `continue_with(arg)` asked for. Unless overridden, the process exits with
        `{bad_continue, arg}`."""
        raise ProcessExit((Atom("bad_continue"), arg))

    async def terminate(self, reason: Term) -> None:
        """Called last, whatever ended the process after its `init`. If an exit signal did, it is no
        longer registered or linked."""

    def format_state(self) -> Term:
        """What `sys:get_state` shows to any peer: unless overridden, the class's name alone, as
        attributes may be secret."""
        return sys.name_of(self)

    def continue_with(self, arg: Any) -> None:
        """Have `handle_continue(arg)` called when the current callback (`init` too) has returned,
        before the next message. Several are called in order."""
        self.__continuations.append(arg)

    def set_timeout(self, seconds: float | None) -> None:
        """Have `handle_info(timeout)` called if no message comes within `seconds` after the current
        callback; None takes it back.

        It lasts until the next message. What `sys` sends is none: after it the time begins anew.
        """
        self.__timeout = seconds

    async def run(self) -> None:
        """Call `init`, then a callback for each message."""
        await self._initialise()
        try:
            while True:
                await self._run_next()
        except BaseException as error:
            await self.terminate(exit_reason_of(error, self))
            raise

    async def _initialise(self) -> None:
        try:
            await self.init()
            if not self.alive:  # it has survived being cancelled
                raise asyncio.CancelledError
        except BaseException as error:
            exit_ = ProcessExit(exit_reason_of(error, self))
            told = exit_ if isinstance(error, asyncio.CancelledError) else error
            self.started.set_exception(told)
            raise exit_ from error
        self.started.set_result(None)

    async def _run_next(self) -> None:
        if self.__continuations and self.alive:
            await self._take_turn()
            await self.handle_continue(self.__continuations.popleft())
            return
        try:
            message = await self.receive(None if self.__suspended else self.__timeout)
        except TimeoutError:
            message = TIMEOUT
        if type(message) is tuple and len(message) == 3:
            if message[0] == SYSTEM and _is_from(message[1]):
                self._process_system(message[1], message[2])
                return
        elif isinstance(message, Own) and message[:2] == (EXIT, self.parent_pid):
            raise ProcessExit(message[2])
        if self.__suspended:
            self.__held.append(message)
        else:
            self.__timeout = None
            await self._dispatch(message)

    async def _dispatch(self, message: Term) -> None:
        if type(message) is tuple:
            if len(message) == 3 and message[0] == GEN_CALL and _is_from(message[1]):
                reply = await self.handle_call(message[2], message[1])
                if reply is not NO_REPLY:
                    self.node.reply(message[1], reply)
                    await self.node.make_room(message[1][0].node)
                return
            if len(message) == 2 and message[0] == GEN_CAST:
                await self.handle_cast(message[1])
                return
        await self.handle_info(message)

    def _process_system(self, from_: From, request: Term) -> None:
        match request:
            case tuple(("terminate", reason)):
                self.node.reply(from_, sys.OK)
                raise ProcessExit(reason)
            case "get_state" if self.node.is_full:
                self.node.reply(from_, (sys.ERROR, SYSTEM_LIMIT))
                return
            case "get_state":
                self.node.spawn(sys.tell_state, from_, sys.state_of(self))
                return
            case "suspend":
                self.__suspended = True
            case "resume":
                self.__suspended = False
                self._mailbox.extendleft(reversed(self.__held))
                self.__held.clear()
        self.node.reply(from_, sys.answer(self, request, suspended=self.__suspended))


def reply_address(from_: From) -> Term:
    """Where a reply goes: the alias in the tag if it has one, else the caller.

    Tags as callers build them: `Ref`, `[alias | Ref]`, `[[alias | Ref] | Id]`, `{Ref, Node}`.
    """
    pid, tag = from_
    head = tag[0] if isinstance(tag, list) and tag else tag
    if isinstance(head, ImproperList) and isinstance(head.elements[0], ImproperList):
        head = head.elements[0]
    if isinstance(head, ImproperList) and head.elements == [ALIAS]:
        return head.tail if isinstance(head.tail, Reference) else pid
    return pid


def _is_from(term: Term) -> bool:
    return type(term) is tuple and len(term) == 2 and type(term[0]) is Pid
