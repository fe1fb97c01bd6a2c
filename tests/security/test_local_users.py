"""What other users of this machine may do to it, who do not have the cookie."""

from __future__ import annotations

import asyncio
import importlib
import os
import resource
import shutil
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import ConfigError, NameTaken, Node, TlsOptions
from pybeethoven.errors import EpmdError, EpmdUnreachable
from pybeethoven.net import registrar
from pybeethoven.net.epmd import look_up, register
from pybeethoven.net.registrar import Registrar
from pybeethoven.net.tls import TlsContexts
from pybeethoven.testing import BeamNode, Epmd, free_port
from pybeethoven.testing.compiler import compile_elixir, elixir_code_paths
from pybeethoven.testing.network import Network
from tests.certificates import Authority
from tests.helpers import ipv6, soon
from tests.timing import UNIT

HOST = "127.0.0.1"
EXAMPLES = Path(__file__).parents[2] / "examples"

# Programs of `testing`


def planted_and_own(erl: str, elixir_lib: Path, peer_ebin: Path) -> list[str]:
    """Plant code in the current directory, and compile some there; give the code paths of it."""
    for name in ("mnesia.beam", "compile.beam"):
        Path(name).touch()
    Path("erl").symlink_to(shutil.which(erl) or erl)
    Path("own.ex").write_text("defmodule Own do\n  def answer, do: 42\nend")
    lib = os.path.relpath(elixir_lib)
    compile_elixir([Path("own.ex")], Path("ebin"), erl="./erl", elixir_lib=lib)
    paths = [*elixir_code_paths(lib), peer_ebin / "shell", Path("ebin")]
    return [os.path.relpath(path) for path in paths]


async def test_planted_code_is_not_loaded(
    erl: str,
    elixir_lib: Path,
    peer_ebin: Path,
    epmd: Epmd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`erl` loads code from its current directory, which is not the caller's; paths may be of it.

    Mnesia's files are not the caller's either.
    """
    monkeypatch.chdir(tmp_path)
    paths = planted_and_own(erl, elixir_lib, peer_ebin)
    settings: Any = {"code_paths": paths, "cookie": "cookie", "erl": "./erl", "env": epmd.env}
    async with BeamNode("a@127.0.0.1", **settings) as node:
        assert await node.eval("Own.answer()") == 42
        for source in ("to_string(:mnesia.system_info(:directory))", ":code.which(:mnesia)"):
            assert str(tmp_path).encode() not in bytes(await node.eval(source))


@pytest.mark.beam
async def test_unreadable_messages_to_the_network_are_no_error(
    epmd: Epmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is no UTF-8 and an empty `send_name` close their connection, and that is all."""
    network = Network(["127.0.0.1"], port=free_port(), epmd_port=epmd.port)
    network.open()
    registration = await register("a", 1, hidden=True)
    monkeypatch.setenv("ERL_EPMD_PORT", str(network.port))
    for port, message in ((network.port, b"\0\2z\xff"), (await look_up("a", HOST), b"\0\0")):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(message)
        assert await soon(reader.read()) == b""
        writer.close()
    await registration.close()
    await network.close()


# Files and names


def test_readable_tls_key_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that every user may read is told of once, and again when its file has changed."""
    authority = Authority(tmp_path, "cluster")
    made = authority.issue("node", "127.0.0.1")
    both = made.certfile
    both.write_bytes(both.read_bytes() + made.keyfile.read_bytes())
    for options in (made.options(authority), TlsOptions(certfile=both, cacertfile=both)):
        file = Path(options.keyfile or both)
        file.chmod(0o640)
        contexts = TlsContexts(options)
        for mode, warnings in ((0o640, 0), (0o644, 1), (0o644, 1), (0o600, 1), (0o604, 2)):
            file.chmod(mode)
            os.utime(authority.certfile)  # loads all again
            contexts.refresh()
            said = [record.getMessage() for record in caplog.records]
            assert said == [f"every user may read the TLS key in '{file}': chmod 600 it"] * warnings
        caplog.clear()


async def test_example_ends_when_names_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The FastAPI example raises what it was told of the last name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    app = importlib.import_module("fastapi_app")

    class Taken:
        def __init__(self, name: str, **_: object) -> None:
            self._name = name

        async def join(self) -> None:
            if int(self._name.removeprefix("web").partition("@")[0]) > 1000:
                pytest.fail("it goes on and on")
            raise NameTaken(self._name)

    monkeypatch.setattr(app, "Beethoven", Taken)
    with pytest.raises(NameTaken, match="web64@"):
        await app.join_under_a_free_name()


# EPMD


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """The port of EPMD, where none runs and none is installed."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return port


@pytest.mark.parametrize(
    ("host", "squatted", "starts"),
    [
        ("127.0.0.1", "127.0.0.9", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.2", False),
        ("127.0.0.2", "127.0.0.9", True),
        ("localhost", "127.0.0.9", True),
        pytest.param("127.0.0.2", "::1", True, marks=ipv6),
        pytest.param("::1", "127.0.0.1", True, marks=ipv6),
        pytest.param("::1", "::1", False, marks=ipv6),
    ],
)
async def test_one_address_of_epmd_keeps_no_node_from_starting(
    host: str, squatted: str, starts: bool, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A node needs its own host and where it asks; if one of these is taken, the error names it."""
    family = socket.AF_INET6 if ":" in squatted else socket.AF_INET
    with socket.socket(family) as squatter:  # it does not listen, so that asking it is refused
        squatter.bind((squatted, port))
        node = Node(f"a@{host}", "cookie")
        if starts:
            async with node:
                assert await soon(look_up("a", host)) is not None
            assert caplog.text.count("another process has port") == 1
        else:
            with pytest.raises((ConfigError, EpmdUnreachable), match=f"at {squatted}:{port}"):
                await soon(node.start_node())


@pytest.mark.parametrize(
    ("descriptors", "names"), [(resource.RLIM_INFINITY, 512), (1024, 128), (64, 8)]
)
async def test_full_epmd_says_so_and_leaves_descriptors(
    descriptors: int, names: int, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names have a part of the descriptors, and no name is called taken that is not."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    async with Node("n0@127.0.0.1", "cookie"), AsyncExitStack() as stack:
        for number in range(1, names):
            registration = await soon(register(f"n{number}", 1, hidden=True))
            stack.push_async_callback(registration.close)
        with pytest.raises(EpmdError, match="refuses the name 'new', which no node has"):
            await soon(Node("new@127.0.0.1", "cookie").start_node())
        with pytest.raises(NameTaken, match="the name 'n0' is already registered"):
            await soon(Node("n0@127.0.0.1", "cookie").start_node())


async def test_epmd_that_drops_names_is_asked_ever_less(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow until a registration lasts."""
    first, last = 0.25 * UNIT, UNIT
    monkeypatch.setattr(registrar, "FIRST_INTERVAL", first)
    monkeypatch.setattr(registrar, "LAST_INTERVAL", last)
    pauses: asyncio.Queue[float] = asyncio.Queue()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await sleep(0)

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(99)
        writer.write(b"v\0\0\0\0\4")
        if pauses.qsize() == 4:
            await sleep(last)
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", port)
    monkeypatch.setattr(asyncio, "sleep", note)
    node = Registrar("a", hidden=True, embedded=False)
    await soon(node.start("127.0.0.1", 1))
    while pauses.qsize() < 5:
        await sleep(0)
    await node.stop()
    server.close()
    assert [pauses.get_nowait() for _ in range(5)] == [first, 2 * first, last, last, first]
