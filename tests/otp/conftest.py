"""A node for tests of processes that need no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pybeethoven import Node
from pybeethoven.testing import Epmd


@pytest.fixture
async def node(epmd: Epmd) -> AsyncIterator[Node]:
    """A started node, `py@127.0.0.1`."""
    async with Node("py@127.0.0.1", "cookie") as node:
        yield node
