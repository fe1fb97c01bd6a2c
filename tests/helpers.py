"""What several tests use: a process that records, and waiting with a limit."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from pybeethoven import Atom, Pid, Process, Reference, Term
from pybeethoven.net.epmd import look_up
from tests.timing import UNIT

T = TypeVar("T")

LIMIT = 10 * UNIT
"""Seconds that anything awaited in a test may take; most take milliseconds."""


def has_address(host: str) -> bool:
    """Whether this machine has an address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


ipv6 = pytest.mark.skipif(not has_address("::1"), reason="this machine has no ::1")


async def soon(awaitable: Awaitable[T]) -> T:
    """What `awaitable` gives, within `LIMIT`."""
    async with asyncio.timeout(LIMIT):
        return await awaitable


async def until_logged(caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    """Wait for a log record in which the regular expression `pattern` is found."""
    found = asyncio.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if re.search(pattern, record.getMessage()):
                found.set()

    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        for record in caplog.records:
            handler.emit(record)
        await soon(found.wait())
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def no_file_descriptors() -> Iterator[None]:
    """In here nothing can be opened."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until_unregistered(alive_name: str, host: str = "127.0.0.1") -> None:
    """Wait until EPMD has seen the end of a name's connection; a look-up may come before it."""
    async with asyncio.timeout(LIMIT):
        while await look_up(alive_name, host) is not None:
            pass


def atoms(*names: str) -> tuple[Atom, ...]:
    """A tuple of atoms."""
    return tuple(Atom(name) for name in names)


def node_update(node: str, status: str) -> Term:
    """The message that a follower gets."""
    return (Atom("$gen_cast"), (Atom("node_update"), atoms(node, status)))


class Recorder(Process):
    """A process that does nothing but keep its messages for the test to read."""

    def __init__(self, *, trap_exit: bool = False) -> None:
        self.trap_exit = trap_exit
        self.messages: asyncio.Queue[Term] = asyncio.Queue()

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Keep it."""
        self.messages.put_nowait(message)

    async def run(self) -> None:
        """Live until ended by a signal."""
        await asyncio.get_running_loop().create_future()

    async def next(self) -> Term:
        """The next message, within `LIMIT`."""
        return await soon(self.messages.get())

    async def next_down(self, reference: Reference) -> Term:
        """The reason in the next message, which must be the DOWN of a monitor."""
        down, of, _, _, reason = await self.next()
        assert (down, of) == (Atom("DOWN"), reference)
        return reason
