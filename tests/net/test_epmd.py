"""The EPMD client, against the real EPMD and against servers that only listen on its port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pybeethoven.errors import ConfigError, EpmdError, EpmdUnreachable, NameTaken
from pybeethoven.net import epmd as client
from pybeethoven.net.epmd import epmd_port, local_epmd_host, look_up, register
from pybeethoven.testing import Epmd, find_epmd, free_port
from tests.helpers import LIMIT, soon, until_unregistered
from tests.timing import UNIT

HOST = "127.0.0.1"
ASK: list[Callable[[], Awaitable[object]]] = [
    lambda: register("py", 5678, hidden=True),
    lambda: look_up("a", HOST),
]
"""Both that EPMD is asked."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# OTP's EPMD


@pytest.mark.parametrize("hidden", [False, True])
async def test_register_and_look_up(epmd: Epmd, hidden: bool) -> None:
    """A registered name is found with its port, for as long as the registration is held."""
    assert await soon(look_up("py", HOST)) is None
    registration = await soon(register("py", 5678, hidden=hidden))
    assert registration.creation > 0
    assert await soon(look_up("py", HOST)) == 5678
    assert await soon(look_up("p", HOST)) is None
    await soon(registration.close())
    await until_unregistered("py")


async def test_taken_name_is_refused(epmd: Epmd) -> None:
    """A held name is refused; once given back, it is registered again, with a new creation."""
    first = await soon(register("py", 5678, hidden=True))
    with pytest.raises(NameTaken, match="the name 'py' is already registered with EPMD"):
        await soon(register("py", 5679, hidden=True))
    assert await soon(look_up("py", HOST)) == 5678
    await soon(first.close())
    second = await soon(register("py", 5679, hidden=True))
    assert second.creation != first.creation
    assert await soon(look_up("py", HOST)) == 5679
    await soon(second.close())


async def test_cancelled_registration_leaves_nothing(epmd: Epmd) -> None:
    """A registration that is cancelled at any moment leaves no name."""
    for turns in range(25):
        registering = asyncio.create_task(register("py", 5678, hidden=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        if registering.done():
            await registering.result().close()
        registering.cancel()
        await asyncio.gather(registering, return_exceptions=True)
    registration = await soon(register("py", 5678, hidden=True))
    await soon(registration.close())


# EPMD that does not run


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of EPMD, where nothing listens."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    monkeypatch.setenv("ERL_EPMD_ADDRESS", HOST)
    return port


async def test_missing_epmd_is_explained(
    nobody: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error says that EPMD is neither running nor installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EpmdUnreachable) as caught:
        await soon(register("py", 5678, hidden=True))
    assert f"EPMD cannot be reached at 127.0.0.1:{nobody}" in str(caught.value)
    assert "no epmd is installed" in str(caught.value)


async def test_look_up_starts_no_epmd(nobody: int) -> None:
    """A look-up does not start EPMD."""
    with pytest.raises(EpmdUnreachable, match=f"{HOST}:{nobody}"):
        await soon(look_up("a", HOST))


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "not a program"])
async def test_failing_epmd_is_unreachable(
    script: str, nobody: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An `epmd` that can't run, or ends at once, leaves EPMD unreachable."""
    monkeypatch.setattr(client, "START_INTERVAL", 0.001 * UNIT)
    monkeypatch.setenv("PATH", str(tmp_path))
    executable = tmp_path / "epmd"
    executable.write_text(script)
    executable.chmod(0o700)
    with pytest.raises(EpmdUnreachable, match=f"{HOST}:{nobody}|{executable} cannot be started"):
        await soon(register("py", 5678, hidden=True))


@pytest.mark.beam
async def test_installed_epmd_is_started(nobody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed EPMD that does not run is started, and stays when the node has gone."""
    monkeypatch.setenv("PATH", str(Path(find_epmd()).parent))
    try:
        registration = await soon(register("py", 5678, hidden=True))
        assert await soon(look_up("py", HOST)) == 5678
        await soon(registration.close())
        await until_unregistered("py")
    finally:
        kill = await asyncio.create_subprocess_exec(
            *(find_epmd(), "-port", str(nobody), "-kill"), stdout=asyncio.subprocess.DEVNULL
        )
        await soon(kill.wait())


# Its address


@pytest.mark.parametrize(
    ("port", "expected"), [(None, 4369), ("", 4369), ("1", 1), ("65535", 65535)]
)
def test_port_is_in_the_environment(
    port: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ERL_EPMD_PORT` is the port; without it, 4369 is."""
    if port is None:
        monkeypatch.delenv("ERL_EPMD_PORT", raising=False)
    else:
        monkeypatch.setenv("ERL_EPMD_PORT", port)
    assert epmd_port() == expected


@pytest.mark.parametrize("port", ["0", "65536", "-1", "4369x", "٤٣٦٩", " "])
async def test_bad_port_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, wherever the port is needed."""
    monkeypatch.setenv("ERL_EPMD_PORT", port)
    for ask in ASK:
        with pytest.raises(ConfigError, match=r"ERL_EPMD_PORT is .* it must be a port, e.g. 4369"):
            await soon(ask())


@pytest.mark.parametrize(
    ("address", "host"),
    [(None, HOST), ("", HOST), ("127.0.0.5", "127.0.0.5"), (" 127.0.0.5 , ::1", "127.0.0.5")],
)
def test_first_address_of_epmd_is_asked(
    address: str | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If EPMD listens at certain addresses only, the first of them is asked."""
    if address is None:
        monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("ERL_EPMD_ADDRESS", address)
    assert local_epmd_host() == host


# Another service in place of EPMD


@asynccontextmanager
async def served(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """Serve on the port of EPMD; the event is set when a client has closed its connection."""
    left = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            left.set()

    server = await asyncio.start_server(serve_one, HOST, 0)
    monkeypatch.setenv("ERL_EPMD_PORT", str(server.sockets[0].getsockname()[1]))
    try:
        yield left
    finally:
        server.close()


def answering(data: bytes, *, byte_by_byte: bool = False) -> Serve:
    """Answer every request with `data`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        step = 1 if byte_by_byte else max(1, len(data))
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await asyncio.sleep(0)
        if writer.can_write_eof():
            writer.write_eof()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing, and keep the connection."""


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Cut the connection."""
    await reader.read(4096)
    writer.transport.abort()


BAD_ANSWERS = {
    "nothing": answering(b""),
    "half": answering(b"v\0\0"),
    "http": answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "zeros": answering(bytes(100)),
    "reset": resetting,
}


@pytest.mark.parametrize("serve", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_malformed_answer_is_an_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed answer raises `EpmdError`, and the connection is closed."""
    for ask in ASK:
        async with served(serve, monkeypatch) as left:
            with pytest.raises(EpmdError):
                await soon(ask())
            await soon(left.wait())


async def test_bytes_behind_the_answer_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes behind the answer are an error."""
    async with served(answering(b"v\0\0\0\0\7more"), monkeypatch):
        with pytest.raises(EpmdError, match="4 bytes more"):
            await soon(register("py", 5678, hidden=True))


async def test_answer_in_single_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the answer is cut, it is read."""
    async with served(answering(b"v\0\0\0\0\7", byte_by_byte=True), monkeypatch):
        registration = await soon(register("py", 5678, hidden=True))
        assert registration.creation == 7
        await registration.close()


async def test_old_epmd_gives_a_short_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD older than OTP 23 gives a creation of 16 bits."""
    async with served(answering(b"y\0\0\3"), monkeypatch):
        registration = await soon(register("py", 5678, hidden=True))
        assert registration.creation == 3
        await registration.close()


async def test_silent_epmd_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD that does not answer is given up after `ANSWER_TIME`."""
    monkeypatch.setattr(client, "ANSWER_TIME", 0.05 * UNIT)
    for ask in ASK:
        async with served(silent, monkeypatch) as left:
            with pytest.raises(EpmdUnreachable, match="EPMD did not answer within"):
                await soon(ask())
            await soon(left.wait())


async def test_cancelled_look_up_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that is cancelled closes its connection."""
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()

    async with served(say_nothing, monkeypatch) as left:
        looking = asyncio.create_task(look_up("a", HOST))
        await soon(connected.wait())
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await soon(left.wait())


async def test_epmd_that_becomes_no_daemon_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command `epmd -daemon` that does not end is given up."""
    command, pid = tmp_path / "epmd", tmp_path / "pid"
    command.write_text(f"#!/bin/sh\necho $$ >{pid}\nexec sleep 60\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(client, "ANSWER_TIME", 0.5 * UNIT)
    with pytest.raises(EpmdUnreachable, match="-daemon did not end in time"):
        await soon(client.start_daemon())
    async with asyncio.timeout(LIMIT):
        while is_running(pid.read_text().strip()):
            await asyncio.sleep(0.01)


def is_running(pid: str) -> bool:
    """Whether there is a process with an id."""
    return Path("/proc", pid).exists()
