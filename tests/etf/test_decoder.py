"""The decoder, row by row: bytes, and the term or the error that they are."""

from __future__ import annotations

import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from pybeethoven.errors import DecodeError
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
    decode_term,
    encode,
)
from pybeethoven.etf.maps import FEW_KEYS
from pybeethoven.etf.values import (
    MAX_CACHED_ATOMS,
    MAX_CACHED_IDENTIFIERS,
    cached_atoms,
    cached_identifiers,
)
from tests.timing import UNIT

NODE = b"w\x03a@b"
AB = Atom("a@b")
WORD = b"\x01\x02\x03\x04"
FUN_BODY = bytes(17) + struct.pack(">II", 3, 2) + b"w\x01m" + b"a\x03" + b"b\x05\x6d\x0d\xf3"
FUN_BODY += b"X" + NODE + bytes(12) + b"h\x01a\x07" + b"l\0\0\0\x01w\x02okj"
FUN = b"p" + struct.pack(">I", 4 + len(FUN_BODY)) + FUN_BODY

ROWS: dict[str, tuple[bytes, Any]] = {
    "small_integer": (b"a\xff", 255),
    "integer": (b"b\xff\xff\xff\xff", -1),
    "integer_max": (b"b\x7f\xff\xff\xff", 2**31 - 1),
    "small_big": (b"n\x04\x00\0\0\0\x80", 2**31),
    "small_big_negative": (b"n\x05\x01\0\0\0\0\x01", -(2**32)),
    "small_big_empty": (b"n\x00\x00", 0),
    "large_big": (b"o\0\0\x01\0\x01" + bytes(255) + b"\x01", -(2**2040)),
    "float": (b"F" + struct.pack(">d", 0.1), 0.1),
    "float_minus_zero": (b"F\x80" + bytes(7), -0.0),
    "old_float": (b"c1.50000000000000000000e+00".ljust(32, b"\0"), 1.5),
    "old_float_minus_zero": (b"c-0.00000000000000000000e+00".ljust(32, b"\0"), -0.0),
    "atom_ext": (b"d\0\x02\xe9a", Atom("éa")),
    "atom_ext_empty": (b"d\0\0", Atom("")),
    "small_atom_ext": (b"s\x01\xe9", Atom("é")),
    "atom_utf8": (b"v\0\x02\xc3\xa9", Atom("é")),
    "small_atom_utf8": (b"w\x02\xc3\xa9", Atom("é")),
    "atom_of_255_characters": (b"v\x03\xfc" + "😀".encode() * 255, Atom("😀" * 255)),
    "true": (b"w\x04true", True),
    "false": (b"s\x05false", False),
    "nil_atom": (b"d\0\x03nil", None),
    "undefined": (b"w\x09undefined", Atom("undefined")),
    "empty_tuple": (b"h\0", ()),
    "tuple": (b"h\x03a\x01h\x01a\x02F" + bytes(8), (1, (2,), 0.0)),
    "large_tuple": (b"i\0\0\0\x02a\x01w\x01x", (1, Atom("x"))),
    "nil": (b"j", []),
    "string": (b"k\0\x03\x00A\xff", [0, 65, 255]),
    "list": (b"l\0\0\0\x02a\x01jj", [1, []]),
    "list_in_tail": (b"l\0\0\0\x01a\x01l\0\0\0\x01a\x02j", [1, 2]),
    "string_in_tail": (b"l\0\0\0\x01a\x01k\0\x01\x02", [1, 2]),
    "list_as_last_element": (b"l\0\0\0\x01l\0\0\0\x01a\x02jj", [[2]]),
    "improper_list": (b"l\0\0\0\x01a\x01a\x02", ImproperList([1], 2)),
    "improper_in_tail": (b"l\0\0\0\x01a\x01l\0\0\0\x01a\x02a\x03", ImproperList([1, 2], 3)),
    "list_of_none": (b"l\0\0\0\0a\x05", 5),
    "binary": (b"m\0\0\0\x02\x00\xff", b"\x00\xff"),
    "bit_binary": (b"M\0\0\0\x02\x03\xab\xe0", BitString(b"\xab\xe0", 3)),
    "bit_binary_padding": (b"M\0\0\0\x01\x07\xff", BitString(b"\xfe", 7)),
    "bit_binary_whole": (b"M\0\0\0\x01\x08\xff", b"\xff"),
    "bit_binary_empty": (b"M\0\0\0\0\0", b""),
    "map": (b"t\0\0\0\x02w\x01aa\x01m\0\0\0\x01aj", {Atom("a"): 1, b"a": []}),
    "map_empty": (b"t\0\0\0\0", {}),
    "map_1_and_1.0": (
        b"t\0\0\0\x02a\x01aaF\x3f\xf0" + bytes(6) + b"ab",
        Map([(1, 97), (1.0, 98)]),
    ),
    "map_0_and_false": (b"t\0\0\0\x02a\0aaw\x05falseab", Map([(0, 97), (False, 98)])),
    "map_both_zeros": (
        b"t\0\0\0\x02F" + bytes(8) + b"aaF\x80" + bytes(7) + b"ab",
        Map([(0.0, 97), (-0.0, 98)]),
    ),
    "map_nested_collision": (
        b"t\0\0\0\x02h\x01a\x01jh\x01F\x3f\xf0" + bytes(6) + b"j",
        Map([((1,), []), ((1.0,), [])]),
    ),
    "map_list_key": (b"t\0\0\0\x01ja\x01", Map([([], 1)])),
    "map_map_key": (b"t\0\0\0\x01t\0\0\0\0a\x01", Map([({}, 1)])),
    "map_tuple_with_list_key": (b"t\0\0\0\x01h\x01ja\x01", Map([(([],), 1)])),
    "new_pid": (
        b"X" + NODE + WORD + b"\0\0\0\x02\xff\xff\xff\xff",
        Pid(AB, 0x1020304, 2, 2**32 - 1),
    ),
    "pid": (b"g" + NODE + WORD + b"\0\0\0\x02\x03", Pid(AB, 0x1020304, 2, 3)),
    "pid_node_true": (b"Xw\x04true" + bytes(12), Pid(Atom("true"), 0, 0, 0)),
    "pid_node_latin1": (b"Xd\0\x01\xe9" + bytes(12), Pid(Atom("é"), 0, 0, 0)),
    "new_port": (b"Y" + NODE + WORD + b"\0\0\0\x09", Port(AB, 0x1020304, 9)),
    "port": (b"f" + NODE + WORD + b"\x09", Port(AB, 0x1020304, 9)),
    "v4_port": (b"x" + NODE + WORD + WORD + b"\0\0\0\x09", Port(AB, 0x102030401020304, 9)),
    "newer_reference": (
        b"Z\0\x02" + NODE + b"\0\0\0\x09" + WORD + b"\0\0\0\x01",
        Reference(AB, 9, (0x1020304, 1)),
    ),
    "newer_reference_5": (b"Z\0\x05" + NODE + bytes(24), Reference(AB, 0, (0,) * 5)),
    "new_reference": (b"r\0\x01" + NODE + b"\x03" + WORD, Reference(AB, 3, (0x1020304,))),
    "reference": (b"e" + NODE + WORD + b"\x03", Reference(AB, 3, (0x1020304,))),
    "export": (b"qw\x05listsd\0\x03mapa\x02", Export(Atom("lists"), Atom("map"), 2)),
    "export_nil": (b"qw\x03nilw\x04truea\0", Export(Atom("nil"), Atom("true"), 0)),
    "record": (
        b"C\0\0\0\x02\x01w\x01mw\x01rw\x01bw\x04truea\x01a\x02",
        NativeRecord(Atom("m"), Atom("r"), {Atom("b"): 1, True: 2}),  # type: ignore[dict-item]
    ),
    "record_not_exported": (
        b"C\0\0\0\0\0w\x01mw\x01r",
        NativeRecord(Atom("m"), Atom("r"), {}, exported=False),
    ),
    "fun": (FUN, Fun(FUN)),
    "fun_with_size_too_large": (b"p\0\xff\xff\xff" + FUN_BODY, Fun(FUN)),
    "fun_in_tuple": (b"h\x02" + FUN + b"a\x01", (Fun(FUN), 1)),
}

rows = pytest.mark.parametrize(("data", "term"), ROWS.values(), ids=ROWS)


@rows
def test_whole(data: bytes, term: Any) -> None:
    """Each tag gives its term; `repr` tells 1, 1.0 and True apart, and the two zeros."""
    assert repr(decode(b"\x83" + data)) == repr(term)
    assert decode(b"\x83" + data) == term


@rows
def test_other_buffers(data: bytes, term: Any) -> None:
    """A bytearray and a memoryview are as good as bytes, and nothing of them is kept."""
    buffer = bytearray(b"\x83" + data)
    decoded = [decode(buffer), decode(memoryview(buffer)), decode(memoryview(bytes(buffer)))]
    buffer[:] = bytes(len(buffer))
    assert decoded == [term] * 3


@rows
def test_in_the_middle(data: bytes, term: Any) -> None:
    """`decode_term` starts at the offset, ends behind the term and looks at nothing else."""
    result, end = decode_term(b"\xff\xff" + data + b"\xff\x83", 2)
    assert repr(result) == repr(term)
    assert end == 2 + len(data)


@rows
def test_truncated(data: bytes, term: Any) -> None:
    """No beginning of a term is a term, nor is it with something behind."""
    for cut in range(len(data)):
        with pytest.raises(DecodeError, match="truncated"):
            decode_term(data[:cut])
        with pytest.raises(DecodeError):
            decode(b"\x83" + data[:cut])
    with pytest.raises(DecodeError, match=f"ends at byte {1 + len(data)}, but"):
        decode(b"\x83" + data + b"j")


@rows
def test_compressed(data: bytes, term: Any) -> None:
    """Compressed it is the same term; cut anywhere it is none."""
    whole = compressed(data)
    assert repr(decode(whole)) == repr(term)
    for cut in range(len(whole)):
        with pytest.raises(DecodeError):
            decode(whole[:cut])


def compressed(data: bytes, size: int | None = None) -> bytes:
    return b"\x83P" + struct.pack(">I", len(data) if size is None else size) + zlib.compress(data)


HUGE = b"\xff\xff\xff\xff"
ERRORS: dict[str, tuple[bytes, str]] = {
    "big_sign": (b"n\x01\x02\x01", "sign 2"),
    "float_nan": (b"F\x7f\xf8" + bytes(6), "float nan.*at byte 0"),
    "float_inf": (b"F\xff\xf0" + bytes(6), "float -inf"),
    "old_float_text": (b"c" + b"x" * 31, "not a decimal number"),
    "old_float_empty": (b"c" + bytes(31), "not a decimal number"),
    "old_float_underscore": (b"c1_0.0".ljust(32, b"\0"), "not a decimal number"),
    "old_float_nan": (b"cnan".ljust(32, b"\0"), "not a decimal number"),
    "old_float_zero_inside": (b"c1.0\x001".ljust(32, b"\0"), "not a decimal number"),
    "old_float_overflow": (b"c1.0e999".ljust(32, b"\0"), "too large"),
    "atom_bad_utf8": (b"h\x01w\x02\xc3\x28", r"not UTF-8.*byte 2"),
    "atom_surrogate": (b"w\x03\xed\xa0\x80", "not UTF-8"),
    "atom_cut_in_character": (b"w\x01\xc3\xa9", "not UTF-8"),
    "atom_256_characters": (b"v\x01\x00" + b"a" * 256, "256 characters"),
    "atom_ext_256_characters": (b"d\x01\x00" + b"a" * 256, "256 characters"),
    "bits_9": (b"M\0\0\0\x01\x09\xff", "9 bits"),
    "bits_0_of_1": (b"M\0\0\0\x01\x00\xff", "0 bits"),
    "bits_1_of_0": (b"M\0\0\0\x00\x01", "1 bits"),
    "pid_node_binary": (b"Xm\0\0\0\x01a" + bytes(12), "tag 109 at byte 1.*atom"),
    "ref_node_integer": (b"Z\0\x01a\x01" + bytes(12), "tag 97 at byte 3.*atom"),
    "reference_0": (b"Z\0\0" + NODE + bytes(8), "0 words"),
    "reference_6": (b"Z\0\x06" + NODE + bytes(28), "6 words"),
    "new_reference_6": (b"r\0\x06" + NODE + bytes(28), "6 words"),
    "export_arity_atom": (b"qw\x01mw\x01fw\x01a", "arity"),
    "export_function_list": (b"qw\x01mja\x01", "tag 106"),
    "fun_size_too_small": (b"p" + struct.pack(">I", 3 + len(FUN_BODY)) + FUN_BODY, "size of"),
    "fun_with_bad_term_inside": (FUN.replace(b"w\x02ok", b"w\x02\xff\xff"), "not UTF-8"),
    "record_flags": (b"C\0\0\0\0\x02w\x01mw\x01r", "flags 2"),
    "record_module_integer": (b"C\0\0\0\0\1a\1w\x01r", "not all atoms"),
    "record_field_tuple": (b"C\0\0\0\1\1w\x01mw\x01rh\0j", "not all atoms"),
    "record_field_list": (b"C\0\0\0\1\1w\x01mw\x01rjj", "not all atoms"),
    "record_same_field": (b"C\0\0\0\2\1w\x01mw\x01rw\1aw\1ajj", "field twice"),
    "map_same_key": (b"t\0\0\0\x02a\x01ja\x01j", "key twice"),
    "map_same_key_other_form": (b"t\0\0\0\x02a\x01jb\0\0\0\x01j", "key twice"),
    "map_same_list_key": (b"t\0\0\0\x02k\0\x01\x01jl\0\0\0\x01a\x01jj", "key twice"),
    "map_same_among_colliding": (
        b"t\0\0\0\x03a\x01jF\x3f\xf0" + bytes(6) + b"ja\x01j",
        "key twice",
    ),
    "version_twice": (b"\x83a\x01", "second version byte"),
    "compressed_inside": (b"h\x01P\0\0\0\x02" + zlib.compress(b"a\x01"), "compressed"),
    "atom_cache_reference": (b"R\0", "cache"),
    "old_fun": (b"u" + bytes(40), "FUN_EXT"),
    "local": (b"y" + bytes(40), "LOCAL_EXT"),
    "distribution_header": (b"D\0", "distribution header"),
    "unknown_tag": (b"h\x02a\x01\x00", "tag 0 .*byte 4"),
    "many_in_list": (b"l" + HUGE + b"j", "truncated"),
    "many_in_tuple": (b"i" + HUGE + b"a\x01", "truncated"),
    "many_in_map": (b"t" + HUGE + b"a\x01", "truncated"),
    "one_more_in_map": (b"t\0\0\0\x02a\x01a\x01a\x02", "truncated"),
    "many_in_record": (b"C" + HUGE + b"\1w\x01mw\x01r", "truncated"),
    "one_more_in_record": (b"C\0\0\0\1\1w\x01mw\x01rw\1a", "truncated"),
    "one_more_in_list": (b"l\0\0\0\x02a\x01j", "truncated"),
    "one_more_in_tuple": (b"h\x02a\x01", "truncated"),
    "one_more_in_binary": (b"m\0\0\0\x02a", "truncated"),
    "one_more_in_string": (b"k\0\x02a", "truncated"),
    "one_more_in_bit_binary": (b"M\0\0\0\x02\x01a", "truncated"),
    "one_more_in_atom": (b"w\x02a", "truncated"),
    "one_more_in_small_atom": (b"s\x02a", "truncated"),
    "one_more_in_atom_ext": (b"d\0\x02a", "truncated"),
    "one_more_in_atom_utf8": (b"v\0\x02a", "truncated"),
    "high_byte_of_atom_ext": (b"d\x01\x01a", "truncated"),
    "one_more_in_big": (b"n\x02\x00\x01", "truncated"),
    "one_more_in_large_big": (b"o\0\0\0\x02\x00\x01", "truncated"),
    "one_more_in_reference": (b"Z\0\x02" + NODE + bytes(8), "truncated"),
    "huge_binary": (b"m" + HUGE + b"a", "truncated"),
    "huge_big": (b"o" + HUGE + b"\0a", "truncated"),
    "huge_bit_binary": (b"M" + HUGE + b"\x01a", "truncated"),
    "fun_many_free": (FUN[:26] + HUGE + FUN[30:], "truncated"),
    "fun_one_more_free": (FUN[:26] + b"\0\0\0\x03" + FUN[30:], "truncated"),
}


@pytest.mark.parametrize(("data", "match"), ERRORS.values(), ids=ERRORS)
def test_errors(data: bytes, match: str) -> None:
    """What is no term is refused with the reason, and costs no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=match):
            decode_term(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(DecodeError):
        decode(b"\x83" + data)


def test_every_unknown_tag() -> None:
    """A tag that no row above has is refused, and named."""
    known = {data[0] for data, _ in ROWS.values()}
    for tag in set(range(256)) - known:
        with pytest.raises(DecodeError, match=f"tag {tag} "):
            decode_term(bytes((tag,)) + bytes(40))
    assert len(known) == 29


@pytest.mark.parametrize("data", [b"", b"a\x01", b"\x82a\x01", b"\x83"])
def test_version(data: bytes) -> None:
    """A term by itself starts with 131, and does not end there."""
    with pytest.raises(DecodeError):
        decode(data)


def test_offset_behind_the_end() -> None:
    """There is no term where there are no bytes."""
    with pytest.raises(DecodeError, match="truncated"):
        decode_term(b"a\x01", 2)


def nested(head: bytes, depth: int, tail: bytes = b"") -> bytes:
    return head * depth + b"a\x01" + tail * depth


NESTINGS: dict[str, Callable[[int], bytes]] = {
    "tuples": lambda depth: nested(b"h\x01", depth),
    "large_tuples": lambda depth: nested(b"i\0\0\0\x01", depth),
    "lists": lambda depth: nested(b"l\0\0\0\x01", depth, b"j"),
    "values": lambda depth: nested(b"t\0\0\0\x01w\x01k", depth),
    "keys": lambda depth: nested(b"t\0\0\0\x01", depth, b"w\x01v"),
    "records": lambda depth: nested(b"C\0\0\0\1\1w\1mw\1rw\1a", depth),
    "tuple_keys": lambda depth: nested(b"h\x01", depth - 1).join((b"t\0\0\0\x01", b"j")),
}
nestings = pytest.mark.parametrize("make", NESTINGS.values(), ids=NESTINGS)


@nestings
def test_depth(make: Callable[[int], bytes]) -> None:
    """As many levels as `max_depth` are let through, by default 512; one more is not."""
    decode(b"\x83" + make(512))
    decode_term(make(3), max_depth=3)
    for levels in (513, 100_000):
        with pytest.raises(DecodeError, match="deeper than the 512 levels"):
            decode(b"\x83" + make(levels))
    with pytest.raises(DecodeError, match="deeper than the 2 levels"):
        decode(b"\x83" + make(3), max_depth=2)


@nestings
def test_depth_on_a_deep_stack(make: Callable[[int], bytes]) -> None:
    """How deep the caller is in his own stack makes no difference."""
    data = b"\x83" + make(512)

    def descend(levels: int) -> Any:
        return descend(levels - 1) if levels else decode(data)

    assert descend(free_frames() - 60) is not None


def free_frames() -> int:
    frame, used = sys._getframe(), 0
    while frame.f_back:
        frame, used = frame.f_back, used + 1
    return sys.getrecursionlimit() - used


def test_colliding_deep_keys() -> None:
    """Keys that Python compares recursively end in a `Map` or a `DecodeError`, nothing else."""
    one, other = nested(b"h\x01", 500), nested(b"h\x01", 500)[:-2] + b"F\x3f\xf0" + bytes(6)
    data = b"\x83t\0\0\0\x02" + one + b"j" + other + b"j"

    def descend(levels: int) -> Any:
        return descend(levels - 1) if levels else decode(data)

    if sys.version_info >= (3, 12):  # it compares deeper terms
        assert len(descend(free_frames() - 60)) == 2
        return
    with pytest.raises(DecodeError, match="too deep"):
        descend(free_frames() - 60)


def test_maps_as_keys_of_maps_as_keys() -> None:
    """Keys that are told apart by what is in them take time that grows with the bytes: they are not
    encoded for each level anew, nor in each kept for all levels below."""
    innermost = b"l\0\0\x4e\x20" + b"a\x01" * 20_000 + b"j"
    data = b"\x83" + b"t\0\0\0\x02" * 500 + innermost + b"jjj" * 500
    start = time.perf_counter()
    assert encode(decode(data)) == data
    assert time.perf_counter() - start < 2 * UNIT


@pytest.mark.parametrize("head", [b"", b"h\x01"])
def test_keys_of_one_hash(head: bytes) -> None:
    """They are not put into a dict, which would take time that grows with their square."""
    modulus = sys.hash_info.modulus
    keys = [head + encode(modulus * each)[1:] for each in range(1, 2 * FEW_KEYS)]

    def data(keys: list[bytes]) -> bytes:
        return b"\x83t" + struct.pack(">I", len(keys)) + b"".join(key + b"j" for key in keys)

    assert type(decode(data(keys[:FEW_KEYS]))) is dict
    many = decode(data(keys))
    assert type(many) is Map
    assert encode(many) == data(keys)
    with pytest.raises(DecodeError, match="key twice"):
        decode(data([*keys, keys[0]]))


def test_list_of_tails() -> None:
    """Tails upon tails are one list: they take no levels, and time that grows with the bytes."""
    data = b"l\0\0\0\x01a\x01" * 100_000 + b"j"
    assert decode_term(data) == ([1] * 100_000, len(data))


def test_fun_within_funs() -> None:
    """A fun's environment is passed over without a stack, however deep it is."""
    inner = b"a\x01"
    for _ in range(2000):
        inner = (
            b"p" + HUGE + bytes(21) + b"\0\0\0\x01" + b"w\x01ma\0a\0X" + NODE + bytes(12) + inner
        )
    fun = decode(b"\x83" + inner)
    assert fun.data[5:] == inner[5:]


class TestCompressed:
    """131 80: what is declared, what is allowed, and what comes out have to agree."""

    TERM = b"m\0\x10\0\0" + bytes(0x100000)

    def test_max_size(self) -> None:
        """As many bytes as `max_size` are let through, one more is not."""
        assert decode(compressed(self.TERM), max_size=len(self.TERM)) == bytes(0x100000)
        with pytest.raises(DecodeError, match="1048581 bytes, where 1048580 are allowed"):
            decode(compressed(self.TERM), max_size=len(self.TERM) - 1)

    @pytest.mark.parametrize("size", [0, 5, len(TERM) - 1, len(TERM) + 1, 2**28])
    def test_size_is_wrong(self, size: int) -> None:
        """A declared size that is not the real one is refused."""
        with pytest.raises(DecodeError, match="is not of"):
            decode(compressed(self.TERM, size))

    def test_bomb(self) -> None:
        """What is more than was declared is never decompressed."""
        bomb = compressed(bytes(50_000_000), 1000)
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError, match="is not of 1000 bytes"):
                decode(bomb)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (compressed(b"a\x01") + b"x", "1 bytes follow"),
            (compressed(b"a\x01")[:-1] + b"x", "cannot be decompressed"),
            (b"\x83P\0\0\0\x02" + b"garbage", "cannot be decompressed"),
            (b"\x83P\0\0\0\x02", "truncated"),
            (b"\x83P\0\0", "truncated"),
            (compressed(b"a\x01a\x02"), "ends at byte 2"),
            (compressed(b""), "truncated"),
            (compressed(b"\x83a\x01"), "second version byte"),
            (compressed(compressed(b"a\x01")[1:]), "compressed term inside"),
        ],
    )
    def test_malformed(self, data: bytes, match: str) -> None:
        """A stream that is damaged, cut, followed by something, or no term inside."""
        with pytest.raises(DecodeError, match=match):
            decode(data)


def test_atoms_are_shared() -> None:
    """The same atom is one object, wherever it is read."""
    first, second = decode(b"\x83h\x02w\x05helloX" + b"w\x05hello" + bytes(12))
    assert first is second.node is decode(b"\x83w\x05hello")


def test_atom_cache_is_bounded() -> None:
    """A peer that sends ever new atoms gets them, but they are not kept for ever."""
    for number in range(2 * MAX_CACHED_ATOMS + 10):
        text = f"atom_{number}"
        assert decode_term(b"w" + bytes((len(text),)) + text.encode())[0] == Atom(text)
        assert len(cached_atoms) <= MAX_CACHED_ATOMS


@pytest.mark.parametrize(("head", "size"), [(b"X", 12), (b"Z\0\3", 16)])
def test_identifier_cache_is_bounded(head: bytes, size: int) -> None:
    """The same pid or reference is one object; of ever new ones, not all are kept."""
    first = decode(b"\x83" + head + b"w\3a@h" + bytes(size))
    for number in range(2 * MAX_CACHED_IDENTIFIERS + 10):
        data = b"\x83" + head + b"w\3a@h" + number.to_bytes(size, "big")
        assert decode(data) is decode(data)
        assert len(cached_identifiers) <= MAX_CACHED_IDENTIFIERS
    assert decode(b"\x83" + head + b"w\3a@h" + bytes(size)) == first


@pytest.mark.parametrize("head", [b"X", b"Z\0\3"])
def test_node_names_of_identifiers_of_any_length(head: bytes) -> None:
    """The cache takes the node for a short atom: other forms of it are read as well, each time."""
    for size in (1, 3, 12, 255):
        text = b"n" * size
        nodes = [b"w" + bytes([size]) + text, b"v\0" + bytes([size]) + text]
        nodes += [b"s" + nodes[0][1:], b"d" + nodes[1][1:]]
        rest = bytes(range(12)) + (b"" if head == b"X" else b"\x7f\0\0\1")
        terms = [decode(b"\x83" + head + node + rest) for node in nodes for _ in range(2)]
        assert all(term == terms[0] for term in terms)
        assert terms[0].node == text.decode()
        for node in nodes:
            data = b"\x83" + head + node + rest
            for end in range(1, len(data)):
                with pytest.raises(DecodeError):
                    decode(data[:end])


def test_lists_are_not_shared() -> None:
    """A list that is decoded twice is two lists: either may be changed."""
    first, second = decode(b"\x83h\x02jj")
    assert first is not second
