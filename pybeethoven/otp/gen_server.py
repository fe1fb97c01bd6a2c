"""GenServer: a process that answers calls and takes casts, one at a time.

Sources: https://www.erlang.org/doc/apps/stdlib/gen_server.html, https://hexdocs.pm/elixir/GenServer.html
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from pybeethoven.errors import ProcessExit
from pybeethoven.etf import Atom, ImproperList, Pid, Reference, Term
from pybeethoven.otp.process import Process, exit_reason_of

logger = logging.getLogger(__name__)

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
SYSTEM: Final = Atom("system")
ALIAS: Final = Atom("alias")

MESSAGES_PER_TURN = 64
"""So many messages are handled before the event loop gets a turn."""

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

    async def init(self) -> None:
        """Called first; `Node.start` returns when it does, and raises what it raises."""

    async def handle_call(self, request: Term, from_: From) -> Term | Literal[_NoReply.NO_REPLY]:
        """Answer a call: what is returned is the reply. Unless overridden, the process exits with
        `{bad_call, request}`, as one in Elixir does."""
        raise ProcessExit((Atom("bad_call"), request))

    async def handle_cast(self, message: Term) -> None:
        """Take a cast. Unless overridden, the process exits with `{bad_cast, message}`."""
        raise ProcessExit((Atom("bad_cast"), message))

    async def handle_info(self, message: Term) -> None:
        """Take any other message. Unless overridden, it is logged."""
        logger.warning("%s got an unexpected message", type(self).__name__)

    async def terminate(self, reason: Term) -> None:
        """Called last, whatever ended the process after its `init`. If an exit signal did, it is no
        longer registered or linked."""

    async def run(self) -> None:
        """Call `init`, then a callback for each message."""
        await self._initialise()
        try:
            while True:
                for _ in range(MESSAGES_PER_TURN):
                    await self._dispatch(await self.receive())
                await asyncio.sleep(0)
        except BaseException as error:
            await self.terminate(exit_reason_of(error, self))
            raise

    async def _initialise(self) -> None:
        try:
            await self.init()
        except BaseException as error:
            exit_ = ProcessExit(exit_reason_of(error, self))
            told = exit_ if isinstance(error, asyncio.CancelledError) else error
            self.started.set_exception(told)
            raise exit_ from error
        self.started.set_result(None)

    async def _dispatch(self, message: Term) -> None:
        if type(message) is tuple:
            if len(message) == 3 and message[0] == GEN_CALL and _is_from(message[1]):
                reply = await self.handle_call(message[2], message[1])
                if reply is not NO_REPLY:
                    self.node.reply(message[1], reply)
                return
            if len(message) == 2 and message[0] == GEN_CAST:
                await self.handle_cast(message[1])
                return
            if len(message) == 3 and message[0] == SYSTEM and _is_from(message[1]):
                self._process_system(message[1], message[2])
                return
        await self.handle_info(message)

    def _process_system(self, from_: From, request: Term) -> None:
        """Answer what `sys` asks: `GenServer.stop` is obeyed, anything else is refused."""
        match request:
            case ("terminate", reason):
                self.node.reply(from_, Atom("ok"))
                raise ProcessExit(reason)
        self.node.reply(from_, (Atom("error"), Atom("notsup")))


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
