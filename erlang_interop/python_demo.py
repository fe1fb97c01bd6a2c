"""The first part of `make demo`: Python nodes alone form a cluster, without Erlang and root.

Each node is a `pybeethoven join` of its own. Nothing of Erlang is on their PATH, so that one of
them is their EPMD, too.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from erlang_interop.story import Story
from pybeethoven.testing import free_port

PATIENCE = 20.0
"""Seconds that a line may take to be printed; then the demo has failed."""


@dataclass
class Member:
    """A `pybeethoven join` that runs; what it prints is told."""

    name: str
    story: Story
    process: asyncio.subprocess.Process

    async def expect(self, *starts: str) -> None:
        """Tell what it prints until each of these has begun a line."""
        assert self.process.stdout is not None
        missing = set(starts)
        async with asyncio.timeout(PATIENCE):
            while missing:
                line = (await self.process.stdout.readline()).decode().rstrip()
                if not line:
                    raise SystemExit(f"{self.name} ended")
                self.story.tell(f"  {self.name} prints: {line}")
                missing = {start for start in missing if not line.startswith(start)}


@dataclass
class World:
    """Where the nodes look for each other: by `env` the cookie and EPMD's port, by `options` the
    network and the beacon's port."""

    story: Story
    env: dict[str, str]
    options: list[str]

    @asynccontextmanager
    async def join(self, name: str) -> AsyncIterator[Member]:
        """A node, killed at the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "pybeethoven", "join"),
            *("--name", f"{name}@127.0.0.1", *self.options),
            env={**os.environ, **self.env},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Member(name, self.story, process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def show(story: Story, world: World) -> None:
    """Three nodes: one is killed and comes back."""
    story.tell("in a terminal: export PYBEETHOVEN_COOKIE=$(openssl rand -hex 32)")
    story.tell(f"  and: pybeethoven join --name one@127.0.0.1 {' '.join(world.options)}")
    async with world.join("one") as one:
        await one.expect("no other node found")
        story.tell("in another one: the same with --name two@127.0.0.1")
        started = time.perf_counter()
        async with world.join("two") as two:
            await two.expect("joined", "  one@", "  two@")
            story.tell(f"  that is {_milliseconds(started)} after its start")
            await one.expect("two@127.0.0.1 online", "now clustered")
            story.tell("and in a third: --name three@127.0.0.1")
            async with world.join("three") as three:
                await three.expect("joined", "  one@", "  three@", "  two@")
                for member in (one, two):
                    await member.expect("three@127.0.0.1 online")
                story.tell("kill -9 one: the node whose beacon let the others in, and their EPMD")
                killed = time.perf_counter()
                one.process.kill()
                for member in (two, three):
                    await member.expect("one@127.0.0.1 offline")
                story.tell(f"  that is {_milliseconds(killed)} after the kill")
                story.tell("one starts again under its old name")
                async with world.join("one") as one_again:
                    await one_again.expect("joined", "  one@", "  three@", "  two@")
                    for member in (two, three):
                        await member.expect("one@127.0.0.1 online")


def _milliseconds(since: float) -> str:
    return f"{1000 * (time.perf_counter() - since):.0f} ms"


def main() -> None:
    """Show a cluster of Python nodes."""
    story = Story()
    cookie, epmd, port = secrets.token_hex(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as nothing:
        env = {"PATH": nothing, "ERL_EPMD_PORT": str(epmd), "PYBEETHOVEN_COOKIE": cookie}
        options = ["--net", "127.0.0.0/29", "--port", str(port)]
        asyncio.run(show(story, World(story, env, options)))
    story.tell("That was a cluster of Python nodes, without Erlang.")


if __name__ == "__main__":
    main()
