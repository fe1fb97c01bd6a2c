"""Erlang's term order: what comes before what, what is equal, and what is the same.

`tests/interop/test_term_order.py` asks a real BEAM.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.errors import EncodeError
from pybeethoven.etf import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    NativeRecord,
    Pid,
    Port,
    Reference,
    Term,
    decode,
    encode,
)
from pybeethoven.etf.order import exact_key, order_key

from .test_golden import GOLDEN
from .test_properties import terms

A, B = Atom("a@h"), Atom("b@h")


class Colour(IntEnum):
    """An integer with a name."""

    RED = 1


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


def fun(module: bytes = b"m", index: int = 1, free: bytes = b"a\x05", unique: bytes = b"u") -> Fun:
    """A fun with one free variable."""
    head = b"\0" + unique * 16 + index.to_bytes(4, "big") + b"\0\0\0\x01"
    pid = encode(Pid(A, 1, 0, 1))[1:]
    data = head + b"w" + bytes((len(module),)) + module + b"a\x07a\x09" + pid + free
    return Fun(b"p" + (len(data) + 4).to_bytes(4, "big") + data)


def record(module: str, name: str, exported: bool = True, **fields: Term) -> NativeRecord:
    """A native record."""
    named = {Atom(field): value for field, value in fields.items()}
    return NativeRecord(Atom(module), Atom(name), named, exported)


ASCENDING: list[Term] = [
    -(10**400), -1.7976931348623157e308, -1, -0.5, 0, 5e-324, 1, 1.5, 2**53, 2**53 + 1,
    9007199254740994.0, 2**53 + 3, 10**22, 1e23, 10**23, 10**400,
    Atom(""), Atom("A"), Atom("a"), Atom("ab"), Atom("b"), False, None, True, Atom("é"),
    Atom("\uffff"), Atom("😀"),
    Reference(A, 1, (9, 9, 0)), Reference(A, 1, (0, 0, 1)), Reference(A, 2, (0,)),
    Reference(B, 0, (0,)),
    fun(b"l"), fun(index=0), fun(), fun(free=b"a\x06"),
    Export(Atom("a"), Atom("b"), 2), Export(Atom("a"), Atom("c"), 1), Export(Atom("b"), A, 0),
    Port(A, 9, 1), Port(A, 0, 2), Port(B, 0, 0),
    Pid(B, 1, 0, 9), Pid(A, 2, 0, 1), Pid(A, 2, 0, 2), Pid(B, 2, 0, 0), Pid(A, 0, 1, 0),
    (), (9,), (1, 2), (1, (2,)), (1, []), (1, [1]), (0, 0, 0),
    record("a", "z", b=1), record("b", "a", False, c=1, d=1), record("b", "a", z=1),
    record("b", "a", a=1, b=1), record("b", "a", a=1, b=2), record("b", "a", a=1, c=0),
    record("b", "a", b=0, a=0), record("b", "b"),
    {}, {2: 0}, Map([({}, 0)]), {1: 1, 2: 1.5}, {1: 1, 2: 2}, {1: 2, 2: 0}, {1: 0, 3: 0},
    {1: 0, 0.5: 0}, {2: 0, Atom("a"): 0}, {0.5: 0, Atom("a"): 0},
    [], ImproperList([1], 2), [1], [1, 2], [1, Atom("a")], [1, []], [2], [[]],
    b"", BitString(b"\0", 1), b"\0", b"\0\0", b"a", b"ab", b"b",
    BitString(b"b\x80", 1), BitString(b"b\x80", 7), b"b\x80", b"b\xff",
    BitString(b"\x80", 1), b"\x80", BitString(b"\xc0", 2),
]  # fmt: skip
"""Each is less than the next in Erlang."""

EQUAL: list[tuple[Term, Term]] = [
    (1, 1.0),
    (2**53, 9007199254740992.0),
    (0.0, -0.0),
    (10**22, 1e22),
    ((1, [2]), (1.0, [2.0])),
    ({Atom("a"): 1}, {Atom("a"): 1.0}),
    (record("m", "r", a=1), record("m", "r", a=1.0)),
    (fun(unique=b"u"), fun(unique=b"v")),
]
"""Equal, but not the same."""

SAME: list[tuple[Term, Term]] = [
    (True, Atom("true")),
    (False, Atom("false")),
    (None, Atom("nil")),
    ("é", "é".encode()),
    (b"a", bytearray(b"a")),
    (b"a", memoryview(b"a")),
    ({1: 2, 3: 4}, {3: 4, 1: 2}),
    ({1: 2}, Map([(1, 2)])),
    (Map([(1, 1), (1.0, 2)]), Map([(1.0, 2), (1, 1)])),
    (Map([([1], {1: 2, 3: 4})]), Map([([1], {3: 4, 1: 2})])),
    (Reference(A, 1, (1,)), Reference(A, 1, (1, 0))),
    (BitString(b"\xff", 1), BitString(b"\x80", 1)),
    (Colour.RED, 1),
    (Point(1, 2), (1, 2)),
    (fun(), fun()),
]
"""The same term in two ways."""


def test_ascending() -> None:
    """All the types, and the neighbours within each."""
    for one, other in pairwise(ASCENDING):
        assert order_key(one) < order_key(other), f"{one!r}, {other!r}"
    keys = [order_key(term) for term in ASCENDING]
    for place, key in enumerate(keys):
        assert all(key < greater for greater in keys[place + 1 :])


def test_all_different() -> None:
    """None of them equals another."""
    for key in (order_key, exact_key):
        assert len({key(term) for term in ASCENDING}) == len(ASCENDING)


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_but_not_the_same(one: Term, other: Term) -> None:
    """`==`, but not `=:=`."""
    assert order_key(one) == order_key(other)
    assert hash(order_key(one)) == hash(order_key(other))
    assert exact_key(one) != exact_key(other)


def text_of(term: Term) -> str:
    """The same text in each process; the `repr` of a memoryview has its address."""
    return "memoryview" if isinstance(term, memoryview) else repr(term)


@pytest.mark.parametrize(("one", "other"), SAME, ids=text_of)
def test_the_same(one: Term, other: Term) -> None:
    """`=:=`, also as a part of another term."""
    for key in (order_key, exact_key):
        for a, b in ((one, other), ((one, [one]), (other, [other]))):
            assert key(a) == key(b)
            assert hash(key(a)) == hash(key(b))


def test_keys_of_maps_are_told_apart_exactly() -> None:
    """A map's keys come integers first, and are equal only if they are the same."""
    ascending: list[Term] = [{1: 9}, {2: 0}, {0.5: 0}, {1.0: 0}]
    for one, other in pairwise(ascending):
        assert order_key(one) < order_key(other)
    assert order_key({(1,): 0}) < order_key({(1.0,): 0})
    assert order_key({Atom("a"): {1: 1}}) == order_key({Atom("a"): {1: 1.0}})
    assert order_key(Map([({1: 1}, 0)])) < order_key(Map([({1: 0.5}, 0)]))


def test_exact_order() -> None:
    """Integers before floats, and -0.0 before 0.0."""
    ascending: list[Term] = [-1, 0, 10**30, -1.5, -0.0, 0.0, 5e-324, 1.0, Atom("a")]
    for one, other in pairwise(ascending):
        assert exact_key(one) < exact_key(other)


def nested(depth: int, kind: str) -> Term:
    """A term of so many levels."""
    term: Term = 1
    for _ in range(depth):
        match kind:
            case "tuple":
                term = (term,)
            case "list":
                term = [term]
            case "value":
                term = {1: term}
            case _:
                term = Map([(term, 1)])
    return term


@pytest.mark.parametrize("kind", ["tuple", "list", "value", "key"])
def test_deep(kind: str) -> None:
    """Terms deeper than Python's stack, and than what `decode` takes, have keys that compare."""
    one, other = nested(1000, kind), nested(1001, kind)
    for key in (order_key, exact_key):
        assert key(one) == key(nested(1000, kind))
        assert hash(key(one)) == hash(key(nested(1000, kind)))
        assert (key(one) < key(other)) != (key(other) < key(one))


@pytest.mark.parametrize(
    "term",
    [object(), float("nan"), float("inf"), {1, 2}, "\ud800", (1, object()), 1j],
    ids=["object", "nan", "infinity", "set", "surrogate", "object in a tuple", "complex"],
)
def test_no_term(term: Any) -> None:
    """What has no external form has no place in the order."""
    for key in (order_key, exact_key):
        with pytest.raises(EncodeError):
            key(term)


def test_term_that_contains_itself() -> None:
    """It is refused; there is no end to it."""
    term: list[Term] = []
    term.append(term)
    with pytest.raises(EncodeError, match="nested deeper"):
        order_key(term)


def test_golden() -> None:
    """The terms that a BEAM wrote: those of other bytes are others, unless they are other forms."""
    golden = [decode(data) for data in GOLDEN.values()]
    keys = [(exact_key(term), encode(term)) for term in golden]
    for (one, written), (other, other_written) in combinations(keys, 2):
        assert (one == other) == (written == other_written)


@given(terms, terms)
def test_exact_is_what_is_written(one: Term, other: Term) -> None:
    """A term read back is the same; terms that are the same are equal."""
    assert exact_key(decode(encode(one))) == exact_key(one)
    assert (exact_key(one) == exact_key(other)) <= (order_key(one) == order_key(other))


@given(st.lists(terms, min_size=2, max_size=5))
def test_any_terms_can_be_sorted(some: list[Term]) -> None:
    """Keys of whatever types can be compared, in both orders alike."""
    for key in (order_key, exact_key):
        keys = sorted(key(term) for term in some)
        for one, other in combinations(keys, 2):
            assert one <= other
            assert (one < other) == (one != other)


def test_what_funs_hold() -> None:
    """It can be as deep as any term; what the decoder has passed over may be none."""
    deep = fun(free=b"l\0\0\0\x01" * 600 + b"j" + b"j" * 600)
    assert order_key(deep) < order_key(fun(index=2))
    for free in (b"C\0\0\0\0\0a\x01a\x02", b"t\0\0\0\x02a\x01ja\x01j"):
        bad = fun(free=free)
        assert decode(encode(bad)) == bad
        with pytest.raises(EncodeError, match="a fun that holds"):
            order_key(bad)
