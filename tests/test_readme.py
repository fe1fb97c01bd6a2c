"""The README's examples are run as they stand, with a home directory and a port of the test's."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from pybeethoven import Beethoven, Node
from pybeethoven.testing import Peers, free_port
from tests import command_line
from tests.certificates import Authority
from tests.helpers import soon
from tests.timing import UNIT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
A, B, PY = "a@127.0.0.1", "b@127.0.0.1", "py@127.0.0.1"


def examples(language: str) -> list[str]:
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@asynccontextmanager
async def running(cluster: Peers, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Python with these arguments, in the cluster of the test; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        *(argument.replace("33000", str(cluster.listener_port)) for argument in args),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def lines(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """The next lines that it prints."""
    assert process.stdout is not None
    return [(await soon(process.stdout.readline())).decode().rstrip() for _ in range(count)]


@pytest.fixture
def cluster(peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peers:
    """The BEAM nodes, whose EPMD and cookie are those of the examples too."""
    keep_cookie(tmp_path / ".erlang.cookie", peers)
    for name, value in {**peers.env, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return peers


def keep_cookie(file: Path, peers: Peers) -> None:
    """Make a cookie file of these BEAM nodes."""
    file.touch(0o600)
    file.write_text(peers.cookie)


def console(containing: str) -> tuple[list[str], list[str]]:
    """The one example of a command line with this: the arguments, and the lines it prints."""
    [example] = [code for code in examples("console") if containing in code]
    command, *shown = example.splitlines()
    return shlex.split(command.removeprefix("$ pybeethoven ")), shown


def without_times(printed: list[str]) -> list[str]:
    """Lines of the command without the times, and in an order that does not depend on it."""
    return sorted(re.sub(r" \d{4}-\d\d-\d\dT[0-9:.]+Z$", "", line) for line in printed)


async def test_two_terminals(tmp_path: Path) -> None:
    """The first commands form a cluster, without Erlang on PATH, and print what they show. The one
    that makes a cookie does not overwrite it."""
    make_cookie, _, _ = examples("console")[1].removeprefix("$ ").partition("\n")
    home = {"HOME": str(tmp_path)}
    for status in (0, 1):
        shell = await asyncio.create_subprocess_shell(
            make_cookie, env={**os.environ, **home}, stderr=asyncio.subprocess.DEVNULL
        )
        assert (await soon(shell.wait()) != 0) == status
    ports = {"ERL_EPMD_PORT": str(free_port()), "PYBEETHOVEN_PORT": str(free_port())}
    env = {**ports, **home, "PATH": str(tmp_path)}
    (first, shown), (second, second_shown) = (
        console(f"{name}@") for name in ("name one", "name two")
    )
    async with command_line.running(*first, env=env) as one:
        printed = await command_line.next_lines(one, 1)
        async with command_line.running(*second, env=env) as two:
            second_printed = await command_line.next_lines(two, len(second_shown))
            printed += await command_line.next_lines(one, len(shown) - 1)
            look, seen = console("pybeethoven look")
            assert await command_line.run(*look, env=env) == (0, f"{seen[0]}\n", "")
    assert printed[0] == shown[0]
    assert without_times(printed) == without_times(shown)
    assert second_printed[0] == second_shown[0]
    assert without_times(second_printed) == without_times(second_shown)


def test_elixir_settings() -> None:
    """An Elixir node with these settings looks where a Python node is without any."""
    settings = dict(re.findall(r'(\w+): "?([\d.]+)', examples("elixir")[0]))
    ours = inspect.signature(Beethoven).parameters
    net = f"{settings['cluster_net']}/{settings['cluster_net_mask']}"
    assert net == ours["cluster_net"].default
    assert int(settings["listener_port"]) == ours["listener_port"].default


async def test_service(cluster: Peers) -> None:
    """The first example reports the cluster and each change; a BEAM can call its GenServer."""
    a = await cluster.start(A)
    async with running(cluster, "-c", examples("python")[0]) as process:
        mode, *rows = await lines(process, 3)
        assert mode == "clustered"
        assert [row.split()[:2] for row in rows] == [[A, "online"], [PY, "online"]]
        await cluster.start(B)
        billing, update = sorted(await lines(process, 2))
        assert billing == f"billing: {B} online"
        assert update.startswith(f"update: {B} online 20")
        for line in examples("elixir")[1].splitlines():
            code, _, expected = line.partition(" # ")
            assert await a.eval(f"match?({expected or '_'}, {code})") is True, line


async def test_node(cluster: Peers) -> None:
    """The example of a plain node prints what its comments say."""
    await cluster.start(A)
    async with running(cluster, "-c", examples("python")[2]) as process:
        assert await lines(process, 3) == ["True", "standalone", "[3, 2, 1]"]


async def test_supervisor(cluster: Peers) -> None:
    """The example with a supervisor prints what its comments say."""
    async with running(cluster, "-c", examples("python")[1]) as process:
        assert await lines(process, 2) == ["2 5", "2"]


async def test_shared_table(cluster: Peers) -> None:
    """The Elixir and the Python service of the example share a table, and hear of each write."""
    a = await cluster.start(A)
    await a.eval(examples("elixir")[2])
    await a.eval("{:ok, _} = KeyValue.start_link([])")
    async with running(cluster, "-c", examples("python")[4]) as process:
        own = "[(Atom('Elixir.KeyValueTable'), b'python', 1)]"
        assert sorted(await lines(process, 2)) == [own, "event: write (b'python', 1)"]
        await a.eval('KeyValue.put("elixir", 10)')
        other = ["event: write (b'elixir', 10)", "over 9: [b'elixir']"]
        assert sorted(await lines(process, 2)) == other
    keys = "for {KeyValueTable, key, _} <- :sys.get_state(KeyValue), do: key"
    assert await a.eval(keys) == [b"elixir", b"python"]


async def test_exported_function(cluster: Peers) -> None:
    """The function of the example is called as its comment says."""
    a = await cluster.start_bare(A)
    code = examples("python")[3]
    (call,) = re.findall(r"# (:erpc.*)$", code, re.MULTILINE)
    async with Node("other@127.0.0.1", cluster.cookie) as node:
        exec(code, {"node": node})
        assert await a.eval(call) == 6


async def test_command(cluster: Peers, tmp_path: Path) -> None:
    """The command prints what it shows."""
    (tmp_path / ".erlang.cookie").unlink()
    keep_cookie(tmp_path / "cookie", cluster)
    await cluster.start(A)
    args, shown = console("--cookie-file")
    args[args.index("cookie")] = str(tmp_path / "cookie")
    async with running(cluster, "-m", "pybeethoven", *args) as process:
        printed = await lines(process, 3)
        await cluster.start(B)
        printed += await lines(process, 1)
    assert without_times(printed) == without_times(shown)
    assert printed[0] == shown[0]


async def test_tls(cluster: Peers, tmp_path: Path) -> None:
    """The example with TLS reaches a BEAM that has the options shown."""
    authority = Authority(tmp_path, "cluster-ca")
    for name in ("a", "py"):
        certificate = authority.issue(name, "127.0.0.1", addresses=("127.0.0.1",))
        certificate.certfile.rename(tmp_path / f"{name}.crt")
        certificate.keyfile.rename(tmp_path / f"{name}.key")
    options = tmp_path / "dist.config"
    options.write_text(examples("erlang")[0].replace('file, "', f'file, "{tmp_path}/'))
    flags = ["-proto_dist", "inet_tls", "-ssl_dist_optfile", str(options)]
    await cluster.start_bare(A, flags=flags)
    [example] = [code for code in examples("python") if "TlsOptions" in code]
    async with running(cluster, "-c", example.replace('file="', f'file="{tmp_path}/')) as process:
        assert await lines(process, 1) == ["True"]


@pytest.mark.beam
async def test_service_under_test(tmp_path: Path) -> None:
    """The example of a test passes, in a project that has nothing but it."""
    for name in ("conftest.py", "test_billing.py"):
        [example] = [code for code in examples("python") if code.startswith(f"# {name}\n")]
        (tmp_path / name).write_text(example)
    options = ["-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60 * UNIT):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert "1 passed" in output.decode(), output.decode()
