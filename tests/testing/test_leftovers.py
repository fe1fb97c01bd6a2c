"""Whatever becomes of a test, its BEAM nodes and their network are gone after it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from pybeethoven.testing import BeamDownError, Cluster
from tests.helpers import soon
from tests.testing.conftest import A, B, C

SCRIPT = """
import asyncio, sys
from pathlib import Path
from pybeethoven.testing import Cluster

async def main():
    async with Cluster(ebin=Path(sys.argv[1])) as cluster:
        nodes = [await cluster.start_bare(f"{name}@127.0.0.1") for name in "ab"]
        print(*[int(bytes(await node.eval(":os.getpid()"))) for node in nodes], flush=True)
        nodes[1].freeze()
        print("frozen", flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


async def ended(pid: int) -> None:
    """Wait for the end of a process, anybody's."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_reader(descriptor, end.set)
    try:
        await soon(end.wait())
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def pid_of(cluster: Cluster, name: str) -> int:
    """The operating system's number of a BEAM."""
    return int(bytes(await cluster.nodes[name].eval(":os.getpid()")))


def is_free(port: int) -> bool:
    """Whether nobody listens there, at any host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


async def test_cancelled(peer_ebin: Path) -> None:
    """A cluster that is cancelled amid faults leaves no process, no port and no task."""
    before = asyncio.all_tasks()
    clusters: asyncio.Queue[Any] = asyncio.Queue()

    async def fail() -> None:
        async with Cluster(ebin=peer_ebin) as cluster:
            a, b = [await cluster.start(name) for name in (A, B)]
            pids = [await pid_of(cluster, name) for name in (A, B)]
            await cluster.start_bare(C)
            assert await a.eval(f':net_adm.ping(:"{C}")') == "pong"
            b.freeze()
            cluster.isolate(C)
            await a.eval(f'spawn(fn -> :net_adm.ping(:"{B}") end)')
            clusters.put_nowait((cluster, pids))
            await asyncio.get_running_loop().create_future()

    failing = asyncio.create_task(fail())
    cluster, pids = await soon(clusters.get())
    failing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(failing)
    for pid in pids:
        await ended(pid)
    ports = [int(cluster.env["ERL_EPMD_PORT"]), cluster.epmd.port, cluster.listener_port_of(A)]
    assert all(is_free(port) for port in ports)
    assert asyncio.all_tasks() == before


async def test_killed_interpreter(peer_ebin: Path) -> None:
    """BEAM nodes end with the Python that started them, also those that are frozen."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, str(peer_ebin)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        pids = (await soon(process.stdout.readline())).split()
        assert await soon(process.stdout.readline()) == b"frozen\n"
    finally:
        process.kill()
        await process.communicate()
    for pid in pids:
        await ended(int(pid))


async def test_no_start(beam_cluster: Cluster) -> None:
    """A node that can't start leaves the others, and the reason is told."""
    await beam_cluster.start(A)
    with pytest.raises(BeamDownError, match=r"the name a@127.0.0.1 seems to be in use"):
        await beam_cluster.start(A)
