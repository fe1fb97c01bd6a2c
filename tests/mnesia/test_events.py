"""Table events and snapshots, and what they change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven import Atom, Pid, Term
from pybeethoven.etf import encode
from pybeethoven.mnesia import WRITE, Change, Row, Table
from pybeethoven.mnesia.events import DELETE, apply_event, apply_snapshot, table_event
from pybeethoven.mnesia.table import TableType

TAB, OTHER = Atom("tab"), Atom("other")
TID = (Atom("tid"), 7, Pid(Atom("a@127.0.0.1"), 9, 0, 1))
EVENT = Atom("mnesia_table_event")


def row(key: Term, value: Term = 0) -> Row:
    """A record of the table."""
    return (TAB, key, value)


def written(new: Term, old: Iterable[Row] = (), table: Atom = TAB) -> Term:
    """A detailed event of a write."""
    return (EVENT, (WRITE, table, new, list(old), TID))


def deleted(what: Term, old: Iterable[Row] = (), table: Atom = TAB) -> Term:
    """A detailed event of a delete."""
    return (EVENT, (DELETE, table, what, list(old), TID))


def content(table: Table) -> set[bytes]:
    """A table's rows, exact, whatever their order."""
    rows = {encode(row) for row in table.rows()}
    assert len(rows) == len(table)
    return rows


def replay(table: Table, changes: Iterable[Change]) -> None:
    """Do what the changes say, and check what they say was there before."""
    for change in changes:
        if change.operation == WRITE:
            old_rows = table.read(change.row[1])
            table.write(change.row)
        elif change.row[2:]:
            old_rows = table.delete_object(change.row)
        else:
            old_rows = table.delete(change.row[1])
        assert encode(old_rows) == encode(change.old_rows)


@pytest.mark.parametrize(
    ("event", "change", "rows"),
    [
        (written(row(2)), Change(WRITE, row(2), []), [row(1), row(2)]),
        (written(row(1, 5)), Change(WRITE, row(1, 5), [row(1)]), [row(1, 5)]),
        (written(row(1)), Change(WRITE, row(1), [row(1)]), [row(1)]),
        (written(row(1, 5), [row(1, 4)]), Change(WRITE, row(1, 5), [row(1)]), [row(1, 5)]),
        (written(row(1.0)), Change(WRITE, row(1.0), []), [row(1), row(1.0)]),
        (written(row(True)), Change(WRITE, row(True), []), [row(1), row(True)]),
        (deleted((TAB, 1)), Change(DELETE, (TAB, 1), [row(1)]), []),
        (deleted((TAB, 1), [row(1, 9)]), Change(DELETE, (TAB, 1), [row(1)]), []),
        (deleted((TAB, 2)), Change(DELETE, (TAB, 2), []), [row(1)]),
        (deleted((TAB, 1.0)), Change(DELETE, (TAB, 1.0), []), [row(1)]),
        (deleted((TAB, True)), Change(DELETE, (TAB, True), []), [row(1)]),
        (deleted(row(1)), Change(DELETE, row(1), [row(1)]), []),
        (deleted(row(1, 5)), Change(DELETE, row(1, 5), []), [row(1)]),
        (deleted(row(1, 0.0)), Change(DELETE, row(1, 0.0), []), [row(1)]),
    ],
    ids=[
        "a new row",
        "another row",
        "the same row again",
        "the old row is ours, not the event's",
        "1.0 is not 1",
        "true is not 1",
        "a delete",
        "a delete's old row is ours too",
        "a delete of what is not there",
        "a delete of 1.0",
        "a delete of true",
        "delete_object names the whole record",
        "delete_object of another value",
        "delete_object of a value that only Python takes for equal",
    ],
)
def test_event(event: Term, change: Change, rows: list[Row]) -> None:
    """Each event changes a table that holds the row 1, and is told as a change."""
    table = Table("tab", [row(1)])
    assert repr(apply_event(table, event)) == repr([change])
    assert content(table) == content(Table("tab", rows))


@pytest.mark.parametrize(
    ("event", "change", "rows"),
    [
        (written(row(1, 3), [row(1, 1), row(1, 2)]),
         Change(WRITE, row(1, 3), [row(1, 1), row(1, 2)]),
         [row(1, 1), row(1, 2), row(2), row(1, 3)]),
        (written(row(1, 1), [row(1, 1), row(1, 2)]),
         Change(WRITE, row(1, 1), [row(1, 1), row(1, 2)]),
         [row(1, 1), row(1, 2), row(2)]),
        (written(row(1.0, 1)), Change(WRITE, row(1.0, 1), []),
         [row(1, 1), row(1, 2), row(2), row(1.0, 1)]),
        (deleted((TAB, 1), [row(1, 1)]), Change(DELETE, (TAB, 1), [row(1, 1), row(1, 2)]),
         [row(2)]),
        (deleted(row(1, 1), [row(1, 1)]), Change(DELETE, row(1, 1), [row(1, 1)]),
         [row(1, 2), row(2)]),
        (deleted(row(1, 9), [row(1, 9)]), Change(DELETE, row(1, 9), []),
         [row(1, 1), row(1, 2), row(2)]),
        (deleted(row(1, 1.0), [row(1, 1.0)]), Change(DELETE, row(1, 1.0), []),
         [row(1, 1), row(1, 2), row(2)]),
    ],
    ids=[
        "another row of the key",
        "the same row again",
        "1.0 is another key",
        "a delete takes all rows of the key",
        "delete_object takes one",
        "delete_object of what is not there",
        "delete_object of a value that only Python takes for equal",
    ],
)  # fmt: skip
def test_event_of_a_bag(event: Term, change: Change, rows: list[Row]) -> None:
    """The events as Mnesia sends them for a bag; a write comes with all the rows of its key."""
    table = Table("tab", [row(1, 1), row(1, 2), row(2)], "bag")
    assert repr(apply_event(table, event)) == repr([change])
    assert content(table) == content(Table("tab", rows, "bag"))


@pytest.mark.parametrize("kind", ["set", "ordered_set", "bag"])
def test_clear_table(kind: TableType) -> None:
    """Mnesia tells of a table that was cleared as of one that was deleted and made anew."""
    rows = [row(1), row(2), row(3)] + ([row(2, 5)] if kind == "bag" else [])
    table = Table("tab", rows, kind)
    schema = Atom("schema")
    there: list[Term] = [(schema, TAB, [])]
    assert apply_event(table, (EVENT, (DELETE, schema, (schema, OTHER), there, TID))) == []
    changes = apply_event(table, (EVENT, (DELETE, schema, (schema, TAB), there, TID)))
    assert [change.row for change in changes] == [(TAB, key) for key in (1, 2, 3)]
    assert [old for change in changes for old in change.old_rows] == sorted(rows)
    assert len(table) == 0
    assert apply_event(table, (EVENT, (WRITE, schema, there[0], [], TID))) == []


SIMPLE_AND_DETAILED = [
    (Change(WRITE, row(1, 2), [row(1, 1)], TID), (WRITE, row(1, 2), TID),
     (WRITE, TAB, row(1, 2), [row(1, 1)], TID)),
    (Change(DELETE, (TAB, 1), [row(1, 1)], TID), (DELETE, (TAB, 1), TID),
     (DELETE, TAB, (TAB, 1), [row(1, 1)], TID)),
    (Change(DELETE, row(1, 1), [], TID), (Atom("delete_object"), row(1, 1), TID),
     (DELETE, TAB, row(1, 1), [row(1, 1)], TID)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "simple", "detailed"), SIMPLE_AND_DETAILED)
def test_table_event(change: Change, simple: Term, detailed: Term) -> None:
    """A change as those are told who subscribed; what no single event said is a dirty activity."""
    origin = Pid(Atom("py@127.0.0.1"), 1, 0, 1)
    assert table_event(change, TAB, False, origin) == (EVENT, simple)
    assert table_event(change, TAB, True, origin) == (EVENT, detailed)
    difference = Change(change.operation, change.row, change.old_rows)
    dirty = (Atom("dirty"), origin)
    assert table_event(difference, TAB, True, origin) == (EVENT, (*detailed[:4], dirty))


def test_event_of_an_ordered_set() -> None:
    """There, 1 and 1.0 are one key."""
    table = Table("tab", [row(1)], "ordered_set")
    assert apply_event(table, deleted(row(1.0))) == [Change(DELETE, row(1.0), [])]
    changes = apply_event(table, written(row(1.0)))
    assert repr(changes) == repr([Change(WRITE, row(1.0), [row(1)])])
    assert apply_event(table, deleted((TAB, 1))) == [Change(DELETE, (TAB, 1), [row(1.0)])]


@pytest.mark.parametrize(
    "event",
    [
        written((OTHER, 1, 5), table=OTHER),
        deleted((OTHER, 1), table=OTHER),
        written((TAB,)),
        written(()),
        written([TAB, 1, 5]),
        written(b"row"),
        written(TAB),
        deleted((TAB,)),
        deleted([TAB, 1]),
        (EVENT, (WRITE, row(1, 5), TID)),
        (EVENT, (DELETE, (TAB, 1), TID)),
        (EVENT, (Atom("delete_object"), row(1), TID)),
        (EVENT, (Atom("write_something"), TAB, row(1, 5), [], TID)),
        (EVENT, (WRITE, TAB)),
        (EVENT, (WRITE,)),
        (EVENT, ()),
        (EVENT, WRITE),
        (EVENT,),
        (EVENT, (WRITE, TAB, row(1, 5), [], TID), Atom("more")),
        (Atom("mnesia_system_event"), (WRITE, TAB, row(1, 5), [], TID)),
        (Atom("nodedown"), Atom("a@127.0.0.1")),
        EVENT,
        b"mnesia_table_event",
        {EVENT: 1},
        (),
        [],
        None,
        1,
    ],
    ids=repr,
)
def test_what_is_no_event_of_the_table(event: Term) -> None:
    """It changes nothing, and is told so."""
    table = Table("tab", [row(1)])
    assert apply_event(table, event) == []
    assert table.rows() == [row(1)]


def test_snapshot_differences() -> None:
    """What is gone, then what is new or other, as changes; what is the same is not mentioned."""
    table = Table("tab", [row("stays"), row("goes"), row("changes", 1)])
    changes = apply_snapshot(table, [row("comes"), row("changes", 2), row("stays")])
    assert changes == [
        Change(DELETE, (TAB, "goes"), [row("goes")]),
        Change(WRITE, row("comes"), []),
        Change(WRITE, row("changes", 2), [row("changes", 1)]),
    ]
    assert content(table) == content(Table("tab", [row("stays"), row("changes", 2), row("comes")]))
    assert apply_snapshot(table, table.rows()) == []


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1.0), (1, True), (0, False), ([1], [1.0]), (Atom("a"), "a")], ids=repr
)
def test_snapshot_sees_what_only_python_takes_for_equal(old: Term, new: Term) -> None:
    """A value that Erlang tells from the old one is a difference, and so is such a key."""
    assert len(apply_snapshot(Table("tab", [row("key", old)]), [row("key", new)])) == 1
    changes = apply_snapshot(Table("tab", [row(old)]), [row(new)])
    assert [change.operation for change in changes] == [DELETE, WRITE]


def test_snapshot_order() -> None:
    """`order` says in which order the writes are told, deletes still first."""
    table = Table("tab", [row("gone", 9)])
    rows = [row("c", 3), row("a", 1), row("d", 4), row("b", 2)]
    changes = apply_snapshot(table, rows, order=lambda row: row[2])
    assert [change.row[1] for change in changes] == ["gone", "a", "b", "c", "d"]


def test_snapshot_of_a_bag() -> None:
    """A key that is gone goes as a whole, of one that stays each row that is gone."""
    table = Table("tab", [row(1, 1), row(1, 2), row(2, 1), row(2, 2), row(3)], "bag")
    changes = apply_snapshot(table, [row(3), row(1, 3), row(1, 2), row(3, 1)])
    assert changes == [
        Change(DELETE, row(1, 1), [row(1, 1)]),
        Change(DELETE, (TAB, 2), [row(2, 1), row(2, 2)]),
        Change(WRITE, row(1, 3), [row(1, 2)]),
        Change(WRITE, row(3, 1), [row(3)]),
    ]
    rows = [row(1, 2), row(1, 3), row(3), row(3, 1)]
    assert content(table) == content(Table("tab", rows, "bag"))
    assert apply_snapshot(table, table.rows()) == []


def test_snapshot_of_an_ordered_set() -> None:
    """A key of another type that is equal replaces the row."""
    table = Table("tab", [row(1), row(2)], "ordered_set")
    changes = apply_snapshot(table, [row(2), row(1.0)])
    assert repr(changes) == repr([Change(WRITE, row(1.0), [row(1)])])


def test_empty_snapshot() -> None:
    """A table that is empty now loses all rows."""
    table = Table("tab", [row(1), row(2)])
    assert [change.row for change in apply_snapshot(table, [])] == [(TAB, 1), (TAB, 2)]
    assert len(table) == 0


KEYS = st.sampled_from([1, 1.0, True, 2, Atom("a"), b"a", (1,), (1.0,)])
VALUES = st.sampled_from([0, 0.0, False, 1, b""])
EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda key, value: written(row(key, value)), KEYS, VALUES),
    st.builds(lambda key: deleted((TAB, key)), KEYS),
    st.builds(lambda key, value: deleted(row(key, value)), KEYS, VALUES),
)
HISTORIES = st.lists(EVENTS, max_size=30)


TYPES: st.SearchStrategy[TableType] = st.sampled_from(["set", "ordered_set", "bag"])


def after(events: Iterable[Term], kind: TableType) -> Table:
    """The table that a peer has after these events."""
    table = Table("tab", type=kind)
    for event in events:
        apply_event(table, event)
    return table


@given(kind=TYPES, history=HISTORIES, old=HISTORIES, data=st.data())
def test_snapshot_and_replay(
    kind: TableType, history: list[Term], old: list[Term], data: st.DataObject
) -> None:
    """Whatever we had: a snapshot, and all events since the subscription that came before it, those
    that the snapshot holds too, make our table what the peer's is."""
    subscribed = data.draw(st.integers(0, len(history)), label="subscribed at")
    taken = data.draw(st.integers(subscribed, len(history)), label="snapshot at")
    table = after(old, kind)
    apply_snapshot(table, after(history[:taken], kind).rows())
    for event in history[subscribed:]:
        apply_event(table, event)
    assert content(table) == content(after(history, kind))


@given(kind=TYPES, old=HISTORIES, new=HISTORIES)
def test_snapshot_changes_lead_from_old_to_new(
    kind: TableType, old: list[Term], new: list[Term]
) -> None:
    """Who follows the changes alone gets from the old table to the new one, with no idle step."""
    table, followed = after(old, kind), after(old, kind)
    changes = apply_snapshot(table, after(new, kind).rows())
    replay(followed, changes)
    assert content(followed) == content(table) == content(after(new, kind))
    for change in changes:
        if change.operation == WRITE:
            assert encode(change.row) not in map(encode, change.old_rows)
        else:
            assert change.old_rows
    assert len({encode(change.row) for change in changes}) == len(changes)


@given(kind=TYPES, history=HISTORIES, data=st.data())
def test_event_changes_lead_from_old_to_new(
    kind: TableType, history: list[Term], data: st.DataObject
) -> None:
    """The changes that events give do the same."""
    start = data.draw(st.integers(0, len(history)))
    table, followed = after(history[:start], kind), after(history[:start], kind)
    changes = [change for event in history[start:] for change in apply_event(table, event)]
    replay(followed, changes)
    assert len(changes) == len(history) - start
    assert content(followed) == content(table)
