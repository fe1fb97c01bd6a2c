"""What a peer that has the cookie can do to the processes of a member with messages: it passes for
nobody else, and a burst of them costs little.

The member `p` is attacked by its peer `evil`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, Beethoven, CallTimeout, Limits, Node, Pid, Reference, Term
from pybeethoven.cluster import admission, core_server
from pybeethoven.cluster.beacon_server import NAME as BEACON_SERVER
from pybeethoven.cluster.beacon_server import BeaconServer
from pybeethoven.cluster.core_server import MAX_CALLERS
from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.cluster.tracker import CORE_TRACKER, ONLINE, record
from pybeethoven.distribution import control
from pybeethoven.mnesia import EVENT, WRITE
from pybeethoven.otp.gen_server import GEN_CALL, GEN_CAST
from pybeethoven.testing import Epmd, free_port
from tests.cluster.test_standing import Pair, make, pair, until
from tests.helpers import atoms, soon
from tests.otp.processes import spawn_recorder

__all__ = ["make", "pair"]

P, EVIL, Q = "p@127.0.0.1", "evil@127.0.0.2", "q@127.0.0.2"
CORE = (CORE_SERVER, P)
ADD_EVIL = atoms("add_node", EVIL)
FULL = atoms("error", "system_limit")


def member(limits: Limits | None = None) -> Beethoven:
    """A member without a cluster."""
    return Beethoven(
        P,
        cookie="cookie",
        cluster_net="127.0.0.254/32",
        listener_port=free_port("0.0.0.0"),
        limits=limits or Limits(),
    )


@pytest.fixture
async def p(epmd: Epmd) -> AsyncIterator[Beethoven]:
    """The member that is attacked."""
    async with member() as p:
        yield p


@pytest.fixture
async def evil(p: Beethoven) -> AsyncIterator[Node]:
    """The peer that attacks it."""
    async with Node(EVIL, "cookie") as evil:
        await soon(evil.connect(P))
        yield evil


def stall(evil: Node) -> asyncio.Event:
    """Have the peer say whether it runs Mnesia only when the event is set."""
    answers = asyncio.Event()

    async def system_info(item: Term) -> Term:
        await answers.wait()
        return Atom("no")

    evil.export("mnesia", system_info)
    return answers


async def test_a_node_is_added_once_for_all_who_ask(p: Beethoven, evil: Node) -> None:
    """Calls start one process in all; the callers hear the same, but too many are turned away."""
    answers, before = stall(evil), p.node.make_pid().id
    calls = [asyncio.create_task(evil.call(CORE, ADD_EVIL)) for _ in range(MAX_CALLERS + 9)]
    for refused in calls[MAX_CALLERS:]:
        assert await soon(refused) == FULL
    answers.set()
    assert await soon(asyncio.gather(*calls[:MAX_CALLERS])) == ["ok"] * MAX_CALLERS
    assert p.node.make_pid().id - before < 9
    assert await soon(evil.call(CORE, ADD_EVIL)) == "ok"


async def test_a_full_node_adds_nobody(epmd: Epmd) -> None:
    """`Limits.processes` holds for calls of the CoreServer, too."""
    async with member(Limits(processes=1)), Node(EVIL, "cookie") as evil:
        assert await soon(evil.call(CORE, ADD_EVIL)) == FULL


async def test_a_node_that_does_not_answer_is_told_as_such(
    p: Beethoven, evil: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in which a node has to answer is none in which it is added."""
    stall(evil)
    monkeypatch.setattr(admission, "ASK_TIME", 0.01)
    with pytest.raises(CallTimeout, match=r"took over 0.01 seconds"):
        await soon(p.core_server.new_node(EVIL))


async def test_followers_of_a_peer_are_bounded_and_forgotten_one_by_one(
    p: Beethoven, evil: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a peer is lost, no follower is compared with all others."""
    count, compared = 100, 0
    equal = Reference.__eq__

    def counted(one: Reference, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(one, other)

    monkeypatch.setattr(core_server, "MAX_FOLLOWERS", count)
    monkeypatch.setattr(Reference, "__eq__", counted)
    for _ in range(count + 9):
        evil.cast(CORE, (*atoms("alert_me"), spawn_recorder(evil).pid))
    await soon(evil.call(CORE, Atom("get_mode")))
    assert len(p.core_server._followers) == count
    compared = 0
    p.node.disconnect(EVIL)
    await soon(p.core_server.get_mode())
    assert not p.core_server._followers
    assert not p.core_server._followers_on
    assert compared < 10 * count


FORGED = Pid(Atom("x@h\n2026-11-30 CRITICAL forged \x1b[31m"), 1, 0, 1)
MESSAGES: list[Term] = [
    (GEN_CALL, (FORGED, 1), Atom("what")),
    (GEN_CALL, (FORGED, 1), atoms("add_node", "no\nname")),
    (GEN_CAST, Atom("wh\nat")),
    (GEN_CAST, (Atom("alert_me"), FORGED)),
    (GEN_CAST, (Atom("alert_me"), atoms("e\nar", "nonode"))),
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
@pytest.mark.parametrize("name", [CORE_SERVER, BEACON_SERVER])
async def test_what_cannot_be_done_is_logged_once_a_minute(
    p: Beethoven, evil: Node, name: Atom, message: Term, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many messages that a server can't take there is one line, in which names have no control
    characters."""
    caplog.set_level(logging.DEBUG, "pybeethoven.cluster")
    own, doomed = evil.caller().pid, p.node.process(name)
    for _ in range(5):
        evil.network.send(P, *control.reg_send(own, name, message))
    await soon(evil.call((name, P), atoms("add_node", "nope")))
    assert p.node.process(name) is doomed
    lines = [r.getMessage() for r in caplog.records]
    assert not [line for line in lines if "\n" in line or "\x1b" in line]
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == ["WARNING"]


async def test_processes_that_read_no_messages_keep_none(p: Beethoven, evil: Node) -> None:
    """What is sent to the one that looks for a cluster, or to one that adds a node, is dropped."""
    stall(evil)
    call = asyncio.create_task(evil.call(CORE, ADD_EVIL))
    await soon(evil.call(CORE, Atom("get_mode")))
    core = p.core_server
    for process in (core.standing._membership._rejoin, *core._adding.values()):
        assert process is not None
        evil.send(process.pid, b"x")
        await soon(evil.call(CORE, Atom("get_mode")))
        assert process.alive
        assert not process._mailbox
    assert core._adding
    call.cancel()


async def test_a_peer_passes_neither_for_the_node_nor_for_the_mirror(pair: Pair) -> None:
    """What it says of nodes that are lost and of changes of the tracker does not count."""
    p, _ = pair
    linked, beacon = p.core_server.standing._sharing._met, p.node.process(BEACON_SERVER)
    await until(p, lambda: linked == {Q})
    assert isinstance(beacon, BeaconServer)
    updates, beacon._pause = p.core_server.updates(), 5.0
    row = record(EVIL, ONLINE, datetime.now(UTC))
    async with Node(EVIL, "cookie") as evil:
        for name in (CORE_SERVER, BEACON_SERVER):
            evil.send((name, P), atoms("nodedown", Q))
            evil.send((name, P), (EVENT, (WRITE, CORE_TRACKER, row, [], None)))
            await soon(evil.call((name, P), Atom("get_mode")))
        assert (linked, beacon._pause) == ({Q}, 5.0)
        assert updates._queue.empty()
