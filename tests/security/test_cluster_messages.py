"""What a peer that has the cookie can do to the processes of a member with messages: it passes for
nobody else, and a burst of them costs little.

The member `p` is attacked by its peer `evil`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pybeethoven import Atom, Beethoven, CallTimeout, Limits, Node, Term
from pybeethoven.cluster import admission
from pybeethoven.cluster.core_server import MAX_CALLERS
from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.testing import Epmd, free_port
from tests.helpers import atoms, soon

P, EVIL = "p@127.0.0.1", "evil@127.0.0.2"
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


async def test_who_does_not_answer_is_told_as_such(
    p: Beethoven, evil: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in which a node has to answer is none in which it is added."""
    stall(evil)
    monkeypatch.setattr(admission, "ASK_TIME", 0.01)
    with pytest.raises(CallTimeout, match=r"took over 0.01 seconds"):
        await soon(p.core_server.new_node(EVIL))
