"""The in-process table: rows by key, as ETS and Mnesia keep them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from pybeethoven.errors import ConfigError, EncodeError, brief
from pybeethoven.etf import Atom, Term
from pybeethoven.etf.order import Key, exact_key, order_key
from pybeethoven.mnesia.match_spec import NO_CONTEXT, Context, MatchSpec

Row: TypeAlias = tuple[Term, ...]
"""A record: the table's name, the key, then the other columns."""

TableType: TypeAlias = Literal["set", "ordered_set", "bag"]

_TYPES: Final = ("set", "ordered_set", "bag")


class Table:
    """Rows by key.

    A `set` has one row to a key, and tells keys apart as Erlang's `=:=` does (`1`, `1.0` and `true`
    are three). An `ordered_set` has its rows in the order of their keys, of which `1` and `1.0` are
    the same. A `bag` tells keys apart like a set, and has any number of rows to each, no two of
    them the same.

    Raises `ConfigError` for another type; its methods raise `EncodeError` for what is no term.
    """

    def __init__(self, name: str, rows: Iterable[Row] = (), type: TableType = "set") -> None:
        if type not in _TYPES:
            raise ConfigError(f"a table's type is one of {', '.join(_TYPES)}, not {brief(type)}")
        self.name = Atom(name)
        self.type: TableType = type
        self._key = order_key if type == "ordered_set" else exact_key
        # By key; those of a bag by the whole row, and `_of_key` has them by key.
        self._rows: dict[Key, Row] = {}
        self._of_key: dict[Key, dict[Key, None]] | None = {} if type == "bag" else None
        self._in_order = True
        for row in rows:
            self.write(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: Row) -> bool:
        """Whether the table has exactly this row."""
        found = self._rows.get(self._place(row))
        if found is None:
            return False
        try:
            return exact_key(found) == exact_key(row)
        except EncodeError:  # what is in its columns has no place in the order
            return found == row

    def read(self, key: Term) -> list[Row]:
        """The rows with that key: one or none, of a bag all in the order in which they came."""
        return [self._rows[place] for place in self._places(key)]

    def rows(self) -> list[Row]:
        """All rows: those of an `ordered_set` by key, others in the order of their first write."""
        if self.type == "ordered_set" and not self._in_order:
            # Most are in order already, which makes this cheap.
            self._rows = {key: self._rows[key] for key in sorted(self._rows)}
            self._in_order = True
        return list(self._rows.values())

    def write(self, row: Row) -> list[Row]:
        """Put a row in and give those that it replaces: in a bag only the same row."""
        place = self._place(row)
        old = self._rows.get(place)
        self._rows[place] = row
        if old is not None:
            return [old]
        self._in_order = False
        if self._of_key is not None:
            self._of_key.setdefault(self._key(row[1]), {})[place] = None
        return []

    def delete(self, key: Term) -> list[Row]:
        """Take the rows with that key out and give them."""
        places = list(self._places(key))
        if self._of_key is not None:
            self._of_key.pop(self._key(key), None)
        return [self._rows.pop(place) for place in places]

    def delete_object(self, row: Row) -> list[Row]:
        """Take exactly this row out and give it, or nothing when the table does not have it."""
        if row not in self:
            return []
        place = self._place(row)
        if self._of_key is not None:
            key = self._key(row[1])
            del self._of_key[key][place]
            if not self._of_key[key]:
                del self._of_key[key]
        return [self._rows.pop(place)]

    def clear(self) -> list[Row]:
        """Take all rows out and give them."""
        rows = self.rows()
        self._rows.clear()
        if self._of_key is not None:
            self._of_key.clear()
        return rows

    def select(self, spec: MatchSpec | Term, context: Context = NO_CONTEXT) -> list[Term]:
        """The results of the rows that match a match specification, as `ets:select/2` gives them.

        Where each of its heads has a key without variables, only the rows with these keys are
        looked at. They come as in `rows`, save that those of a set come as the heads name them.
        `context` is what `{node}` and `{self}` give.

        Raises `MatchSpecError` for what is no match specification.
        """
        if not isinstance(spec, MatchSpec):
            spec = MatchSpec(spec)
        if spec.keys is None:
            return spec.run(self.rows(), context)
        keys = {self._key(key): key for key in spec.keys}
        wanted = sorted(keys) if self.type == "ordered_set" else keys
        return spec.run([row for key in wanted for row in self.read(keys[key])], context)

    def _place(self, row: Row) -> Key:
        return self._key(row[1]) if self._of_key is None else exact_key(row)

    def _places(self, key: Term) -> Iterable[Key]:
        place = self._key(key)
        if self._of_key is not None:
            return self._of_key.get(place, ())
        return (place,) if place in self._rows else ()
