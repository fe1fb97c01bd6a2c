"""Python nodes alone, in this process: what becomes of their links and of their CoreServers. Whole
clusters, with BEAMs in them, are in tests/interop/test_python_first.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from pybeethoven import Atom, Beethoven, MirrorError, NoConnection, Node
from pybeethoven.cluster import standing
from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.cluster.tracker import CORE_TRACKER, OFFLINE, ONLINE, record
from pybeethoven.etf import Term
from pybeethoven.testing import Epmd, free_port
from tests.helpers import soon
from tests.timing import UNIT

P, Q, R, S = (f"{name}@127.0.0.{host}" for host, name in enumerate("pqrs", 1))

Make = Callable[..., Beethoven]
Pair = tuple[Beethoven, Beethoven]


@pytest.fixture
def make(epmd: Epmd) -> Make:
    """Makes members of one cluster, or with a port of their own of none."""
    common = free_port("0.0.0.0")
    return lambda name, port=common: Beethoven(
        name,
        cookie="cookie",
        cluster_net="127.0.0.0/29",
        listener_port=port,
        rejoin_interval=(0.02 * UNIT, 0.1 * UNIT),
    )


@pytest.fixture
async def pair(make: Make) -> AsyncIterator[Pair]:
    """Two members."""
    async with make(P) as p, make(Q) as q:
        yield p, q


async def until(member: Beethoven, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; it is looked at whenever something changes at a member."""
    async with asyncio.timeout(10 * UNIT):
        while True:
            change = member.core_server.standing.admission._change
            if condition():
                return
            await change.wait()


def statuses(member: Beethoven) -> dict[str, str]:
    """The tracker of a member."""
    return {row.node: row.status for row in member.core_server.standing.rows()}


async def test_killed_core_server(pair: Pair) -> None:
    """It is run again and shares again, without a word to anybody's followers; nor is anything lost
    that happened meanwhile."""
    p, q = pair
    updates = q.core_server.updates()
    for _ in range(2):
        p.node.exit(p.core_server.pid, Atom("kill"))
        await until(q, lambda: q.core_server.standing.first() == Q)
        await until(q, lambda: q.core_server.standing.first() == P)
    q.core_server.standing.add_here(R)
    await until(p, lambda: R in statuses(p))
    told = await soon(anext(updates))
    assert (told.node, told.status) == (R, ONLINE)
    assert await p.core_server.get_mode() == "clustered"


async def test_nothing_stays(make: Make) -> None:
    """After members have come and gone, no task is left of the links to them."""
    before = asyncio.all_tasks()
    async with make(P) as p:
        for _ in range(3):
            async with make(Q):
                await until(p, lambda: p.core_server.standing.first() == P)
                await p.until_mode("clustered")
            await until(p, lambda: statuses(p) == {P: ONLINE, Q: OFFLINE})
            await p.until_mode("standalone")
    assert asyncio.all_tasks() == before


async def test_what_was_thought_apart(make: Make) -> None:
    """Two clusters of which each thinks that the other's nodes are offline, and since later: when
    they meet all are online, and nobody hears of what was only thought."""
    later = datetime.now(UTC) + timedelta(seconds=5)
    apart = free_port("0.0.0.0")
    async with make(P) as p, make(Q) as q, make(S, port=apart) as s:
        for name in (P, Q):
            s.core_server.mirror.write_local(record(name, OFFLINE, later))
        p.core_server.mirror.write_local(record(S, OFFLINE, later))
        heard = [member.core_server.updates() for member in (p, q, s)]
        await p.core_server.new_node(S)  # as its beacon does
        await soon(s.core_server.standing.enter(P))
        told = [{(await soon(anext(updates))).node} for updates in heard]
        told[2].add((await soon(anext(heard[2]))).node)
        assert told == [{S}, {S}, {P, Q}]
        await until(p, lambda: p.core_server.standing.rows() == q.core_server.standing.rows())
        await until(s, lambda: s.core_server.standing.rows() == p.core_server.standing.rows())
        assert statuses(p) == {P: ONLINE, Q: ONLINE, S: ONLINE}
        assert all(updates._queue.empty() for updates in heard)


ROWS: list[Term] = [
    (CORE_TRACKER, b"no atom", ONLINE, {}),
    (CORE_TRACKER, Atom(R), b"online", {}),
    (CORE_TRACKER, Atom(Q), OFFLINE, b"no time"),
]


@pytest.mark.parametrize("row", ROWS, ids=repr)
async def test_what_is_no_row(pair: Pair, row: Term) -> None:
    """What is no row of the tracker, or has no time, is not taken over from another node."""
    p, q = pair
    q.core_server.mirror.write_local(row)
    q.core_server.standing.add_here(S)
    await until(p, lambda: S in statuses(p))
    assert row not in p.core_server.mirror.table
    assert statuses(p).keys() == {P, Q, S}


async def test_row_in_place_of_none(pair: Pair) -> None:
    """A row of the tracker takes the place of one that is none, however it is told; nobody ends."""
    p, q = pair
    p.core_server.mirror.write_local((CORE_TRACKER, Atom(R), b"online", {}))
    q.core_server.mirror.write_local((CORE_TRACKER, Atom(R), OFFLINE, {}))
    await until(p, lambda: statuses(p).get(R) == OFFLINE)
    assert p.core_server.alive


@pytest.mark.parametrize("name", ["nonsense", "r@host", ""])
async def test_name_of_no_node(pair: Pair, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is told to be online and can't be the name of a node that we reach is marked offline."""
    p, q = pair
    p.core_server.standing.add_here(name)
    for member in pair:
        await until(member, lambda: statuses(q).get(name) == statuses(p).get(name) == OFFLINE)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_follower_on_no_node(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A follower that says that it is on what can't be a node is not followed."""
    async with make(P) as p, Node(R, "cookie") as r:
        before = p.core_server.pid
        r.cast((CORE_SERVER, P), (Atom("alert_me"), (Atom("ear"), Atom("nonode"))))
        assert await r.call((CORE_SERVER, P), Atom("get_mode")) == "standalone"
        assert p.core_server.pid == before
        assert "is on no node" in caplog.text


async def test_unreachable(make: Make) -> None:
    """A node that can't be reached is not added; one that is told to be there and is not is marked
    offline."""
    async with make(P) as p:
        updates = p.core_server.updates()
        with pytest.raises(NoConnection, match=R):
            await p.core_server.new_node(R)
        assert statuses(p) == {P: ONLINE}
        p.core_server.standing.add_here(R)
        told = [await soon(anext(updates)) for _ in range(2)]
        assert [(u.node, u.status) for u in told] == [(R, ONLINE), (R, OFFLINE)]


async def test_time_ahead(pair: Pair) -> None:
    """However far ahead of our clock somebody has written a row, what is written later counts."""
    p, q = pair
    ahead = datetime.now(UTC) + timedelta(days=1)
    q.core_server.mirror.write_local(record(R, OFFLINE, ahead))
    await until(p, lambda: R in statuses(p))
    async with Node(R, "cookie"):
        await q.core_server.new_node(R)
        await until(p, lambda: statuses(p)[R] == statuses(q)[R] == ONLINE)


async def test_own_row_from_ahead(pair: Pair) -> None:
    """A node that somebody has marked offline at itself, however far ahead, is online again for
    all."""
    p, q = pair
    ahead = datetime.now(UTC) + timedelta(days=1)
    async with Node(R, "cookie") as r:
        await r.rpc(P, "mnesia", "dirty_write", [record(P, OFFLINE, ahead)])
    await until(q, lambda: statuses(q) == {P: OFFLINE, Q: ONLINE})
    await until(q, lambda: statuses(q) == statuses(p) == {P: ONLINE, Q: ONLINE})


async def test_a_node_that_is_back_for_the_first_alone(pair: Pair) -> None:
    """A node that a BEAM has online at the first, and that we could not reach, is dialled again."""
    p, q = pair
    await until(q, lambda: q.core_server.standing.first() == P)
    p.core_server.mirror.source = R  # from here on p takes over nothing
    p.core_server.standing.add_here(R)
    await until(q, lambda: statuses(q).get(R) == OFFLINE)
    events = q.node.connection_events()
    async with Node(R, "cookie"):
        while (event := await soon(anext(events))).kind != "up":
            pass
        assert event.peer == R
        assert statuses(p)[R] == ONLINE


@pytest.mark.parametrize("name", [P, Q])
async def test_row_of_the_last_year(pair: Pair, name: str) -> None:
    """A row of a time that can't be does not count: whose it is, is online again for all, with a
    time that can be."""
    p, q = pair
    row = record(name, OFFLINE, datetime.max.replace(tzinfo=UTC))
    async with Node(R, "cookie") as r:
        await r.rpc(P, "mnesia", "dirty_write", [row])
    for member in pair:
        await until(member, lambda: statuses(p) == statuses(q) == {P: ONLINE, Q: ONLINE})
        assert all(row.last_change.year < 9999 for row in member.core_server.standing.rows())


async def test_one_shows_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member without a tracker does not keep others out."""
    monkeypatch.setattr(standing, "ENTER_TIME", 1000.0)
    monkeypatch.setattr(standing, "REST_TIME", 0.05 * UNIT)
    async with make(P) as p, Node(R, "cookie"):
        await p.core_server.new_node(R)
        q = make(Q)
        await soon(q.join())
        assert statuses(q) == {P: ONLINE, Q: ONLINE, R: ONLINE}
        await q.leave()


async def test_via_shows_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says it has let us in and shows no tracker is named in the error; it is tried no
    more, and nothing stays."""
    monkeypatch.setattr(standing, "ENTER_TIME", 0.1 * UNIT)
    async with make(P) as p, Node(R, "cookie"):
        with pytest.raises(MirrorError, match=f"{R} has let {P} in, but does not offer the table"):
            await p.core_server.standing.enter(R)
        assert statuses(p) == {P: ONLINE}


async def test_via_goes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has let us in and has gone since is not looked for any more."""
    monkeypatch.setattr(standing, "ENTER_TIME", 0.1 * UNIT)
    async with make(P) as p:
        p.core_server.standing.let_in(R)
        await until(p, lambda: R in p.core_server.standing.peers())
        await until(p, lambda: R not in p.core_server.standing.peers())
        assert not p.core_server.standing._sharing._links
