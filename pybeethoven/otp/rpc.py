"""Functions of another node: calling them, and what those get who call ours.

Since OTP 25 `rpc` and `erpc` both spawn `erpc:execute_call/4` on the other node, with a monitor;
the result is that process's exit reason. Source: `erpc.erl`, and SPAWN_REQUEST in
https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#control-messages
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pybeethoven.dist import control
from pybeethoven.errors import CallTimeout, NoConnection, RpcError
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.otp.ties import Monitor

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node

EXECUTE_CALL: Final = (Atom("erpc"), Atom("execute_call"), 4)
MONITOR: Final = Atom("monitor")
LINK: Final = Atom("link")
ERROR: Final = Atom("error")
UNDEF: Final = Atom("undef")


async def call(
    node: Node, peer: str, module: str, function: str, args: list[Term], timeout: float | None
) -> Term:
    """Run `module:function(args...)` on the BEAM node `peer` and give what it returns.

    Waits up to `timeout` seconds (None: for ever). Raises `RpcError` for what the function raised
    or when it could not be run, `NoConnection`, `CallTimeout`. After a time-out, or when cancelled,
    the function goes on running there; its result is dropped.
    """
    future: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

    def on_down(reason: Term) -> None:
        if not future.done():
            future.set_result(reason)

    caller, request, result = node.caller().pid, node.make_reference(), node.make_reference()
    node.network.send(
        peer,
        *control.spawn_request(
            request,
            caller,
            caller,
            EXECUTE_CALL,
            [MONITOR],
            [result, Atom(module), Atom(function), args],
        ),
    )
    node.ties.add_monitor(request, Monitor(caller, (Atom(""), Atom(peer)), on_down))
    try:
        async with asyncio.timeout(timeout):
            return _value(await future, result, peer)
    except TimeoutError as error:
        text = f"{module}:{function}/{len(args)} on {peer} took over {timeout:g} seconds"
        raise CallTimeout(text) from error
    finally:
        node.ties.take_monitor(request)


def process_spawn_reply(node: Node, request: Reference, result: Term) -> None:
    """SPAWN_REPLY came: go on waiting for the process, or give up if there is none."""
    if not isinstance(result, Pid) and (monitor := node.ties.take_monitor(request)) is not None:
        monitor.on_down((request, result))


def process_spawn_request(
    node: Node, peer: str, request: Reference, sender: Pid, mfa: Term, options: Term, args: Term
) -> None:
    """SPAWN_REQUEST came: nothing is run. The sender sees a process that ended with `undef`."""
    pid = node.make_pid()
    linked, monitored = _asks_for(options, LINK), _asks_for(options, MONITOR)
    flags = control.SPAWN_FLAG_LINK * linked | control.SPAWN_FLAG_MONITOR * monitored
    node.network.send(peer, *control.spawn_reply(request, sender, flags, pid))
    reason = _undef(mfa, args)
    if linked:
        node.ties.send_exit(pid, sender, reason)
    if monitored:
        node.ties.send_down(pid, sender, request, reason)


def _asks_for(options: list[Term], what: Atom) -> bool:
    return any(o == what or (type(o) is tuple and o[:1] == (what,)) for o in options)


def _undef(mfa: Term, args: Term) -> Term:
    """How a process ends that was to run a function that is not there, itself or for an rpc."""
    if mfa == EXECUTE_CALL and type(args) is list and len(args) == 4:
        result, module, function, arguments = args
        return (result, ERROR, UNDEF, [(module, function, arguments, [])])
    return (UNDEF, [(mfa[0], mfa[1], args, [])])


def _value(reason: Term, result: Reference, peer: str) -> Term:
    match reason:
        case (tag, Atom("return"), value) if tag == result:
            return value
        case (tag, Atom("throw" | "exit") as kind, value) if tag == result:
            raise RpcError(kind, value)
        case (tag, Atom("error"), value, stack) if tag == result:
            raise RpcError("error", value, stack)
        case Atom("noconnection"):
            raise NoConnection(f"the node {peer} cannot be reached")
        case (Reference(), refusal):
            raise RpcError("erpc", refusal)
    raise RpcError("exit", reason)
