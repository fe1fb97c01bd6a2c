"""Erlang's term order, as Python keys.

A key is a flat tuple: the term written out in such a way that the first place in which two keys
differ decides as Erlang would. So keys are compared and hashed without recursion, however deep the
terms are, and their loop holds its own stack, as those of `encode` and `decode` do.

Source: https://www.erlang.org/doc/system/expressions.html#term-comparisons
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Final, TypeAlias

from pybeethoven.errors import DecodeError, EncodeError
from pybeethoven.etf.decoder import decode_term
from pybeethoven.etf.encoder import MAX_DEPTH, encode
from pybeethoven.etf.maps import make_map
from pybeethoven.etf.terms import (
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
)

Key: TypeAlias = tuple[Any, ...]
"""What stands for a term; compare and hash it, but don't look inside."""

# number < atom < reference < fun < port < pid < tuple < native record < map < nil < list
# < bit string
_KINDS: Final = sorted(hash(f"kind {number}") for number in range(12))
"""Python hashes strings with a secret of the process. So no peer can tell the hashes of keys that
begin with these, and choose keys which are in each other's way in a dict."""
NUMBER, ATOM, REFERENCE, FUN, PORT, PID, TUPLE, RECORD, MAP, NIL, CONS, BITS = _KINDS

_HASHED_AS_THEMSELVES: Final = range(sys.hash_info.modulus)
"""The integers that share their hash with no other of them."""


def order_key(term: Term) -> Key:
    """A key with `order_key(a) < order_key(b)` where Erlang has `A < B`, and equal if `A == B`.

    Integers and floats are compared by their value, whatever their size, so `1` and `1.0` are
    equal, as are `Map` and `dict` with the same pairs, and a `str` and its UTF-8 bytes.

    Raises `EncodeError` for a value that has no external form, or one deeper than `MAX_COPIES`.
    """
    kind = type(term)
    if kind is Atom:
        return ATOM, term
    if kind is int and term in _HASHED_AS_THEMSELVES:
        return NUMBER, term
    if kind is bytes:
        return BITS, term, 8
    return _key(term, exact=False)


def exact_key(term: Term) -> Key:
    """A key that is equal to another's where Erlang has `A =:= B`; `1` and `1.0` differ.

    So do `0.0` and `-0.0`, which are the same before OTP 27. Keys are ordered as maps order their
    keys when they are compared: like `order_key`, but all integers come before all floats.

    Raises `EncodeError` for a value that has no external form, or one deeper than `MAX_COPIES`.
    """
    kind = type(term)
    if kind is Atom:
        return ATOM, term
    if kind is int and term in _HASHED_AS_THEMSELVES:
        return NUMBER, 0, term
    if kind is bytes:
        return BITS, term, 8
    return _key(term, exact=True)


def as_map(pairs: Iterable[tuple[Term, Term]]) -> dict[Term, Term] | Map:
    """A map of these pairs: a `dict` where Python can hold it as one; of equal keys the last wins.

    Raises `EncodeError` for a key that has no external form.
    """
    unique = {exact_key(key): (key, value) for key, value in pairs}.values()
    return make_map([key for key, _ in unique], [value for _, value in unique])


MAX_COPIES: Final = 16
"""How deep funs can be in funs, or in keys of maps of several pairs, and these in such keys."""


class _Tokens(list[Any]):
    """A key in the making; `exact` says which of the two it is just now."""

    exact: bool
    copied = 0
    """In how many containers we are whose contents are copied before they are written."""

    def enter(self) -> None:
        """Enter one: those inside each other copy the same again and again."""
        self.copied += 1
        if self.copied > MAX_COPIES:
            raise EncodeError(f"funs or keys of maps nested deeper than {MAX_COPIES} levels")


_Writer: TypeAlias = Callable[[_Tokens, Any], Iterable[Term] | None]


def _key(term: Term, *, exact: bool) -> Key:
    tokens = _Tokens()
    tokens.exact = exact
    stack: list[Iterator[Term]] = []
    terms: Iterator[Term] = iter((term,))
    while True:
        for term in terms:
            writer = _WRITERS.get(type(term)) or _writer_of_base(term)
            inner = writer(tokens, term)
            if inner is not None:
                if len(stack) >= MAX_DEPTH:
                    raise EncodeError(f"nested deeper than {MAX_DEPTH} levels")
                stack.append(terms)
                terms = iter(inner)
                break
        else:
            if not stack:
                return tuple(tokens)
            terms = stack.pop()


def _writer_of_base(term: Term) -> _Writer:
    for base in type(term).__mro__:
        if base in _WRITERS:
            return _WRITERS[base]
    return _no_term


def _no_term(_: _Tokens, term: Term) -> None:
    encode(term)  # raises what tells why
    raise EncodeError(f"a {type(term).__qualname__} has no place in the term order")


# --- terms that hold no others ---


def _integer(tokens: _Tokens, term: int) -> None:
    tokens += (NUMBER, 0, term) if tokens.exact else (NUMBER, term)
    _mix(tokens, term)


def _float(tokens: _Tokens, term: float) -> None:
    if not math.isfinite(term):
        _no_term(tokens, term)
    if tokens.exact:
        tokens += (NUMBER, 1, term, str(term))  # as text, 0.0 and -0.0 differ
    else:
        tokens += (NUMBER, term)
        _mix(tokens, int(term) if term.is_integer() else term)


def _mix(tokens: _Tokens, number: int | float) -> None:
    """Behind a number that shares its hash with others, write what does not: equal for equal ones,
    and hashed by Python with a secret."""
    if isinstance(number, float):
        tokens.append(str(number))
    elif number not in _HASHED_AS_THEMSELVES:
        tokens.append(number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _atom(tokens: _Tokens, term: Atom) -> None:
    tokens += (ATOM, term)


def _bool(tokens: _Tokens, term: bool) -> None:
    tokens += (ATOM, "true" if term else "false")


def _none(tokens: _Tokens, _: None) -> None:
    tokens += (ATOM, "nil")


def _binary(tokens: _Tokens, term: bytes | bytearray | memoryview) -> None:
    tokens += (BITS, bytes(term), 8)


def _text(tokens: _Tokens, term: str) -> None:
    try:
        _binary(tokens, term.encode())
    except UnicodeEncodeError:
        _no_term(tokens, term)


def _bit_string(tokens: _Tokens, term: BitString) -> None:
    # The bits behind the last have to be zero, so that the bytes decide as the bits do.
    last = term.data[-1] & 0xFF00 >> term.bits & 0xFF
    tokens += (BITS, term.data[:-1] + bytes((last,)), term.bits)


def _pid(tokens: _Tokens, term: Pid) -> None:
    tokens += (PID, term.serial, term.id, term.node, term.creation)


def _port(tokens: _Tokens, term: Port) -> None:
    tokens += (PORT, term.node, term.creation, term.id)


def _reference(tokens: _Tokens, term: Reference) -> None:
    # The last word is the highest one.
    value = sum(word << 32 * place for place, word in enumerate(term.ids))
    tokens += (REFERENCE, term.node, term.creation, value)
    _mix(tokens, value)


def _export(tokens: _Tokens, term: Export) -> None:
    tokens += (FUN, 1, term.module, term.function, term.arity)


# --- containers ---


def _tuple(tokens: _Tokens, term: tuple[Term, ...]) -> Iterable[Term]:
    tokens += (TUPLE, len(term))
    return term


def _record(tokens: _Tokens, term: NativeRecord) -> Iterator[Term]:
    if not isinstance(term.fields, dict):
        _no_term(tokens, term)
    tokens.append(RECORD)
    yield term.module
    yield term.name
    tokens += (term.exported, len(term.fields))
    yield from term.fields
    yield from term.fields.values()


def _list(tokens: _Tokens, term: list[Term]) -> Iterator[Term]:
    for element in term:
        tokens.append(CONS)
        yield element
    tokens.append(NIL)


def _improper_list(tokens: _Tokens, term: ImproperList) -> Iterator[Term]:
    for element in term.elements:
        tokens.append(CONS)
        yield element
    yield term.tail


def _dict(tokens: _Tokens, term: dict[Term, Term]) -> Iterator[Term]:
    return _pairs(tokens, list(term.items()))


def _map(tokens: _Tokens, term: Map) -> Iterator[Term]:
    return _pairs(tokens, term.pairs)


def _pairs(tokens: _Tokens, pairs: list[tuple[Term, Term]]) -> Iterator[Term]:
    """The size, then the sorted keys, then their values; keys are told apart exactly."""
    tokens += (MAP, len(pairs))
    start, exact = len(tokens), tokens.exact
    tokens.exact = True
    if len(pairs) == 1:  # there is nothing to sort
        ((key, value),) = pairs
        yield key
        tokens.exact = exact
        yield value
        return
    tokens.enter()
    keyed = []
    for key, value in pairs:
        yield key
        # Whoever asks for the next term has written the key.
        keyed.append((tuple(tokens[start:]), value))
        del tokens[start:]
    tokens.exact = exact
    tokens.copied -= 1
    keyed.sort(key=itemgetter(0))
    for written, _ in keyed:
        tokens += written
    for _, value in keyed:
        yield value


# NEW_FUN_EXT: 112 Size:32 Arity:8 Uniq:128 Index:32 NumFree:32
#              Module OldIndex OldUniq Pid FreeVars
_fun_head = struct.Struct(">xIB16sII").unpack_from


def _fun(tokens: _Tokens, term: Fun) -> Iterator[Term]:
    tokens.enter()
    terms, place = [], 30
    try:
        _, arity, unique, index, free = _fun_head(term.data)
        for _ in range(4 + free):
            value, place = decode_term(term.data, place, max_depth=MAX_DEPTH)
            terms.append(value)
    except (DecodeError, TypeError, struct.error) as error:  # the decoder passes over most of it
        raise EncodeError(f"a fun that holds what is no term: {error}") from None
    module, old_index, old_unique, _, *variables = terms
    if not type(old_index) is type(old_unique) is int:
        raise EncodeError("a fun whose old index or old unique value is no integer")
    tokens += (FUN, 0)
    yield module
    tokens += (index, old_unique, free)
    yield from variables
    tokens.copied -= 1
    # Two funs that are equal so far have the same order, but need not be the same.
    if tokens.exact:
        tokens += (old_index, arity, unique)


_WRITERS: dict[type, _Writer] = {
    Atom: _atom,
    bool: _bool,
    type(None): _none,
    int: _integer,
    float: _float,
    str: _text,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _binary,
    tuple: _tuple,
    list: _list,
    dict: _dict,
    Map: _map,
    NativeRecord: _record,
    ImproperList: _improper_list,
    BitString: _bit_string,
    Pid: _pid,
    Port: _port,
    Reference: _reference,
    Export: _export,
    Fun: _fun,
}
