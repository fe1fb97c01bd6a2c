"""Funs that no BEAM makes, and keys of tables that are deep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pybeethoven.errors import DecodeError, EncodeError
from pybeethoven.etf import Fun, Map, Term, decode, encode
from pybeethoven.etf.order import MAX_COPIES, exact_key, order_key

SMALL, BIG = b"a\1", b"n\x09\0" + bytes(8) + b"\1"
PID = b"Xw\x03a@b" + bytes(12)


def fun(
    module: bytes = b"w\1m",
    index: bytes = SMALL,
    unique: bytes = SMALL,
    pid: bytes = PID,
    held: bytes = b"",
) -> Fun:
    """A fun that has these terms, the last a free variable if there is one."""
    free = bytes((0, 0, 0, bool(held)))
    data = bytes(21) + free + module + index + unique + pid + held
    return Fun(b"p" + (len(data) + 4).to_bytes(4, "big") + data)


ODD = {
    "module": fun(module=SMALL),
    "index": fun(index=b"w\1a"),
    "unique": fun(unique=b"w\1a"),
    "list": fun(unique=b"j"),
    "big": fun(unique=BIG),
    "true": fun(unique=b"w\4true"),
    "pid": fun(pid=SMALL),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_fun_is_no_term(name: str) -> None:
    """What it is compared by is of one type in all funs; nor is one inside another a term."""
    for odd in (ODD[name], fun(held=ODD[name].data)):
        with pytest.raises(DecodeError, match="a fun with tag"):
            decode(encode(odd))


def test_odd_fun_made_by_hand_has_no_place_in_the_order() -> None:
    """So no table has it for a key."""
    short, text = Fun(b"p"), Fun("p" * 40)  # type: ignore[arg-type]
    for odd in (*[ODD[name] for name in ("index", "unique", "list", "true")], short, text):
        for key in (order_key, exact_key):
            with pytest.raises(EncodeError, match="a fun"):
                key(odd)


def funs_in_funs(depth: int, term: Term) -> Term:
    """A fun that holds one that holds one, and so on."""
    for _ in range(depth):
        term = fun(held=encode(term)[1:])
    return term


def maps_in_keys(depth: int, term: Term) -> Term:
    """Maps as keys of maps, each with another key."""
    for _ in range(depth):
        term = Map([(term, 1), (2, 3)])
    return term


@pytest.mark.parametrize("nested", [funs_in_funs, maps_in_keys])
def test_deep_key_is_refused(nested: Callable[[int, Term], Term]) -> None:
    """Rather than copied at each level."""
    for key in (order_key, exact_key):
        assert key(nested(MAX_COPIES, 1)) != key(nested(MAX_COPIES, 2))
        with pytest.raises(EncodeError, match="funs or keys of maps"):
            key(nested(MAX_COPIES + 1, 1))
        many = (nested(MAX_COPIES, 1), nested(MAX_COPIES, 2))
        assert key(many) == key(many)
