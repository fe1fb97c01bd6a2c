"""The functions that match specifications can call: Erlang's guard functions.

They are those of OTP 26 and later; OTP 25 lacks `ceil`, `floor`, `is_bitstring`, `is_boolean`,
`is_function/2`, `max`, `min` and `tuple_size`, and has `binary_part` take bit strings. Integers
become the nearest float; a BEAM may miss it by one bit where they have more than 64. Before OTP 29
`is_record` fails where its last argument is an atom: there are no native records that it can name.
`self` and `node/0`, and what need not evaluate all its arguments, is in `match_spec`.

Source: https://www.erlang.org/doc/apps/erts/match_spec.html and
https://www.erlang.org/doc/apps/erts/erlang.html
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

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
)
from pybeethoven.etf.order import exact_key, order_key
from pybeethoven.etf.terms import ATOM_TYPES

Function: TypeAlias = Callable[..., Term]

MAX_BITS: Final = 1 << 22
"""No integer can be longer, as since OTP 27."""

# What is_record takes for a size: an integer that a BEAM of 64 bits need not box.
_SMALL: Final = 1 << 59


class BadArgument(Exception):
    """A function cannot be called with these arguments: Erlang's `badarg` and its like."""


def is_true(term: Term) -> bool:
    """Whether a term is the atom `true`, in either of its forms."""
    return term is True or (term == "true" and isinstance(term, Atom))


def truth(term: Term) -> bool:
    """The boolean that a term is. Raises `BadArgument` when it is none."""
    if isinstance(term, bool):
        return term
    if isinstance(term, Atom) and term in ("true", "false"):
        return term == "true"
    raise BadArgument


def pairs_of(term: Term) -> Iterable[tuple[Term, Term]]:
    """The pairs of a map. Raises `BadArgument` when it is none."""
    if isinstance(term, dict):
        return term.items()
    if isinstance(term, Map):
        return term.pairs
    raise BadArgument


# --- types ---


def _type_test(*types: type) -> Function:
    return lambda term: isinstance(term, types)


def _is_integer(term: Term) -> bool:
    return isinstance(term, int) and not isinstance(term, bool)


def _is_number(term: Term) -> bool:
    return isinstance(term, int | float) and not isinstance(term, bool)


def _is_binary(term: Term) -> bool:
    if isinstance(term, str):
        return not isinstance(term, Atom)
    return isinstance(term, bytes | bytearray | memoryview)


def _is_bitstring(term: Term) -> bool:
    return isinstance(term, BitString) or _is_binary(term)


def _is_boolean(term: Term) -> bool:
    return isinstance(term, bool) or (isinstance(term, Atom) and term in ("true", "false"))


def _is_function_of(term: Term, arity: Term) -> bool:
    if _need(int, arity) < 0:
        raise BadArgument
    if isinstance(term, Fun):
        return bool(term.data[5] == arity)
    return isinstance(term, Export) and term.arity == arity


def _is_record(term: Term, tag: Term, size: Term) -> bool:
    if not isinstance(tag, ATOM_TYPES):
        raise BadArgument
    if isinstance(size, ATOM_TYPES):
        return _is_native_record(term, tag, size)
    if not -_SMALL <= _need(int, size) < _SMALL:
        raise BadArgument
    found = isinstance(term, tuple) and 0 < len(term) == size
    return found and exact_key(term[0]) == exact_key(tag)


def _is_native_record(term: Term, module: Term, name: Term) -> bool:
    found = isinstance(term, NativeRecord)
    return found and exact_key((term.module, term.name)) == exact_key((module, name))


def _need(kind: type, term: Term) -> Any:
    """The term, when it is of that type, a boolean not being an integer."""
    if not isinstance(term, kind) or isinstance(term, bool):
        raise BadArgument
    return term


# --- comparisons ---


def _by_order(compare: Callable[[Any, Any], bool]) -> Function:
    return lambda one, other: compare(order_key(one), order_key(other))


def _by_identity(compare: Callable[[Any, Any], bool]) -> Function:
    return lambda one, other: compare(exact_key(one), exact_key(other))


def _min(one: Term, other: Term) -> Term:
    return one if order_key(one) <= order_key(other) else other


def _max(one: Term, other: Term) -> Term:
    return one if order_key(one) >= order_key(other) else other


# --- numbers ---


def _calculation(calculate: Callable[..., Any], test: Callable[[Term], bool]) -> Function:
    """A function of numbers that `test` takes, whose result is a number that Erlang has."""

    def function(*numbers: Term) -> int | float:
        if not all(map(test, numbers)):
            raise BadArgument
        try:
            result: int | float = calculate(*numbers)
        except (ArithmeticError, ValueError):
            raise BadArgument from None
        if isinstance(result, float):
            if not math.isfinite(result):
                raise BadArgument
        elif result.bit_length() > MAX_BITS:
            raise BadArgument
        return result

    return function


def _divide(one: float, other: float) -> float:
    return float(one) / float(other)


def _quotient(one: int, other: int) -> int:
    quotient = abs(one) // abs(other)
    return quotient if (one < 0) == (other < 0) else -quotient


def _remainder(one: int, other: int) -> int:
    remainder = abs(one) % abs(other)
    return -remainder if one < 0 else remainder


def _shift_left(value: int, places: int) -> int:
    if places < 0:
        return value >> -places
    if value and value.bit_length() + places > MAX_BITS:
        raise OverflowError
    return value << places if value else 0


def _shift_right(value: int, places: int) -> int:
    return _shift_left(value, -places)


def _round(value: float) -> int:
    whole = math.trunc(value)
    return whole + (1 if value > 0 else -1) if abs(value - whole) >= 0.5 else whole


# --- parts of terms ---


def _element(place: Term, term: Term) -> Term:
    elements = _need(tuple, term)
    if not 1 <= _need(int, place) <= len(elements):
        raise BadArgument
    return elements[place - 1]


def _head(term: Term) -> Term:
    elements = term.elements if isinstance(term, ImproperList) else _need(list, term)
    if not elements:
        raise BadArgument
    return elements[0]


def _tail(term: Term) -> Term:
    if isinstance(term, ImproperList):
        rest = term.elements[1:]
        return ImproperList(rest, term.tail) if rest else term.tail
    if not _need(list, term):
        raise BadArgument
    return term[1:]


def _length(term: Term) -> int:
    return len(_need(list, term))


def _tuple_size(term: Term) -> int:
    return len(_need(tuple, term))


def _map_size(term: Term) -> int:
    pairs_of(term)
    return len(term)


def _map_get(key: Term, term: Term) -> Term:
    wanted = exact_key(key)
    for known, value in pairs_of(term):
        if exact_key(known) == wanted:
            return value
    raise BadArgument


def _is_map_key(key: Term, term: Term) -> bool:
    wanted = exact_key(key)
    return any(exact_key(known) == wanted for known, _ in pairs_of(term))


def _bytes(term: Term) -> bytes:
    if not _is_binary(term):
        raise BadArgument
    return term.encode() if isinstance(term, str) else bytes(term)


def _whole_bytes(term: Term) -> bytes:
    return term.data[:-1] if isinstance(term, BitString) else _bytes(term)


def _bit_size(term: Term) -> int:
    return 8 * len(_whole_bytes(term)) + (term.bits if isinstance(term, BitString) else 0)


def _byte_size(term: Term) -> int:
    return len(_whole_bytes(term)) + isinstance(term, BitString)


def _size(term: Term) -> int:
    return len(term) if isinstance(term, tuple) else len(_whole_bytes(term))


def _binary_part(term: Term, start: Term, length: Term) -> bytes:
    data = _bytes(term)
    first, last = sorted((_need(int, start), start + _need(int, length)))
    if not 0 <= first <= last <= len(data):
        raise BadArgument
    return data[first:last]


def _binary_part_of(term: Term, place: Term) -> bytes:
    if len(_need(tuple, place)) != 2:
        raise BadArgument
    return _binary_part(term, *place)


def _node(term: Term) -> Atom:
    if not isinstance(term, Pid | Port | Reference):
        raise BadArgument
    return term.node


FUNCTIONS: Final[dict[tuple[str, int], Function]] = {
    ("is_atom", 1): _type_test(*ATOM_TYPES),
    ("is_binary", 1): _is_binary,
    ("is_bitstring", 1): _is_bitstring,
    ("is_boolean", 1): _is_boolean,
    ("is_float", 1): _type_test(float),
    ("is_function", 1): _type_test(Fun, Export),
    ("is_function", 2): _is_function_of,
    ("is_integer", 1): _is_integer,
    ("is_list", 1): _type_test(list, ImproperList),
    ("is_map", 1): _type_test(dict, Map),
    ("is_map_key", 2): _is_map_key,
    ("is_number", 1): _is_number,
    ("is_pid", 1): _type_test(Pid),
    ("is_port", 1): _type_test(Port),
    ("is_record", 3): _is_record,
    ("is_reference", 1): _type_test(Reference),
    ("is_tuple", 1): _type_test(tuple),
    ("==", 2): _by_order(operator.eq),
    ("/=", 2): _by_order(operator.ne),
    ("<", 2): _by_order(operator.lt),
    ("=<", 2): _by_order(operator.le),
    (">", 2): _by_order(operator.gt),
    (">=", 2): _by_order(operator.ge),
    ("=:=", 2): _by_identity(operator.eq),
    ("=/=", 2): _by_identity(operator.ne),
    ("min", 2): _min,
    ("max", 2): _max,
    ("not", 1): lambda term: not truth(term),
    ("xor", 2): lambda one, other: truth(one) != truth(other),
    ("+", 1): _calculation(operator.pos, _is_number),
    ("-", 1): _calculation(operator.neg, _is_number),
    ("+", 2): _calculation(operator.add, _is_number),
    ("-", 2): _calculation(operator.sub, _is_number),
    ("*", 2): _calculation(operator.mul, _is_number),
    ("/", 2): _calculation(_divide, _is_number),
    ("abs", 1): _calculation(abs, _is_number),
    ("ceil", 1): _calculation(math.ceil, _is_number),
    ("float", 1): _calculation(float, _is_number),
    ("floor", 1): _calculation(math.floor, _is_number),
    ("round", 1): _calculation(_round, _is_number),
    ("trunc", 1): _calculation(math.trunc, _is_number),
    ("div", 2): _calculation(_quotient, _is_integer),
    ("rem", 2): _calculation(_remainder, _is_integer),
    ("band", 2): _calculation(operator.and_, _is_integer),
    ("bor", 2): _calculation(operator.or_, _is_integer),
    ("bxor", 2): _calculation(operator.xor, _is_integer),
    ("bnot", 1): _calculation(operator.invert, _is_integer),
    ("bsl", 2): _calculation(_shift_left, _is_integer),
    ("bsr", 2): _calculation(_shift_right, _is_integer),
    ("binary_part", 2): _binary_part_of,
    ("binary_part", 3): _binary_part,
    ("bit_size", 1): _bit_size,
    ("byte_size", 1): _byte_size,
    ("element", 2): _element,
    ("hd", 1): _head,
    ("length", 1): _length,
    ("map_get", 2): _map_get,
    ("map_size", 1): _map_size,
    ("node", 1): _node,
    ("size", 1): _size,
    ("tl", 1): _tail,
    ("tuple_size", 1): _tuple_size,
}
"""By name and number of arguments. They raise `BadArgument` where Erlang's fail."""
