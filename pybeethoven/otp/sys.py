"""What a GenServer answers to the functions of `sys`, and so to those who look into a node with it.

Source: https://www.erlang.org/doc/apps/stdlib/sys.html, of which a process is asked with messages
`{system, From, Request}`. Suspending and ending are done in `gen_server.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pybeethoven.errors import BeethovenError
from pybeethoven.etf import Atom, Term, decode, encode
from pybeethoven.otp.process import Process, exit_reason_of

if TYPE_CHECKING:
    from pybeethoven.otp.gen_server import From, GenServer

OK: Final = Atom("ok")
ERROR: Final = Atom("error")
NOTSUP: Final = Atom("notsup")
DATA: Final = Atom("data")


def answer(server: GenServer, request: Term, *, suspended: bool) -> Term:
    """The reply to a system message. What can't be done to a Python process is refused in the form
    that `sys` has for it: its caller gets an error, or raises one."""
    match request:
        case "suspend" | "resume":
            return OK
        case "get_status":
            return _status(server, suspended)
        case tuple(("debug", ("log_to_file", _))):
            return (ERROR, Atom("open_file"))
        case tuple(("debug", _)):
            return Atom("unknown_debug")
        case tuple(("replace_state", _) | ("change_code", _, _, _)):
            return (ERROR, NOTSUP)
    return (ERROR, (Atom("unknown_system_msg"), request))


async def tell_state(process: Process, from_: From, state: Term) -> None:
    """Answer `get_state`: since OTP 26.1 with `{ok, State}`, before with the state alone.

    Nothing in the request tells which is expected, so the caller's node is asked what it is.
    """
    newer, node = True, from_[0].node
    if process.node.network.is_connected(node):
        with suppress(BeethovenError, ValueError, TypeError):
            release = [Atom("otp_release")]
            answer = await process.node.rpc(node, "erlang", "system_info", release)
            if type(answer) is list:  # of an integer, bytes() makes so many
                newer = int(bytes(answer)) >= 26
    failed = type(state) is tuple and state[:1] == (ERROR,)
    process.node.reply(from_, (OK, state) if newer and not failed else state)


def state_of(server: GenServer) -> Term:
    """What `format_state` gives; one that fails is told as `sys` tells it of a callback."""
    try:
        state = decode(encode(server.format_state()))  # as it is now, whatever comes after
    except Exception as error:
        failed = (ERROR, exit_reason_of(error, server))
        return (ERROR, (Atom("callback_failed"), (name_of(server), Atom("format_state")), failed))
    return state


def _status(server: GenServer, suspended: bool) -> Term:
    """What `gen_server` gives, for tools that look for the state in there."""
    sys_state = Atom("suspended" if suspended else "running")
    parent = server.parent_pid or server.pid
    dictionary = [(Atom("$initial_call"), (name_of(server), Atom("init"), 1))]
    data = [(_text("Status"), sys_state), (_text("Parent"), parent), (_text("Logged events"), [])]
    misc = [
        (Atom("header"), _text(f"Status for generic server {type(server).__name__}")),
        (DATA, data),
        (DATA, [(_text("State"), state_of(server))]),
    ]
    module = (Atom("module"), Atom("gen_server"))
    return (Atom("status"), server.pid, module, [dictionary, sys_state, parent, [], misc])


def name_of(server: GenServer) -> Atom:
    """The name of its class, in place of the callback module that a gen_server of Erlang has."""
    return Atom(type(server).__name__)


def _text(text: str) -> list[int]:
    """A string as Erlang has it, a list of characters."""
    return [ord(character) for character in text]
