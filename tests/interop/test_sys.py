"""Python GenServers in the hands of a BEAM: `sys`, replies that come late, time-outs."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import pytest

from pybeethoven import NO_REPLY, Atom, CoreServer, From, GenServer, Node, Term
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, atoms, soon
from tests.interop.members import PY, A
from tests.timing import UNIT

SERVER = f'{{:server, :"{PY}"}}'
MILLISECONDS = round(0.1 * UNIT * 1000)


class Stack(GenServer):
    """A stack; calls with `:later` are kept for the test to answer."""

    def __init__(self) -> None:
        self.items: list[Term] = [1, Atom("two")]
        self._waiting: asyncio.Queue[From] = asyncio.Queue()

    def format_state(self) -> Term:
        """Show the items."""
        return {Atom("items"): self.items}

    async def handle_call(self, request: Term, from_: From) -> Any:
        """Push, or keep the caller waiting."""
        if request == "later":
            self._waiting.put_nowait(from_)
            return NO_REPLY
        self.items.append(request)
        return len(self.items)

    async def handle_cast(self, message: Term) -> None:
        """Push."""
        self.items.append(message)

    async def next_caller(self) -> From:
        """One who waits for a reply."""
        return await soon(self._waiting.get())


@pytest.fixture
async def a(cluster: Peers) -> BeamNode:
    """A BEAM without Beethoven."""
    return await cluster.start_bare(A)


@pytest.fixture
async def stack(node: Node) -> Stack:
    """A stack, registered as `server`."""
    stack = Stack()
    await node.start(stack, name="server")
    return stack


def exit_of(call: str) -> str:
    """Elixir that gives what `call` raises or exits with."""
    return f"try do {call} catch kind, reason -> {{kind, reason}} end"


async def test_get_state(a: BeamNode, node: Node, stack: Stack) -> None:
    """What `format_state` gives; of a class without it the name."""
    assert await a.eval(f":sys.get_state({SERVER})") == {"items": [1, "two"]}
    await node.start(GenServer(), name="closed")
    assert await a.eval(f':sys.get_state({{:closed, :"{PY}"}})') == "GenServer"


async def test_get_status(a: BeamNode, stack: Stack) -> None:
    """In the form of a gen_server, in which tools find the state."""
    await a.eval(
        f"{{:status, pid, {{:module, module}}, [dictionary, sys_state, parent, debug, misc]}} = "
        f":sys.get_status({SERVER})"
    )
    assert await a.eval("{pid, module, sys_state, parent, debug}") == (
        stack.pid,
        *atoms("gen_server", "running"),
        stack.pid,
        [],
    )
    assert await a.eval('dictionary[:"$initial_call"]') == (*atoms("Stack", "init"), 1)
    await a.eval("[{:header, header}, {:data, first}, {:data, [{'State', state}]}] = misc")
    assert await a.eval("to_string(header)") == b"Status for generic server Stack"
    assert await a.eval("List.keyfind(first, 'Status', 0)") == (ANY, Atom("running"))
    assert await a.eval("state.items") == [1, "two"]


async def test_suspend_and_resume(a: BeamNode, stack: Stack) -> None:
    """While suspended it answers `sys` alone; calls time out, and what was sent waits in order."""
    assert await a.eval(f":sys.suspend({SERVER})") == "ok"
    assert await a.eval(f":sys.suspend({SERVER})") == "ok"
    assert await a.eval(f"GenServer.cast({SERVER}, 3)") == "ok"
    call = f"GenServer.call({SERVER}, 4, {MILLISECONDS})"
    assert await a.eval(exit_of(call)) == (Atom("exit"), (Atom("timeout"), ANY))
    await a.eval(f"{{:status, _, _, [_, sys_state | _]}} = :sys.get_status({SERVER})")
    assert await a.eval("sys_state") == "suspended"
    assert stack.items == [1, "two"]
    assert await a.eval(f":sys.resume({SERVER})") == "ok"
    assert await a.eval(f"GenServer.call({SERVER}, 5)") == 5
    assert stack.items == [1, "two", 3, 4, 5]
    assert await mailbox(a) == []


async def test_exits_of_the_suspended(a: BeamNode, node: Node, stack: Stack) -> None:
    """Exit signals act on it, and so does GenServer.stop."""
    assert await a.eval(f":sys.suspend({SERVER})") == "ok"
    assert await a.eval(f"GenServer.stop({SERVER}, :shutdown)") == "ok"
    assert stack.exit_reason == "shutdown"
    assert await soon(stack.wait_end())
    await node.start(stack, name="server")
    watcher = Recorder()
    node.spawn(watcher)
    reference = watcher.monitor(stack)
    assert await a.eval(f":sys.suspend({SERVER})") == "ok"
    await a.eval(f"{{:status, pid, _, _}} = :sys.get_status({SERVER}); Process.exit(pid, :boom)")
    assert await watcher.next_down(reference) == "boom"


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (f":sys.replace_state({SERVER}, fn s -> s end)", atoms("error", "notsup")),
        (f":sys.change_code({SERVER}, :module, :undefined, [])", atoms("error", "notsup")),
        (f":sys.trace({SERVER}, true)", Atom("unknown_debug")),
        (f":sys.log({SERVER}, true)", Atom("unknown_debug")),
        (f":sys.log({SERVER}, :get)", Atom("unknown_debug")),
        (f":sys.log_to_file({SERVER}, 'log')", atoms("error", "open_file")),
        (f":sys.statistics({SERVER}, :get)", Atom("unknown_debug")),
        (f":sys.no_debug({SERVER})", Atom("unknown_debug")),
        (f":sys.install({SERVER}, {{fn _, _, _ -> 1 end, 1}})", Atom("unknown_debug")),
        (f":sys.remove({SERVER}, :id)", Atom("unknown_debug")),
    ],
    ids=lambda value: value.split("(")[0] if isinstance(value, str) else "",
)
async def test_refused(a: BeamNode, stack: Stack, call: str, result: Term) -> None:
    """What can't be done to a Python process is an error at the caller, at once; nothing ends."""
    assert await a.eval(exit_of(call)) == result
    assert await a.eval(f"GenServer.call({SERVER}, 3)") == 3


async def test_core_server(a: BeamNode, node: Node) -> None:
    """The CoreServer of this package is one like any other."""
    core_server = CoreServer()
    await node.start(core_server, name="server")
    assert await a.eval(f":sys.get_state({SERVER})") == (Atom("standalone"), [])
    assert await a.eval(f":sys.suspend({SERVER})") == "ok"
    call = f"GenServer.call({SERVER}, :get_mode, {MILLISECONDS})"
    assert await a.eval(exit_of(call)) == (Atom("exit"), (Atom("timeout"), ANY))
    assert await a.eval(f":sys.resume({SERVER})") == "ok"
    assert await a.eval(f"GenServer.call({SERVER}, :get_mode)") == "standalone"


async def test_reply_later(a: BeamNode, node: Node, stack: Stack) -> None:
    """A BEAM waits for a reply that comes after the handler's return, and others are served."""
    later = asyncio.create_task(a.eval(f"GenServer.call({SERVER}, :later)"))
    caller = await stack.next_caller()
    assert await soon(node.call(stack, 3)) == 3
    assert not later.done()
    node.reply(caller, Atom("at_last"))
    assert await soon(later) == "at_last"


async def test_late_reply(a: BeamNode, node: Node, stack: Stack) -> None:
    """A BEAM that has timed out does not get the reply any more, not even as a message."""
    call = f"GenServer.call({SERVER}, :later, {MILLISECONDS})"
    assert await a.eval(exit_of(call)) == (Atom("exit"), (Atom("timeout"), ANY))
    node.reply(await stack.next_caller(), Atom("late"))
    assert await a.eval(f"GenServer.call({SERVER}, 3)") == 3
    assert await mailbox(a) == []


async def mailbox(peer: BeamNode) -> Term:
    """The messages that the shell of `peer` has not read."""
    return await peer.eval("Process.info(self(), :messages) |> elem(1)")
