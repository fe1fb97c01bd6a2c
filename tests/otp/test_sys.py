"""What a GenServer answers to system messages; that a BEAM understands it is tested in interop."""

from __future__ import annotations

import pytest

from pybeethoven import Atom, From, GenServer, ImproperList, Limits, Node, Term
from pybeethoven.etf import decode, encode
from pybeethoven.otp.gen_server import SYSTEM
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon

OK, ERROR = atoms("ok", "error")


class Counter(GenServer):
    """Counts what it is sent."""

    def __init__(self) -> None:
        self.count = 0

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Count it."""
        self.count += 1
        return self.count

    async def handle_info(self, message: Term) -> None:
        """Count it."""
        self.count += 1


async def ask(node: Node, server: GenServer, request: Term) -> Term:
    """What `server` answers to a system message, as it is on the wire."""
    asker = Recorder()
    node.spawn(asker)
    node.send(server, (SYSTEM, (asker.pid, 1), request))
    tag, answer = await asker.next()
    assert tag == 1
    return decode(encode(answer))


async def test_state(node: Node) -> None:
    """It is the name of the class, or what its `format_state` gives."""

    class Open(Counter):
        def format_state(self) -> Term:
            return {Atom("count"): self.count, Atom("text"): "é"}

    for server, state in ((Counter(), "Counter"), (Open(), {"count": 0, "text": "é".encode()})):
        await node.start(server)
        assert await ask(node, server, Atom("get_state")) == (OK, state)


@pytest.mark.parametrize("state", [ValueError("no"), {1, 2}], ids=["raises", "no term"])
async def test_format_state_fails(node: Node, state: object) -> None:
    """It is told as `sys` tells it of a callback, and ends nothing."""

    class Failing(GenServer):
        def format_state(self) -> Term:
            if isinstance(state, Exception):
                raise state
            return state

    server = Failing()
    await node.start(server)
    error, (failed, callback, _) = await ask(node, server, Atom("get_state"))
    assert (error, failed, callback) == (
        *atoms("error", "callback_failed"),
        atoms("Failing", "format_state"),
    )
    status = await ask(node, server, Atom("get_status"))
    assert status[3][4][2][1][0][1][:1] == (ERROR,)
    assert node.process(server.pid) is server


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ((Atom("replace_state"), 1), (ERROR, Atom("notsup"))),
        ((*atoms("change_code", "module", "undefined"), []), (ERROR, Atom("notsup"))),
        ((Atom("debug"), (Atom("trace"), True)), Atom("unknown_debug")),
        (atoms("debug", "no_debug"), Atom("unknown_debug")),
        ((Atom("debug"), (Atom("log_to_file"), [120])), (ERROR, Atom("open_file"))),
        (Atom("what"), (ERROR, atoms("unknown_system_msg", "what"))),
        (b"suspend", (ERROR, (Atom("unknown_system_msg"), b"suspend"))),
        ((), (ERROR, (Atom("unknown_system_msg"), ()))),
    ],
    ids=repr,
)
async def test_refused(node: Node, request_: Term, answer: Term) -> None:
    """What can't be done is refused, and the server lives on."""
    server = Counter()
    await node.start(server)
    assert await ask(node, server, request_) == answer
    assert await soon(node.call(server, 1)) == 1


async def test_suspended_messages_keep_their_order(node: Node) -> None:
    """They wait for `resume`, those that come in between behind those that came before."""
    got: list[Term] = []

    class Keeping(GenServer):
        async def handle_info(self, message: Term) -> None:
            got.append(message)

    server = Keeping()
    await node.start(server)
    node.send(server, 1)
    node.send(server, (SYSTEM, (server.pid, ImproperList([Atom("alias")], 1)), Atom("suspend")))
    node.send(server, 2)
    assert await ask(node, server, Atom("suspend")) == OK
    node.send(server, 3)
    assert (await ask(node, server, Atom("get_status")))[3][1] == "suspended"
    assert got == [1]
    node.send(server, (SYSTEM, (server.pid, ImproperList([Atom("alias")], 1)), Atom("resume")))
    node.send(server, 4)
    assert await ask(node, server, Atom("resume")) == OK
    assert (await ask(node, server, Atom("get_status")))[3][1] == "running"
    assert got == [1, 2, 3, 4]


async def test_exit_signals_reach_the_suspended(node: Node) -> None:
    """So does `terminate`; what waits is not handled then."""
    for ending in ("signal", "terminate"):
        server, watcher = Counter(), Recorder()
        await node.start(server)
        node.spawn(watcher)
        reference = watcher.monitor(server)
        assert await ask(node, server, Atom("suspend")) == OK
        node.send(server, 1)
        if ending == "signal":
            node.exit(server, Atom("boom"))
        else:
            assert await ask(node, server, atoms("terminate", "boom")) == OK
        assert await watcher.next_down(reference) == "boom"
        assert server.count == 0


async def test_started_anew_it_is_not_suspended(node: Node) -> None:
    """The next run of the same object has nothing of the last one."""
    server = Counter()
    await node.start(server)
    assert await ask(node, server, Atom("suspend")) == OK
    node.send(server, 1)
    node.exit(server, Atom("kill"))
    assert await soon(server.wait_end())
    await node.start(server)
    assert await soon(node.call(server, 1)) == 1


async def test_state_of_a_full_node() -> None:
    """For `get_state` a process is needed, of which other nodes may start only so many."""
    full = Node("full@127.0.0.1", "cookie", epmd=False, limits=Limits(processes=1))
    async with full:
        server = Counter()
        await full.start(server)
        assert await ask(full, server, Atom("get_state")) == (ERROR, Atom("system_limit"))


@pytest.mark.parametrize("release", [1 << 60, [Atom("27")], [300], [], b"25"])
async def test_release_that_is_none(epmd: Epmd, release: Term) -> None:
    """A node that says anything else than a string, when asked for its release, is a new one."""
    async with Node("a@127.0.0.1", "cookie") as a, Node("b@127.0.0.1", "cookie") as b:
        b.export("erlang", lambda _: release, name="system_info")
        server, asker = Counter(), Recorder()
        await a.start(server, name="server")
        b.spawn(asker)
        request = (SYSTEM, (asker.pid, 1), Atom("get_state"))
        b.send(("server", "a@127.0.0.1"), request)
        tag, (ok, _) = await asker.next()
        assert (tag, ok) == (1, OK)
