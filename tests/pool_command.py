"""The command `pybeethoven` in a process that has two forked pool workers once it has joined. They
live on when it is killed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

from pybeethoven import Beethoven, cli


class WithPool(Beethoven):
    """A node whose process has pool workers."""

    async def join(self) -> None:
        """Join, then start the workers; they run when this returns."""
        await super().join()
        context = get_context("fork")
        running = context.Barrier(3)
        self._pool = ProcessPoolExecutor(2, context, running.wait)
        self._pool.submit(int)
        running.wait()


if __name__ == "__main__":
    with patch.object(cli, "Beethoven", WithPool):
        cli.main()
