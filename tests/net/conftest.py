"""A fixture that starts nodes with a common cookie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from pybeethoven import Limits, Node
from pybeethoven.testing import Epmd

StartNode = Callable[..., Awaitable[Node]]
"""Starts a node, given its name."""


@pytest.fixture
async def start_node(epmd: Epmd) -> AsyncIterator[StartNode]:
    """Starts nodes with a common cookie; they are stopped with the test."""
    async with AsyncExitStack() as stack:

        async def start(name: str, cookie: str = "cookie", *, timeout: float = 7.0) -> Node:
            limits = Limits(handshake_time=timeout)
            return await stack.enter_async_context(Node(name, cookie, limits=limits))

        yield start
