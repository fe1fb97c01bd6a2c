"""Ticks between a Python node and a BEAM: who is silent for how long is down, and when each has a
tick time of its own, or changes it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, Node
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import Recorder, atoms
from tests.interop.members import PY, A
from tests.timing import UNIT

T = max(1, round(UNIT))
"""Seconds, whole ones as OTP wants them: the shortest tick time of these tests."""
LONG = 60 * T
LATE = 0.25 * UNIT
"""Seconds that a timer of this process may be late, on a machine that has much to do."""


async def start(cluster: Peers, ticktime: int) -> BeamNode:
    """A BEAM with that tick time."""
    return await cluster.start_bare(A, flags=["-kernel", "net_ticktime", str(ticktime)])


async def watch(node: Node, a: BeamNode) -> Recorder:
    """Connect the two, and let both tell when that ends."""
    recorder = Recorder()
    node.spawn(recorder)
    await node.connect(A)
    await a.eval(f'ControlShell.collect(:seen, setup: fn -> Node.monitor(:"{PY}", true) end)')
    node.monitor_nodes(recorder)
    return recorder


async def remain_connected(recorder: Recorder, a: BeamNode, seconds: float) -> None:
    """For so long neither must believe the other to be down."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(recorder.messages.get(), seconds)
    with pytest.raises(TimeoutError):
        await a.next_event("seen", timeout=0)


async def silence_until_down(node: Node, recorder: Recorder, a: BeamNode) -> float:
    """Freeze the BEAM; for how many seconds it was silent then when it was believed to be down.

    It ticks four times in its tick time. So from the moment at which it is frozen this takes at
    most as long, and at least all but a quarter of its tick time.
    """
    a.freeze()
    last_heard = node.info().connections[0].last_heard
    assert await recorder.next() == atoms("nodedown", A)
    return (datetime.now(UTC) - last_heard).total_seconds()


async def test_idle_and_frozen(cluster: Peers) -> None:
    """With ticks both ways an idle connection stays. A peer that is frozen is down when that has
    lasted for net_ticktime, and a quarter of it at most, as with OTP; it is told when it thaws."""
    a = await start(cluster, T)
    async with Node(PY, cluster.cookie, net_ticktime=T) as node:
        recorder = await watch(node, a)
        await remain_connected(recorder, a, 3 * T)
        assert T <= await silence_until_down(node, recorder, a) <= 1.25 * T + LATE
        a.thaw()
        assert await a.next_event("seen") == (Atom("seen"), atoms("nodedown", PY))


async def test_frozen_for_a_while(cluster: Peers) -> None:
    """A peer that is frozen for less than net_ticktime stays connected, however often."""
    a = await start(cluster, T)
    async with Node(PY, cluster.cookie, net_ticktime=T) as node:
        recorder = await watch(node, a)
        for _ in range(3):
            a.freeze()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(recorder.messages.get(), 0.6 * T)
            a.thaw()
            assert await node.ping(A)
        await remain_connected(recorder, a, T)


async def test_peer_takes_more_time(cluster: Peers) -> None:
    """A peer that ticks ever so seldom is asked whether it lives, and is down if it does not."""
    a = await start(cluster, T)
    async with Node(PY, cluster.cookie, net_ticktime=T) as node:
        recorder = await watch(node, a)
        assert await a.eval(f":net_kernel.set_net_ticktime({LONG}, 0)") == "change_initiated"
        await remain_connected(recorder, a, 4 * T)
        assert T <= await silence_until_down(node, recorder, a) <= 1.25 * T + LATE


async def test_peer_takes_less_time(cluster: Peers) -> None:
    """A peer that waits less long for ticks than ours take to come is answered those it sends."""
    a = await start(cluster, LONG)
    async with Node(PY, cluster.cookie, net_ticktime=LONG) as node:
        recorder = await watch(node, a)
        assert await a.eval(f":net_kernel.set_net_ticktime({T}, 0)") == "change_initiated"
        await remain_connected(recorder, a, 4 * T)


async def test_peer_takes_less_time_and_talks(cluster: Peers) -> None:
    """So is one that sends messages instead of ticks."""
    a = await start(cluster, T)
    async with Node(PY, cluster.cookie, net_ticktime=LONG, hidden=False) as node:
        recorder = await watch(node, a)
        node.spawn(Recorder(), name="ears")
        await a.eval(
            f'{{:ok, timer}} = :timer.apply_interval(20, :erlang, :send, [{{:ears, :"{PY}"}}, 1])'
        )
        await remain_connected(recorder, a, 4 * T)
        await a.eval(":timer.cancel(timer)")


@pytest.mark.parametrize("times", [(T, 2 * T), (2 * T, T)], ids=["longer", "shorter"])
async def test_both_change(cluster: Peers, times: tuple[int, int]) -> None:
    """Where net_kernel is exported for it, a BEAM sets the tick time of all nodes in one call. That
    disturbs no idle connection, and is what counts when the transition is over."""
    before, after = times
    a = await start(cluster, before)
    async with Node(PY, cluster.cookie, net_ticktime=before) as node:
        node.export("net_kernel", node.set_net_ticktime)
        recorder = await watch(node, a)
        change = (
            f':rpc.multicall([:"{A}", :"{PY}"], :net_kernel, :set_net_ticktime, [{after}, {T}])'
        )
        assert await a.eval(change) == ([Atom("change_initiated")] * 2, [])
        assert await a.eval(change) == ([(Atom("ongoing_change_to"), after)] * 2, [])
        await remain_connected(recorder, a, 3 * T)
        assert await a.eval(change) == ([Atom("unchanged")] * 2, [])
        assert node.net_ticktime == after
        assert after <= await silence_until_down(node, recorder, a) <= 1.25 * after + LATE
