"""Bytes to terms: one loop that keeps the open containers, and a table from tag to function.

The loop holds its own stack, so neither a deep term nor a caller deep in his own can exhaust
Python's. A function in the table opens a container: it gives how many terms follow, the offset of
the first, and what makes one value of them. Terms that hold no others are read in `values`.

The grammar above each function is that of
https://www.erlang.org/doc/apps/erts/erl_ext_dist.html, numbers being widths in bits.
"""

from __future__ import annotations

import gc
import struct
import zlib
from collections.abc import Callable
from functools import partial
from itertools import repeat
from operator import length_hint
from typing import TypeAlias

from pybeethoven.errors import DecodeError, EncodeError
from pybeethoven.etf.encoder import encode
from pybeethoven.etf.maps import make_map
from pybeethoven.etf.terms import ATOM_TYPES, Fun, ImproperList, Map, NativeRecord, Term
from pybeethoven.etf.values import VALUE_READERS, cached_atoms, check_length, new_atom

MAX_DEPTH = 512
MAX_SIZE = 256 * 1024 * 1024
MAX_TERMS = 10_000_000
"""Maximum number of terms in one external term, itself included, unless told otherwise. What is
decoded takes up to 80 times its bytes of memory (a list of empty lists does)."""
MAX_COLLECTED_SIZE = 64 * 1024
"""Maximum number of bytes that are decoded with Python's cyclic garbage collection on: it looks
again and again at all that was built, so that the cost would not be linear."""

SMALL_INTEGER_EXT = 97
ATOM_EXT = 100
SMALL_TUPLE_EXT = 104
LIST_EXT = 108
NEW_FUN_EXT = 112
SMALL_ATOM_UTF8_EXT = 119

_Finish: TypeAlias = Callable[[list[Term]], Term]
_Opener: TypeAlias = Callable[[bytes, int], tuple[int, int, _Finish]]

_u32 = struct.Struct(">I").unpack_from


def decode(
    data: bytes | bytearray | memoryview,
    *,
    max_depth: int = MAX_DEPTH,
    max_size: int = MAX_SIZE,
    max_terms: int = MAX_TERMS,
) -> Term:
    """Decode one whole external term, plain (131 ...) or compressed (131 80 ...).

    `max_depth` is the number of containers that may be open inside each other, `max_terms` the
    number of all terms, `max_size` the number of bytes that a compressed term may have when
    decompressed; it is decompressed no further than to one byte more than the size that it
    declares.

    Raises `DecodeError`, and nothing else, for bytes that are not exactly one term.
    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
    """
    if type(data) is not bytes:
        data = bytes(data)
    start = 1
    if data[:2] == b"\x83P":
        data, start = _decompress(data, max_size), 0
    elif data[:1] != b"\x83":
        raise DecodeError(f"an external term starts with byte 131, this with {list(data[:1])}")
    term, end = decode_term(data, start, max_depth=max_depth, max_terms=max_terms)
    if end != len(data):
        raise DecodeError(f"the term ends at byte {end}, but the data only at byte {len(data)}")
    return term


def decode_term(
    data: bytes, offset: int = 0, *, max_depth: int = MAX_DEPTH, max_terms: int = MAX_TERMS
) -> tuple[Term, int]:
    """Decode the term without a version byte that starts at `offset`.

    Gives the term and the offset behind it; what follows there is not looked at. `max_depth` is
    the number of containers that may be open inside each other, `max_terms` the number of all
    terms, checked before a container is read. A map whose keys Python cannot hold apart, or not
    hash, or not fast, becomes a `Map`.

    Raises `DecodeError`, and nothing else, for bytes that are not a term.
    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
    """
    pos = offset
    stack: list[tuple[list[Term], repeat[None], _Finish]] = []
    items: list[Term] = []
    missing = repeat(None, 1)
    finish: _Finish = list.pop
    has_maps = False
    size = len(data) - pos
    is_paused = size > MAX_COLLECTED_SIZE and gc.isenabled()
    # A term has at least one byte: those of few bytes need not be counted.
    terms, unchecked_depth = 1, -1 if size > max_terms else max_depth
    try:
        if is_paused:
            gc.disable()
        while True:
            for _ in missing:
                tag = data[pos]
                # The tags that most terms are made of are decoded here, without a call.
                if tag == SMALL_ATOM_UTF8_EXT or tag == ATOM_EXT:  # noqa: SIM109 (slower)
                    if tag == SMALL_ATOM_UTF8_EXT:
                        end = pos + 2 + data[pos + 1]
                    else:
                        end = pos + 3 + (data[pos + 1] << 8) + data[pos + 2]
                    try:
                        items.append(cached_atoms[data[pos:end]])
                    except KeyError:
                        items.append(new_atom(data, pos, end))
                    pos = end
                elif tag == SMALL_INTEGER_EXT:
                    items.append(data[pos + 1])
                    pos += 2
                elif tag == SMALL_TUPLE_EXT:
                    stack.append((items, missing, finish))
                    items, missing, finish = [], repeat(None, data[pos + 1]), tuple
                    pos += 2
                    break
                elif (opener := _OPENERS[tag]) is None:
                    value, pos = _READERS[tag](data, pos)
                    items.append(value)
                else:
                    # The tail of a list may be a list: it goes on, with no deeper level.
                    if not (tag == LIST_EXT and finish is _list and not length_hint(missing)):
                        stack.append((items, missing, finish))
                        items = []
                    count, pos, finish = opener(data, pos)
                    missing = repeat(None, count)
                    break
            else:
                value = finish(items)
                if type(value) is Map:
                    has_maps = True
                if not stack:
                    if has_maps:
                        _check_keys(value)
                    return value, pos
                items, missing, finish = stack.pop()
                items.append(value)
                continue
            if len(stack) > unchecked_depth:
                if len(stack) > max_depth:
                    raise DecodeError(f"nested deeper than the {max_depth} levels allowed")
                terms += length_hint(missing)
                if terms > max_terms:
                    raise DecodeError(f"more than the {max_terms} terms allowed")
    except (IndexError, struct.error):
        raise DecodeError(
            f"truncated: the term at byte {pos} needs more than the {len(data)} bytes there are"
        ) from None
    except (DecodeError, EncodeError) as error:
        raise DecodeError(f"{error} (at byte {pos})") from None
    except (RecursionError, MemoryError) as error:
        # Python compares and hashes the keys of a map recursively.
        raise DecodeError(f"too deep or too large for Python at byte {pos}: {error!r}") from None
    finally:
        # Another thread that decodes goes on with collections then: it takes longer, no more.
        if is_paused:
            gc.enable()


# 131 80 UncompressedSize:32 Zlib
def _decompress(data: bytes, max_size: int) -> bytes:
    if len(data) < 6:
        raise DecodeError("truncated: a compressed term has a size in its bytes 2 to 5")
    (size,) = _u32(data, 2)
    if size > max_size:
        raise DecodeError(f"a compressed term of {size} bytes, where {max_size} are allowed")
    inflater = zlib.decompressobj()
    try:
        # One byte more than declared, since 0 would be no limit and the checksum is read after.
        plain = inflater.decompress(memoryview(data)[6:], size + 1)
    except (zlib.error, MemoryError) as error:
        raise DecodeError(f"a compressed term cannot be decompressed: {error}") from None
    if len(plain) != size or not inflater.eof:
        raise DecodeError(f"a compressed term that is truncated, or is not of {size} bytes")
    if inflater.unused_data:
        raise DecodeError(f"{len(inflater.unused_data)} bytes follow the compressed term")
    return plain


# NEW_FUN_EXT: 112 Size:32 Arity:8 Uniq:128 Index:32 NumFree:32
#              Module OldIndex OldUniq Pid FreeVars
def _fun(data: bytes, pos: int) -> tuple[Fun, int]:
    end = _skip(data, pos)
    (size,) = _u32(data, pos + 1)
    if size < end - pos - 1:
        raise DecodeError(f"a fun with {end - pos - 1} bytes behind its tag, but a size of {size}")
    # BEAMs since OTP 23 may send a size that is too large; the one kept is right.
    return Fun(b"p" + (end - pos - 1).to_bytes(4, "big") + data[pos + 5 : end]), end


_ATOM_TAGS, _INTEGER_TAGS, _PID_TAGS = (100, 115, 118, 119), (97, 98), (88, 103)
_FUN_TAGS = _ATOM_TAGS, _INTEGER_TAGS, _INTEGER_TAGS, _PID_TAGS
"""What can stand in a fun before its free variables: funs are compared by it."""


def _open_fun(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    (free,) = _u32(data, pos + 26)
    pos += 30
    for tags in _FUN_TAGS:
        if (tag := data[pos]) not in tags:
            raise DecodeError(f"a fun with tag {tag}, where only one of {tags} can be")
        _, pos = VALUE_READERS[tag](data, pos)
    check_length(data, pos, free)
    return free, pos, tuple


def _skip(data: bytes, pos: int) -> int:
    """The offset behind the fun at `pos`; what is in it is counted and checked, but not kept."""
    missing = 1
    while missing:
        missing -= 1
        tag = data[pos]
        opener = _open_fun if tag == NEW_FUN_EXT else _OPENERS[tag]
        if opener is None:
            _, pos = VALUE_READERS[tag](data, pos)
        else:
            count, pos, _ = opener(data, pos)
            missing += count
    return pos


# --- containers ---


# SMALL_TUPLE_EXT: 104 Arity:8 Elements
def _small_tuple(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    return data[pos + 1], pos + 2, tuple


# LARGE_TUPLE_EXT: 105 Arity:32 Elements
def _large_tuple(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    (arity,) = _u32(data, pos + 1)
    check_length(data, pos + 5, arity)
    return arity, pos + 5, tuple


# LIST_EXT: 108 Length:32 Elements Tail
def _open_list(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    (length,) = _u32(data, pos + 1)
    check_length(data, pos + 5, length + 1)
    return length + 1, pos + 5, _list


def _list(items: list[Term]) -> Term:
    tail = items.pop()
    if type(tail) is list:
        items += tail
        return items
    return ImproperList(items, tail) if items else tail


# MAP_EXT: 116 Arity:32 Pairs
def _open_map(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    (arity,) = _u32(data, pos + 1)
    check_length(data, pos + 5, 2 * arity)
    return 2 * arity, pos + 5, _map


def _map(items: list[Term]) -> dict[Term, Term] | Map:
    return make_map(items[::2], items[1::2])


def _check_keys(term: Term) -> None:
    """No `Map` in `term` has a key twice. All are checked at once, since keys can be maps, with
    keys that are maps: else the innermost would be encoded again for each that is around it."""
    try:
        encode(term)
    except EncodeError:
        raise DecodeError("a map that has a key twice") from None


# RECORD_EXT: 67 NumFields:32 Flags:8 Module Name FieldNames Values, 1 of the flags being "exported"
def _open_record(data: bytes, pos: int) -> tuple[int, int, _Finish]:
    (size,) = _u32(data, pos + 1)
    if data[pos + 5] > 1:
        raise DecodeError(f"a native record with the flags {data[pos + 5]}, where 0 and 1 can be")
    check_length(data, pos + 6, 2 + 2 * size)
    return 2 + 2 * size, pos + 6, partial(_record, exported=data[pos + 5] == 1)


def _record(items: list[Term], *, exported: bool) -> NativeRecord:
    start = len(items) // 2 + 1
    module, name, *names = atoms = items[:start]
    if not all(isinstance(atom, ATOM_TYPES) for atom in atoms):
        raise DecodeError("a native record whose names are not all atoms")
    fields = dict(zip(names, items[start:], strict=True))
    if len(fields) != len(names):
        raise DecodeError("a native record that has a field twice")
    return NativeRecord(module, name, fields, exported)


_OPENERS_BY_TAG: dict[int, _Opener] = {
    67: _open_record,
    104: _small_tuple,
    105: _large_tuple,
    108: _open_list,
    116: _open_map,
}
_OPENERS = [_OPENERS_BY_TAG.get(tag) for tag in range(256)]
_READERS = [*VALUE_READERS]
_READERS[NEW_FUN_EXT] = _fun
