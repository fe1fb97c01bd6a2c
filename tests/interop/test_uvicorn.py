"""The example of a FastAPI application, run by uvicorn."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from pybeethoven.testing import BeamNode, Peers, free_port
from tests.command_line import Command, running
from tests.helpers import LIMIT
from tests.interop.conftest import Member
from tests.interop.members import OFFLINE, ONLINE, A, heard
from tests.timing import UNIT

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app.py"
WEB1, WEB2 = (f"web{number}@127.0.0.1" for number in (1, 2))

END_LIMIT = 3 * UNIT
"""Seconds from SIGTERM to the end; uvicorn's parent process looks for a signal each half second."""

SAY_LOOP = """

@app.get("/loop")
async def loop() -> str:
    import asyncio

    return type(asyncio.get_running_loop()).__module__
"""


class Web:
    """A copy of the example, `file`, which uvicorn runs."""

    def __init__(self, file: Path, process: Command, port: int) -> None:
        self.file = file
        self._process = process
        self._port = port

    async def get(self, path: str) -> Any:
        """The JSON at `path`, once uvicorn listens: no event tells of that."""
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    return await asyncio.to_thread(self._get, path)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01 * UNIT)

    def _get(self, path: str) -> Any:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=LIMIT)) as connection:
            connection.request("GET", path)
            return json.load(connection.getresponse())

    async def stop(self, cluster: Peers, peer: BeamNode, *names: str) -> int | None:
        """Send SIGTERM, and give the exit status when each process has ended: the nodes have left,
        and nothing has failed."""
        async with asyncio.timeout(END_LIMIT):
            self._process.terminate()
            await cluster.await_tracker(peer, dict.fromkeys(names, OFFLINE))
            _, err = await self._process.communicate()
        assert err.count(b"Application shutdown complete.") >= len(names)
        assert b"Traceback" not in err, err.decode()
        return self._process.returncode


@asynccontextmanager
async def uvicorn(cluster: Peers, folder: Path, *options: str) -> AsyncIterator[Web]:
    """The example in the test's cluster, run from a copy in `folder`."""
    file = shutil.copy(EXAMPLE, folder)
    port = free_port()
    args = ("--app-dir", str(folder), "fastapi_app:app", "--port", str(port), *options)
    env = {"PYBEETHOVEN_COOKIE": cluster.cookie, "PYBEETHOVEN_PORT": str(cluster.listener_port)}
    async with running(*args, module="uvicorn", env=env) as process:
        yield Web(Path(file), process, port)


async def test_application_joins_serves_and_leaves(cluster: Peers, tmp_path: Path) -> None:
    """It serves the tracker, and SIGTERM has it leave and end as one that has no node."""
    a = await cluster.start(A)
    async with uvicorn(cluster, tmp_path) as web:
        rows = await web.get("/nodes")
        assert {row["node"]: row["status"] for row in rows} == {A: ONLINE, WEB1: ONLINE}
        await cluster.await_tracker(a, {WEB1: ONLINE})
        assert await web.stop(cluster, a, WEB1) == -signal.SIGTERM


async def test_reloaded_application_is_the_same_node(
    cluster: Peers, member: Member, tmp_path: Path
) -> None:
    """With `--reload` it leaves when its file changes, and joins again under its name; it runs on
    uvloop."""
    a = await cluster.start(A)
    async with member() as py:
        updates = py.core_server.updates()
        async with uvicorn(cluster, tmp_path, "--reload", "--reload-dir", str(tmp_path)) as web:
            assert await heard(updates, 1) == [(WEB1, ONLINE)]
            with web.file.open("a") as file:
                file.write(SAY_LOOP)
            assert await heard(updates, 2) == [(WEB1, OFFLINE), (WEB1, ONLINE)]
            assert await web.get("/loop") == "uvloop"
            assert await web.stop(cluster, a, WEB1) == 0


async def test_each_worker_is_a_node(cluster: Peers, tmp_path: Path) -> None:
    """With `--workers 2` there are two nodes, of different names."""
    a = await cluster.start(A)
    async with uvicorn(cluster, tmp_path, "--workers", "2") as web:
        await cluster.await_tracker(a, {WEB1: ONLINE, WEB2: ONLINE})
        assert A in {row["node"] for row in await web.get("/nodes")}
        assert await web.stop(cluster, a, WEB1, WEB2) == 0
