"""The EPMD client: register a node's listening port, look up another's.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#epmd-protocol
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pybeethoven.distribution import epmd as protocol
from pybeethoven.errors import ConfigError, EpmdError, EpmdUnreachable, NameTaken
from pybeethoven.net import sockets

DEFAULT_PORT = 4369
ANSWER_TIME = 5.0
"""Seconds that EPMD has for an answer."""
START_ATTEMPTS = 20
START_INTERVAL = 0.1
"""An `epmd -daemon` just started has `START_ATTEMPTS` times this many seconds to listen."""
NAME_ATTEMPTS = 3
NAME_INTERVAL = 0.05
"""A name that is taken is asked for so often, so many seconds apart: EPMD may not have seen yet
that the node which had it, maybe this one before a restart, is gone."""

COOKIE_VARIABLE = "PYBEETHOVEN_COOKIE"
"""The environment variable that can give the command line the cookie."""

_T = TypeVar("_T")


def epmd_port() -> int:
    """The port of EPMD: `ERL_EPMD_PORT`, else 4369.

    Raises `ConfigError` when the variable holds no port.
    """
    text = os.environ.get("ERL_EPMD_PORT") or str(DEFAULT_PORT)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"ERL_EPMD_PORT is {text!r}; it must be a port, e.g. {DEFAULT_PORT}")
    return int(text)


def epmd_addresses() -> list[str]:
    """The addresses that EPMD is to listen at, besides the loopback: `ERL_EPMD_ADDRESS`."""
    return os.environ.get("ERL_EPMD_ADDRESS", "").replace(",", " ").split()


def local_epmd_host(*, ipv6: bool = False) -> str:
    """Where this host's EPMD is asked: the first of `ERL_EPMD_ADDRESS`, else the loopback."""
    return (*epmd_addresses(), "::1" if ipv6 else "127.0.0.1")[0]


@dataclass
class Registration:
    """A name held at EPMD, for as long as `writer` is open."""

    creation: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def lost(self) -> None:
        """Wait until EPMD ends the registration. Then, or when cancelled, `close` is still due."""
        with suppress(OSError):
            await self.reader.read(1)

    async def close(self) -> None:
        """Give the name back. When this returns, EPMD lets it be registered anew."""
        await _close(self.writer)


async def register(
    alive_name: str,
    port: int,
    *,
    hidden: bool,
    ipv6: bool = False,
    start: Callable[[], Awaitable[None]] | None = None,
) -> Registration:
    """Register `alive_name` (the part before the `@`) as listening on `port`.

    `ipv6`: over ::1. `start`: brings an EPMD up when none answers; by default `start_daemon`.
    Raises `EpmdUnreachable`, `NameTaken` or `EpmdError`, and what `start` raises. When cancelled,
    nothing stays registered.
    """
    host = local_epmd_host(ipv6=ipv6)
    for _ in range(NAME_ATTEMPTS):
        reader, writer = await _open_local(host, start or start_daemon)
        registration = await _register_once(reader, writer, alive_name, port, hidden)
        if registration is not None:
            return registration
        await asyncio.sleep(NAME_INTERVAL)
    raise NameTaken(
        f"the name {alive_name!r} is already registered with EPMD: another node uses it; "
        f"choose another name or stop that node"
    )


async def _register_once(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    alive_name: str,
    port: int,
    hidden: bool,
) -> Registration | None:
    try:
        writer.write(protocol.alive2_request(alive_name, port, hidden=hidden))
        answer = await _read_answer(reader, protocol.parse_alive2_response)
    except BaseException:
        await _close(writer)
        raise
    if answer.result == 0:
        return Registration(answer.creation, reader, writer)
    await _close(writer)
    return None


async def look_up(alive_name: str, host: str) -> int | None:
    """The listening port of the node `alive_name@host`, or None when its EPMD has no such name.

    Raises `EpmdUnreachable` or `EpmdError`. When cancelled, the connection is closed.
    """
    reader, writer = await _open(host)
    try:
        writer.write(protocol.port_please2_request(alive_name))
        answer = await _read_answer(reader, protocol.parse_port2_response)
        return answer.port if isinstance(answer, protocol.Port2Response) else None
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        async with asyncio.timeout(ANSWER_TIME):
            await writer.wait_closed()


async def _open(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = epmd_port()
    try:
        async with asyncio.timeout(ANSWER_TIME):
            return await sockets.open_stream(host, port)
    except TimeoutError as error:
        raise EpmdUnreachable(f"EPMD at {host}:{port} does not answer") from error
    except (OSError, UnicodeError) as error:
        text = f"EPMD cannot be reached at {host}:{port}: {error}"
        if _lacks_descriptors(error):
            text += f"; {sockets.MORE_DESCRIPTORS}"
        raise EpmdUnreachable(text) from error


def _lacks_descriptors(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in sockets.NO_DESCRIPTORS


async def _open_local(
    host: str, start: Callable[[], Awaitable[None]]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await _open(host)
    except EpmdUnreachable as error:
        if isinstance(error.__cause__, TimeoutError) or _lacks_descriptors(error.__cause__):
            raise
        unreachable = error
    try:
        await start()
    except EpmdUnreachable as error:
        raise EpmdUnreachable(f"{unreachable}; {error}") from unreachable
    for _ in range(START_ATTEMPTS):
        try:
            return await _open(host)
        except EpmdUnreachable:
            await asyncio.sleep(START_INTERVAL)
    return await _open(host)


async def start_daemon() -> None:
    """Run `epmd -daemon`. Raises `EpmdUnreachable` when it is not installed or can't be run."""
    if (executable := shutil.which("epmd")) is None:
        raise EpmdUnreachable("no epmd is installed to be started")
    # The daemon outlives this process, and keeps its environment.
    env = {name: value for name, value in os.environ.items() if name != COOKIE_VARIABLE}
    try:
        process = await asyncio.create_subprocess_exec(
            executable,
            "-daemon",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=env,
        )
    except OSError as error:
        raise EpmdUnreachable(f"{executable} cannot be started: {error}") from error
    try:
        async with asyncio.timeout(ANSWER_TIME):
            await process.wait()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EpmdUnreachable(f"{executable} -daemon did not end in time") from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()


async def _read_answer(reader: asyncio.StreamReader, parse: Callable[[bytes], _T | None]) -> _T:
    data = b""
    try:
        async with asyncio.timeout(ANSWER_TIME):
            while (answer := parse(data)) is None:
                if not (received := await reader.read(4096)):
                    raise EpmdError("EPMD closed the connection before it answered")
                data += received
    except TimeoutError as error:
        raise EpmdUnreachable(f"EPMD did not answer within {ANSWER_TIME:g} seconds") from error
    except OSError as error:
        raise EpmdError(f"the connection to EPMD broke: {error}") from error
    return answer
