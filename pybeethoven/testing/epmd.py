"""An EPMD as a child process."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Self

from pybeethoven.testing.common import TAIL, TIMEOUT, BeamError, text
from pybeethoven.testing.ports import free_port

ADDRESSES = ",".join(f"127.0.0.{host}" for host in range(1, 7))
"""Where it listens: nodes of a cluster may have hosts, and thus beacons, of their own."""

# So that a command without an eye on its stdin does not outlive us either.
_WHILE_STDIN_IS_OPEN = '"$@" & exec 2>&-; read -r _; kill -KILL $!; wait'


class Epmd:
    """An EPMD of its own at `ADDRESSES`, so that no test meets the machine's.

    `port` is where it listens; `env` is what nodes that are to use it need in their environment.
    Raises `BeamError` on entry when it cannot run.
    """

    def __init__(self, port: int | None = None, *, epmd: str = "epmd") -> None:
        self.port = free_port() if port is None else port
        self._command = epmd
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {"ERL_EPMD_PORT": str(self.port)}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Run it, at the same port each time. Raises `BeamError`; then nothing is left."""
        epmd = (self._command, "-d", "-d", "-address", ADDRESSES, "-port", str(self.port))
        spawning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WHILE_STDIN_IS_OPEN, "sh", *epmd),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        try:
            self._process = await asyncio.shield(spawning)
            await self._listening(self._process)
        except BaseException:
            await self._end(await spawning)
            raise

    async def kill(self) -> None:
        """Kill it (SIGKILL) and await its end. One that does not run stays so."""
        if self._process is not None:
            await self._end(self._process)

    async def _listening(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        said = b""
        async with asyncio.timeout(TIMEOUT):
            while b"entering the main select() loop" not in said:
                more = await process.stderr.read(TAIL)
                if not more:
                    raise BeamError(f"epmd did not start on port {self.port}: {text(said)}")
                said += more
        self._drain = asyncio.create_task(_drain(process.stderr))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        if self._drain is not None:
            await self._drain


def find_epmd(erl: str = "erl") -> str:
    """Return the `epmd` that lies beside `erl`, or the one on PATH.

    Raises `BeamError` when there is none.
    """
    epmd = Path(shutil.which(erl) or erl).with_name("epmd")
    found = shutil.which(epmd) or shutil.which("epmd")
    if found is None:
        raise BeamError(f"no epmd beside {erl} or on PATH")
    return found


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(TAIL):
        pass
