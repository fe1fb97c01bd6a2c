"""The in-process table: rows by key, keys as each type of table tells them apart."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven import Atom, ImproperList, Map, Pid, Term
from pybeethoven.errors import ConfigError, EncodeError, MatchSpecError
from pybeethoven.etf.order import exact_key, order_key
from pybeethoven.mnesia import Context, MatchSpec, Row, Table
from pybeethoven.mnesia.match_spec import NO_CONTEXT
from pybeethoven.mnesia.table import TableType

TAB = Atom("tab")
TYPES: list[TableType] = ["set", "ordered_set", "bag"]

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


def everything_but(kind: str) -> list[TableType]:
    """The other types."""
    return [other for other in TYPES if other != kind]


def test_name_is_an_atom() -> None:
    """A table's name is the atom that events have."""
    assert isinstance(Table("tab").name, Atom)


def test_type() -> None:
    """A table is a set, unless told otherwise; there are three types."""
    assert Table("tab").type == "set"
    assert [Table("tab", type=kind).type for kind in TYPES] == TYPES
    wrong: Any = "duplicate_bag"
    with pytest.raises(ConfigError, match="one of set, ordered_set, bag, not 'duplicate_bag'"):
        Table("tab", type=wrong)


@pytest.mark.parametrize("kind", everything_but("bag"))
def test_write_replaces_the_row_of_the_key(kind: TableType) -> None:
    """A write gives the row that it replaces, and there is one row to a key."""
    table = Table("tab", type=kind)
    assert table.write(row(1, "a")) == []
    assert table.write(row(1, "b")) == [row(1, "a")]
    assert table.read(1) == [row(1, "b")]
    assert len(table) == 1


def test_write_to_a_bag() -> None:
    """A key has any number of rows, in the order in which they came; the same row is there once."""
    table = Table("tab", type="bag")
    assert table.write(row(1, "b")) == []
    assert table.write(row(1, "a")) == []
    assert table.write(row(1, b"b")) == [row(1, "b")]
    assert table.write(row(1, 1)) == table.write(row(1, 1.0)) == []
    assert [exact_key(found) for found in table.read(1)] == [
        exact_key(row(1, value)) for value in (b"b", b"a", 1, 1.0)
    ]
    assert len(table) == len(table.rows()) == 4


@pytest.mark.parametrize("kind", TYPES)
def test_delete(kind: TableType) -> None:
    """A delete gives the row that it took out, and of a key that is not there, none."""
    table = Table("tab", [row(1), row(2)], kind)
    assert table.delete(1) == [row(1)]
    assert table.delete(1) == []
    assert table.read(1) == []
    assert table.rows() == [row(2)]
    assert len(table) == 1


def test_delete_from_a_bag() -> None:
    """All rows of the key go, and can come back."""
    table = Table("tab", [row(1, "a"), row(2), row(1, "b")], "bag")
    assert table.delete(1) == [row(1, "a"), row(1, "b")]
    assert table.rows() == [row(2)]
    assert table.write(row(1, "a")) == []
    assert table.read(1) == [row(1, "a")]


@pytest.mark.parametrize("kind", TYPES)
def test_delete_object(kind: TableType) -> None:
    """Only exactly this row is taken out."""
    table = Table("tab", [row(1, "a"), row(2)], kind)
    for other in (row(1, "b"), row(1.0, "a"), row(3, "a"), (*row(1, "a"), 0), row(2, 0.0)):
        assert other not in table
        assert table.delete_object(other) == []
    assert row(1, b"a") in table
    assert table.delete_object(row(1, b"a")) == [row(1, "a")]
    assert table.delete_object(row(1, "a")) == []
    assert table.rows() == [row(2)]
    assert table.read(1) == []


def test_delete_object_from_a_bag() -> None:
    """The other rows of the key stay."""
    table = Table("tab", [row(1, "a"), row(1, "b")], "bag")
    assert table.delete_object(row(1, "a")) == [row(1, "a")]
    assert table.read(1) == [row(1, "b")]
    assert table.delete_object(row(1, "b")) == [row(1, "b")]
    assert table.read(1) == table.delete(1) == []


@pytest.mark.parametrize("kind", TYPES)
def test_clear(kind: TableType) -> None:
    """All rows go, in their order, and can come back."""
    table = Table("tab", [row(1), row(2)], kind)
    assert table.clear() == [row(1), row(2)]
    assert len(table) == 0
    assert table.read(1) == table.rows() == table.clear() == []
    assert table.write(row(1)) == []
    assert table.read(1) == [row(1)]


@pytest.mark.parametrize("kind", everything_but("ordered_set"))
def test_rows_in_the_order_of_their_first_write(kind: TableType) -> None:
    """Writing a row again leaves it where it is; one that was deleted comes last again."""
    table = Table("tab", [row(1), row(2), row(3)], kind)
    table.write(row(1))
    assert table.rows() == [row(1), row(2), row(3)]
    table.delete(2)
    table.write(row(2))
    assert table.rows() == [row(1), row(3), row(2)]


def test_rows_in_the_order_of_their_keys() -> None:
    """An ordered set has its rows in term order, whatever is written or deleted in between."""
    table = Table("tab", [row(3), row(Atom("a")), row(1)], "ordered_set")
    assert table.rows() == [row(1), row(3), row(Atom("a"))]
    table.write(row(2))
    table.delete(1)
    assert table.rows() == [row(2), row(3), row(Atom("a"))]
    table.write(row(3, "again"))
    table.write(row(-1.5))
    assert table.rows() == [row(-1.5), row(2), row(3, "again"), row(Atom("a"))]
    table.delete_object(row(2))
    table.write(row(b""))
    assert table.clear() == [row(-1.5), row(3, "again"), row(Atom("a")), row(b"")]


@pytest.mark.parametrize("kind", TYPES)
def test_rows_is_a_copy(kind: TableType) -> None:
    """Who walks through the rows may change the table on the way."""
    table = Table("tab", [row(1), row(2), row(3)], kind)
    for _, key, _ in table.rows():
        table.delete(key)
    assert len(table) == 0


@pytest.mark.parametrize("kind", everything_but("ordered_set"))
def test_keys_that_only_python_takes_for_equal(kind: TableType) -> None:
    """All the keys live side by side, each with its own row."""
    table = Table("tab", [row(key, number) for number, key in enumerate(KEYS)], kind)
    assert [table.read(key)[0][2] for key in KEYS] == list(range(len(KEYS)))


def test_equal_keys_of_an_ordered_set() -> None:
    """`1` and `1.0` are one key there, also inside of others; `true` is not."""
    table = Table("tab", [row(key, number) for number, key in enumerate(KEYS)], "ordered_set")
    assert len(table) == len(KEYS) - 2
    assert table.read(1) == table.read(1.0) == [row(1.0, 1)]
    assert repr(table.write(row(1, 0))) == repr([row(1.0, 1)])
    assert repr(table.rows()[0]) == repr(row(1, 0))
    assert table.delete((1,)) == [row((1.0,), 6)]


@pytest.mark.parametrize("kind", TYPES)
def test_maps_as_keys(kind: TableType) -> None:
    """The order of their pairs, and how Python holds them, tells no maps apart."""
    table = Table("tab", [row({1: 2, 3: 4}, "a")], kind)
    assert table.read(Map([(3, 4), (1, 2)])) == [row({1: 2, 3: 4}, "a")]
    assert table.delete({3: 4, 1: 2}) == [row({1: 2, 3: 4}, "a")]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_delete_of_one_key_leaves_the_others(key: Term) -> None:
    """A delete meets exactly the key that it names."""
    table = Table("tab", [row(k, repr(k)) for k in KEYS])
    assert [repr(old) for old in table.delete(key)] == [repr(row(key, repr(key)))]
    assert [r[2] for r in table.rows()] == [repr(k) for k in KEYS if k is not key]


@pytest.mark.parametrize("kind", TYPES)
def test_no_term(kind: TableType) -> None:
    """A key that is no term is refused, and nothing changes."""
    table = Table("tab", type=kind)
    for call in (table.read, table.delete, lambda key: table.write(row(key))):
        with pytest.raises(EncodeError):
            call(object())
    assert len(table) == 0


# --- select ---


def values_where(key: Any, *guards: Term) -> Term:
    """The spec that gives the values of the rows with a key."""
    return [((TAB, key, Atom("$2")), list(guards), [Atom("$2")])]


@pytest.mark.parametrize("kind", TYPES)
def test_select(kind: TableType) -> None:
    """A spec, compiled or not, gives the results of the rows that match, in the rows' order."""
    table = Table("tab", [row(key, key * 10) for key in range(5)], kind)
    spec = values_where(Atom("$1"), (Atom(">"), Atom("$1"), 2))
    assert table.select(spec) == table.select(MatchSpec(spec)) == [30, 40]
    assert table.select([(Atom("_"), [], [Atom("$_")])]) == table.rows()
    assert table.select([]) == []


@pytest.mark.parametrize("kind", TYPES)
def test_select_by_key(kind: TableType) -> None:
    """Of several clauses each row gives one result, and keys that are not there give none."""
    table = Table("tab", [row(key, key * 10) for key in range(5)], kind)
    assert table.select(values_where(3)) == [30]
    assert table.select(values_where(7)) == []
    clauses = [clause for key in (3, 9, 1, 3) for clause in values_where(key)]
    expected = [10, 30] if kind == "ordered_set" else [30, 10]
    assert table.select(clauses) == expected


class Watched(MatchSpec):
    """Remembers the rows that it ran over."""

    seen: list[Row]

    def run(self, rows: Iterable[Term], context: Context = NO_CONTEXT) -> list[Term]:
        """Run, and remember."""
        self.seen = list(rows)
        return super().run(self.seen, context)


@pytest.mark.parametrize("kind", TYPES)
def test_select_by_key_looks_at_that_key_only(kind: TableType) -> None:
    """Other rows are not looked at."""
    table = Table("tab", [row(1, 10), row(2, 20)], kind)
    spec = Watched(values_where(2))
    assert table.select(spec) == [20]
    assert spec.seen == [row(2, 20)]


def test_select_in_an_ordered_set_by_a_key_of_another_type() -> None:
    """`1.0` finds the row of `1`, which its head then does not match."""
    table = Table("tab", [row(1, "int")], "ordered_set")
    assert table.read(1.0) == [row(1, "int")]
    assert table.select(values_where(1.0)) == []
    assert table.select(values_where(Atom("$1"), (Atom("=="), Atom("$1"), 1.0))) == ["int"]


def test_select_in_order() -> None:
    """An ordered set gives its results in the order of the keys."""
    table = Table("tab", [row(key, key) for key in (3, Atom("a"), 1, b"", 2.5)], "ordered_set")
    assert table.select(values_where(Atom("_"))) == [1, 2.5, 3, Atom("a"), b""]


def test_select_from_a_bag_by_key() -> None:
    """All rows of the key."""
    table = Table("tab", [row(1, "a"), row(2, "b"), row(1, "c")], "bag")
    assert table.select(values_where(1)) == ["a", "c"]


@pytest.mark.parametrize("kind", TYPES)
def test_map_as_key_in_a_head(kind: TableType) -> None:
    """A larger map matches one that is the key, too."""
    table = Table("tab", [row({1: 2}, "one"), row({1: 2, 3: 4}, "two")], kind)
    assert sorted(table.select(values_where({1: 2}))) == ["one", "two"]
    assert table.select(values_where({3: 4})) == ["two"]
    assert sorted(table.select(values_where({1: Atom("_")}))) == ["one", "two"]


def test_select_context() -> None:
    """The node and the process that the spec speaks of."""
    pid = Pid(Atom("py@h"), 1, 0, 1)
    spec: Term = [(Atom("_"), [], [[(Atom("node"),), (Atom("self"),)]])]
    table = Table("tab", [row(1)])
    assert table.select(spec, Context(pid.node, pid)) == [[pid.node, pid]]


def test_invalid_spec() -> None:
    """It is refused, even by an empty table."""
    with pytest.raises(MatchSpecError, match="clause 1, body"):
        Table("tab").select([(Atom("_"), [], [])])


# --- against a model ---

some_keys = st.sampled_from([*KEYS, 2, Atom("a"), b"a"])
some_rows = st.builds(row, some_keys, st.sampled_from([0, 0.0, False, b""]))
steps = st.one_of(
    st.tuples(st.just("write"), some_rows),
    st.tuples(st.just("delete"), some_keys),
    st.tuples(st.just("delete_object"), some_rows),
    st.tuples(st.just("clear"), st.none()),
)


def model_step(kind: TableType, rows: list[Row], step: str, what: Any) -> list[Row]:
    """The rows that are left when a plain list does what a table has to."""
    key = order_key if kind == "ordered_set" else exact_key
    match step:
        case "write" if kind == "bag":
            return rows if exact_key(what) in map(exact_key, rows) else [*rows, what]
        case "write":
            return [*(old for old in rows if key(old[1]) != key(what[1])), what]
        case "delete":
            return [old for old in rows if key(old[1]) != key(what)]
        case "delete_object":
            return [old for old in rows if exact_key(old) != exact_key(what)]
    return []


@given(kind=st.sampled_from(TYPES), todo=st.lists(steps, max_size=30), key=some_keys)
def test_like_a_list(kind: TableType, todo: list[tuple[str, Any]], key: Term) -> None:
    """After any steps the table has the rows of a plain list, by key and in order."""
    table, model = Table("tab", type=kind), list[Row]()
    for step, what in todo:
        method = getattr(table, step)
        gone = method() if step == "clear" else method(what)
        left = model_step(kind, model, step, what)
        if step != "write":
            assert len(gone) == len(model) - len(left)
        model = left
        assert len(table) == len(model)
    assert sorted(map(exact_key, table.rows())) == sorted(map(exact_key, model))
    assert {exact_key(found) for found in table.read(key)} == {
        exact_key(found) for found in model if table._key(found[1]) == table._key(key)
    }
    if kind == "ordered_set":
        keys = [order_key(found[1]) for found in table.rows()]
        assert keys == sorted(keys)


# --- cost ---


def seconds(kind: TableType, count: int) -> float:
    """What it takes to write, read, select by key and delete so many rows, in turns."""
    table = Table("tab", [row(key) for key in range(count)], kind)
    spec = MatchSpec(values_where(count // 2))
    started = perf_counter()
    for key in range(count, 2 * count):
        table.write(row(-key))
        table.read(key)
        table.select(spec)
        table.delete_object(row(key - count))
        table.delete(-key)
    return perf_counter() - started


@pytest.mark.parametrize("kind", TYPES)
def test_cost_of_a_row_does_not_grow(kind: TableType) -> None:
    """Reads that come between writes cost the same in a table that is 16 times as large."""
    small = min(seconds(kind, 500) for _ in range(3)) / 500
    large = min(seconds(kind, 8000) for _ in range(3)) / 8000
    assert large < 5 * small
