"""A message that takes long to decode holds up only what the same peer has sent behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from pybeethoven import Pid, Term
from pybeethoven.distribution import control, framing
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.framing import FEW_TERMS, LARGE_SIZE, Large, MessageReader
from pybeethoven.errors import DecodeError
from pybeethoven.etf import Atom, decode_term
from tests.helpers import soon
from tests.net.conftest import StartNode, start_node
from tests.net.peers import watcher
from tests.otp.processes import spawn_recorder

__all__ = ["start_node"]

A, B, C = (f"{letter}@127.0.0.1" for letter in "abc")
PEER: Final = Pid(Atom(B), 1, 0, 1)
MANY: Final[Term] = [[number] for number in range(LARGE_SIZE)]


def frame(message: Term) -> bytes:
    """A message to nobody."""
    return framing.encode_message(OFFERED, *control.reg_send(PEER, Atom("nobody"), message))


@pytest.mark.parametrize(
    ("message", "is_aside"),
    [(1, False), (bytes(2 * LARGE_SIZE), False), ([1] * (FEW_TERMS - 100), False), (MANY, True)],
    ids=["small", "large binary", "many terms", "large"],
)
def test_step_comes_before_what_takes_long(message: Term, is_aside: bool) -> None:
    """That is a message of many bytes and many terms."""
    steps = [*MessageReader(OFFERED).receive_in_steps(frame(message) + frame(2))]
    assert [step is Large.LARGE for step in steps] == [True] * is_aside + [False, False]
    assert [step[1] for step in steps if step is not Large.LARGE] == [message, 2]


def test_errors_come_behind_the_step() -> None:
    """What is wrong at the end of a large message is told where all of it is decoded."""
    data = bytearray(frame(MANY))
    data[-1] = 0
    steps = MessageReader(OFFERED).receive_in_steps(bytes(data))
    assert next(steps) is Large.LARGE
    with pytest.raises(DecodeError):
        next(steps)


class Gate:
    """Holds each decoding in a thread back until it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def decode_term(self, decode: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Decode, when it may."""
        if threading.current_thread() is not threading.main_thread():
            assert self.open.wait(30)
        return decode(*args, **options)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds back what is decoded in threads."""
    gate, decode = Gate(), decode_term
    monkeypatch.setattr(
        framing, "decode_term", lambda *args, **options: gate.decode_term(decode, *args, **options)
    )
    yield gate
    gate.open.set()


async def test_all_else_goes_on(start_node: StartNode, gate: Gate) -> None:
    """Other peers are answered meanwhile; what the same peer has sent later comes later."""
    a, b, c = await start_node(A), await start_node(B), await start_node(C)
    recorder = spawn_recorder(a, name="recorder")
    b.send(("recorder", A), MANY)
    b.send(("recorder", A), 2)
    assert await soon(c.ping(A))
    assert await soon(a.ping(C))
    assert recorder.messages.empty()
    gate.open.set()
    assert [await recorder.next(), await recorder.next()] == [MANY, 2]
    assert await soon(b.ping(A))


async def test_message_comes_before_the_end_of_its_connection(
    start_node: StartNode, gate: Gate
) -> None:
    """As if it had been decoded at once."""
    a, b = await start_node(A), await start_node(B)
    recorder = watcher(a)
    a.register("recorder", recorder)
    await soon(b.connect(A))
    assert (await recorder.next())[0] == "nodeup"
    b.send(("recorder", A), MANY)
    await soon(b.stop())
    gate.open.set()
    assert await recorder.next() == MANY
    assert await recorder.next() == (Atom("nodedown"), B)


@pytest.mark.parametrize("end", ["stop", "disconnect"])
async def test_end_of_a_node_does_not_wait(start_node: StartNode, gate: Gate, end: str) -> None:
    """Nor does the message count then."""
    a, b = await start_node(A), await start_node(B)
    recorder = spawn_recorder(a, name="recorder")
    b.send(("recorder", A), MANY)
    while B not in a.nodes() or a.network._up[B]._next_turn is None:
        await asyncio.sleep(0)
    if end == "stop":
        await soon(a.stop())
    else:
        a.disconnect(B)
        assert await soon(a.ping(B))
    gate.open.set()
    assert recorder.messages.empty()


async def test_error_closes_the_connection(
    start_node: StartNode, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """As that of any other message."""
    gate.open.set()
    a, b = await start_node(A), await start_node(B)
    events = a.connection_events()
    await soon(b.connect(A))
    b.network._up[A].writer._transport.write(frame(MANY)[:-1] + b"\0")
    assert [(await soon(anext(events))).kind for _ in range(2)] == ["up", "down"]
    assert "closing the connection to b@127.0.0.1" in caplog.text
