"""A FastAPI application, each worker of which is a node of a Beethoven cluster.

Run it with `uvicorn --app-dir examples fastapi_app:app --workers 2`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from pybeethoven import Beethoven, NameTaken

COOKIE = os.environ.get("PYBEETHOVEN_COOKIE")  # None: the cookie in ~/.erlang.cookie
PORT = int(os.environ.get("PYBEETHOVEN_PORT", "33000"))
MAX_NAMES = 64


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Join the cluster, and leave it when the application ends."""
    app.state.beethoven = await join_under_a_free_name()
    try:
        yield
    finally:
        await app.state.beethoven.leave()


async def join_under_a_free_name() -> Beethoven:
    """Join as `web1`, `web2` and so on: each worker has a name of its own, also after a restart.

    Raises `NameTaken` when `MAX_NAMES` names are taken: other users may register names, too.
    """
    number = 1
    while True:
        node = Beethoven(f"web{number}@127.0.0.1", cookie=COOKIE, listener_port=PORT)
        try:
            await node.join()
        except NameTaken:
            if number == MAX_NAMES:
                raise
            number += 1
        else:
            return node


app = FastAPI(lifespan=lifespan)


@app.get("/nodes")
async def nodes() -> list[dict[str, Any]]:
    """Give each node of the cluster, its status, and the time since which it has that status."""
    return [asdict(row) for row in await app.state.beethoven.core_server.fetch_all()]
