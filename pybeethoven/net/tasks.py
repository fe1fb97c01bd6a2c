"""Tasks whose start does not depend on the event loop's task factory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def create_task(
    coroutine: Coroutine[Any, Any, T], name: str, context: Context | None = None
) -> asyncio.Task[T]:
    """Return a task, named `name`, that starts in the next turn of the event loop.

    With `asyncio.eager_task_factory`, `asyncio.create_task` would run `coroutine` at once: amid
    what the caller is changing, and before the caller has the task.
    """
    loop = asyncio.get_running_loop()
    return asyncio.Task(coroutine, loop=loop, name=name, context=context)
