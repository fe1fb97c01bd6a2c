"""A cluster that Python nodes begin, alone or together with BEAMs, in whatever order."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from itertools import permutations

import pytest

from pybeethoven import Atom, CallTimeout
from pybeethoven.cluster import admission, seek_chat
from pybeethoven.cluster.seek_chat import Message
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import soon, until_logged
from tests.interop.conftest import Member
from tests.interop.crowd import QUIET, Crowd, online_in
from tests.interop.members import OFFLINE, ONLINE, PAUSES, TICKTIME
from tests.timing import UNIT

P1, P2, P3, P4, P5 = PYTHONS = [f"p{i}@127.0.0.{i}" for i in range(1, 6)]
A, B = "a@127.0.0.4", "b@127.0.0.5"


@pytest.fixture
async def crowd(
    cluster: Peers, member: Member, pytestconfig: pytest.Config
) -> AsyncIterator[Crowd]:
    """The nodes of a test."""
    real = pytestconfig.getoption("--beethoven-ebin") is not None
    make = partial(member, rejoin_interval=PAUSES)
    async with Crowd(cluster, make, follow_beams=not real) as crowd:
        yield crowd


NOWHERE = "127.0.0.4/32"
"""A network without hosts."""

# All of it


@pytest.mark.parametrize("first", [P1, P3])
async def test_killed_nodes_return_to_one_cluster(
    crowd: Crowd, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first Python node and the leading BEAM are killed, and come back to one cluster.

    Python nodes began it, and BEAMs joined through the beacon of one. All nodes have the same
    table, and each follower hears each change once.
    """
    caplog.set_level(logging.INFO, "pybeethoven.cluster")
    child, said = await crowd.start_child(first, "-v")
    assert said == {"event": "standalone"}
    one, other = sorted({P1, P2, P3} - {first})
    pythons = [await crowd.start(one), await crowd.start(other)]
    await crowd.one_cluster()
    a = await crowd.start(A)
    b = await crowd.start(B)
    await crowd.one_cluster()
    assert [py.core_server.mirror.source for py in crowd.pythons.values()] == [A, A]
    a.heard_once({*crowd.witnesses} - {A})
    b.heard_once({*crowd.witnesses} - {B})
    await child.hears((one, ONLINE), (other, ONLINE), (A, ONLINE), (B, ONLINE))

    await child.end()
    for beam in (A, B):
        assert f"the beacon of {P1} has let {beam} in" in child.log + "\n".join(caplog.messages)
    await crowd.agree({one, other, A, B})
    await a.end()
    await crowd.agree({one, other, B})
    child, said = await crowd.start_child(first)
    assert said["event"] == "joined"
    a = await crowd.start(A)
    await crowd.one_cluster()

    gone_and_back = [(first, OFFLINE), (A, OFFLINE), (first, ONLINE), (A, ONLINE)]
    for python in pythons:
        later = [(other, ONLINE)] if python.name == one else []
        await python.hears(*later, (A, ONLINE), (B, ONLINE), *gone_and_back)
    await b.hears(*gone_and_back)
    await child.hears((A, ONLINE))
    await a.hears()


# Python alone


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_python_nodes_that_start_at_once_are_one_cluster(crowd: Crowd, count: int) -> None:
    """Python nodes that find each other at the same moment are one cluster."""
    await asyncio.gather(*(crowd.start(name) for name in PYTHONS[:count]))
    await crowd.one_cluster()
    crowd.heard_once()


@pytest.mark.parametrize("killed", [P1, P2, P3])
async def test_killed_python_node_is_offline_once(crowd: Crowd, killed: str) -> None:
    """Each follower hears once that a killed node is offline, and that it is back."""
    child, _ = await crowd.start_child(killed)
    others = sorted({P1, P2, P3} - {killed})
    for name in others:
        await crowd.start(name)
    await crowd.one_cluster()
    followers = [crowd.witnesses[name] for name in others]
    expected = [[(others[1], ONLINE)], []]
    for status in (OFFLINE, ONLINE, OFFLINE):
        if status == ONLINE:
            child, said = await crowd.start_child(killed)
            assert said["event"] == "joined"
            await crowd.one_cluster()
            await child.hears()
        else:
            await child.end()
            await crowd.one_cluster()
        for follower, changes in zip(followers, expected, strict=True):
            changes.append((killed, status))
            await follower.hears(*changes)


@pytest.mark.usefixtures("wrong_clock")
async def test_one_wrong_clock_of_three_is_harmless(crowd: Crowd) -> None:
    """A killed node is offline, and online when it comes back through a node with a wrong clock."""
    await crowd.start_child(P1)
    wrong = await crowd.start(P2)
    third, _ = await crowd.start_child(P3)
    await crowd.one_cluster()
    await crowd.witnesses[P1].end()
    await crowd.one_cluster()
    again, _ = await crowd.start_child(P1)
    await crowd.one_cluster()
    await wrong.hears((P3, ONLINE), (P1, OFFLINE), (P1, ONLINE))
    await third.hears((P1, OFFLINE), (P1, ONLINE))
    await again.hears()


@pytest.mark.usefixtures("wrong_clock")
async def test_two_wrong_clocks_of_three_are_harmless(crowd: Crowd) -> None:
    """Of two nodes with wrong clocks, one leaves and comes back through the other.

    The third hears that it is offline, and then that it is online.
    """
    third, _ = await crowd.start_child(P3)
    p1, p2 = [await crowd.start(name) for name in (P1, P2)]
    await crowd.one_cluster()
    await third.hears((P1, ONLINE), (P2, ONLINE))
    await p1.end()
    await crowd.one_cluster()
    await crowd.start(P1)
    await crowd.one_cluster()
    await third.hears((P1, ONLINE), (P2, ONLINE), (P1, OFFLINE), (P1, ONLINE))
    await p2.hears((P1, OFFLINE), (P1, ONLINE))


async def test_leave_and_join_again(crowd: Crowd) -> None:
    """A node that leaves and joins again is offline and online for the others, each time once."""
    p1, p2, p3 = [await crowd.start(name) for name in (P1, P2, P3)]
    await crowd.one_cluster()
    for _ in range(3):
        await p1.end()
        await crowd.one_cluster()
        p1 = await crowd.start(P1)
        await crowd.one_cluster()
        await p1.hears()
    await p2.hears((P3, ONLINE), *3 * [(P1, OFFLINE), (P1, ONLINE)])
    await p3.hears(*3 * [(P1, OFFLINE), (P1, ONLINE)])


@pytest.mark.parametrize("name", [P1, P2])
async def test_restarted_core_server_keeps_its_table(crowd: Crowd, name: str) -> None:
    """Followers hear nothing of a CoreServer that was killed and restarted; it goes on sharing."""
    p1, p2, p3 = [await crowd.start(name) for name in (P1, P2, P3)]
    await crowd.one_cluster()
    expected = {P1: [(P2, ONLINE), (P3, ONLINE)], P2: [(P3, ONLINE)], P3: []}
    core = crowd.pythons[name].core_server
    for _ in range(2):
        core.node.exit(core, Atom("kill"))
        await soon(core.wait_end())
        await crowd.pythons[name].until_ready()
        await crowd.one_cluster()
    p4 = await crowd.start(P4)
    await crowd.one_cluster()
    for witness in (p1, p2, p3):
        await witness.hears(*expected[witness.name], (P4, ONLINE))
    await p4.hears()


async def test_frozen_process_is_offline(cluster: Peers, member: Member) -> None:
    """A process that was stopped for longer than the tick time is offline until it goes on."""
    make = partial(member, rejoin_interval=PAUSES, net_ticktime=TICKTIME)
    async with Crowd(cluster, make) as crowd:
        p1, _ = await crowd.start_child(P1, "--net-ticktime", str(TICKTIME))
        p2, p3 = [await crowd.start(name) for name in (P2, P3)]
        await crowd.one_cluster()
        assert p1.process is not None
        p1.process.send_signal(signal.SIGSTOP)
        await p2.hears((P3, ONLINE), (P1, OFFLINE))
        await p3.hears((P1, OFFLINE))
        p1.process.send_signal(signal.SIGCONT)
        await crowd.one_cluster()
        await p2.hears((P3, ONLINE), (P1, OFFLINE), (P1, ONLINE))
        await p3.hears((P1, OFFLINE), (P1, ONLINE))


# Every order of starting

NAMES = {"p": P1, "q": P2, "a": A, "b": B}


ONE_BY_ONE = [" ".join(order) for order in permutations("pqab")]
AT_ONCE = ["pq ab", "pq a b", "a b pq", "pa qb", "p aqb", "a pqb", "a pq b", "p ab q", "pab q"]


SOME, OTHERS = ONE_BY_ONE[::4], [order for i, order in enumerate(ONE_BY_ONE) if i % 4]


@pytest.mark.parametrize(
    "order", [*SOME, *AT_ONCE, *(pytest.param(order, marks=pytest.mark.slow) for order in OTHERS)]
)
async def test_any_order_of_starting_gives_one_cluster(crowd: Crowd, order: str) -> None:
    """Nodes form one cluster, in whatever order they start.

    Those of a word start at the same time, each word when all before it are up. Each follower hears
    once of each node that came later.

    Two BEAMs that start at once before any Python node may stay two clusters, as in Beethoven
    itself. That is left out.
    """
    for word in order.split():
        await asyncio.gather(*(crowd.start(NAMES[letter]) for letter in word))
    await crowd.one_cluster()
    crowd.heard_once()


@pytest.mark.parametrize("turn", range(5))
async def test_nodes_that_start_within_a_moment_are_one_cluster(
    crowd: Crowd, seed: int, turn: int
) -> None:
    """BEAMs that boot while the beacons of others open join their cluster."""
    rng = random.Random(seed + turn)

    async def start_later(name: str) -> None:
        await asyncio.sleep(rng.uniform(0, 0.2) * UNIT)
        await crowd.start(name)

    await asyncio.gather(*(start_later(name) for name in (P1, P2, P3, A, B)))
    await crowd.one_cluster()
    crowd.heard_once()


@pytest.mark.parametrize("beams", [[A], [A, B]], ids=["one", "two"])
async def test_python_nodes_go_on_without_beams(crowd: Crowd, beams: list[str]) -> None:
    """When all BEAMs are killed, Python nodes go on; BEAMs that return get what has changed."""
    child, _ = await crowd.start_child(P1)
    p2, p3 = [await crowd.start(name) for name in (P2, P3)]
    await asyncio.gather(*(crowd.start(name) for name in beams))
    await crowd.one_cluster()
    await asyncio.gather(*(crowd.witnesses[name].end() for name in beams))
    await crowd.one_cluster()
    await child.end()
    await crowd.one_cluster()
    for name in beams:
        await crowd.start(name)
    await crowd.one_cluster()
    child, said = await crowd.start_child(P1)
    assert said["event"] == "joined"
    await crowd.one_cluster()
    of_beams = [(name, status) for status in (ONLINE, OFFLINE, ONLINE) for name in beams]
    await p2.hears((P3, ONLINE), *of_beams, (P1, OFFLINE), (P1, ONLINE))
    await p3.hears(*of_beams, (P1, OFFLINE), (P1, ONLINE))
    await child.hears()


async def test_leader_and_first_python_node_die_at_once(crowd: Crowd) -> None:
    """The leading BEAM and the first Python node are killed, and come back, at the same time."""
    child, _ = await crowd.start_child(P1)
    p2, p3 = [await crowd.start(name) for name in (P2, P3)]
    a = await crowd.start(A)
    await crowd.one_cluster()
    await asyncio.gather(a.end(), child.end())
    await crowd.one_cluster()
    await asyncio.gather(crowd.start(A), crowd.start_child(P1))
    await crowd.one_cluster()
    for ear in [*p2.ears, *p3.ears]:
        assert ear.of(A) == [ONLINE, OFFLINE, ONLINE]
        # Who of the two has P1 back may find the BEAM after the other has told it of P1's end.
        assert ear.of(P1) in ([OFFLINE, ONLINE], 2 * [OFFLINE, ONLINE])


# BEAMs that find Python nodes only


@pytest.mark.stand_in
async def test_beam_sees_a_python_node_die(crowd: Crowd) -> None:
    """A BEAM that finds only Python nodes tracks them, and sees one die."""
    child, _ = await crowd.start_child(P1)
    p2 = await crowd.start(P2)
    a = await crowd.start(A)
    await crowd.one_cluster()
    a.heard_once({P1, P2})
    await p2.hears((A, ONLINE))
    await child.hears((P2, ONLINE), (A, ONLINE))
    told = list(a.ears[0].heard)
    await child.end()
    await a.hears(*told, (P1, OFFLINE))
    await p2.hears((A, ONLINE), (P1, OFFLINE))
    await crowd.agree({A, P2})
    # A BEAM calls itself standalone then: it counts no hidden nodes.


async def test_beams_that_join_at_once_are_merged(
    crowd: Crowd, cluster: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of two BEAMs finds another Python node: one leads, and the other is merged with it."""
    caplog.set_level(logging.INFO, "pybeethoven.cluster")
    for name in (P1, P5):
        await crowd.start(name)
    beams = {"a@127.0.0.3": "127.0.0.0/30", "b@127.0.0.4": "127.0.0.4/30"}
    for name in beams:
        await cluster.start_bare(name)
    await asyncio.gather(*(boot(cluster, name, net) for name, net in beams.items()))
    for name, via in zip(beams, (P1, P5), strict=True):
        await crowd.watch_beam(cluster.nodes[name])
        assert f"the beacon of {via} has let {name} in" in caplog.messages
    await crowd.one_cluster()
    crowd.heard_once()


async def test_next_beam_leads_when_the_first_dies(
    crowd: Crowd, cluster: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """A BEAM that was let in dies before it has the tracker; the next one waits, and leads."""
    p1, p2 = [await crowd.start(name) for name in (P1, P2)]
    a = await bare_with_mnesia(cluster, A)
    assert await seek(cluster, P2, A) == "joined"
    await crowd.agree({P1, P2, A})
    caplog.set_level(logging.DEBUG, logger="pybeethoven.cluster.admission")
    starting = asyncio.create_task(crowd.start(B))
    await until_logged(caplog, f"{B} waits to be added: {A} is to lead the cluster")
    await asyncio.sleep(QUIET)
    assert B not in online_in(await p1.rows())
    await a.kill()
    await soon(starting)
    await crowd.one_cluster()
    await p1.hears((P2, ONLINE), (A, ONLINE), (A, OFFLINE), (B, ONLINE))
    await p2.hears((A, ONLINE), (A, OFFLINE), (B, ONLINE))


async def test_beam_is_refused_when_the_first_never_leads(
    crowd: Crowd, cluster: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the BEAM that is to lead; no follower hears of the refused one."""
    monkeypatch.setattr(admission, "ADMISSION_TIME", 0.5 * UNIT)
    p1 = await crowd.start(P1)
    core_server = crowd.pythons[P1].core_server
    for name in (A, B):
        await bare_with_mnesia(cluster, name)
    core_server.standing.looked_around()
    await core_server.new_node(A)
    with pytest.raises(CallTimeout, match=f"{B} was not added .*{A} is to lead the cluster"):
        await core_server.new_node(B)
    await core_server.new_node(A)
    await p1.hears((A, ONLINE))


async def test_first_python_dies_while_a_beam_waits(crowd: Crowd, cluster: Peers) -> None:
    """A BEAM that waits at the beacon of a node that is killed seeks again, and is let in."""
    p1, _ = await crowd.start_child(P1)
    p2 = await crowd.start(P2)
    await crowd.one_cluster()
    a = await bare_with_mnesia(cluster, A)
    assert await seek(cluster, P2, A) == "joined"
    starting = asyncio.create_task(crowd.start(B))
    await asyncio.sleep(1 * UNIT)
    await p1.end()
    await p2.hears((A, ONLINE), (P1, OFFLINE))
    await a.kill()
    await soon(starting)
    await crowd.one_cluster()
    await p2.hears((A, ONLINE), (P1, OFFLINE), (A, OFFLINE), (B, ONLINE))


@pytest.mark.stand_in
async def test_beam_with_own_cluster_leads_python_nodes(crowd: Crowd, cluster: Peers) -> None:
    """A BEAM that has started alone leads Python nodes without a BEAM, whichever lets it in."""
    p1, p2 = [await crowd.start(name) for name in (P1, P2)]
    await cluster.start_bare(A)
    await boot(cluster, A, NOWHERE)
    answer = await seek(cluster, P2, A)
    assert answer == "joined"
    await crowd.watch_beam(cluster.nodes[A])
    await crowd.one_cluster()
    await p1.hears((P2, ONLINE), (A, ONLINE))
    await p2.hears((A, ONLINE))


@pytest.mark.stand_in
async def test_beam_with_own_cluster_is_refused(crowd: Crowd, cluster: Peers) -> None:
    """A BEAM that has started alone is refused where another leads.

    Their Mnesias can't be merged.
    """
    await crowd.start(P1)
    await crowd.start(B)
    await cluster.start_bare(A)
    await boot(cluster, A, NOWHERE)
    assert await cluster.tracker(cluster.nodes[A]) == {A: ONLINE}
    assert await seek(cluster, P1, A) == "error"
    assert crowd.pythons[P1].core_server.mirror.source == B


async def boot(cluster: Peers, name: str, net: str) -> None:
    """Start Beethoven on a bare BEAM that looks for a beacon in a part of the network."""
    host, _, mask = net.partition("/")
    await cluster.nodes[name].eval(f"""
      for {{key, value}} <- [
            cluster_net: "{host}",
            cluster_net_mask: "{mask}",
            listener_port: {cluster.listener_port},
            common_random_backoff: 150..300,
            roles: []
          ],
          do: Application.put_env(:beethoven, key, value)

      {{:ok, _apps}} = Application.ensure_all_started(:beethoven)
      ControlShell.until(fn -> Process.whereis(Beethoven.BeaconServer) end)
      TrackerWatch.await(%{{node() => :online}})
    """)


async def bare_with_mnesia(cluster: Peers, name: str) -> BeamNode:
    """A BEAM with Mnesia and nothing in it."""
    beam = await cluster.start_bare(name)
    assert await beam.eval(":mnesia.start()") == "ok"
    return beam


async def seek(cluster: Peers, via: str, name: str) -> str | list[str]:
    """The answer of a beacon that is asked to let another node in."""
    reader, writer = await asyncio.open_connection(via.partition("@")[2], cluster.listener_port)
    writer.write(seek_chat.encode(Message(name, seek_chat.SEEKING, "join")))
    reply = seek_chat.decode(await soon(reader.read()))
    writer.close()
    assert reply is not None
    return reply.payload
