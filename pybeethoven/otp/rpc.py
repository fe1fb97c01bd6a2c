"""Calling functions of other nodes, and of this one.

Since OTP 25 `rpc` and `erpc` both spawn `erpc:execute_call/4` on the other node, with a monitor;
the result is that process's exit reason. Source: `erpc.erl`, and SPAWN_REQUEST in
https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#control-messages
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pybeethoven.distribution import control
from pybeethoven.errors import (
    CallTimeout,
    ConfigError,
    ErlangError,
    ErlangExit,
    ErlangThrow,
    ExitSignal,
    NoConnection,
    RpcError,
    RpcRefused,
    brief,
)
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.net.names import split_name
from pybeethoven.otp.exports import check_name
from pybeethoven.otp.spawned import EXECUTE_CALL, MONITOR, Spawned
from pybeethoven.otp.ties import Monitor

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node


async def call(
    node: Node, peer: str, module: str, function: str, args: Iterable[Term], timeout: float | None
) -> Term:
    """See `Node.rpc`."""
    split_name(peer)
    names = check_name(module), check_name(function)
    name = f"{module}:{function}"
    if isinstance(args, str | bytes):
        raise ConfigError(
            f"the arguments of {name} are {brief(args)}; give them as a list: [{brief(args)}]"
        )
    arguments = list(args)
    try:
        async with asyncio.timeout(timeout):
            await node.drain(peer)
            return await apply(node, peer, *names, arguments)
    except TimeoutError as error:
        text = f"{name}/{len(arguments)} on {peer} took over {timeout:g} seconds"
        raise CallTimeout(text) from error


async def apply(node: Node, peer: str, module: Term, function: Term, args: Term) -> Term:
    """What `erpc:call/4` does, for as long as it takes; see `Node.rpc` for what it raises."""
    future: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

    def on_down(reason: Term) -> None:
        if future.done():
            return
        if node.loss is None:
            future.set_result(reason)
        else:
            future.set_exception(NoConnection(node.loss))

    caller, request, result = node.caller().pid, node.make_reference(), node.make_reference()
    arguments = [result, module, function, args]
    if peer == node.name:
        process = node.spawn(Spawned(EXECUTE_CALL, arguments))
        node.ties.watch(request, Monitor(caller, process.pid, on_down))
    else:
        mfa = (*EXECUTE_CALL, len(arguments))
        node.network.send(
            peer, *control.spawn_request(request, caller, caller, mfa, [MONITOR], arguments)
        )
        node.ties.add_monitor(request, Monitor(caller, (None, Atom(peer)), on_down))
    try:
        return _value(await future, result, request, peer)
    finally:
        node.ties.demonitor(request)


def process_spawn_reply(
    node: Node, peer: str, request: Reference, caller: Pid, result: Term
) -> None:
    """SPAWN_REPLY came: go on waiting for the process, or give up if there is none."""
    if isinstance(result, Pid):
        node.ties.spawned(request, caller, result)
    elif (monitor := node.ties.monitor_on(peer, request)) is not None:
        node.ties.take_monitor(request)
        monitor.on_down((request, result))


def _value(reason: Term, result: Reference, request: Reference, peer: str) -> Term:
    match reason:
        case (tag, "return", value) if tag == result:
            return value
        case (tag, ending, *rest) if tag == result:
            raise _error(ending, rest)
        case "noconnection":
            raise NoConnection(f"the node {peer} cannot be reached")
        case (tag, refusal) if tag == request:
            raise RpcRefused(refusal)
    raise ExitSignal(reason)


def _error(ending: Term, rest: list[Term]) -> RpcError:
    match ending, rest:
        case "throw", [value]:
            return ErlangThrow(value)
        case "exit", [reason]:
            return ErlangExit(reason)
        case "error", [reason, list() as stack]:
            return ErlangError(reason, stack)
        case "error", [("erpc", reason)]:
            return RpcRefused(reason)
    return ExitSignal((ending, *rest))
