"""What the rest of `testing` uses: the errors, and the time that a BEAM has."""

from __future__ import annotations

import os

from pybeethoven.errors import BeethovenError

TIMEOUT = 15.0 * float(os.environ.get("PYBEETHOVEN_TEST_UNIT", "1"))
"""Default time limit for a BEAM, in seconds; `PYBEETHOVEN_TEST_UNIT` multiplies it."""
TAIL = 8192
"""Bytes of a BEAM's output that are shown with an error."""


class BeamError(BeethovenError):
    """A BEAM could not be started, or did not do what it was asked to."""


class BeamDownError(BeamError):
    """The BEAM ended, or had ended before it was asked."""


class EvalError(BeamError):
    """What was evaluated raised; the message is Elixir's own account of it."""


def text(data: bytes) -> str:
    """Output of a program, for people."""
    return data.decode(errors="replace").strip()


def absolute(program: str) -> str:
    """A program for a process with another current directory; one of PATH stays as it is."""
    return os.path.abspath(program) if os.sep in program else program
