"""Bounds how often is logged what unauthenticated peers can cause at will."""

from __future__ import annotations

import logging
import time
from typing import Final

LOG_INTERVAL: Final = 60.0
"""Minimum time between two of those lines, in seconds."""


class LogLimit:
    """Lets one line of each level through in `LOG_INTERVAL`, and has the others logged as DEBUG.

    logger.log(limit.level(logging.WARNING), "refused: %s", reason)
    """

    def __init__(self) -> None:
        self._next: dict[int, float] = {}

    def level(self, level: int) -> int:
        """The level of a line that is due now, meant for `level`: that, or DEBUG."""
        now = time.monotonic()
        if now < self._next.get(level, now):
            return logging.DEBUG
        self._next[level] = now + LOG_INTERVAL
        return level
