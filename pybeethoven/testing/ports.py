"""Ports for tests, several of which may run on this machine at the same time.

Between the choice of a port and its use somebody else may choose it, too. So each process has
ports to itself: a file that it has locked stands for them, as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from pybeethoven.testing.common import BeamError

FIRST: Final = 20_000
SIZE: Final = 200
"""So many ports a process has at a time."""
BLOCKS: Final = 60
"""They end below those that the kernel hands out itself."""


class Ports:
    """The ports of a process. `directory`: where the files are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports: list[int] = []
        self._turn: Iterator[int] = iter(())

    def next(self, host: str) -> int:
        """The next one that is free on `host`. Raises `BeamError`."""
        for port in islice(self._turn, len(self._ports)):
            if _is_free(host, port):
                return port
        self._ports += self._block()
        self._turn = cycle(self._ports)
        return self.next(host)

    def _block(self) -> range:
        for number in random.sample(range(BLOCKS), BLOCKS):
            with suppress(OSError):
                _lock(self._directory / f"pybeethoven-ports-{number}.lock")
                return range(FIRST + SIZE * number, FIRST + SIZE * (number + 1))
        raise BeamError(f"no ports are left: other processes have {BLOCKS} times {SIZE}")


def _lock(path: Path) -> None:
    """Lock a file until this process ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


_PORTS: Final = Ports(Path(tempfile.gettempdir()))


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that no other process gets from here as long as this
    one lives. Raises `BeamError` when there is none."""
    return _PORTS.next(host)
