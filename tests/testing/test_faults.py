"""Each fault does to real BEAM nodes, and to one of Python, what it says."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pybeethoven import Atom, Beethoven, Node
from pybeethoven.testing import BeamNode, Cluster, EvalError, compile_elixir
from tests.helpers import Recorder, atoms, soon
from tests.testing.conftest import TICK, A, B, C
from tests.timing import UNIT

PY = "py@127.0.0.4"
ONLINE, OFFLINE = "online", "offline"
AT_ONCE = 0.5 * TICK
"""Seconds; whoever finds out sooner was told, and not by silence."""
DELAY = 0.1 * UNIT


async def lost(node: BeamNode, *others: str) -> None:
    """Wait until a node has lost others."""
    names = ", ".join(f':"{other}"' for other in others)
    await node.eval(f"ControlShell.until(fn -> Node.list() -- [{names}] == Node.list() end)")


async def seen(node: BeamNode) -> set[str]:
    """The nodes that a node is connected with, save hidden ones."""
    return set(await node.eval("Node.list()"))


async def ping(node: BeamNode, other: str) -> tuple[str, float]:
    """What it gives, and the seconds that it took."""
    began = time.monotonic()
    answer = await node.eval(f':net_adm.ping(:"{other}")')
    return str(answer), time.monotonic() - began


async def three(cluster: Cluster) -> list[BeamNode]:
    """Three members."""
    return [await cluster.start(name) for name in (A, B, C)]


# The network


async def test_cut(beam_cluster: Cluster) -> None:
    """Two nodes lose each other when the tick time is over, and see the third on; mended, they can
    connect."""
    a, b, c = await three(beam_cluster)
    assert await seen(a) == {B, C}
    began = time.monotonic()
    beam_cluster.cut(A, B)
    await asyncio.gather(lost(a, B), lost(b, A))
    assert time.monotonic() - began > AT_ONCE
    assert [await seen(node) for node in (a, b, c)] == [{C}, {C}, {A, B}]
    assert (await ping(a, B))[0] == "pang"
    beam_cluster.mend(A, B)
    assert (await ping(a, B))[0] == "pong"
    assert [await seen(node) for node in (a, b)] == [{B, C}, {A, C}]


async def test_short_cut(beam_cluster: Cluster) -> None:
    """What is sent during a cut that is shorter than the tick time, comes late, whole and in
    order."""
    a, b = [await beam_cluster.start_bare(name) for name in (A, B)]
    await b.eval("ControlShell.collect(:got, name: :got)")
    assert (await ping(a, B))[0] == "pong"
    await a.eval(f':net_kernel.monitor_nodes(true); send({{:got, :"{B}"}}, :before)')
    assert await b.next_event("got") == (Atom("got"), Atom("before"))
    beam_cluster.cut(A, B)
    big = "for n <- 1..20, do: {n, :binary.copy(<<n>>, 100_000)}"
    await a.eval(f'spawn(fn -> for term <- ({big}), do: send({{:got, :"{B}"}}, term) end)')
    with pytest.raises(TimeoutError):
        await b.next_event("got", timeout=0.25 * TICK)
    beam_cluster.heal()
    for number in range(1, 21):
        term = (number, bytes([number]) * 100_000)
        assert await b.next_event("got") == (Atom("got"), term)
    assert await a.eval("receive do {:nodedown, _} -> :lost after 0 -> :kept end") == "kept"


async def test_killed_while_cut_off(beam_cluster: Cluster) -> None:
    """That a process has ended isn't told over a cut either."""
    a, b, c = [await beam_cluster.start_bare(name) for name in (A, B, C)]
    for node in (a, c):
        assert (await ping(node, B))[0] == "pong"
    began = time.monotonic()
    beam_cluster.cut(A, B)
    await b.kill()
    await lost(c, B)
    assert time.monotonic() - began < AT_ONCE
    await lost(a, B)
    assert time.monotonic() - began > AT_ONCE


async def test_isolate(beam_cluster: Cluster) -> None:
    """The others call an isolated node offline, and it calls them so; restarted it is back."""
    a, b, c = await three(beam_cluster)
    async with Beethoven(**beam_cluster.settings(PY)) as py:
        updates = py.core_server.updates()
        began = time.monotonic()
        beam_cluster.isolate(C)
        update = await soon(anext(updates))
        assert time.monotonic() - began > AT_ONCE
        assert (update.node, update.status) == (C, OFFLINE)
        both = {A: ONLINE, B: ONLINE, C: OFFLINE, PY: ONLINE}
        assert await beam_cluster.await_tracker(a, both) == both
        assert await beam_cluster.await_tracker(b, both) == both
        alone = {A: OFFLINE, B: OFFLINE, C: ONLINE, PY: OFFLINE}
        assert await beam_cluster.await_tracker(c, alone) == alone
        beam_cluster.heal()
        c = await beam_cluster.restart(C)
        update = await soon(anext(updates))
        assert (update.node, update.status) == (C, ONLINE)
        whole = dict.fromkeys((A, B, C, PY), ONLINE)
        assert await beam_cluster.await_tracker(c, whole) == whole


async def test_node_of_python(beam_cluster: Cluster) -> None:
    """A node of Python is cut off as others are, whoever had dialled."""
    _, b = [await beam_cluster.start_bare(name) for name in (A, B)]
    async with Node(PY, beam_cluster.cookie, net_ticktime=TICK) as py:
        await py.connect(A)
        assert (await ping(b, PY))[0] == "pong"
        recorder = Recorder()
        py.monitor_nodes(py.spawn(recorder))
        beam_cluster.isolate(PY)
        lost = {await recorder.next() for _ in (A, B)}
        assert lost == {atoms("nodedown", A), atoms("nodedown", B)}
        assert await py.ping(A) is False
        beam_cluster.heal()
        assert await py.ping(A) is True


async def test_slow(beam_cluster: Cluster) -> None:
    """Each way takes the time given, for that pair alone, and many messages no longer than one."""
    a, b = [await beam_cluster.start_bare(name) for name in (A, B)]
    await beam_cluster.start_bare(C)
    for other in (B, C):
        assert (await ping(a, other))[0] == "pong"
    beam_cluster.slow(A, B, DELAY)
    answer, seconds = await ping(a, B)
    assert answer == "pong"
    assert 2 * DELAY <= seconds < 4 * DELAY
    assert (await ping(a, C))[1] < 2 * DELAY
    await b.eval("ControlShell.collect(:got, name: :got)")
    began = time.monotonic()
    for number in range(20):
        await a.eval(f'send({{:got, :"{B}"}}, {number})')
    got = [await b.next_event("got") for _ in range(20)]
    assert got == [(Atom("got"), number) for number in range(20)]
    assert time.monotonic() - began < 5 * DELAY
    beam_cluster.slow(A, B, 0)
    assert (await ping(a, B))[1] < 2 * DELAY


@pytest.mark.stand_in
async def test_beacons(beam_cluster: Cluster) -> None:
    """Each member has a beacon. Who is cut off from one finds another, and nobody none that is
    down."""
    _, b = [await beam_cluster.start(name) for name in (A, B)]
    settings = beam_cluster.settings(PY)
    async with Beethoven(**settings) as py:
        assert py.via == A
    beam_cluster.cut(PY, A)
    async with Beethoven(**settings) as py:
        assert py.via == B
    await b.kill()
    async with Beethoven(**settings) as py:
        assert py.via is None
    beam_cluster.heal()
    async with Beethoven(**settings) as py:
        assert py.via == A


# Processes


async def test_kill_stop_and_restart(beam_cluster: Cluster) -> None:
    """Others see at once that a process has ended, and one of the same name is another node."""
    a, b = [await beam_cluster.start(name) for name in (A, B)]
    for end in (BeamNode.kill, BeamNode.stop):
        creation = await b.eval(":erlang.system_info(:creation)")
        await end(b)
        assert not b.running
        began = time.monotonic()
        await beam_cluster.await_tracker(a, {B: OFFLINE})
        assert time.monotonic() - began < AT_ONCE
        b = await beam_cluster.restart(B)
        assert await b.eval(":erlang.system_info(:creation)") != creation
        assert await beam_cluster.tracker(b) == {A: ONLINE, B: ONLINE}


async def test_restart_of_a_running_node(beam_cluster: Cluster) -> None:
    """It is killed first, and started with what it was started with."""
    b = await beam_cluster.start_bare(B, env={"OWN": "value"})
    again = await beam_cluster.restart(B)
    assert not b.running
    assert again is beam_cluster.nodes[B]
    assert await again.eval('System.get_env("OWN")') == b"value"


async def test_freeze(beam_cluster: Cluster) -> None:
    """A frozen node keeps its connections until the tick time is over, and answers when thawed."""
    a, b = [await beam_cluster.start_bare(name) for name in (A, B)]
    assert (await ping(a, B))[0] == "pong"
    b.freeze()
    began = time.monotonic()
    with pytest.raises(EvalError, match="time out"):
        await a.eval(f'GenServer.call({{:net_kernel, :"{B}"}}, :any, {int(300 * UNIT)})')
    assert await seen(a) == {B}
    await lost(a, B)
    assert time.monotonic() - began > AT_ONCE
    assert (await ping(a, B))[0] == "pang"
    b.thaw()
    assert (await ping(a, B))[0] == "pong"


# Mnesia and EPMD

RUNNING = ":mnesia.system_info(:running_db_nodes)"


async def test_mnesia(beam_cluster: Cluster) -> None:
    """A member without Mnesia stays connected, and joins anew when it is back."""
    a, b = [await beam_cluster.start(name) for name in (A, B)]
    await beam_cluster.stop_mnesia(B)
    await beam_cluster.until(a, f"{RUNNING} == [node()]")
    assert await b.eval(":mnesia.system_info(:is_running)") == "no"
    assert await seen(a) == {B}
    await beam_cluster.start_mnesia(B)
    assert set(await a.eval(RUNNING)) == {A, B}
    assert await beam_cluster.tracker(b) == {A: ONLINE, B: ONLINE}


async def test_mnesia_alone(beam_cluster: Cluster) -> None:
    """On a node without Beethoven, nothing else happens."""
    a = await beam_cluster.start_bare(A)
    for _ in range(2):
        await beam_cluster.start_mnesia(A)
        assert await a.eval(RUNNING) == [A]
        await beam_cluster.stop_mnesia(A)
        assert await a.eval(":mnesia.system_info(:is_running)") == "no"


async def test_epmd(beam_cluster: Cluster) -> None:
    """Without EPMD connections stay and none are made; back, it soon has all names: OTP and we
    register anew."""
    a = await beam_cluster.start_bare(A)
    for name in (B, C):
        await beam_cluster.start_bare(name)
    async with Node(PY, beam_cluster.cookie) as py:
        assert (await ping(a, B))[0] == "pong"
        await beam_cluster.kill_epmd()
        assert [(await ping(a, name))[0] for name in (B, C)] == ["pong", "pang"]
        assert await py.ping(A) is False
        await beam_cluster.start_epmd()
        for name in (C, PY):
            await beam_cluster.until(a, f':net_adm.ping(:"{name}") == :pong')
        assert await py.ping(B) is True
        ok, names = await a.eval(":net_adm.names({127, 0, 0, 1})")
        assert ok == "ok"
        assert {bytes(name) for name, _ in names} == {b"a", b"b", b"c", b"py"}


# What users bring along


async def test_own_application(
    beam_cluster: Cluster, elixir_lib: Any, erl: str, tmp_path: Any
) -> None:
    """Modules and flags of one's own are there, after a restart, too."""
    source = tmp_path / "own.ex"
    source.write_text("defmodule Own do\n  def answer, do: :init.get_argument(:own)\nend")
    compile_elixir([source], tmp_path / "ebin", erl=erl, elixir_lib=elixir_lib)
    flags = ["-own", "answer", "42"]
    node = await beam_cluster.start_bare(A, flags=flags, code_paths=[tmp_path / "ebin"])
    for _ in range(2):
        assert await node.eval("Own.answer()") == (Atom("ok"), [[list(b"answer"), list(b"42")]])
        node = await beam_cluster.restart(A)
