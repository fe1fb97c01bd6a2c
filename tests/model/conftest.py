"""How long the model check may take."""

from __future__ import annotations

import pytest

from tests.timing import UNIT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let a sequence that has begun be played to the end of its round."""
    for item in items:
        if item.name == "test_model":
            limit = config.getoption("--model-seconds") + 600 * UNIT
            item.add_marker(pytest.mark.timeout(limit))
