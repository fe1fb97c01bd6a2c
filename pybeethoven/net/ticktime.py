"""The tick time of a node: how long a peer may be silent, and how often it hears from us.

Source: `set_net_ticktime` in https://www.erlang.org/doc/apps/kernel/net_kernel.html, and
`new_ticktime` in OTP's net_kernel.erl.
"""

from __future__ import annotations

from typing import Any, Final

from pybeethoven.errors import ConfigError, brief

TICK_INTENSITY: Final = 4
"""A peer is down after so many tick intervals of silence (OTP's net_tickintensity)."""
SHORTEST: Final = 0.01
"""Seconds. OTP's are whole ones; with much less a node would do nothing but tick."""
LONGEST: Final = 2**31
"""Seconds, for a tick time and a transition period: what timers take."""


class TickTime:
    """`seconds` is what was set last. Raises `ConfigError` when that is no time.

    While a change is under way, the longer of the old and the new time is what a peer may be
    silent, and the shorter one tells how often it is sent ticks: peers have time to follow.
    """

    def __init__(self, seconds: float) -> None:
        self._former = self.seconds = _checked(seconds)

    @property
    def changing(self) -> bool:
        """Whether a change is under way."""
        return self._former != self.seconds

    @property
    def limit(self) -> float:
        """Seconds of silence after which a peer is down."""
        return max(self._former, self.seconds)

    @property
    def interval(self) -> float:
        """Seconds between ticks."""
        return min(self._former, self.seconds) / TICK_INTENSITY

    def change(self, seconds: float) -> None:
        """Begin a change. Raises `ConfigError`."""
        self._former, self.seconds = self.seconds, _checked(seconds)

    def end_change(self) -> None:
        """From now on what was set last holds alone."""
        self._former = self.seconds


def is_time(seconds: Any, shortest: float) -> bool:
    """Whether it is a number of seconds, from `shortest` on; it may come from another node."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return number and shortest <= seconds <= LONGEST


def _checked(seconds: float) -> float:
    if not is_time(seconds, SHORTEST):
        raise ConfigError(
            f"net_ticktime is {brief(seconds)}; it takes {SHORTEST} to {LONGEST} seconds, like 60"
        )
    return seconds
