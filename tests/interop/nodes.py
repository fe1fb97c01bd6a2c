"""Connections and signals between a Python node and a BEAM."""

from __future__ import annotations

import asyncio

from pybeethoven import Atom, Node, Term
from pybeethoven.etf import encode
from pybeethoven.testing import BeamNode
from tests.helpers import Recorder, soon
from tests.interop.members import PY, A


async def connect_at_once(a: BeamNode, node: Node, *, turns: int) -> None:
    """Let both dial, each turn a bit later, and disconnect."""
    recorder = Recorder()
    node.spawn(recorder, name="recorder")
    await a.eval("ControlShell.collect(:got, name: :ears)")
    for turn in range(turns):
        send = asyncio.create_task(a.eval(f'send({{:recorder, :"{PY}"}}, {turn})'))
        for _ in range(turn):
            await asyncio.sleep(0)
        node.send(("ears", A), turn)
        assert await recorder.next() == turn
        assert await a.next_event("got") == (Atom("got"), turn)
        await send
        assert node.nodes() == [A]
        await a.eval(f'true = Node.disconnect(:"{PY}")')
        await until_down(node, A)


async def settled(peer: BeamNode) -> None:
    """Wait until the signals that the shell of `peer` has sent to us have had their effect."""
    assert await peer.eval(f'Node.ping(:"{PY}")') == "pong"


async def until_down(node: Node, peer: str) -> None:
    """Wait until `node` has no connection to `peer`."""
    events = node.connection_events()
    while peer in node.nodes():
        await soon(anext(events))


def term(value: Term) -> str:
    """Elixir source of the external form of a term."""
    return f"<<{', '.join(str(byte) for byte in encode(value))}>>"
