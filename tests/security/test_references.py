"""No peer can guess a reference, and none can end a monitor or an rpc of another by its reference.

The node `py` and its peer `a` call and monitor each other; the peer `b` knows the references of all
that, and sends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from pybeethoven import Atom, ImproperList, Node, Pid, Reference, Term
from pybeethoven.distribution import control
from pybeethoven.distribution.control import Signal
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.otp.node import Target
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon
from tests.net.peers import watcher

PY, A, B = atoms("py@127.0.0.1", "a@127.0.0.1", "b@127.0.0.1")
KILL, KILLED, NOPROC, ALIAS = atoms("kill", "killed", "noproc", "alias")
HONEST, FORGED = b"honest", b"forged"


class Bank(Recorder):
    """A process that is called, and answers when the test wants."""

    async def call(self) -> tuple[Pid, Reference]:
        """The caller, and the reference that answers it."""
        _, (caller, tag), _ = await self.next()
        return caller, tag.tail


class Peers:
    """The node `py`, to which `a` and `b` are connected; `bank` is a process of `a`."""

    def __init__(self, py: Node, a: Node, b: Node) -> None:
        self.py, self.a, self.b = py, a, b
        self.bank = Bank()
        a.spawn(self.bank, name="bank")
        self._mark = Recorder()
        py.spawn(self._mark)

    async def forge(self, *signals: Signal) -> None:
        """Let `b` send signals, and `py` receive them."""
        for signal in signals:
            self.b.network.send(PY, *signal)
        self.b.send(self._mark.pid, "all was received")
        await self._mark.next()

    async def forge_once(self, signal: Signal) -> None:
        """Let `b` send a signal that ends its connection."""
        nodes = watcher(self.py)
        self.b.network.send(PY, *signal)
        assert await nodes.next() == (Atom("nodedown"), B)


@pytest.fixture
async def peers(epmd: Epmd) -> AsyncIterator[Peers]:
    """Three nodes."""
    async with AsyncExitStack() as stack:
        py, a, b = [await stack.enter_async_context(Node(name, "cookie")) for name in (PY, A, B)]
        await soon(a.connect(PY))
        await soon(b.connect(PY))
        yield Peers(py, a, b)


@pytest.mark.parametrize("target", [("bank", A), "bank"], ids=["of a", "its own"])
async def test_no_other_node_ends_a_call(peers: Peers, target: Target) -> None:
    """Another node can't say that the process that was called has ended."""
    bank = peers.bank
    if target == "bank":
        peers.py.spawn(bank := Bank(), name="bank")
    call = asyncio.create_task(peers.py.call(target, Atom("balance")))
    caller, reference = await bank.call()
    await peers.forge(control.monitor_p_exit(OFFERED, Atom("bank"), caller, reference, NOPROC))
    assert not call.done()
    bank.node.reply((caller, ImproperList([ALIAS], reference)), HONEST)
    assert await soon(call) == HONEST


async def test_another_node_that_was_given_its_reference_may_answer_a_call(peers: Peers) -> None:
    """A server may let a process of another node answer, as with `GenServer.reply/2`."""
    call = asyncio.create_task(peers.py.call(("bank", A), Atom("balance")))
    caller, reference = await peers.bank.call()
    peers.b.reply((caller, ImproperList([ALIAS], reference)), HONEST)
    assert await soon(call) == HONEST


async def test_an_rpc_is_answered_by_the_node_that_was_called(peers: Peers) -> None:
    """No other node ends it, whether it says that nothing was spawned or that it has spawned."""
    started: asyncio.Future[Reference] = asyncio.get_running_loop().create_future()
    answer: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

    async def balance() -> Term:
        started.set_result(next(iter(peers.a.caller().watchers)))
        return await answer

    peers.a.export("bank", balance)
    rpc = asyncio.create_task(peers.py.rpc(A, "bank", "balance", []))
    reference = await soon(started)
    caller, forger = peers.py.caller().pid, peers.b.caller().pid
    await peers.forge(
        control.spawn_reply(reference, caller, 0, Atom("system_limit")),
        control.spawn_reply(reference, caller, 0, forger),
        control.monitor_p_exit(OFFERED, forger, caller, reference, FORGED),
    )
    assert not rpc.done()
    answer.set_result(HONEST)
    assert await soon(rpc) == HONEST


async def test_a_monitor_ends_with_the_process_that_it_is_on(peers: Peers) -> None:
    """Another node can't say that this has ended."""
    process = Recorder()
    peers.py.spawn(process)
    reference = process.monitor(peers.bank.pid)
    for target in (peers.b.caller().pid, Atom("bank")):
        await peers.forge(control.monitor_p_exit(OFFERED, target, process.pid, reference, FORGED))
    assert process.messages.empty()
    peers.a.exit(peers.bank, KILL)
    assert await process.next_down(reference) == KILLED


@pytest.mark.parametrize("target", ["pid", "name"])
@pytest.mark.parametrize("signal", [control.monitor_p, control.demonitor_p])
async def test_a_monitor_is_taken_back_by_the_node_that_has_it(
    peers: Peers, signal: Callable[[Pid, Pid | Atom, Reference], Signal], target: str
) -> None:
    """Another node can neither take it back nor take its place; it is disconnected."""
    service, process = Recorder(), Recorder()
    peers.py.spawn(service, name="service")
    peers.a.spawn(process)
    reference = process.monitor(service.pid if target == "pid" else ("service", PY))
    assert await soon(peers.a.ping(PY))  # the monitor was there before
    named = service.pid if target == "pid" else Atom("service")
    await peers.forge_once(signal(peers.b.caller().pid, named, reference))
    peers.py.exit(service, KILL)
    assert await process.next_down(reference) == KILLED


async def test_a_reference_cannot_be_guessed(peers: Peers) -> None:
    """Most of its bits differ from one to the next, so those seen tell nothing of those to come."""
    numbers = set()
    for _ in range(100):
        low, middle, high = peers.py.make_reference().ids
        numbers |= {("low", low), ("middle", middle), ("high", high)}
    assert len(numbers) > 290
