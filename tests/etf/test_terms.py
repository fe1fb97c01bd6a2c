"""Tests of `etf.terms`: the types as Python objects."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

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
)

A = Atom("a")
VALUES = [
    Pid(A, 1, 2, 3),
    Port(A, 1, 2),
    Reference(A, 1, (2,)),
    Export(A, A, 0),
    Fun(b"p"),
    BitString(b"\x80", 1),
]
CONTAINERS = [ImproperList([1], 2), NativeRecord(A, A, {}), Map([([], 1)])]


def test_atom_is_shown_as_one() -> None:
    """It is equal to the `str` of the same text, also as a key, but its `repr` tells them apart."""
    keyed: dict[str, int] = {A: 1}
    assert keyed["a"] == 1
    assert repr((A, "a")) == "(Atom('a'), 'a')"


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_is_a_key_and_cannot_be_changed(value: Any) -> None:
    """A dict finds an equal one, so none of its fields may change."""
    names = [field.name for field in fields(value)]
    equal = type(value)(*(getattr(value, name) for name in names))
    assert {value: 1}[equal] == 1
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


@pytest.mark.parametrize("term", CONTAINERS, ids=lambda term: type(term).__name__)
def test_container_is_not_hashable(term: Any) -> None:
    """It can be changed, like a list and a dict."""
    with pytest.raises(TypeError, match=f"unhashable type: '{type(term).__name__}'"):
        hash(term)


@pytest.mark.parametrize("term", [A, *VALUES, *CONTAINERS], ids=lambda term: type(term).__name__)
def test_terms_have_no_dict(term: Any) -> None:
    """A node may hold millions of them, so each is as small as Python allows."""
    assert not hasattr(term, "__dict__")


def test_map_gives_its_pairs() -> None:
    """In their order, and as many as its length says."""
    pairs = [(1, "a"), (1.0, "b")]
    assert (list(Map(pairs)), len(Map(pairs))) == (pairs, 2)


@pytest.mark.parametrize("term", [A, *VALUES, *CONTAINERS], ids=lambda term: type(term).__name__)
def test_copied_or_pickled_term_is_equal(term: Any) -> None:
    """A copy of a term has its type, and is equal to it."""
    pickled = [pickle.dumps(term, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for same in (copy.copy(term), copy.deepcopy(term), *map(pickle.loads, pickled)):
        assert (type(same), same) == (type(term), term)
