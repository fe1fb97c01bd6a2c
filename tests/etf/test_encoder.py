"""The encoder, row by row: terms, and the bytes or the error that they are."""

from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

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
    decode,
    encode,
    encode_into,
)
from pybeethoven.etf import encoder as encoder_module

AB = Atom("a@b")
NODE = b"w\x03a@b"
FUN = b"p\0\0\0\x06" + b"ab"


class Colour(enum.IntEnum):
    RED = 3


class Status(enum.StrEnum):
    ONLINE = "online"


class Point(NamedTuple):
    x: int
    y: float


class LoudAtom(Atom):
    pass


ROWS: list[tuple[Any, bytes]] = [
    (0, b"a\x00"),
    (255, b"a\xff"),
    (256, b"b\0\0\x01\0"),
    (-1, b"b\xff\xff\xff\xff"),
    (2**31 - 1, b"b\x7f\xff\xff\xff"),
    (-(2**31), b"b\x80\0\0\0"),
    (2**31, b"n\x04\x00\0\0\0\x80"),
    (-(2**31) - 1, b"n\x04\x01\x01\0\0\x80"),
    (2**64 - 1, b"n\x08\x00" + b"\xff" * 8),
    (-(2**64), b"n\x09\x01" + bytes(8) + b"\x01"),
    (2**2040 - 1, b"n\xff\x00" + b"\xff" * 255),
    (2**2040, b"o\0\0\x01\0\x00" + bytes(255) + b"\x01"),
    (-(2**100_000), b"o\0\0\x30\xd5\x01" + bytes(12500) + b"\x01"),
    (1.0, b"F\x3f\xf0" + bytes(6)),
    (-0.0, b"F\x80" + bytes(7)),
    (5e-324, b"F" + bytes(7) + b"\x01"),
    (True, b"w\x04true"),
    (False, b"w\x05false"),
    (None, b"w\x03nil"),
    (Atom(""), b"w\x00"),
    (Atom("true"), b"w\x04true"),
    (Atom("undefined"), b"w\x09undefined"),
    (Atom("é" * 127), b"w\xfe" + "é".encode() * 127),
    (Atom("é" * 128), b"v\x01\x00" + "é".encode() * 128),
    (Atom("😀" * 255), b"v\x03\xfc" + "😀".encode() * 255),
    ("grün", b"m\0\0\0\x05gr\xc3\xbcn"),
    (b"\x00\xff", b"m\0\0\0\x02\x00\xff"),
    (bytearray(b"ab"), b"m\0\0\0\x02ab"),
    (memoryview(b"abcd")[::2], b"m\0\0\0\x02ac"),
    (BitString(b"\xab\xe0", 3), b"M\0\0\0\x02\x03\xab\xe0"),
    ((), b"h\0"),
    ((1, (2,)), b"h\x02a\x01h\x01a\x02"),
    ((0,) * 255, b"h\xff" + b"a\0" * 255),
    ((0,) * 256, b"i\0\0\x01\0" + b"a\0" * 256),
    ([], b"j"),
    ([1, []], b"l\0\0\0\x02a\x01jj"),
    ([[2], 3], b"l\0\0\0\x02l\0\0\0\x01a\x02ja\x03j"),
    (ImproperList([1, [2]], Atom("t")), b"l\0\0\0\x02a\x01l\0\0\0\x01a\x02jw\x01t"),
    ({}, b"t\0\0\0\0"),
    ({"k": {1: 2}, 3: []}, b"t\0\0\0\x02m\0\0\0\x01kt\0\0\0\x01a\x01a\x02a\x03j"),
    ({"a": 1, Atom("b"): 2}, b"t\0\0\0\x02m\0\0\0\x01aa\x01w\x01ba\x02"),
    ({None: 1, b"x": 2}, b"t\0\0\0\x02w\x03nila\x01m\0\0\0\x01xa\x02"),
    (Map([(1, 2), (1.0, 3)]), b"t\0\0\0\x02a\x01a\x02F\x3f\xf0" + bytes(6) + b"a\x03"),
    (Map([([], 2), ({}, 3)]), b"t\0\0\0\x02ja\x02t\0\0\0\0a\x03"),
    (NativeRecord(AB, Atom("r"), {AB: [], None: 1}),  # type: ignore[dict-item]
     b"C\0\0\0\x02\x01" + NODE + b"w\x01r" + NODE + b"w\x03nilja\x01"),
    (NativeRecord(AB, Atom("r"), {}, exported=False), b"C\0\0\0\0\0" + NODE + b"w\x01r"),
    (Pid(AB, 1, 2, 2**32 - 1), b"X" + NODE + b"\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff"),
    (Pid(Atom("nil"), 0, 0, 0), b"Xw\x03nil" + bytes(12)),
    (Port(AB, 2**28 - 1, 3), b"Y" + NODE + b"\x0f\xff\xff\xff\0\0\0\x03"),
    (Port(AB, 2**28, 3), b"x" + NODE + b"\0\0\0\0\x10\0\0\0\0\0\0\x03"),
    (Port(AB, 2**64 - 1, 3), b"x" + NODE + b"\xff" * 8 + b"\0\0\0\x03"),
    (Reference(AB, 9, (1,)), b"Z\0\x01" + NODE + b"\0\0\0\x09\0\0\0\x01"),
    (Reference(AB, 9, (1, 2, 3, 4, 5)), b"Z\0\x05" + NODE + b"\0\0\0\x09" + b"".join(
        bytes((0, 0, 0, word)) for word in range(1, 6)
    )),
    (Export(Atom("lists"), Atom("map"), 2), b"qw\x05listsw\x03mapa\x02"),
    (Export(Atom("nil"), Atom("true"), 255), b"qw\x03nilw\x04truea\xff"),
    (Fun(FUN), FUN),
    (Colour.RED, b"a\x03"),
    (Status.ONLINE, b"m\0\0\0\x06online"),
    (Point(1, 1.0), b"h\x02a\x01F\x3f\xf0" + bytes(6)),
    (LoudAtom("x"), b"w\x01x"),
    (OrderedDict({1: 2}), b"t\0\0\0\x01a\x01a\x02"),
    ({Colour.RED: Status.ONLINE}, b"t\0\0\0\x01a\x03m\0\0\0\x06online"),
]  # fmt: skip


def short(value: object) -> str:
    return type(value).__name__


rows = pytest.mark.parametrize(("term", "data"), ROWS, ids=short)


@rows
def test_whole(term: Any, data: bytes) -> None:
    """Each type gives its bytes, the first time and again."""
    assert encode(term) == b"\x83" + data
    assert encode([term, term]) == b"\x83l\0\0\0\x02" + data + data + b"j"


@rows
def test_into(term: Any, data: bytes) -> None:
    """`encode_into` appends, and writes no version byte."""
    buffer = bytearray(b"before")
    encode_into(buffer, term)
    assert buffer == b"before" + data


def contains_itself(container: Any, add: Callable[[Any], None]) -> Any:
    add(container)
    return container


LIST: list[Any] = []
TUPLE: tuple[Any, ...] = ([],)
DICT: dict[Any, Any] = {}
MAP = Map([])
IMPROPER = ImproperList([], 1)

BAD_FLAGS: list[Any] = [5, -1, 256, "yes", None]

ERRORS: list[tuple[Any, str]] = [
    ({1, 2}, "a set has no external form; send it as a tuple"),
    (object(), "object has no"),
    (1j, "complex"),
    (Atom, "type"),
    (..., "ellipsis"),
    (math.nan, "nan"),
    (math.inf, "infinities"),
    (-math.inf, "infinities"),
    ("a\ud800", "surrogate at index 1"),
    (Atom("\ud800"), "a Atom with a lone surrogate"),
    (Atom("a" * 256), "256 characters"),
    (BitString(b"a", 0), "1 to 7"),
    (BitString(b"a", 8), "1 to 7"),
    (BitString(b"a", "3"), "1 to 7"),  # type: ignore[arg-type]
    (BitString(b"", 1), "at least one byte"),
    (BitString("a", 1), "at least one byte"),  # type: ignore[arg-type]
    (ImproperList([], 1), "at least one"),
    (ImproperList((1,), 2), "elements"),  # type: ignore[arg-type]
    (Map([1]), "pairs"),  # type: ignore[list-item]
    (Map(7), "pairs"),  # type: ignore[arg-type]
    (Map([(1, 2, 3)]), "pairs"),  # type: ignore[list-item]
    (Pid(AB, -1, 0, 0), "Pid.*range"),
    (Pid(AB, 0, 2**32, 0), "Pid.*range"),
    (Pid(AB, 0, 0, 10**5000), "Pid.*range"),
    (Pid(AB, 0, 1.5, 0), "Pid.*range"),  # type: ignore[arg-type]
    (Pid(7, 0, 0, 0), "Pid's node that is a int"),  # type: ignore[arg-type]
    (Pid(None, 0, 0, 0), "Pid's node"),  # type: ignore[arg-type]
    (Pid(Atom("a" * 256), 0, 0, 0), "256 characters"),
    (Port(AB, -1, 0), "Port.*range"),
    (Port(AB, 2**64, 0), "Port.*range"),
    (Port(AB, "1", 0), "Port.*range"),  # type: ignore[arg-type]
    (Port(AB, 0, 2**32), "Port.*range"),
    (Port(b"a", 0, 0), "Port's node"),  # type: ignore[arg-type]
    (Reference(AB, 0, ()), "1 to 5"),
    (Reference(AB, 0, (0,) * 6), "1 to 5"),
    (Reference(AB, 0, [1]), "1 to 5"),  # type: ignore[arg-type]
    (Reference(AB, 0, (2**32,)), "Reference.*range"),
    (Reference(AB, -1, (0,)), "Reference.*range"),
    (Reference([], 0, (0,)), "Reference's node"),  # type: ignore[arg-type]
    (Export(AB, AB, 256), "arity"),
    (Export(AB, AB, -1), "arity"),
    (Export(AB, AB, "1"), "arity"),  # type: ignore[arg-type]
    (Export(AB, 1, 1), "Export's function"),  # type: ignore[arg-type]
    (NativeRecord(AB, b"r", {}), "Atoms"),  # type: ignore[arg-type]
    (NativeRecord(AB, AB, {"a": 1}), "Atoms"),  # type: ignore[dict-item]
    (NativeRecord(AB, AB, {True: 1, Atom("true"): 2}), "field twice"),  # type: ignore[dict-item]
    (NativeRecord(AB, AB, None), "dict of `fields`"),  # type: ignore[arg-type]
    (NativeRecord(AB, AB, [AB]), "dict of `fields`"),  # type: ignore[arg-type]
    *((NativeRecord(AB, AB, {}, exported), "is a bool") for exported in BAD_FLAGS),
    (Fun(b""), "Fun"),
    (Fun(FUN + b"x"), "Fun"),
    (Fun("p"), "Fun"),  # type: ignore[arg-type]
    ({"a": 1, b"a": 2}, "the same in Erlang"),
    ({None: 1, Atom("nil"): 2}, "the same in Erlang"),
    ({True: 1, Atom("true"): 2}, "the same in Erlang"),
    ({("a",): 1, (b"a",): 2}, "the same in Erlang"),
    (Map([(1, 2), (1, 3)]), "the same in Erlang"),
    (Map([([1], 2), ({}, 3), ([1], 4)]), "the same in Erlang"),
    (contains_itself(LIST, LIST.append), "contains itself"),
    (contains_itself(TUPLE, TUPLE[0].append), "contains itself"),
    (contains_itself(DICT, lambda it: DICT.update(k=it)), "contains itself"),
    (contains_itself(MAP, lambda it: MAP.pairs.append((it, 1))), "contains itself"),
    (contains_itself(IMPROPER, IMPROPER.elements.append), "contains itself"),
]


@pytest.mark.parametrize(("term", "match"), ERRORS, ids=short)
def test_errors(term: Any, match: str) -> None:
    """What has no external form is refused with the reason, and leaves the buffer as it was."""
    buffer = bytearray(b"before")
    for value in (term, (1, [term]), {1: term}):
        with pytest.raises(EncodeError, match=match):
            encode_into(buffer, value)
        assert buffer == b"before"
    with pytest.raises(EncodeError, match=match):
        encode(term)


def test_released_memoryview() -> None:
    """A memoryview that was released cannot be read any more."""
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(EncodeError, match="released"):
        encode(view)


@pytest.mark.parametrize("tag", [105, 108, 109, 111, 116])
def test_lengths_beyond_32_bits(tag: int) -> None:
    """No length is cut down to 32 bits (a value that is really so long is too much for a test)."""
    with pytest.raises(EncodeError, match=r"4294967296.*less than 2\*\*32"):
        encoder_module._head(tag, 2**32)


def test_depth() -> None:
    """Terms may be far deeper than Python's own stack."""
    term: Any = 1
    for _ in range(4_000):
        term = {(0,): [term]}
    data = encode(term)
    assert data == b"\x83" + b"t\0\0\0\x01h\x01a\0l\0\0\0\x01" * 4_000 + b"a\x01" + b"j" * 4_000


def test_on_a_deep_stack() -> None:
    """How deep the caller is in his own stack makes no difference."""
    term: Any = 1
    for _ in range(500):
        term = Map([(term, [1])])

    def descend(levels: int) -> bytes:
        return descend(levels - 1) if levels else encode(term)

    frame, used = sys._getframe(), 0
    while frame.f_back:
        frame, used = frame.f_back, used + 1
    assert len(descend(sys.getrecursionlimit() - used - 60)) > 500


def test_keys_within_keys() -> None:
    """The check for equal keys takes time that grows with the depth, not with its power."""
    term: Any = 1
    for _ in range(60):
        term = Map([(term, 1), ([], 2)])
    assert decode(encode(term)) == term


def test_atom_cache_is_bounded() -> None:
    """A program that sends ever new atoms may, but they are not kept for ever."""
    for number in range(2 * encoder_module._MAX_ATOMS + 10):
        encode(Atom(f"atom_{number}"))
        assert len(encoder_module._atoms) <= encoder_module._MAX_ATOMS


def test_str_is_not_taken_for_an_atom() -> None:
    """An atom and a str of the same text are two terms, whichever came first."""
    assert encode((Atom("same"), "same", Atom("same"))) == (
        b"\x83h\x03w\x04samem\0\0\0\x04samew\x04same"
    )
