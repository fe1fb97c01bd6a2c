"""Whoever leaves is offline for the peers at once and leaves nothing behind, however they are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pybeethoven import Atom, GenServer, NoConnection, Term
from pybeethoven.net.network import CLOSING_TIME
from pybeethoven.otp.node import STOP_TIME
from pybeethoven.testing import BeamNode, Peers
from tests.command_line import next_event, options, running
from tests.helpers import LIMIT, soon
from tests.interop.conftest import Member, WholeAgain
from tests.interop.members import OFFLINE, ONLINE, PAUSES, PY, A, B, C, kill_all
from tests.timing import UNIT

LEAVING_LIMIT = STOP_TIME + CLOSING_TIME + 0.5 * UNIT
"""Processes that end take none of the first; who takes nothing is cut off after the second."""


@asynccontextmanager
async def mute(accepted: asyncio.Event) -> AsyncIterator[tuple[str, int]]:
    """Takes connections and says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def names(peer: BeamNode) -> set[bytes]:
    """The nodes that EPMD has."""
    return {bytes(name) for name, _ in await peer.eval("{:ok, names} = :net_adm.names(); names")}


async def gone_for(cluster: Peers, peer: BeamNode, *, frozen: bool) -> None:
    """Wait until a peer has seen us go. Beside a `frozen` one its Mnesia can't write that."""
    if frozen:
        await cluster.until(peer, f':"{PY}" not in Node.list(:hidden)')
    else:
        await cluster.await_tracker(peer, {PY: OFFLINE})


@pytest.mark.parametrize("state", ["well", "frozen", "dead", "amid a handshake", "seeking"])
async def test_leave(cluster: Peers, member: Member, whole_again: WholeAgain, state: str) -> None:
    """In whatever state the peers are, `async with` ends in time; a peer that lives sees it at
    once, EPMD forgets the name, and no task is left."""
    a, b = [await cluster.start(name) for name in (A, B)]
    witness = await cluster.start_bare(C)
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        py = await stack.enter_async_context(member(rejoin_interval=PAUSES))
        await soon(py.node.connect(B))
        await cluster.await_tracker(b, {PY: ONLINE})
        accepted = asyncio.Event()
        address = await stack.enter_async_context(mute(accepted))
        match state:
            case "frozen":
                a.freeze()
            case "dead":
                await kill_all(a, b)
            case "amid a handshake":
                dialling = asyncio.create_task(py.node.connect("mute@127.0.0.1", address))
                await soon(accepted.wait())
                assert not dialling.done()
            case "seeking":
                await kill_all(a, b)
                await py.until_mode("standalone")
        assert b"py" in await names(witness)
        async with whole_again(LEAVING_LIMIT):
            await py.leave()
            if b.running:
                await gone_for(cluster, b, frozen=state == "frozen")
        async with asyncio.timeout(LIMIT):
            while b"py" in await names(witness):  # EPMD hears of it when it does
                pass
        if state == "amid a handshake":
            with pytest.raises(NoConnection):
                await dialling
    left = asyncio.all_tasks() - before
    assert not [task for task in left if "mute" not in repr(task.get_coro())]


async def test_services_end_in_order(cluster: Peers, member: Member) -> None:
    """A service can still ask the cluster in its last words."""
    a = await cluster.start(A)
    last: list[list[Atom]] = []

    class Service(GenServer):
        async def terminate(self, reason: Term) -> None:
            last.append(await py.get_active_cluster_nodes())
            await py.core_server.mirror.catch_up()

    async with member() as py:
        await py.start(Service())
    assert last == [[A, PY]]
    await cluster.await_tracker(a, {PY: OFFLINE})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("state", ["well", "frozen", "seeking"])
async def test_signal(
    cluster: Peers, whole_again: WholeAgain, state: str, number: signal.Signals
) -> None:
    """The command ends in time on a signal, with status 0 and without a word on stderr."""
    a, b = [await cluster.start(name) for name in (A, B)]
    async with running(*options(cluster), "--json") as process:
        assert (await next_event(process))["event"] == "joined"
        await cluster.await_tracker(b, {PY: ONLINE})
        match state:
            case "frozen":
                a.freeze()
            case "seeking":
                await kill_all(a, b)
                while (await next_event(process))["event"] != "mode":
                    pass
        async with whole_again(LEAVING_LIMIT):
            process.send_signal(number)
            if b.running:
                await gone_for(cluster, b, frozen=state == "frozen")
            assert await process.wait() == 0
        _, err = await process.communicate()
        assert err == b""
