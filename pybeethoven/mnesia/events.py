"""Mnesia's table events and what they change in a table.

Source: https://www.erlang.org/doc/apps/mnesia/mnesia_chap5.html#mnesia-event-handling
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pybeethoven.etf import Atom, Term
from pybeethoven.mnesia.table import Row, Table

WRITE: Final = Atom("write")
DELETE: Final = Atom("delete")


@dataclass(frozen=True, slots=True)
class Change:
    """What an event did to our table.

    `row` is the new row; of a delete it is `(table, key)`, or the whole row where only that one is
    meant. `old_rows` are those that are gone: the one that a write replaces (in a bag only the same
    row), or all that a delete took out.
    """

    operation: Atom
    row: Row
    old_rows: list[Row]


def apply_event(table: Table, event: Term) -> Change | None:
    """Do what a detailed table event says; None when it is none, or of another table.

    The old rows of the change are ours, not the event's: after a change of source the two differ,
    and a write to a bag comes with all rows of its key.
    """
    match event:
        case ("mnesia_table_event", ("write", table.name, tuple((_, _, *_)) as row, *_)):
            return Change(WRITE, row, table.write(row))
        case (
            "mnesia_table_event",
            ("delete", table.name, tuple((_, key, *others)) as row, *_),
        ):
            # `delete_object` names a whole record, and takes out that one alone.
            return Change(DELETE, row, table.delete_object(row) if others else table.delete(key))
    return None


def apply_snapshot(
    table: Table, rows: Iterable[Row], order: Callable[[Row], Any] | None = None
) -> list[Change]:
    """Make the table hold exactly `rows`, and give each difference as a change.

    `order`, a sort key of rows, says in which order the writes come; deletes come first.
    """
    fresh = Table(table.name, rows, table.type)
    changes = []
    for row in table.rows():
        if not fresh.read(row[1]):
            if old := table.delete(row[1]):
                changes.append(Change(DELETE, (table.name, row[1]), old))
        elif table.type == "bag" and row not in fresh:
            changes.append(Change(DELETE, row, table.delete_object(row)))
    for row in sorted(fresh.rows(), key=order) if order else fresh.rows():
        if row not in table:
            changes.append(Change(WRITE, row, table.write(row)))
    return changes
