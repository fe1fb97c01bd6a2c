"""The in-process table: at most one row for each key, as in Mnesia's set and ordered_set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from pybeethoven.etf import Atom, Term, encode

Row: TypeAlias = tuple[Term, ...]
"""A record: the table's name, the key, then the other columns."""


class Table:
    """Rows by key. Keys are told apart as Erlang does (`1`, `1.0` and `true` are three)."""

    def __init__(self, name: str, rows: Iterable[Row] = ()) -> None:
        self.name = Atom(name)
        self._rows: dict[bytes, Row] = {}
        for row in rows:
            self.write(row)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, key: Term) -> list[Row]:
        """The rows with that key: one or none."""
        row = self._rows.get(encode(key))
        return [] if row is None else [row]

    def rows(self) -> list[Row]:
        """All rows, in the order in which their keys were first written."""
        return list(self._rows.values())

    def write(self, row: Row) -> list[Row]:
        """Put a row in and give those that it replaces."""
        key = encode(row[1])
        old = self._rows.get(key)
        self._rows[key] = row
        return [] if old is None else [old]

    def delete(self, key: Term) -> list[Row]:
        """Take the rows with that key out and give them."""
        old = self._rows.pop(encode(key), None)
        return [] if old is None else [old]
