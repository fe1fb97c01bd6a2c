"""The command `pybeethoven`, or another one, as a person or a supervisor would run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from pybeethoven.testing import Peers
from tests.helpers import soon

Command = asyncio.subprocess.Process

POOL_COMMAND = "tests.pool_command"
"""A module for `running`: the command, with pool workers."""


@asynccontextmanager
async def running(
    *args: str,
    module: str = "pybeethoven",
    env: Mapping[str, str] | None = None,
    stderr: int = asyncio.subprocess.PIPE,
) -> AsyncIterator[Command]:
    """The command of `module` with these arguments, running; killed at the end, with all processes
    that it has started. Where a test fails, pytest shows what is left of its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *args),
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = await process.communicate()
        print((err or b"").decode(errors="replace"), file=sys.stderr)


def has_processes(command: Command) -> bool:
    """Whether the process of a command, or one that it has started, lives."""
    try:
        os.killpg(command.pid, 0)
    except ProcessLookupError:
        return False
    return True


def options(cluster: Peers, name: str = "py@127.0.0.1") -> list[str]:
    """The arguments with which a node joins the test's cluster, whose cookie is in a variable."""
    return [
        *("join", "--name", name),
        *("--net", cluster.cluster_net, "--port", str(cluster.listener_port)),
    ]


async def run(*args: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """The command, run to its end: exit status, output, errors."""
    async with running(*args, env=env) as process:
        out, err = await soon(process.communicate())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def next_event(process: Command) -> dict[str, Any]:
    """The next line, which must be a JSON object."""
    assert process.stdout is not None
    line = await soon(process.stdout.readline())
    assert line, (await process.communicate())[1].decode()
    event: dict[str, Any] = json.loads(line)
    return event


async def next_lines(process: Command, count: int) -> list[str]:
    """The next lines of text."""
    assert process.stdout is not None
    return [(await soon(process.stdout.readline())).decode().rstrip() for _ in range(count)]
