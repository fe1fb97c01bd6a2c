"""Bytes to the terms that hold no others: a table from tag to function.

A function gets the bytes and the offset of the tag, and gives the value with the offset behind it.
It says what is wrong with a `DecodeError` that lacks the byte, or an `IndexError` or `struct.error`
where the data ends too early; the loop in `decoder` adds the byte.

The grammar above each function is that of
https://www.erlang.org/doc/apps/erts/erl_ext_dist.html, numbers being widths in bits.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import TypeAlias

from pybeethoven.errors import DecodeError
from pybeethoven.etf.terms import (
    MAX_ATOM_CHARACTERS,
    Atom,
    BitString,
    Export,
    Pid,
    Port,
    Reference,
    Term,
)

ValueReader: TypeAlias = Callable[[bytes, int], tuple[Term, int]]

_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_i32 = struct.Struct(">i").unpack_from
_f64 = struct.Struct(">d").unpack_from
_u32_u8 = struct.Struct(">IB").unpack_from
_u32_u32 = struct.Struct(">II").unpack_from
_u64_u32 = struct.Struct(">QI").unpack_from
_u32_u32_u8 = struct.Struct(">IIB").unpack_from
_u32_u32_u32 = struct.Struct(">III").unpack_from
_words = [struct.Struct(f">{count}I").unpack_from for count in range(6)]


def check_length(data: bytes, start: int, length: int) -> None:
    if length > len(data) - start:
        raise IndexError


def _slice(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    check_length(data, start, length)
    end = start + length
    return data[start:end], end


# --- atoms ---

# By their bytes, tag and length included, so that a truncated one is never found. Bounded, since
# peers choose what is in here: it is emptied when full.
MAX_CACHED_ATOMS = 4096
cached_atoms: dict[bytes, Term] = {}

_NOT_ATOMS: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
_AS_ATOMS = {value: Atom(text) for text, value in _NOT_ATOMS.items()}
_ATOM_FORMS = {100: (3, "latin-1"), 115: (2, "latin-1"), 118: (3, "utf-8"), 119: (2, "utf-8")}


def new_atom(data: bytes, pos: int, end: int) -> Term:
    raw, _ = _slice(data, pos, end - pos)
    head, encoding = _ATOM_FORMS[raw[0]]
    try:
        text = raw[head:].decode(encoding)
    except UnicodeDecodeError as error:
        raise DecodeError(f"an atom that is not UTF-8: {error.reason}") from None
    if len(text) > MAX_ATOM_CHARACTERS:
        raise DecodeError(f"an atom of {len(text)} characters, where 255 are allowed")
    if len(cached_atoms) >= MAX_CACHED_ATOMS:
        cached_atoms.clear()
    atom = cached_atoms[raw] = _NOT_ATOMS[text] if text in _NOT_ATOMS else Atom(text)
    return atom


# SMALL_ATOM_EXT: 115 Len:8 Latin1      SMALL_ATOM_UTF8_EXT: 119 Len:8 Utf8
def _small_atom(data: bytes, pos: int) -> tuple[Term, int]:
    end = pos + 2 + data[pos + 1]
    try:
        return cached_atoms[data[pos:end]], end
    except KeyError:
        return new_atom(data, pos, end), end


# ATOM_EXT: 100 Len:16 Latin1      ATOM_UTF8_EXT: 118 Len:16 Utf8
def _atom(data: bytes, pos: int) -> tuple[Term, int]:
    end = pos + 3 + (data[pos + 1] << 8 | data[pos + 2])
    try:
        return cached_atoms[data[pos:end]], end
    except KeyError:
        return new_atom(data, pos, end), end


def _name(data: bytes, pos: int) -> tuple[Atom, int]:
    """An atom as a field of another term, where `nil` is only a name."""
    tag = data[pos]
    if tag not in _ATOM_FORMS:
        raise DecodeError(f"tag {tag} at byte {pos}, where only an atom can be,")
    atom, end = VALUE_READERS[tag](data, pos)
    return (atom if type(atom) is Atom else _AS_ATOMS[atom]), end


# --- numbers ---


# SMALL_INTEGER_EXT: 97 Int:8
def _small_integer(data: bytes, pos: int) -> tuple[int, int]:
    return data[pos + 1], pos + 2


# INTEGER_EXT: 98 Int:32/signed
def _integer(data: bytes, pos: int) -> tuple[int, int]:
    return _i32(data, pos + 1)[0], pos + 5


# SMALL_BIG_EXT: 110 n:8 Sign:8 Digits:n/bytes, the lowest first
def _small_big(data: bytes, pos: int) -> tuple[int, int]:
    return _big(data, pos + 2, data[pos + 1])


# LARGE_BIG_EXT: 111 n:32 Sign:8 Digits:n/bytes, the lowest first
def _large_big(data: bytes, pos: int) -> tuple[int, int]:
    return _big(data, pos + 5, _u32(data, pos + 1)[0])


def _big(data: bytes, pos: int, length: int) -> tuple[int, int]:
    digits, end = _slice(data, pos + 1, length)
    sign = data[pos]
    if sign > 1:
        raise DecodeError(f"an integer with sign {sign}, where only 0 and 1 can be")
    magnitude = int.from_bytes(digits, "little")
    return -magnitude if sign else magnitude, end


# NEW_FLOAT_EXT: 70 IEEE:64/float
def _float(data: bytes, pos: int) -> tuple[float, int]:
    (value,) = _f64(data, pos + 1)
    if not math.isfinite(value):
        raise DecodeError(f"the float {value}, which Erlang does not have")
    return value, pos + 9


# FLOAT_EXT: 99 "%.20e":31/bytes, filled up with zero bytes
def _old_float(data: bytes, pos: int) -> tuple[float, int]:
    text, end = _slice(data, pos + 1, 31)
    text = text.rstrip(b"\0")
    if not re.fullmatch(rb"[-+]?\d+\.\d+(e[-+]?\d+)?", text):
        raise DecodeError("an old-style float that is not a decimal number")
    value = float(text)
    if not math.isfinite(value):
        raise DecodeError("an old-style float that is too large")
    return value, end


# --- bytes ---


# BINARY_EXT: 109 Len:32 Data
def _binary(data: bytes, pos: int) -> tuple[bytes, int]:
    start = pos + 5
    end = start + _u32(data, pos + 1)[0]
    if end > len(data):
        raise IndexError
    return data[start:end], end


# BIT_BINARY_EXT: 77 Len:32 Bits:8 Data
def _bit_binary(data: bytes, pos: int) -> tuple[bytes | BitString, int]:
    length, bits = _u32_u8(data, pos + 1)
    content, end = _slice(data, pos + 6, length)
    if bits > 8 or (bits == 0) != (length == 0):
        raise DecodeError(f"a bit string of {length} bytes with {bits} bits in the last")
    if bits in (0, 8):
        return content, end
    # The bits that don't count are cleared, so that equal bit strings are equal here, too.
    last = content[-1] & (0xFF00 >> bits)
    return BitString(content[:-1] + bytes((last & 0xFF,)), bits), end


# STRING_EXT: 107 Length:16 Characters, a list of bytes
def _string(data: bytes, pos: int) -> tuple[list[int], int]:
    characters, end = _slice(data, pos + 3, _u16(data, pos + 1)[0])
    return list(characters), end


# NIL_EXT: 106
def _nil(data: bytes, pos: int) -> tuple[list[Term], int]:
    return [], pos + 1


# --- identifiers ---


# The same few come again and again: in each call, the caller and his reference in three messages.
# They are kept like atoms, where the node is a short one, as all are that are not made up.
MAX_CACHED_IDENTIFIERS = 4096
cached_identifiers: dict[bytes, Pid | Reference] = {}


def _keep(raw: bytes, identifier: Pid | Reference) -> None:
    if len(cached_identifiers) >= MAX_CACHED_IDENTIFIERS:
        cached_identifiers.clear()
    cached_identifiers[raw] = identifier


# NEW_PID_EXT: 88 Node ID:32 Serial:32 Creation:32
def _pid(data: bytes, pos: int) -> tuple[Term, int]:
    end = pos + 15 + data[pos + 2]
    raw = data[pos:end]
    try:
        return cached_identifiers[raw], end
    except KeyError:
        node, at = _name(data, pos + 1)
    pid = Pid(node, *_u32_u32_u32(data, at))
    if at + 12 == end:
        _keep(raw, pid)
    return pid, at + 12


# PID_EXT: 103 Node ID:32 Serial:32 Creation:8
def _old_pid(data: bytes, pos: int) -> tuple[Pid, int]:
    node, pos = _name(data, pos + 1)
    return Pid(node, *_u32_u32_u8(data, pos)), pos + 9


# NEW_PORT_EXT: 89 Node ID:32 Creation:32
def _port(data: bytes, pos: int) -> tuple[Port, int]:
    node, pos = _name(data, pos + 1)
    return Port(node, *_u32_u32(data, pos)), pos + 8


# PORT_EXT: 102 Node ID:32 Creation:8
def _old_port(data: bytes, pos: int) -> tuple[Port, int]:
    node, pos = _name(data, pos + 1)
    return Port(node, *_u32_u8(data, pos)), pos + 5


# V4_PORT_EXT: 120 Node ID:64 Creation:32
def _v4_port(data: bytes, pos: int) -> tuple[Port, int]:
    node, pos = _name(data, pos + 1)
    return Port(node, *_u64_u32(data, pos)), pos + 12


# NEWER_REFERENCE_EXT: 90 Len:16 Node Creation:32 ID:32/Len
def _newer_reference(data: bytes, pos: int) -> tuple[Term, int]:
    expected_end = pos + 9 + data[pos + 4] + 4 * data[pos + 2]
    raw = data[pos:expected_end]
    try:
        return cached_identifiers[raw], expected_end
    except KeyError:
        node, at = _name(data, pos + 3)
    ids, end = _reference_ids(data, pos + 1, at + 4)
    reference = Reference(node, _u32(data, at)[0], ids)
    if end == expected_end:
        _keep(raw, reference)
    return reference, end


# NEW_REFERENCE_EXT: 114 Len:16 Node Creation:8 ID:32/Len
def _new_reference(data: bytes, pos: int) -> tuple[Reference, int]:
    node, at = _name(data, pos + 3)
    ids, end = _reference_ids(data, pos + 1, at + 1)
    return Reference(node, data[at], ids), end


# REFERENCE_EXT: 101 Node ID:32 Creation:8
def _old_reference(data: bytes, pos: int) -> tuple[Reference, int]:
    node, pos = _name(data, pos + 1)
    word, creation = _u32_u8(data, pos)
    return Reference(node, creation, (word,)), pos + 5


def _reference_ids(data: bytes, length_at: int, pos: int) -> tuple[tuple[int, ...], int]:
    (length,) = _u16(data, length_at)
    if not 1 <= length <= 5:
        raise DecodeError(f"a reference of {length} words, where 1 to 5 can be")
    return _words[length](data, pos), pos + 4 * length


# EXPORT_EXT: 113 Module Function Arity, the last a SMALL_INTEGER_EXT
def _export(data: bytes, pos: int) -> tuple[Export, int]:
    module, pos = _name(data, pos + 1)
    function, pos = _name(data, pos)
    if data[pos] != 97:
        raise DecodeError(f"an export whose arity has tag {data[pos]}, not 97")
    return Export(module, function, data[pos + 1]), pos + 2


_NO_TERMS = {
    68: "a distribution header, which is for the distribution layer to read,",
    80: "a compressed term inside another term",
    82: "an atom cache reference, though no atom cache was negotiated,",
    117: "FUN_EXT, which no BEAM since OTP 23 takes,",
    121: "LOCAL_EXT, which is for the node that made it only,",
    131: "a second version byte",
}


def _no_term(data: bytes, pos: int) -> tuple[Term, int]:
    tag = data[pos]
    raise DecodeError(f"tag {tag} starts no term: {_NO_TERMS.get(tag, 'it is unknown')}")


_READERS: dict[int, ValueReader] = {
    70: _float,
    77: _bit_binary,
    88: _pid,
    89: _port,
    90: _newer_reference,
    97: _small_integer,
    98: _integer,
    99: _old_float,
    100: _atom,
    101: _old_reference,
    102: _old_port,
    103: _old_pid,
    106: _nil,
    107: _string,
    109: _binary,
    110: _small_big,
    111: _large_big,
    113: _export,
    114: _new_reference,
    115: _small_atom,
    118: _atom,
    119: _small_atom,
    120: _v4_port,
}
VALUE_READERS = [_READERS.get(tag, _no_term) for tag in range(256)]
