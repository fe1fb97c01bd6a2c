"""What holds for all terms and all bytes, tried with hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybeethoven.errors import DecodeError
from pybeethoven.etf import (
    Atom,
    BitString,
    Export,
    ImproperList,
    Map,
    NativeRecord,
    Pid,
    Port,
    Reference,
    decode,
    decode_term,
    encode,
)

from .test_decoder import ERRORS, FUN, ROWS

words = st.integers(0, 2**32 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=255).map(Atom)
atoms = names.filter(lambda name: name not in ("true", "false", "nil"))
bit_strings = st.builds(
    lambda data, last, bits: BitString(data + bytes((last << 8 - bits & 0xFF,)), bits),
    st.binary(max_size=10),
    st.integers(0, 255),
    st.integers(1, 7),
)
values = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(),
    st.integers(-3, 3),
    st.builds(lambda shift, delta: (1 << shift) + delta, st.integers(0, 2100), st.integers(-1, 1)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0]),
    st.binary(max_size=300),
    atoms,
    bit_strings,
    st.builds(Pid, names, words, words, words),
    st.builds(Port, names, st.integers(0, 2**64 - 1), words),
    st.builds(Reference, names, words, st.lists(words, min_size=1, max_size=5).map(tuple)),
    st.builds(Export, names, names, st.integers(0, 255)),
)


def as_map(pairs: list[tuple[Any, Any]]) -> Any:
    """A dict where the keys allow it, and no key twice."""
    pairs = list({exact(key): (key, value) for key, value in pairs}.values())
    try:
        if len(dict(pairs)) == len(pairs):
            return dict(pairs)
    except TypeError:
        pass
    return Map(pairs)


def containers(terms: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(terms, max_size=4)
    return st.one_of(
        some,
        some.map(tuple),
        st.lists(st.tuples(terms, terms), max_size=4).map(as_map),
        st.builds(
            ImproperList,
            st.lists(terms, min_size=1, max_size=3),
            terms.filter(lambda tail: not isinstance(tail, list | ImproperList)),
        ),
        st.builds(
            NativeRecord,
            atoms,
            atoms,
            st.dictionaries(atoms | st.booleans() | st.none(), terms, max_size=3),
            st.booleans(),
        ),
    )


terms = st.recursive(values, containers, max_leaves=12)


def exact(term: Any) -> str:
    """Tells apart what `==` does not: 1, 1.0 and True; 0.0 and -0.0; Atom and str."""
    return repr(term)


@pytest.mark.parametrize(
    "different", [(1, 1.0, True), (0.0, -0.0), (b"a", "a", Atom("a")), ((1,), [1]), ({}, Map([]))]
)
def test_exact(different: tuple[Any, ...]) -> None:
    """The comparator tells apart what it has to."""
    assert len({exact(term) for term in different}) == len(different)


@settings(max_examples=400)
@given(terms)
def test_round_trip(term: Any) -> None:
    """What is encoded and decoded is exactly the same."""
    result = decode(encode(term))
    assert exact(result) == exact(term)
    assert encode(result) == encode(term)


@settings(max_examples=50)
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_text(term: Any) -> None:
    """A str comes back as its UTF-8 bytes, in all places."""

    def as_bytes(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return [as_bytes(element) for element in value]
        return {as_bytes(key): as_bytes(element) for key, element in value.items()}

    assert exact(decode(encode(term))) == exact(as_bytes(term))


@settings(max_examples=200)
@given(terms, st.binary(max_size=5), st.binary(max_size=5))
def test_offset(term: Any, before: bytes, after: bytes) -> None:
    """A term in the middle of other bytes is found, and so is its end."""
    data = encode(term)[1:]
    result, end = decode_term(before + data + after, len(before))
    assert exact(result) == exact(term)
    assert end == len(before + data)


@settings(max_examples=200)
@given(terms, st.data())
def test_cut(term: Any, data: st.DataObject) -> None:
    """A term that ends too early is none."""
    whole = encode(term)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        decode(whole[:cut])


def decode_or_refuse(data: bytes) -> None:
    """Any bytes are a term that can be sent on, or a `DecodeError`; nothing else is raised."""
    try:
        term = decode(data)
    except DecodeError:
        return
    assert encode(decode(encode(term))) == encode(term)


tags = [row[0][:1] for row in ROWS.values()]
pieces = st.one_of(
    st.sampled_from([row[0] for row in (*ROWS.values(), *ERRORS.values())]),
    st.sampled_from(tags),
    st.binary(max_size=6),
)


@settings(max_examples=500)
@given(st.binary(max_size=60) | st.lists(pieces, max_size=12).map(b"".join))
def test_random_bytes(data: bytes) -> None:
    """Random bytes, and pieces of terms in random order, raise nothing but `DecodeError`."""
    decode_or_refuse(data)
    decode_or_refuse(b"\x83" + data)
    decode_or_refuse(b"\x83P\0\0\0\x10" + data)


@settings(max_examples=500)
@given(
    terms.map(encode) | st.just(b"\x83" + FUN),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated(data: bytes, changes: list[tuple[int, int]]) -> None:
    """A valid term with some bytes changed raises nothing but `DecodeError`."""
    mutated = bytearray(data)
    for place, byte in changes:
        mutated[place % len(mutated)] = byte
    decode_or_refuse(bytes(mutated))
