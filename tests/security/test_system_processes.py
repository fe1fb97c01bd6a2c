"""`net_kernel` and `rex` live as long as their node, which other nodes can't use without them.

The node `py` is attacked by a peer `b`, which knows the cookie.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from pybeethoven import (
    Atom,
    CoreServer,
    GenServer,
    Node,
    Pid,
    ProcessExit,
    Supervisor,
    Term,
)
from pybeethoven.distribution import control
from pybeethoven.distribution.control import Signal
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.otp.gen_server import GEN_CALL, GEN_CAST, SYSTEM
from pybeethoven.otp.net_kernel import NetKernel
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon
from tests.security.odd_terms import ODD_TERMS

PY, B = atoms("py@127.0.0.1", "b@127.0.0.1")
KILL, KILLED, EXIT, BOOM = atoms("kill", "killed", "EXIT", "boom")
SYSTEM_PROCESSES = pytest.mark.parametrize("name", atoms("net_kernel", "rex"))
MAX_LINE = 1000
"""Maximum number of characters of a log line about one message."""


class Attack:
    """The nodes, and a process of `b` that sends what the test wants."""

    def __init__(self, py: Node, b: Node) -> None:
        self.py, self.b = py, b
        self.process, self._mark = Recorder(), Recorder()
        b.spawn(self.process)
        py.spawn(self._mark)
        py.export("m", lambda term: term, name="id")

    async def send(self, *signals: Signal) -> None:
        """Send signals, and wait until `py` has taken them."""
        for signal in signals:
            self.b.network.send(PY, *signal)
        self.b.send(self._mark.pid, "all was taken")
        await self._mark.next()

    async def check_alive(self) -> None:
        """Check that both processes answer."""
        assert await soon(self.b.ping(PY))
        request = (*atoms("block_call", "m", "id"), [1], self.process.pid)
        assert await soon(self.b.call(("rex", PY), request)) == 1


@pytest.fixture
async def attack(epmd: Epmd) -> AsyncIterator[Attack]:
    """Two nodes that are connected."""
    async with Node(PY, "cookie") as py, Node(B, "cookie") as b:
        await soon(b.connect(PY))
        yield Attack(py, b)


def pid_of(node: Node, name: str) -> Pid:
    """The process that has a name."""
    pid = node.whereis(name)
    assert pid is not None
    return pid


@SYSTEM_PROCESSES
async def test_no_exit_signal_ends_a_system_process(
    attack: Attack, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A kill has no effect but a warning; nor has the end of a link."""
    to, own = pid_of(attack.py, name), attack.process.pid
    await attack.send(control.exit2(OFFERED, own, to, KILL))
    assert f"{name} of {PY} ignores a kill by a process of {B}" in caplog.text
    await attack.send(control.exit2(OFFERED, own, to, BOOM))
    await attack.send(control.link(own, to), control.exit_(OFFERED, own, to, BOOM))
    await attack.send(control.link(own, to))
    attack.b.disconnect(PY)
    await attack.check_alive()
    assert attack.py.whereis(name) == to


@SYSTEM_PROCESSES
@pytest.mark.parametrize("request_", [Atom("suspend"), atoms("terminate", "boom")], ids=repr)
async def test_sys_does_not_stop_a_system_process(
    attack: Attack, name: str, request_: Term
) -> None:
    """It is refused, and nothing waits."""
    attack.b.send((name, PY), (SYSTEM, (attack.process.pid, 1), request_))
    assert await attack.process.next() == (1, atoms("error", "notsup"))
    await attack.check_alive()


async def test_a_message_that_a_system_process_fails_at_is_dropped(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so in the log, and goes on."""

    async def fail(self: NetKernel, message: Term) -> None:
        raise ValueError("an error in net_kernel")

    monkeypatch.setattr(NetKernel, "handle_info", fail)
    attack.b.send(("net_kernel", PY), 1)
    await attack.check_alive()
    assert f"NetKernel of {PY} dropped a message: ValueError('an error in net" in caplog.text


async def test_no_kill_ends_the_process_for_code_outside_of_processes(attack: Attack) -> None:
    """A call from there still hears that the server has ended."""
    server = Recorder()
    attack.b.spawn(server, name="server")
    call = asyncio.create_task(attack.py.call(("server", B), 1, timeout=None))
    await server.next()
    outside = attack.py.caller().pid
    await attack.send(control.exit2(OFFERED, attack.process.pid, outside, KILL))
    attack.b.exit(server, BOOM)
    with pytest.raises(ProcessExit, match="boom"):
        await soon(call)


async def test_a_process_that_a_peer_kills_is_logged(
    attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning tells which process it was, and of which node the other."""
    server = GenServer()
    await attack.py.start(server, name="server")
    await attack.send(control.exit2(OFFERED, attack.process.pid, server.pid, KILL))
    assert server.exit_reason == KILLED
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage() == f"GenServer server of {PY} was killed by a process of {B}"


def messages(own: Pid, odd: Term) -> Iterator[Term]:
    """Messages with an odd term where another is expected."""
    caller = own, 1
    yield odd
    yield own, odd
    yield own, (Atom("send"), odd, 1)
    yield own, (Atom("sbcast"), odd, 1)
    yield own, (Atom("call"), odd, Atom("id"), odd, own)
    yield EXIT, own, odd
    yield SYSTEM, caller, odd
    yield SYSTEM, caller, (Atom("debug"), odd)
    yield SYSTEM, (own, odd), Atom("get_state")
    yield GEN_CALL, caller, odd
    yield GEN_CALL, (own, odd), Atom("get_mode")
    for kind in atoms("call", "block_call"):
        yield GEN_CALL, caller, (kind, odd, Atom("id"), odd, own)
        yield GEN_CALL, (own, odd), (kind, *atoms("m", "id"), [odd], own)
    yield GEN_CALL, caller, (Atom("restart_child"), odd)
    yield GEN_CALL, caller, (Atom("add_node"), odd)
    yield GEN_CAST, odd
    yield GEN_CAST, (Atom("cast"), odd, Atom("id"), odd, own)
    yield GEN_CAST, (Atom("alert_me"), odd)
    yield GEN_CAST, (Atom("try_again_restart"), odd)


@pytest.mark.parametrize("odd", ODD_TERMS)
async def test_no_term_ends_a_server(
    attack: Attack, odd: Term, caplog: pytest.LogCaptureFixture
) -> None:
    """Each server lives on, and what is logged of a message is short and has no traceback."""
    caplog.set_level(logging.DEBUG)
    others = {"core_server": CoreServer(), "supervisor": Supervisor()}
    for name, server in others.items():
        await attack.py.start(server, name=name)
    names = ("net_kernel", "rex", *others)
    pids = [pid_of(attack.py, name) for name in names]
    own = attack.process.pid
    for name in names:
        for message in messages(own, odd):
            await attack.send(control.reg_send(own, Atom(name), message))
    await attack.check_alive()
    assert [attack.py.whereis(name) for name in names] == pids
    for record in caplog.records:
        assert record.exc_info is None
        assert len(record.getMessage()) < MAX_LINE
