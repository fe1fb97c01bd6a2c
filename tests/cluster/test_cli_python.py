"""The command line on a machine that has never seen Erlang: clusters of Python nodes alone."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import cli
from pybeethoven.testing import free_port
from tests.command_line import POOL_COMMAND, Command, has_processes, next_event, run, running
from tests.helpers import soon
from tests.timing import UNIT

PY, PY2, PY3 = (f"{name}@127.0.0.1" for name in ("py", "py2", "py3"))
STANDALONE = {"event": "standalone"}
CLUSTERED = {"event": "mode", "mode": "clustered"}


@dataclass
class World:
    """Where a test's nodes look for each other: an EPMD port and a beacon port of its own."""

    env: dict[str, str]
    port: int
    stack: AsyncExitStack

    def where(self, net: str = "127.0.0.0/29") -> list[str]:
        """What tells the command of the beacons."""
        return ["--net", net, "--port", str(self.port)]

    async def join(
        self, name: str, *options: str, net: str = "127.0.0.0/29", module: str = "pybeethoven"
    ) -> Command:
        """A node of the cluster, from its command line; it ends with the test."""
        args = ("join", "--name", name, "--cookie", "secret", "--json", *self.where(net), *options)
        return await self.stack.enter_async_context(running(*args, module=module, env=self.env))

    async def look(self, *options: str) -> tuple[int, str, str]:
        """What the command `look` gives."""
        return await run("look", *self.where(), *options, env=self.env)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Without Erlang: nothing is on PATH."""
    env = {"PATH": str(tmp_path), "ERL_EPMD_PORT": str(free_port())}
    async with AsyncExitStack() as stack:
        yield World(env, free_port(), stack)


async def expect(process: Command, *expected: dict[str, Any]) -> None:
    """The next events, in any order, without the times."""
    events = [await next_event(process) for _ in expected]
    for event in events:
        event.pop("last_change", None)
    assert sorted(map(repr, events)) == sorted(map(repr, expected))


def update(node: str, status: str) -> dict[str, str]:
    """What is printed when a node has come or gone."""
    return {"event": "node_update", "node": node, "status": status}


async def logged(process: Command, pattern: str) -> str:
    """The next line of the log in which the regular expression is found."""
    assert process.stderr is not None
    while line := (await soon(process.stderr.readline())).decode():
        if re.search(pattern, line):
            return line
    raise AssertionError(f"it ended without logging {pattern}")


async def test_two_form_a_cluster(world: World) -> None:
    """The first is standalone until the second joins through it; neither has to warn."""
    py = await world.join(PY)
    await expect(py, STANDALONE)
    py2 = await world.join(PY2)
    joined = await next_event(py2)
    assert (joined["event"], joined["via"], joined["mode"]) == ("joined", PY, "clustered")
    statuses = {node["node"]: node["status"] for node in joined["nodes"]}
    assert statuses == {PY: "online", PY2: "online"}
    await expect(py, update(PY2, "online"), CLUSTERED)
    py2.send_signal(signal.SIGTERM)
    await expect(py, update(PY2, "offline"), {"event": "mode", "mode": "standalone"})
    py.send_signal(signal.SIGINT)
    for process in (py, py2):
        assert await soon(process.communicate()) == (b"", b"")
        assert process.returncode == 0


async def test_nodes_that_start_at_once_find_each_other(world: World) -> None:
    """Each node hears of all that start while it is still looking."""
    processes = {name: await world.join(name) for name in (PY, PY2, PY3)}
    for process in processes.values():
        online: set[str] = set()
        mode = "standalone"
        while online < {*processes} or mode != "clustered":
            event = await next_event(process)
            mode = event.get("mode", mode)
            if event["event"] == "standalone":
                online |= {name for name, other in processes.items() if other is process}
            online |= {row["node"] for row in event.get("nodes", [event]) if "node" in row}


@pytest.mark.parametrize("module", ["pybeethoven", POOL_COMMAND])
async def test_epmd_and_beacon_are_taken_over(world: World, module: str) -> None:
    """When the node that has both is killed, another takes them over, even if pool workers live on.

    A third node joins through it, and the killed one comes back.
    """
    py = await world.join(PY, module=module)
    await expect(py, STANDALONE)
    py2 = await world.join(PY2, "--verbose")
    await logged(py2, "another node of this machine is the beacon at port")
    assert (await next_event(py2))["via"] == PY
    py.kill()
    await expect(py2, update(PY, "offline"), {"event": "mode", "mode": "standalone"})
    for _ in range(2):  # in either order
        await logged(py2, f"{PY2} is a beacon at port|'py2' is registered with EPMD again")
    py3 = await world.join(PY3)
    joined = await next_event(py3)
    assert joined["via"] == PY2
    statuses = {node["node"]: node["status"] for node in joined["nodes"]}
    assert statuses == {PY: "offline", PY2: "online", PY3: "online"}
    await expect(py2, update(PY3, "online"), CLUSTERED)
    await world.join(PY)
    for process in (py2, py3):
        await expect(process, update(PY, "online"))
    assert has_processes(py) == (module == POOL_COMMAND)


async def test_demo() -> None:
    """The demo's part without BEAMs shows what it is to show."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "erlang_interop.python_demo"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30 * UNIT)
    assert (process.returncode, err) == (0, b"")
    assert out.endswith(b"That was a cluster of Python nodes, without Erlang.\n")


async def test_node_without_a_beacon_joins(world: World) -> None:
    """Other nodes do not find a node without a beacon; it finds them."""
    py = await world.join(PY, "--no-beacon")
    await expect(py, STANDALONE)
    status, _, err = await world.look()
    assert (status, err) == (
        1,
        f"pybeethoven: no beacon answers at port {world.port} of 127.0.0.0/29\n",
    )
    py2 = await world.join(PY2)
    await expect(py, update(PY2, "online"), CLUSTERED)
    if (first := await next_event(py2)) == STANDALONE:  # else it has been found while it looked
        await expect(py2, update(PY, "online"), CLUSTERED)
    else:
        assert {row["node"] for row in first["nodes"]} == {PY, PY2}


async def test_first_host_may_be_outside_of_the_network(world: World) -> None:
    """A beacon outside of the network is found by the host that is asked first."""
    elsewhere = "127.0.0.8/29"
    py = await world.join(PY, net=elsewhere)
    await expect(py, STANDALONE)
    py2 = await world.join(PY2, "--first-host", "localhost", net=elsewhere)
    assert (await next_event(py2))["via"] == PY
    status, out, err = await run(
        *("look", "--first-host", "127.0.0.1", *world.where(elsewhere)), env=world.env
    )
    assert (status, out, err) == (0, f"{PY} sees {PY2}\n", "")


async def test_look_prints_what_beacons_see(world: World) -> None:
    """`look` prints which nodes each beacon sees, and no node hears of it."""
    py = await world.join(PY)
    await expect(py, STANDALONE)
    assert await world.look() == (0, f"{PY} sees no other node\n", "")
    assert (await next_event(await world.join(PY2)))["via"] == PY
    assert await world.look() == (0, f"{PY} sees {PY2}\n", "")
    printed = f'{{"event":"beacon","node":"{PY}","nodes":["{PY2}"]}}\n'
    assert await world.look("--json") == (0, printed, "")
    await expect(py, update(PY2, "online"), CLUSTERED)
    py.send_signal(signal.SIGTERM)
    assert await soon(py.communicate()) == (b"", b"")


async def test_look_escapes_control_characters(world: World) -> None:
    """The name that a beacon gives has no effect on the terminal."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(rb'{"type":"reply","sender":"a\u001b[2J@x","payload":["b\u0007@x"]}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", world.port):
        assert await world.look() == (0, "'a\\x1b[2J@x' sees 'b\\x07@x'\n", "")


def test_control_characters_in_rows_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """What a peer has written into the tracker has no effect on the terminal."""
    time = "2030-01-01T00:00:00.000000Z"
    row = {"node": "a\x1b[2J@x", "status": "on\x07", "last_change": time}
    cli._print_text({"event": "node_update", **row})
    assert capsys.readouterr().out == f"'a\\x1b[2J@x' 'on\\x07' {time}\n"


async def test_progress_is_shown_on_a_terminal(world: World) -> None:
    """A search that takes over a second shows its progress, and clears it at the end."""
    clients: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def keep(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.put_nowait(writer)

    outside, terminal = pty.openpty()
    screen = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(outside, "rb", 0)
    )
    with closing(transport), os.fdopen(terminal):
        async with (
            await asyncio.start_server(keep, "127.0.0.1", world.port),
            running("look", *world.where(), env=world.env) as quiet,
        ):
            writers = [await soon(clients.get())]
            async with (
                running("look", *world.where(), "--json", env=world.env, stderr=terminal) as json_,
                running("look", *world.where(), env=world.env, stderr=terminal) as shown,
            ):
                writers += [await soon(clients.get()) for _ in (json_, shown)]
                assert await soon(screen.readuntil(b"nodes")) == b"\x1b[Klooking for other nodes"
                for writer in writers:
                    writer.close()
                for process in (quiet, json_, shown):
                    out, err = await soon(process.communicate())
                    assert (process.returncode, out, b"looking" in (err or b"")) == (1, b"", False)
                await soon(screen.readuntil(b"\x1b[K\r"))  # what is logged is on the screen, too


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["look", "--port", "0"], "the listener port is 0; it must be from 1 to 65535"),
        (["look", "--net", "10.0.0.0/8"], "the network 10.0.0.0/8 has over 65536 hosts"),
        (["look", "--first-host", "10.0.0.7:33000"], "first_host is '10.0.0.7:33000'; it must be"),
        (["join", "--first-host", "a b"], "first_host is 'a b'; it must be a host's name or"),
        (["join", "--first-host", ""], "first_host is ''; it must be a host's name or address"),
    ],
)
async def test_unusable_settings_are_refused(world: World, args: list[str], message: str) -> None:
    """One line says what is wrong; the exit status is 2."""
    name = ["--name", PY, "--cookie", "secret"] if args[0] == "join" else []
    status, out, err = await run(*args, *name, env=world.env)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


async def test_missing_cookie_is_explained(world: World, tmp_path: Path) -> None:
    """The error says where a cookie was looked for, and how to make one that works."""
    args = ("join", "--name", PY, *world.where(), "--for", "0")
    env = {**world.env, "HOME": str(tmp_path)}
    status, _, err = await run(*args, env=env)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"pybeethoven: no cookie: {tmp_path}/.erlang.cookie cannot be read")
    _, command = err.split("a new one: ")
    shell = await asyncio.create_subprocess_shell(command)
    assert await asyncio.wait_for(shell.wait(), 10 * UNIT) == 0
    status, _, err = await run(*args, env=env)
    assert (status, err) == (0, "")


async def test_unwritable_output_is_an_error(world: World) -> None:
    """A full disk gives an error in one line."""
    args = ("join", "--name", PY, "--cookie", "secret", *world.where())
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pybeethoven", *args),
        env={**os.environ, **world.env},
        stdout=full,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(full)
    _, said = await soon(process.communicate())
    assert (process.returncode, said) == (2, b"pybeethoven: [Errno 28] No space left on device\n")
