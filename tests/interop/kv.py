"""A table of keys and values, and its DistrServer."""

from __future__ import annotations

import asyncio
from typing import Any

from pybeethoven import Atom, DistrConfig, DistrServer, From, Term, Write
from pybeethoven.mnesia import Row
from tests.helpers import soon

KV = Atom("Elixir.Kv")
ROWS = ':mnesia.dirty_select(Kv, [{:_, [], [:"$_"]}])'


class Kv(DistrServer, subscribe=True):
    """A table of keys and values, and what it was told."""

    def __init__(
        self, init_arg: Term = "arg", data_type: Any = "set", copy_type: Any = "multi"
    ) -> None:
        self._config = DistrConfig(KV, ("key", "value"), ("value",), data_type, copy_type)
        super().__init__(init_arg)
        self.heard: asyncio.Queue[Term] = asyncio.Queue()
        self.calls: list[str] = []

    def config(self) -> DistrConfig:
        return self._config

    async def create_action(self, config: DistrConfig) -> None:
        assert config == self._config
        self.calls.append("create_action")
        await self.transaction(Write(row("made", 1)))

    async def entry_point(self, init_arg: Term) -> None:
        self.calls.append(f"entry_point {init_arg}")

    async def handle_call(self, request: Term, from_: From) -> Term:
        return request

    async def handle_info(self, message: Term) -> None:
        self.heard.put_nowait(message)

    async def heard_write(self) -> Row:
        """The row of the next event, which must be a write."""
        name, (operation, table, row, _, _) = await soon(self.heard.get())
        assert (name, operation, table) == ("mnesia_table_event", "write", KV)
        return tuple(row)


def row(key: Term, value: Term) -> Row:
    """A record of the table; a `str` is a binary."""
    binary = key.encode() if type(key) is str else key
    return (KV, binary, value)
