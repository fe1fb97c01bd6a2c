"""Fixtures for tests of the fault harness."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.timing import UNIT

A, B, C = (f"{letter}@127.0.0.{number}" for number, letter in enumerate("abc", 1))
TICK = 2 * math.ceil(UNIT)
"""The net_ticktime of the nodes, whole seconds."""


@pytest.fixture
def beam_settings() -> dict[str, Any]:
    """Cut pairwise, OTP's `global` would cut more of its own accord, so that none is left."""
    flags = ["-kernel", "prevent_overlapping_partitions", "false"]
    return {"net_ticktime": TICK, "flags": flags}
