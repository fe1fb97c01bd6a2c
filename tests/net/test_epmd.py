"""The EPMD client, against the real EPMD and against servers that only listen on its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pybeethoven.errors import ConfigError, EpmdError, EpmdUnreachable, NameTaken
from pybeethoven.net import epmd as client
from pybeethoven.net.epmd import epmd_port, local_epmd_host, look_up, register
from pybeethoven.testing import Epmd, find_epmd, free_port
from tests.helpers import soon, until_unregistered
from tests.timing import UNIT

HOST = "127.0.0.1"
ASK: list[Callable[[], Awaitable[object]]] = [
    lambda: register("py", 5678, hidden=True),
    lambda: look_up("a", HOST),
]
"""Both that EPMD is asked."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# The real one


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


async def test_name_taken(epmd: Epmd) -> None:
    """A name that is held is refused; given back, it may be had again, with a new creation."""
    first = await soon(register("py", 5678, hidden=True))
    with pytest.raises(NameTaken, match="the name 'py' is already registered with EPMD"):
        await soon(register("py", 5679, hidden=True))
    assert await soon(look_up("py", HOST)) == 5678
    await soon(first.close())
    second = await soon(register("py", 5679, hidden=True))
    assert second.creation != first.creation
    assert await soon(look_up("py", HOST)) == 5679
    await soon(second.close())


async def test_cancelled_registration(epmd: Epmd) -> None:
    """Cancelled at any moment, nothing stays registered."""
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


# None, or one to be started


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of EPMD, on which nobody listens."""
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    monkeypatch.setenv("ERL_EPMD_ADDRESS", HOST)
    return port


async def test_no_epmd(nobody: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where EPMD is neither running nor installed, the error says both."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EpmdUnreachable) as caught:
        await soon(register("py", 5678, hidden=True))
    assert f"EPMD cannot be reached at 127.0.0.1:{nobody}" in str(caught.value)
    assert "no epmd is installed" in str(caught.value)


async def test_no_epmd_at_the_other_host(nobody: int) -> None:
    """A look-up starts none."""
    with pytest.raises(EpmdUnreachable, match=f"{HOST}:{nobody}"):
        await soon(look_up("a", HOST))


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "not a program"])
async def test_epmd_that_does_not_start(
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


async def test_starts_the_daemon(nobody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD that is installed and not running is started, and stays when the node has gone."""
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


# Where it is


@pytest.mark.parametrize(
    ("port", "expected"), [(None, 4369), ("", 4369), ("1", 1), ("65535", 65535)]
)
def test_port(port: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is in the environment, or it is EPMD's own."""
    if port is None:
        monkeypatch.delenv("ERL_EPMD_PORT", raising=False)
    else:
        monkeypatch.setenv("ERL_EPMD_PORT", port)
    assert epmd_port() == expected


@pytest.mark.parametrize("port", ["0", "65536", "-1", "4369x", "٤٣٦٩", " "])
async def test_no_port(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no port can be is an error that names the variable, wherever the port is needed."""
    monkeypatch.setenv("ERL_EPMD_PORT", port)
    for ask in ASK:
        with pytest.raises(ConfigError, match=r"ERL_EPMD_PORT is .* it must be a port, e.g. 4369"):
            await soon(ask())


@pytest.mark.parametrize(
    ("address", "host"),
    [(None, HOST), ("", HOST), ("127.0.0.5", "127.0.0.5"), (" 127.0.0.5 , ::1", "127.0.0.5")],
)
def test_local_host(address: str | None, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPMD may listen on certain addresses only; then the first of them is asked."""
    if address is None:
        monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("ERL_EPMD_ADDRESS", address)
    assert local_epmd_host() == host


# One that is none


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
async def test_bad_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no answer is an `EpmdError`, for registering and looking up, and closes."""
    for ask in ASK:
        async with served(serve, monkeypatch) as left:
            with pytest.raises(EpmdError):
                await soon(ask())
            await soon(left.wait())


async def test_answer_with_a_tail(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_old_epmd(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD older than OTP 23 gives a creation of 16 bits."""
    async with served(answering(b"y\0\0\3"), monkeypatch):
        registration = await soon(register("py", 5678, hidden=True))
        assert registration.creation == 3
        await registration.close()


async def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPMD that says nothing is given up after `ANSWER_TIME`."""
    monkeypatch.setattr(client, "ANSWER_TIME", 0.05 * UNIT)
    for ask in ASK:
        async with served(silent, monkeypatch) as left:
            with pytest.raises(EpmdUnreachable, match="EPMD did not answer within"):
                await soon(ask())
            await soon(left.wait())


async def test_cancelled_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that is cancelled closes its connection."""
    async with served(silent, monkeypatch) as left:
        looking = asyncio.create_task(look_up("a", HOST))
        for _ in range(20):
            await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await soon(left.wait())
