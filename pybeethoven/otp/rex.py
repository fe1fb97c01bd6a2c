"""The process that `rpc:block_call` talks to, and C nodes and nodes before OTP 23 for every rpc.

Source: `rpc.erl`, the server part. Output goes where that of the rest of the program goes; the
group leader in a request is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from pybeethoven.errors import (
    Busy,
    ConfigError,
    ErlangError,
    ErlangExit,
    ErlangThrow,
    NoConnection,
    NoProcess,
)
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.otp import rpc
from pybeethoven.otp.gen_server import NO_REPLY, From
from pybeethoven.otp.process import EXIT, NOCONNECTION, SYSTEM_LIMIT, Process
from pybeethoven.otp.spawned import EXECUTE_CAST, Spawned
from pybeethoven.otp.system_server import SystemServer

NAME: Final = Atom("rex")
BADRPC: Final = Atom("badrpc")
FULL: Final = (BADRPC, (EXIT, SYSTEM_LIMIT))


class Rex(SystemServer):
    """Runs exported functions for callers: block calls one after the other, others at once."""

    async def init(self) -> None:
        """Have no block call waited for."""
        self._block = asyncio.Lock()

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Run `{block_call | call, Module, Function, Args, GroupLeader}`; ignore anything else."""
        if self.node.is_full:
            return FULL
        match request:
            case ("block_call" | "call" as kind, module, function, args, _):

                def reply(answer: Term) -> None:
                    self.node.reply(from_, answer)

                run = self._answer if kind == "call" else self._answer_in_turn
                self.node.spawn(run, reply, module, function, args)
        return NO_REPLY

    async def handle_cast(self, message: Term) -> None:
        """Run `{cast, Module, Function, Args, GroupLeader}`; ignore anything else."""
        match message:
            case ("cast", module, function, args, _) if not self.node.is_full:
                self.node.spawn(Spawned(EXECUTE_CAST, [module, function, args]))

    async def handle_info(self, message: Term) -> None:
        """Do what a node asks with `{From, Request}`; ignore anything else."""
        match message:
            case (Pid() as from_, ("call", *_)) if self.node.is_full:
                self.node.send_back(from_, (NAME, FULL))
            case (Pid() as from_, ("call", module, function, args, _)):

                def reply(answer: Term) -> None:
                    self.node.send_back(from_, (NAME, answer))

                self.node.spawn(self._answer, reply, module, function, args)
            case (Pid() as from_, "features_request"):
                features = [Atom("erpc")]
                self.node.send_back(from_, (Atom("features_reply"), self.node.name, features))
            case (Pid() as from_, ("sbcast", name, text)):
                if self._pass_on(from_, name, text):
                    self.node.send_back(from_, (NAME, self.node.name, self.node.name))
            case (Pid() as from_, ("send", name, text)):
                self._pass_on(from_, name, (from_, text))

    async def _answer(
        self,
        process: Process,
        reply: Callable[[Term], None],
        module: Term,
        function: Term,
        args: Term,
    ) -> None:
        reply(await self._call(module, function, args))

    async def _answer_in_turn(self, process: Process, *call: Any) -> None:
        async with self._block:
            await self._answer(process, *call)

    async def _call(self, module: Term, function: Term, args: Term) -> Term:
        try:
            return await rpc.apply(self.node, self.node.name, module, function, args)
        except ErlangThrow as thrown:
            return thrown.reason
        except ErlangExit as exit_:
            return (BADRPC, (EXIT, exit_.reason))
        except ErlangError as error:
            return (BADRPC, (EXIT, (error.reason, error.stack)))
        except NoConnection:  # of a node that it was linked to
            return (BADRPC, (EXIT, NOCONNECTION))

    def _pass_on(self, from_: Pid, name: Term, message: Term) -> bool:
        try:
            to = self.node.watchable(name)
            peer = to.node if isinstance(to, Pid) else to[1]
            if peer == self.node.name or self.node.network.is_connected(peer):
                self.node.send(name, message)
        except Busy:  # of a third node: what is only passed on is dropped
            return True
        except (NoProcess, ConfigError):
            missing = (Atom("nonexisting_name"), name)
            self.node.send_back(from_, (NAME, self.node.name, missing))
            return False
        return True
