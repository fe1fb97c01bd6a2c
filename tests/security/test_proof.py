"""The proof between a node that looks for a beacon and the node of the beacon."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from pybeethoven import Beethoven, Node
from pybeethoven.cluster import beacon_server, seek_chat
from pybeethoven.cluster.beacon_server import BeaconServer
from pybeethoven.cluster.locator import Locator
from pybeethoven.cluster.prover import MAX_SKEW, Prover, Way
from pybeethoven.cluster.seek_chat import JOINED, REPLY, SEEKING, Message
from pybeethoven.errors import ConfigError, JoinError
from pybeethoven.net.failure_limit import Rate
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon

COOKIE = "a cookie of twenty characters"
ASK = Message("p@127.0.0.1", SEEKING, "join")
ANSWER = Message("q@127.0.0.2", REPLY, JOINED)
WAY, BACK = Way("127.0.0.1", "127.0.0.2"), Way("127.0.0.2", "127.0.0.1")


class Clock:
    """A clock that stands."""

    time = 1_800_000_000.0

    def __call__(self) -> float:
        """Its time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """The clock of the node that checks."""
    return Clock()


@pytest.fixture
def seeker() -> Prover:
    """The node that asks; its clock always shows the same."""
    return Prover(COOKIE, Clock())


@pytest.fixture
def beacon(clock: Clock) -> Prover:
    """The node that is asked."""
    return Prover(COOKIE, clock)


def test_both_sides_prove_that_they_have_the_cookie(seeker: Prover, beacon: Prover) -> None:
    """The one with its request, the other with a reply to just that."""
    request = seeker.prove(ASK, WAY)
    assert beacon.is_proven(request, WAY)
    reply = beacon.prove(ANSWER, BACK, request=request)
    assert seeker.is_proven(reply, BACK, request=request)
    assert not seeker.is_proven(reply, BACK, request=seeker.prove(ASK, WAY))


@pytest.mark.parametrize(
    "way", [Way("::ffff:127.0.0.1", "127.0.0.2"), Way("127.0.0.1", "::ffff:127.0.0.2")]
)
def test_addresses_may_be_written_in_two_ways(seeker: Prover, beacon: Prover, way: Way) -> None:
    """An IPv4 address may be seen as an IPv6 one."""
    assert beacon.is_proven(seeker.prove(ASK, WAY), way)


@pytest.mark.parametrize(
    ("message", "way"),
    [
        (dataclasses.replace(ASK, sender="x@127.0.0.1"), WAY),
        (dataclasses.replace(ASK, payload=JOINED), WAY),
        (dataclasses.replace(ASK, type=REPLY), WAY),
        (ASK, Way("127.0.0.3", WAY.target)),
        (ASK, Way(WAY.source, "127.0.0.3")),
        (ASK, BACK),
    ],
    ids=["sender", "payload", "type", "source", "target", "back"],
)
def test_proof_is_for_one_message_on_one_way(
    seeker: Prover, beacon: Prover, message: Message, way: Way
) -> None:
    """For anything else it proves nothing."""
    proof = seeker.prove(ASK, WAY).proof
    assert not beacon.is_proven(dataclasses.replace(message, proof=proof), way)


def test_other_cookie_proves_nothing(beacon: Prover) -> None:
    """Whatever else is the same."""
    assert not beacon.is_proven(Prover(COOKIE + "!", Clock()).prove(ASK, WAY), WAY)


@pytest.mark.parametrize(
    ("change", "proven"),
    [
        (lambda proof: "", False),
        (lambda proof: proof, True),
        (lambda proof: proof[:-1], False),
        (lambda proof: proof + "0", False),
        (lambda proof: proof.replace(" ", "  "), False),
        (lambda proof: proof + " ", False),
        (lambda proof: "1" + proof, False),
        (lambda proof: "9" * 5000 + " a b", False),
        (lambda proof: "-1 a b", False),
        (lambda proof: "\N{ARABIC-INDIC DIGIT ONE} a b", False),
        (lambda proof: proof[:-1] + "\N{DEGREE SIGN}", False),
        (lambda proof: proof.upper(), False),
        (lambda proof: "\ud800 \ud800 \ud800", False),
    ],
)
def test_anything_else_is_no_proof(
    seeker: Prover, beacon: Prover, change: Callable[[str], str], proven: bool
) -> None:
    """Nor an error."""
    request = seeker.prove(ASK, WAY)
    changed = dataclasses.replace(request, proof=change(request.proof))
    assert beacon.is_proven(changed, WAY) == proven


@pytest.mark.parametrize(
    ("late", "proven"),
    [(0, True), (MAX_SKEW, True), (-MAX_SKEW, True), (MAX_SKEW + 1, False), (-MAX_SKEW - 1, False)],
)
def test_clocks_may_differ_by_a_minute(
    seeker: Prover, beacon: Prover, clock: Clock, late: float, proven: bool
) -> None:
    """In both directions."""
    clock.time += late
    assert beacon.is_proven(seeker.prove(ASK, WAY), WAY) == proven


def test_proof_counts_once(seeker: Prover, beacon: Prover, clock: Clock) -> None:
    """As long as its time is near enough; then it is forgotten."""
    clock.time -= MAX_SKEW
    request = seeker.prove(ASK, WAY)
    assert beacon.is_proven(request, WAY)
    for _ in range(2 * int(MAX_SKEW) + 2):
        assert not beacon.is_proven(request, WAY)
        assert len(beacon._seen) == 1
        clock.time += 1
    clock.time += 1
    seeker = Prover(COOKIE, clock)
    assert beacon.is_proven(seeker.prove(ASK, WAY), WAY)
    assert len(beacon._seen) == 1


def test_wrong_proofs_leave_nothing_behind(seeker: Prover, beacon: Prover) -> None:
    """Strangers can't fill the memory of those that counted."""
    request = seeker.prove(ASK, WAY)
    assert not beacon.is_proven(dataclasses.replace(request, proof=request.proof[:-1]), WAY)
    assert not beacon._seen
    assert beacon.is_proven(request, WAY)


# Between nodes


def locator(port: int, cookie: str = COOKIE, *, needs_proof: bool = False) -> Locator:
    """Looks for the beacon."""
    prover, hosts = Prover(cookie), ["127.0.0.1"]
    return Locator(ASK.sender, hosts, port, float, prover=prover, needs_proof=needs_proof)


async def ignore(name: str) -> None:
    """Add nothing."""


async def start_beacon(node: Node, *, needs_proof: bool, proves: bool = True) -> int:
    """Have a node be a beacon, at a port."""
    port = free_port("0.0.0.0")
    prover = Prover(COOKIE) if proves else None
    await node.start(
        BeaconServer(port, add_node=ignore, nodes=list, prover=prover, needs_proof=needs_proof)
    )
    return port


@pytest.fixture
async def node(epmd: Epmd) -> Any:
    """The node of a beacon, and `p`, which wants to be let in."""
    async with Node("q@127.0.0.1", COOKIE) as node, Node("p@127.0.0.1", COOKIE):
        yield node


@pytest.mark.parametrize("beacon_needs", [False, True])
@pytest.mark.parametrize("seeker_needs", [False, True])
async def test_node_with_the_cookie_is_let_in(
    node: Node, beacon_needs: bool, seeker_needs: bool
) -> None:
    """Whichever side needs a proof."""
    port = await start_beacon(node, needs_proof=beacon_needs)
    assert await soon(locator(port, needs_proof=seeker_needs).seek(rounds=1)) == node.name


async def test_beacon_lets_no_node_in_without_a_proof(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """It dials nobody for that, and says so once."""
    port = await start_beacon(node, needs_proof=True)
    stranger = locator(port, "another cookie")
    for each in (stranger, dataclasses.replace(stranger, prover=None)):
        with pytest.raises(JoinError, match="join_failed"):
            await soon(each.seek(rounds=1))
    assert node.nodes() == []
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "lets nobody in from 127.0.0.1 without a proof: the cookie differs" in warnings[0]


async def test_seeker_passes_over_a_beacon_that_proves_nothing(node: Node) -> None:
    """As one of an Elixir node."""
    port = await start_beacon(node, needs_proof=False, proves=False)
    assert await soon(locator(port).seek(rounds=1)) == node.name
    with pytest.raises(JoinError, match="does not prove that it has the cookie") as raised:
        await soon(locator(port, needs_proof=True).seek(rounds=1))
    assert raised.value.answer == JOINED


async def test_proof_is_not_taken_twice(node: Node) -> None:
    """Not even by the beacon that it was for, from the same address."""
    port = await start_beacon(node, needs_proof=True)
    way = Way("127.0.0.1", "127.0.0.1")
    data = seek_chat.encode(Prover(COOKIE).prove(ASK, way))
    assert [await answer(port, data) for _ in range(2)] == ["joined", "join_failed"]


async def test_strangers_cannot_use_up_the_dials_of_nodes_with_the_cookie(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests with a proof are not counted."""
    monkeypatch.setattr(beacon_server, "DIALS_OF_ADDRESS", Rate(burst=1, interval=1e9))
    port = await start_beacon(node, needs_proof=False)
    async with Node("stranger@127.0.0.1", "another cookie"):
        stranger = seek_chat.encode(Message("stranger@127.0.0.1", SEEKING, "join"))
        assert await answer(port, stranger) == "join_failed"
    assert await answer(port, seek_chat.encode(ASK)) == "join_failed"
    assert await soon(locator(port).seek(rounds=1)) == node.name


async def answer(port: int, data: bytes) -> str:
    """The payload that the beacon answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    reply: str = json.loads(await soon(reader.read()))["payload"]
    writer.close()
    return reply


# Members


async def test_members_with_proofs_form_a_cluster(epmd: Epmd) -> None:
    """`beacon="proof"` on each of them; one that has another cookie stays alone."""
    port = free_port("0.0.0.0")
    settings: dict[str, Any] = {
        "cluster_net": "127.0.0.1/32",
        "listener_port": port,
        "beacon": "proof",
    }
    async with (
        Beethoven("p@127.0.0.1", cookie=COOKIE, **settings) as p,
        Beethoven("q@127.0.0.1", cookie=COOKIE, **settings) as q,
    ):
        await soon(p.until_mode("clustered"))
        assert q.via == p.node.name
        with pytest.raises(JoinError, match="join_failed"):
            await soon(Beethoven("r@127.0.0.1", cookie="another", **settings).join())


def test_beacon_setting_is_checked() -> None:
    """It is True, False or "proof"."""
    with pytest.raises(ConfigError, match="beacon is 'prof'; it must be True, False or 'proof'"):
        Beethoven("p@127.0.0.1", cookie=COOKIE, beacon="prof")  # type: ignore[arg-type]
