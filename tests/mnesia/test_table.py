"""The in-process table: rows by key, keys as Erlang tells them apart."""

from __future__ import annotations

import pytest

from pybeethoven import Atom, ImproperList, Map, Term
from pybeethoven.mnesia import Row, Table

TAB = Atom("tab")

KEYS = [
    1,
    1.0,
    True,
    Atom("1"),
    b"1",
    (1,),
    (1.0,),
    (True,),
    [1],
    ImproperList([1], 1),
    {1: 1},
    Map([(1, 1), (1.0, 1)]),
]
"""Twelve keys, some of them equal in Python, all different in Erlang."""


def row(key: Term, value: Term = 0) -> Row:
    """A record of the table."""
    return (TAB, key, value)


def test_name_is_an_atom() -> None:
    """A table's name is the atom that events have."""
    assert isinstance(Table("tab").name, Atom)


def test_write_replaces_the_row_of_the_key() -> None:
    """A write gives the row that it replaces, and there is one row to a key."""
    table = Table("tab")
    assert table.write(row(1, "a")) == []
    assert table.write(row(1, "b")) == [row(1, "a")]
    assert table.read(1) == [row(1, "b")]
    assert len(table) == 1


def test_delete() -> None:
    """A delete gives the row that it took out, and of a key that is not there, none."""
    table = Table("tab", [row(1), row(2)])
    assert table.delete(1) == [row(1)]
    assert table.delete(1) == []
    assert table.read(1) == []
    assert table.rows() == [row(2)]


def test_rows_in_the_order_of_their_first_write() -> None:
    """Writing a row again leaves it where it is; one that was deleted comes last again."""
    table = Table("tab", [row(1), row(2), row(3)])
    table.write(row(1, "again"))
    assert table.rows() == [row(1, "again"), row(2), row(3)]
    table.delete(2)
    table.write(row(2))
    assert table.rows() == [row(1, "again"), row(3), row(2)]


def test_rows_is_a_copy() -> None:
    """Who walks through the rows may change the table on the way."""
    table = Table("tab", [row(1), row(2), row(3)])
    for _, key, _ in table.rows():
        table.delete(key)
    assert len(table) == 0


def test_keys_that_only_python_takes_for_equal() -> None:
    """All the keys live side by side, each with its own row."""
    table = Table("tab", [row(key, number) for number, key in enumerate(KEYS)])
    assert [table.read(key)[0][2] for key in KEYS] == list(range(len(KEYS)))


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_delete_of_one_key_leaves_the_others(key: Term) -> None:
    """A delete meets exactly the key that it names."""
    table = Table("tab", [row(k, repr(k)) for k in KEYS])
    assert [repr(old) for old in table.delete(key)] == [repr(row(key, repr(key)))]
    assert [r[2] for r in table.rows()] == [repr(k) for k in KEYS if k is not key]
