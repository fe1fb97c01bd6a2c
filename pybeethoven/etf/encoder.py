"""Terms to bytes: a table from type to function, and one loop that keeps the open containers.

A function in the table appends its term to the buffer; for a container it appends the head only and
gives the terms that follow. The loop holds its own stack, so depth is not bounded by Python's.

The grammar above each function is that of
https://www.erlang.org/doc/apps/erts/erl_ext_dist.html, numbers being widths in bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, NoReturn, TypeAlias

from pybeethoven.errors import EncodeError
from pybeethoven.etf.terms import (
    ATOM_TYPES,
    MAX_ATOM_CHARACTERS,
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

# A BEAM sets no limit, but a term that contains itself has to end somewhere.
MAX_DEPTH = 10_000

_Writer: TypeAlias = Callable[[bytearray, Any], Iterable[Term] | None]

_u8_u16 = struct.Struct(">BH").pack
_u8_u32 = struct.Struct(">BI").pack
_u8_i32 = struct.Struct(">Bi").pack
_u8_f64 = struct.Struct(">Bd").pack
_u32_u32_u32 = struct.Struct(">III").pack
_words = [struct.Struct(f">{count}I").pack for count in range(7)]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A term in its external form, without the version byte: encoding it once more costs little."""

    data: bytes


def encode(term: Term) -> bytes:
    """Encode `term` as an external term, its version byte 131 included.

    A `str` becomes a UTF-8 binary; `True`, `False` and `None` the atoms `true`, `false` and `nil`.
    Of a subclass its base is encoded: an `IntEnum` as an integer, a `NamedTuple` as a tuple.

    Raises `EncodeError`, and nothing else, for a value that has no external form.
    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
    """
    buffer = bytearray(b"\x83")
    encode_into(buffer, term)
    return bytes(buffer)


def encode_into(buffer: bytearray, term: Term) -> None:
    """Append `term` to `buffer`, without a version byte.

    Raises `EncodeError`, and nothing else, for a value that has no external form; `buffer` is then
    as it was.
    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
    """
    start = len(buffer)
    try:
        _write(buffer, term)
    except BaseException:
        del buffer[start:]
        raise


def _write(buffer: bytearray, term: Term) -> None:
    stack: list[Iterator[Term]] = []
    terms: Iterator[Term] = iter((term,))
    while True:
        for term in terms:
            kind: Any = type(term)
            # The type that most terms are made of is encoded here, without a call.
            if kind is Atom and (data := _atoms.get(term)):
                buffer += data
                continue
            writer = _WRITERS.get(kind) or _writer_of_base(kind)
            inner = writer(buffer, term)
            if inner is not None:
                if len(stack) >= MAX_DEPTH:
                    raise EncodeError(
                        f"nested deeper than {MAX_DEPTH} levels, or a term that contains itself"
                    )
                stack.append(terms)
                terms = iter(inner)
                break
        else:
            if not stack:
                return
            terms = stack.pop()


@lru_cache(maxsize=256)
def _writer_of_base(kind: type) -> _Writer:
    for base in kind.__mro__:
        if base in _WRITERS:
            return _WRITERS[base]
    raise EncodeError(
        f"a {kind.__qualname__} has no external form; send it as a tuple, list, dict, "
        "str (a binary), bytes, Atom, int or float"
    )


def _out_of_range(what: str, fields: str) -> NoReturn:
    raise EncodeError(f"a {what} whose fields are out of range: {fields}") from None


def _head(tag: int, length: int) -> bytes:
    try:
        return _u8_u32(tag, length)
    except struct.error:
        raise EncodeError(f"{length} bytes or elements, where less than 2**32 can be") from None


# --- atoms ---

# Bounded, since a program may send on what it was sent: it is emptied when full.
_MAX_ATOMS = 4096
_atoms: dict[Atom, bytes] = {}


def _atom(buffer: bytearray, term: Atom) -> None:
    buffer += _new_atom(term)


def _new_atom(term: str) -> bytes:
    data = _atom_bytes(term)
    if type(term) is Atom:
        if len(_atoms) >= _MAX_ATOMS:
            _atoms.clear()
        _atoms[term] = data
    return data


# SMALL_ATOM_UTF8_EXT: 119 Len:8 Utf8      ATOM_UTF8_EXT: 118 Len:16 Utf8
def _atom_bytes(text: str) -> bytes:
    if len(text) > MAX_ATOM_CHARACTERS:
        raise EncodeError(f"an atom of {len(text)} characters, where 255 are allowed")
    data = _utf8(text)
    if len(data) < 256:
        return bytes((119, len(data))) + data
    return _u8_u16(118, len(data)) + data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"a {type(text).__name__} with a lone surrogate at index {error.start}, which UTF-8 "
            "does not have; send bytes instead"
        ) from None


def _name(buffer: bytearray, name: Atom, what: str) -> None:
    """An atom as a field of another term."""
    if not isinstance(name, str):
        raise EncodeError(f"a {what} that is a {type(name).__name__}; it has to be an Atom")
    buffer += _atoms.get(name) or _new_atom(name)


def _bool(buffer: bytearray, term: bool) -> None:
    buffer += b"w\x04true" if term else b"w\x05false"


def _none(buffer: bytearray, term: None) -> None:
    buffer += b"w\x03nil"


# --- numbers ---

_SMALL_INTEGERS = [bytes((97, value)) for value in range(256)]


# SMALL_INTEGER_EXT: 97 Int:8      INTEGER_EXT: 98 Int:32/signed
def _integer(buffer: bytearray, term: int) -> None:
    if 0 <= term <= 255:
        buffer += _SMALL_INTEGERS[term]
    elif -0x80000000 <= term <= 0x7FFFFFFF:
        buffer += _u8_i32(98, term)
    else:
        _big(buffer, term)


# SMALL_BIG_EXT: 110 n:8 Sign:8 Digits:n/bytes      LARGE_BIG_EXT: 111 n:32 Sign:8 Digits:n/bytes
def _big(buffer: bytearray, term: int) -> None:
    length = (term.bit_length() + 7) // 8
    buffer += bytes((110, length)) if length < 256 else _head(111, length)
    buffer.append(term < 0)
    buffer += abs(term).to_bytes(length, "little")


# NEW_FLOAT_EXT: 70 IEEE:64/float
def _float(buffer: bytearray, term: float) -> None:
    if not math.isfinite(term):
        raise EncodeError("nan and the infinities are no Erlang floats; send an atom instead")
    buffer += _u8_f64(70, term)


# --- bytes ---


# BINARY_EXT: 109 Len:32 Data
def _binary(buffer: bytearray, term: bytes | bytearray) -> None:
    buffer += _head(109, len(term))
    buffer += term


def _text(buffer: bytearray, term: str) -> None:
    _binary(buffer, _utf8(term))


def _memoryview(buffer: bytearray, term: memoryview) -> None:
    try:
        _binary(buffer, term.tobytes())
    except ValueError as error:
        raise EncodeError(f"a memoryview that cannot be read: {error}") from None


# BIT_BINARY_EXT: 77 Len:32 Bits:8 Data
def _bit_string(buffer: bytearray, term: BitString) -> None:
    if not isinstance(term.data, bytes) or not term.data:
        raise EncodeError("a BitString has at least one byte of `data`")
    if not isinstance(term.bits, int) or not 1 <= term.bits <= 7:
        raise EncodeError("a BitString has 1 to 7 `bits` in its last byte; else send bytes")
    buffer += _head(77, len(term.data))
    buffer.append(term.bits)
    buffer += term.data


# --- identifiers ---


# NEW_PID_EXT: 88 Node ID:32 Serial:32 Creation:32
def _pid(buffer: bytearray, term: Pid) -> None:
    buffer.append(88)
    _name(buffer, term.node, "Pid's node")
    try:
        buffer += _u32_u32_u32(term.id, term.serial, term.creation)
    except struct.error:
        _out_of_range("Pid", "id, serial and creation are integers from 0 to 2**32 - 1")


# NEW_PORT_EXT: 89 Node ID:32 Creation:32, 28 bits of the ID used
# V4_PORT_EXT: 120 Node ID:64 Creation:32
def _port(buffer: bytearray, term: Port) -> None:
    fits = isinstance(term.id, int) and term.id < 1 << 28
    buffer.append(89 if fits else 120)
    _name(buffer, term.node, "Port's node")
    try:
        buffer += struct.pack(">II" if fits else ">QI", term.id, term.creation)
    except struct.error:
        _out_of_range("Port", "id is from 0 to 2**64 - 1, creation from 0 to 2**32 - 1")


# NEWER_REFERENCE_EXT: 90 Len:16 Node Creation:32 ID:32/Len
def _reference(buffer: bytearray, term: Reference) -> None:
    if not isinstance(term.ids, tuple) or not 1 <= len(term.ids) <= 5:
        _out_of_range("Reference", "ids is a tuple of 1 to 5 integers")
    buffer += _u8_u16(90, len(term.ids))
    _name(buffer, term.node, "Reference's node")
    try:
        buffer += _words[1 + len(term.ids)](term.creation, *term.ids)
    except struct.error:
        _out_of_range("Reference", "creation and all ids are integers from 0 to 2**32 - 1")


# EXPORT_EXT: 113 Module Function Arity, the last a SMALL_INTEGER_EXT
def _export(buffer: bytearray, term: Export) -> None:
    buffer.append(113)
    _name(buffer, term.module, "Export's module")
    _name(buffer, term.function, "Export's function")
    if not isinstance(term.arity, int) or not 0 <= term.arity <= 255:
        _out_of_range("Export", "arity is an integer from 0 to 255")
    buffer += _SMALL_INTEGERS[term.arity]


# NEW_FUN_EXT: 112 Size:32 ..., Size bytes behind the tag
def _fun(buffer: bytearray, term: Fun) -> None:
    data = term.data
    if not isinstance(data, bytes) or data[:5] != _u8_u32(112, len(data) - 1 & 0xFFFFFFFF):
        raise EncodeError("a Fun whose data is not that of a decoded one; only these can be sent")
    buffer += data


# --- containers ---

_NIL: tuple[list[Term]] = ([],)  # the tail of a list
_SMALL_TUPLES = [bytes((104, arity)) for arity in range(256)]


# SMALL_TUPLE_EXT: 104 Arity:8 Elements      LARGE_TUPLE_EXT: 105 Arity:32 Elements
def _tuple(buffer: bytearray, term: tuple[Term, ...]) -> Iterable[Term]:
    length = len(term)
    buffer += _SMALL_TUPLES[length] if length < 256 else _head(105, length)
    return term


# NIL_EXT: 106      LIST_EXT: 108 Length:32 Elements Tail
def _list(buffer: bytearray, term: list[Term]) -> Iterable[Term] | None:
    if not term:
        buffer.append(106)
        return None
    buffer += _head(108, len(term))
    return chain(term, _NIL)


def _improper_list(buffer: bytearray, term: ImproperList) -> Iterable[Term]:
    if not isinstance(term.elements, list) or not term.elements:
        raise EncodeError("an ImproperList's elements are a list of at least one")
    buffer += _head(108, len(term.elements))
    return chain(term.elements, (term.tail,))


# Keys of these types that differ in Python differ in Erlang. "a" and b"a", or Atom("nil") and None,
# do not.
_APART = frozenset({Atom, int, float, Pid, Port, Reference})
_APART_OR_BYTES = _APART | {bytes}
_APART_OR_STR = _APART | {str}


# MAP_EXT: 116 Arity:32 Pairs
def _dict(buffer: bytearray, term: dict[Term, Term]) -> Iterable[Term]:
    buffer += _head(116, len(term))
    kinds = set(map(type, term))
    if kinds <= _APART_OR_BYTES or kinds <= _APART_OR_STR:
        return chain.from_iterable(term.items())
    return _checked_pairs(buffer, list(term.items()))


def _map(buffer: bytearray, term: Map) -> Iterable[Term]:
    try:
        pairs = [(key, value) for key, value in term.pairs]
    except (TypeError, ValueError):
        raise EncodeError("a Map whose pairs are not a list of (key, value) tuples") from None
    buffer += _head(116, len(pairs))
    return _checked_pairs(buffer, pairs)


# RECORD_EXT: 67 NumFields:32 Flags:8 Module Name FieldNames Values, 1 of the flags being "exported"
def _record(buffer: bytearray, term: NativeRecord) -> Iterable[Term]:
    if not isinstance(term.fields, dict) or not isinstance(term.exported, bool):
        raise EncodeError("a NativeRecord has a dict of `fields`, and `exported` is a bool")
    names = term.module, term.name, *term.fields
    if not all(isinstance(name, ATOM_TYPES) for name in names):
        raise EncodeError("a NativeRecord's module, name and names of fields are Atoms")
    if len(set(map(encode, term.fields))) != len(term.fields):
        raise EncodeError("a NativeRecord with a field twice, once as True and as Atom('true')")
    buffer += _head(67, len(term.fields))
    buffer.append(term.exported)
    return chain(names, term.fields.values())


def _checked_pairs(buffer: bytearray, pairs: list[tuple[Term, Term]]) -> Iterator[Term]:
    """A BEAM closes the connection on which it gets a map that has a key twice.

    Only keys of one size are compared. So it takes little more than the bytes there are, also where
    keys are maps whose keys are maps: one that is compared at each level is never more than half.
    """
    starts: dict[int, list[int]] = {}
    for key, value in pairs:
        start = len(buffer)
        yield key
        # Whoever asks for the next term has written the key.
        starts.setdefault(len(buffer) - start, []).append(start)
        yield value
    for size, places in starts.items():
        if len(places) > 1 and len(places) > len(
            {bytes(buffer[place : place + size]) for place in places}
        ):
            raise EncodeError(
                "a map with two keys that are the same in Erlang, as are 'a' and b'a', or None and "
                "Atom('nil')"
            )


def _encoded(buffer: bytearray, term: Encoded) -> None:
    buffer += term.data


_WRITERS: dict[type, _Writer] = {
    Encoded: _encoded,
    Atom: _atom,
    bool: _bool,
    type(None): _none,
    int: _integer,
    float: _float,
    str: _text,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _memoryview,
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
