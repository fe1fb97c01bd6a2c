"""How long the model check may take, and what is told of it."""

from __future__ import annotations

import pytest

from tests.model.check import CHECK
from tests.timing import UNIT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A sequence that has begun is played to the end of its round."""
    for item in items:
        if item.name == "test_model":
            limit = config.getoption("--model-seconds") + 600 * UNIT
            item.add_marker(pytest.mark.timeout(limit))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was played, so that it can be repeated."""
    check = terminalreporter.config.stash.get(CHECK, None)
    if check is not None:
        terminalreporter.write_line(
            f"model check: {len(check.sequences)} sequences, {check.rounds} rounds of faults, "
            f"well again after {check.slowest:.1f} s at most; --model-seed {check.sequences}"
        )
