"""What a peer that has the cookie can do with messages and signals to the processes of a node: it
passes for nobody else, and a burst of them costs little.

The node `py` is attacked by its peer `b`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from pybeethoven import (
    Atom,
    ChildSpec,
    GenServer,
    ImproperList,
    Node,
    Pid,
    Reference,
    Supervisor,
    Term,
)
from pybeethoven.distribution import control
from pybeethoven.errors import ErlangError
from pybeethoven.etf import decode, encode, encoder
from pybeethoven.otp import Own
from pybeethoven.otp.gen_server import GEN_CALL, SYSTEM, From
from pybeethoven.otp.process import MESSAGES_PER_TURN, TURN_TIME
from pybeethoven.testing import Epmd
from tests.helpers import atoms, soon, until_logged
from tests.net.conftest import StartNode, start_node
from tests.otp.processes import BOOM, KILL, NOPROC, exited, spawn_recorder

__all__ = ["start_node"]

PY, B = atoms("py@127.0.0.1", "b@127.0.0.1")
NODEUP, NODEDOWN = atoms("nodeup", "nodedown")


class Echo(GenServer):
    """Answers a call with what it is asked."""

    def __init__(self, *, trap_exit: bool = False) -> None:
        self.trap_exit = trap_exit
        self.infos: list[Term] = []

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Give it back."""
        return request

    async def handle_info(self, message: Term) -> None:
        """Keep it."""
        self.infos.append(message)


@pytest.fixture
def dialled() -> list[str]:
    """The nodes that `py` has dialled."""
    return []


@pytest.fixture
async def py(epmd: Epmd, dialled: list[str]) -> AsyncIterator[Node]:
    """The node that is attacked."""
    async with Node(PY, "cookie", resolve=dialled.append) as node:
        yield node


@pytest.fixture
async def b(start_node: StartNode, py: Node) -> Node:
    """The peer that attacks it."""
    b = await start_node(B)
    await soon(b.connect(PY))
    return b


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_message_is_no_exit_signal(py: Node, b: Node, by_name: bool) -> None:
    """Neither does a server end that way, nor does a supervisor start a child again."""
    child = Echo(trap_exit=True)
    supervisor = Supervisor([ChildSpec("child", lambda: child, name="child")])
    await py.start(supervisor, name="supervisor")
    parent, pid = supervisor.pid, child.pid
    targets: list[tuple[Pid | tuple[str, str], Pid]]
    targets = [(("child", PY), parent), (("supervisor", PY), pid)]
    for to, of in targets if by_name else [(pid, parent), (parent, pid)]:
        b.send(to, (Atom("EXIT"), of, BOOM))
    assert await soon(b.call(("supervisor", PY), Atom("which_children")))
    assert await soon(b.call(("child", PY), 1)) == 1
    assert (child.infos, py.whereis("child")) == ([(Atom("EXIT"), parent, BOOM)], pid)
    py.exit(supervisor, KILL)  # by its link this one does end it
    await soon(child.wait_end())


async def test_what_the_node_says_can_be_told_from_what_a_peer_sends(py: Node, b: Node) -> None:
    """A message that it has made is an `Own`; in all else it is like any other tuple."""
    recorder = spawn_recorder(py, trap_exit=True)
    py.monitor_nodes(recorder)
    ended = spawn_recorder(b)
    b.exit(ended, BOOM)
    recorder.link(ended.pid)
    own = await recorder.next()
    b.disconnect(PY)
    down = await recorder.next()
    await soon(b.connect(PY))
    up = await recorder.next()
    expected: list[Term] = [exited(ended, NOPROC), (NODEDOWN, B), (NODEUP, B)]
    assert [type(message) for message in (own, down, up)] == [Own] * 3
    assert [own, down, up] == expected
    for forged in expected:
        b.send(recorder.pid, forged)
        received = await recorder.next()
        assert (type(received), received) == (tuple, forged)
    assert (repr(own), decode(encode(own))) == (repr(expected[0]), expected[0])
    match own:
        case ("EXIT", pid, "noproc"):
            assert pid == ended.pid
        case _:
            pytest.fail("it does not match")


LONG: Final = b"x" * 20_000


async def test_an_exit_reason_is_encoded_once(
    py: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a few times, however many are told."""
    server, watcher = Echo(), spawn_recorder(b)
    await py.start(server, name="server")
    references = [watcher.monitor(("server", PY)) for _ in range(100)]
    await soon(b.call(("server", PY), 1))
    encoded: list[Term] = []
    write_list = encoder._WRITERS[list]

    def note(buffer: bytearray, term: Term) -> Any:
        encoded.append(term)
        return write_list(buffer, term)

    monkeypatch.setitem(encoder._WRITERS, list, note)
    py.exit(server, [LONG])
    assert [await watcher.next_down(each) for each in references] == [[LONG]] * 100
    assert len(encoded) < 5


FAR = Pid(Atom("far@127.0.0.3"), 1, 0, 1)
TAG = ImproperList([Atom("alias")], Reference(FAR.node, 1, (1, 2, 3)))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("net_kernel", (GEN_CALL, (FAR, 1), (Atom("is_auth"), FAR.node))),
        ("server", (GEN_CALL, (FAR, TAG), 1)),
        ("server", (SYSTEM, (FAR, 1), Atom("get_state"))),
        ("server", (SYSTEM, (FAR, 1), Atom("get_status"))),
        ("rex", (GEN_CALL, (FAR, 1), (*atoms("call", "m", "one"), [], FAR))),
        ("rex", (FAR, (*atoms("call", "m", "one"), [], FAR))),
        ("rex", (FAR, Atom("features_request"))),
        ("rex", (FAR, (*atoms("sbcast", "server"), 1))),
        ("rex", (FAR, (*atoms("sbcast", "nobody"), 1))),
        ("rex", (FAR, (Atom("send"), (Atom("name"), FAR.node), 1))),
        ("rex", (FAR, (Atom("send"), FAR, 1))),
    ],
)
async def test_no_node_is_dialled_for_an_answer(
    py: Node, b: Node, dialled: list[str], to: str, message: Term
) -> None:
    """What is to go to a node that is not connected is dropped, as anybody may be named there."""
    py.export("m", lambda: 1, name="one")
    await py.start(Echo(), name="server")
    b.send((to, PY), message)
    for _ in range(5):
        assert await soon(b.rpc(PY, "m", "one", [])) == 1
    assert dialled == []


async def test_rex_answers_while_a_block_call_runs(py: Node, b: Node) -> None:
    """One that does not return holds up other block calls alone."""
    running, release = asyncio.Event(), asyncio.Event()

    async def wait() -> Term:
        running.set()
        return await release.wait()

    py.export("m", wait)
    py.export("m", lambda: 1, name="one")
    request = (*atoms("block_call", "m", "wait"), [], FAR)
    blocked = asyncio.create_task(b.call(("rex", PY), request, timeout=None))
    await soon(running.wait())
    assert await soon(b.call(("rex", PY), (*atoms("call", "m", "one"), [], FAR))) == 1
    release.set()
    assert await soon(blocked) is True


async def test_what_a_peer_can_have_logged_is_logged_once(
    py: Node, b: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """In a minute: an error that a spawned function makes of what it is given, without a traceback,
    and a kill."""

    def refuse(_: Term) -> Term:
        raise ErlangError(Atom("badarg"))

    py.export("m", refuse)
    for number in range(3):
        own, mfa = b.caller().pid, (Atom("m"), Atom("refuse"), 1)
        request = control.spawn_request(b.make_reference(), own, own, mfa, [], [number])
        b.network.send(PY, *request)
        b.exit(spawn_recorder(py, name=f"process{number}").pid, KILL)
    await until_logged(caplog, "refuse")
    assert await soon(b.ping(PY))
    logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [(r.getMessage(), r.exc_info) for r in logged] == [
        (f"Recorder process0 of {PY} was killed by a process of {B}", None),
        ("m:refuse failed: Atom('badarg')", None),
    ]


async def test_costly_messages_do_not_hold_up_the_others(py: Node, b: Node) -> None:
    """However many wait in one mailbox, the node goes on with all else every `TURN_TIME`."""

    class Slow(Echo):
        async def handle_info(self, message: Term) -> None:
            await super().handle_info(message)
            time.sleep(2 * TURN_TIME)  # noqa: ASYNC251  # it computes

    slow = Slow()
    await py.start(slow, name="slow")
    for number in range(MESSAGES_PER_TURN - 1):
        py.send(slow, number)
    assert await soon(b.ping(PY))
    assert len(slow.infos) < MESSAGES_PER_TURN / 2
