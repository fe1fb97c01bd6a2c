"""Mnesia's table events and what they change in a table.

Source: https://www.erlang.org/doc/apps/mnesia/mnesia_chap5.html#mnesia-event-handling
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pybeethoven.errors import MatchSpecError
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.mnesia.operations import Delete, Operation, Write
from pybeethoven.mnesia.patterns import is_ground
from pybeethoven.mnesia.table import Row, Table

WRITE: Final = Atom("write")
DELETE: Final = Atom("delete")


EVENT: Final = Atom("mnesia_table_event")
SCHEMA: Final = Atom("schema")


@dataclass(frozen=True, slots=True)
class Change:
    """What an event did to our table.

    `row` is the new row, or of a delete the row that was named or `(table, key)`; `old_rows` those
    with that key before. `activity` is what Mnesia did it in; None for what no single event said.
    """

    operation: Atom
    row: Row
    old_rows: list[Row]
    activity: Term = field(default=None, compare=False, repr=False)


def event_of(table: Atom, operation: Operation, activity: Term = None) -> Term:
    """An operation as an event that `apply_event` takes."""
    row = (table, operation.key) if isinstance(operation, Delete) else operation.row
    return EVENT, (WRITE if isinstance(operation, Write) else DELETE, table, row, activity)


def apply_event(table: Table, event: Term) -> list[Change]:
    """Do what a detailed table event says, and give the changes: none if it is of another table.

    The old rows of a change are ours, not the event's: after a change of source the two differ.
    """
    match event:
        case tuple(
            ("mnesia_table_event", (operation, table.name, tuple((_, key, *rest)) as row, *_, by))
        ):
            old_rows = table.read(key)
            if operation == WRITE:
                table.write(row)
            elif operation == DELETE and not rest:
                table.delete(key)
            elif operation == DELETE:
                old_rows = _delete_object(table, row)
            else:
                return []
            return [Change(operation, row, old_rows, by)]
        case tuple(("mnesia_table_event", ("delete", "schema", ("schema", table.name), *_, by))):
            # `clear_table` looks like the end of the table and the start of a new one.
            return delete_all(table, by)
    return []


def is_vague(table: Table, event: Term) -> bool:
    """Whether an event does not tell which rows are gone.

    Mnesia takes the object of a `delete_object` for a pattern. A map in its key is taken literally
    by some releases of OTP; by others it stands for every map with these pairs.
    """
    match event:
        case tuple(("mnesia_table_event", ("delete", table.name, tuple((_, key, _, *_)), *_))):
            return not is_ground(key)
    return False


def table_event(change: Change, table: Atom, detailed: bool, origin: Pid) -> Term:
    """A change as Mnesia tells it to those who subscribed to the table.

    What no single event said is an activity of `origin`, as that of a dirty write.
    """
    by = (Atom("dirty"), origin) if change.activity is None else change.activity
    delete_object = change.operation == DELETE and len(change.row) > 2
    if detailed:
        # Whether the object was there or not, Mnesia has it as the old row.
        old_rows = [change.row] if delete_object else change.old_rows
        return EVENT, (change.operation, table, change.row, old_rows, by)
    return EVENT, (Atom("delete_object") if delete_object else change.operation, change.row, by)


def apply_snapshot(
    table: Table, rows: Iterable[Row], order: Callable[[Row], Any] | None = None
) -> list[Change]:
    """Make the table hold exactly `rows`, and give each difference as a change.

    `order`, a sort key of rows, says in which order the writes come; deletes come first.
    """
    fresh = Table(table.name, rows, table.type)
    # What can fail comes first, for nothing is changed then.
    rows = sorted(fresh.rows(), key=order) if order else fresh.rows()
    missing = [row for row in rows if row not in table]
    changes = []
    for row in table.rows():
        if not fresh.read(row[1]):
            changes += _delete_key(table, row[1])
        elif table.type == "bag" and row not in fresh:
            changes.append(Change(DELETE, row, table.delete_object(row)))
    for row in missing:
        changes.append(Change(WRITE, row, table.read(row[1])))
        table.write(row)
    return changes


def delete_all(table: Table, activity: Term = None) -> list[Change]:
    """Take every row out, and give a change for each key."""
    return [change for row in table.rows() for change in _delete_key(table, row[1], activity)]


def _delete_object(table: Table, row: Row) -> list[Row]:
    """Mnesia takes the object for a pattern: a map in it stands for every map with these pairs."""
    try:
        rows = table.select([(row, [], [Atom("$_")])])
    except MatchSpecError:
        rows = [row]
    return [gone for found in rows for gone in table.delete_object(found)]


def _delete_key(table: Table, key: Term, activity: Term = None) -> list[Change]:
    """The delete of a key, if it is there still: a bag has several rows of one."""
    old_rows = table.delete(key)
    return [Change(DELETE, (table.name, key), old_rows, activity)] if old_rows else []
