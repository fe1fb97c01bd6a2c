"""Processes that other nodes start here: SPAWN_REQUEST, with which they spawn, and call by erpc.

Nothing is run but exported functions; a process for any other ends with `undef`, as on a BEAM.
Sources: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#control-messages, `erpc.erl`
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pybeethoven.distribution import control
from pybeethoven.errors import EncodeError, ProcessExit, RpcError
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.otp.exports import EXIT, RETURN, UNDEF
from pybeethoven.otp.process import SYSTEM_LIMIT, Process, first_word

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node

logger = logging.getLogger(__name__)

EXECUTE_CALL: Final = (Atom("erpc"), Atom("execute_call"))
EXECUTE_CAST: Final = (Atom("erpc"), Atom("execute_cast"))
MONITOR: Final = Atom("monitor")
LINK: Final = Atom("link")
BADOPT: Final = Atom("badopt")


class Spawned(Process):
    """Applies one exported function to `args`, itself or, for an rpc, through `erpc`."""

    def __init__(self, function: tuple[Term, Term], args: Term) -> None:
        self._function, self._args = function, args

    async def run(self) -> None:
        """Exit as a BEAM's process would that does the same."""
        match self._function, self._args:
            case ("erpc", "execute_call"), [result, module, function, args]:
                answer = await self.node.exports.answer(result, module, function, args)
                for watcher, _ in list(self.watchers.values()):
                    await self.node.make_room(watcher.node)
                raise ProcessExit(answer)
            case ("erpc", "execute_cast"), [module, function, args]:
                await self._apply(module, function, args)
            case (module, function), args:
                await self._apply(module, function, args)

    async def _apply(self, module: Term, function: Term, args: Term) -> None:
        outcome = await self.node.exports.apply(module, function, args)
        if outcome.kind == RETURN:
            return
        if outcome.error is not None and outcome.kind != EXIT and outcome.value != UNDEF:
            if isinstance(outcome.error, RpcError | EncodeError):  # made for the caller, or by it
                level, what = self.node.exports.log_limit.level(logging.WARNING), outcome.value
                logger.log(level, "%s:%s failed: %s", module, function, first_word(what))
            else:
                logger.error("%s:%s crashed", module, function, exc_info=outcome.error)
        raise ProcessExit(outcome.exit_reason)


def process_spawn_request(
    node: Node, peer: str, request: Reference, sender: Pid, mfa: Term, options: Term, args: Term
) -> None:
    """SPAWN_REQUEST came: start the process, tied to its parent as `options` say, and say so."""
    if not node.running:
        return  # the connection is about to end, which says all
    if not all(o in (LINK, MONITOR) or (type(o) is tuple and len(o) == 2) for o in options):
        node.network.send(peer, *control.spawn_reply(request, sender, 0, BADOPT))
        return
    if node.is_full:
        node.network.send(peer, *control.spawn_reply(request, sender, 0, SYSTEM_LIMIT))
        return
    process, flags = node.spawn(Spawned(mfa[:2], args)), 0
    node.ties.tie(process, sender.node)
    if LINK in options:
        process.parent_pid = sender
        process.links.add(sender)
        flags |= control.SPAWN_FLAG_LINK
    if MONITOR in options:
        process.watchers[request] = (sender, process.pid)
        flags |= control.SPAWN_FLAG_MONITOR
    node.network.send(peer, *control.spawn_reply(request, sender, flags, process.pid))
