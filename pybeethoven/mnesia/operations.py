"""Writes to a Mnesia table, as a peer is asked for them.

They travel as calls of exported functions alone, so a peer needs no code of ours. Source:
https://www.erlang.org/doc/apps/mnesia/mnesia.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from pybeethoven.errors import ConfigError, brief
from pybeethoven.etf import Atom, Export, Term
from pybeethoven.mnesia.table import Row


@dataclass(frozen=True, slots=True)
class Write:
    """Put `row` in: the table's name, the key, then the other columns."""

    row: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """Take every row with `key` out."""

    key: Term


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Take this one row out."""

    row: Row


Operation: TypeAlias = Write | Delete | DeleteObject

Call: TypeAlias = tuple[Export, list[Term]]
"""A function and its arguments."""


def _mnesia(function: str, arity: int) -> Export:
    return Export(Atom("mnesia"), Atom(function), arity)


_APPLY: Final = Export(Atom("erlang"), Atom("apply"), 2)
_SEND: Final = Export(Atom("erlang"), Atom("send"), 2)


def one_after_another(calls: Iterable[Call]) -> list[Term]:
    """The arguments of `lists:zipwith/3` that make these calls, and give what each returns."""
    functions, arguments = zip(*calls, strict=True)
    return [_APPLY, list(functions), list(arguments)]


def transaction(table: Atom, operations: Iterable[Operation]) -> Call:
    """All of the operations, or none."""
    calls = [_call(table, operation, "") for operation in operations]
    zipwith = Export(Atom("lists"), Atom("zipwith"), 3)
    return _mnesia("transaction", 2), [zipwith, one_after_another(calls)]


def dirty(table: Atom, operation: Operation) -> Call:
    """One operation, without a transaction."""
    return _call(table, operation, "dirty_")


def update_counter(table: Atom, key: Term, increment: int) -> Call:
    """Add to a counter and give the sum, without a transaction."""
    return _mnesia("dirty_update_counter", 2), [(table, key), increment]


def send(to: Term, message: Term) -> Call:
    """Send a message, in order behind what the calls before have sent."""
    return _SEND, [to, message]


def _call(table: Atom, operation: Operation, prefix: str) -> Call:
    match operation:
        case Write(row):
            return _mnesia(f"{prefix}write", 1), [_checked(table, row)]
        case Delete(key):
            return _mnesia(f"{prefix}delete", 1), [(table, key)]
        case DeleteObject(row):
            return _mnesia(f"{prefix}delete_object", 1), [_checked(table, row)]
    raise ConfigError(
        f"{brief(operation)} is no operation; give a Write, a Delete or a DeleteObject"
    )


def _checked(table: Atom, row: Row) -> Row:
    if type(row) is tuple and len(row) > 2 and row[0] == table:
        return (table, *row[1:])  # the name may be a plain str
    raise ConfigError(
        f"{brief(row)} is no row of {table}; it must be a tuple of {table!r}, the key, and the "
        f"other columns"
    )
