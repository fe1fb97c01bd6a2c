"""The sockets, child processes and tasks of this process, to show that none is left behind."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pybeethoven.testing.ports import PORTS
from tests.timing import UNIT

LIMIT = 5 * UNIT
LOOK = 0.02 * UNIT


def _sockets() -> int:
    count = -len(PORTS.locks)  # these stay on purpose
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def _children() -> set[int]:
    children: set[int] = set()
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children.update(map(int, (thread / "children").read_text().split()))
    return children


class Leftovers:
    """What this process has at first; `gone` waits until it has no more."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> tuple[int, set[int], set[asyncio.Task[Any]]]:
        return _sockets(), _children(), asyncio.all_tasks()

    async def gone(self) -> None:
        """Wait until no more is there than at first. Raises `AssertionError` if it stays."""
        began = asyncio.get_running_loop().time()
        while (now := self._now()) != self._before:
            assert asyncio.get_running_loop().time() - began < LIMIT, (
                f"left over (sockets, processes, tasks): {now}, at first {self._before}"
            )
            await asyncio.sleep(LOOK)
