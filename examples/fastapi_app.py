"""A FastAPI application, each worker of which is a node of a Beethoven cluster.

Run it with `uvicorn --app-dir examples fastapi_app:app --workers 2`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from itertools import count
from typing import Any

from fastapi import FastAPI

from pybeethoven import Beethoven, NameTaken

COOKIE = os.environ.get("PYBEETHOVEN_COOKIE")  # None: the cookie in ~/.erlang.cookie
PORT = int(os.environ.get("PYBEETHOVEN_PORT", "33000"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Join the cluster, and leave it when the application ends."""
    # The first free name: workers have different names, and a restarted worker has its old name.
    for number in count(1):
        node = Beethoven(f"web{number}@127.0.0.1", cookie=COOKIE, listener_port=PORT)
        with suppress(NameTaken):
            async with node as app.state.beethoven:
                yield
                return


app = FastAPI(lifespan=lifespan)


@app.get("/nodes")
async def nodes() -> list[dict[str, Any]]:
    """Give each node of the cluster, its status, and the time since which it has that status."""
    return [asdict(row) for row in await app.state.beethoven.core_server.fetch_all()]
