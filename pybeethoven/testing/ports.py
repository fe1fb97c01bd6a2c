"""Ports for tests, several of which may run on this machine at the same time.

Between the choice of a port and its use another process may choose it, too. So each process has
blocks of ports to itself: it listens on the first port of a block for as long as it lives, and
gives the others. Unlike a file, that works between users, and leaves nothing behind.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

from pybeethoven.testing.common import BeamError

LOCKED_AT: Final = "127.0.0.1"


@dataclass
class Ports:
    """The ports of a process, from `blocks` blocks of `size` ports, which begin at `first`.

    By default they end below the ports that the kernel gives to connections.
    """

    first: int = 20_000
    size: int = 200
    blocks: int = 60
    locks: list[int] = field(default_factory=list, init=False)
    """The file descriptors of the sockets that hold blocks, open until this process ends."""
    _ports: list[int] = field(default_factory=list, init=False)
    _turn: Iterator[int] = field(default_factory=lambda: iter(()), init=False)

    def next(self, host: str) -> int:
        """The next port that is free on `host`. Raises `BeamError`."""
        for port in islice(self._turn, len(self._ports)):
            if _is_free(host, port):
                return port
        self._ports += self._block()
        self._turn = cycle(self._ports)
        return self.next(host)

    def _block(self) -> range:
        for number in random.sample(range(self.blocks), self.blocks):
            first = self.first + self.size * number
            try:
                lock = socket.create_server((LOCKED_AT, first))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self.locks.append(lock.detach())
            return range(first + 1, first + self.size)
        raise BeamError(
            f"no ports are left: other processes have {self.blocks} times {self.size}; end those "
            f"that listen at {LOCKED_AT}, port {self.first} and each {self.size} on: see `ss -ltnp`"
        )


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


PORTS: Final = Ports()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is not in use, and that no other process gets from here as long as
    this one lives.

    Raises `BeamError` when there is none.
    """
    return PORTS.next(host)
