"""Terms that a real BEAM wrote: read, written again, and judged by a real BEAM.

`golden/otp25.txt` is made by `erlang_interop/golden_terms.erl`, which says how.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pybeethoven.etf import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Reference,
    decode,
    encode,
)

GENERATOR = Path(__file__).parents[2] / "erlang_interop" / "golden_terms.erl"
LINES = (Path(__file__).parent / "golden" / "otp25.txt").read_text().splitlines()
GOLDEN = {name: bytes.fromhex(data) for name, data, _ in (line.split("\t") for line in LINES)}

NODE = Atom("golden@10.0.0.1")
CREATION = 1700000000
MAX = 2**32 - 1
PID = Pid(NODE, 143, 2, CREATION)
REF = Reference(NODE, CREATION, (1, 2, 3))
DATE_TIME = {
    Atom("__struct__"): Atom("Elixir.DateTime"),
    Atom("calendar"): Atom("Elixir.Calendar.ISO"),
    Atom("day"): 22,
    Atom("hour"): 8,
    Atom("microsecond"): (12345, 6),
    Atom("minute"): 1,
    Atom("month"): 11,
    Atom("second"): 59,
    Atom("std_offset"): 0,
    Atom("time_zone"): b"Etc/UTC",
    Atom("utc_offset"): 0,
    Atom("year"): 2026,
    Atom("zone_abbr"): b"UTC",
}
ROW = (Atom("Elixir.CoreTracker"), Atom("a@10.0.0.1"), Atom("online"), DATE_TIME)
A, B, C = Atom("a"), Atom("b"), Atom("c")
ALL_FORMS = [Atom("ok"), Atom("café"), 1.5, list(b"string"), {A: (1, 2)}]

SHAPES: dict[str, Any] = {
    "int_255_bytes": 2**2040 - 1,
    "int_256_bytes": 2**2040,
    "int_minus_256_bytes": -(2**2040),
    "int_1000_bytes": 2**8000 - 3,
    "float_zero": 0.0,
    "float_minus_zero": -0.0,
    "float_tenth": 0.1,
    "float_denormal": 5e-324,
    "float_max": 1.7976931348623157e308,
    "atom_true": True,
    "atom_false": False,
    "atom_nil": None,
    "atom_undefined": Atom("undefined"),
    "atom_empty": Atom(""),
    "atom_latin1": Atom("café"),
    "atom_unicode": Atom("你好"),
    "atom_astral": Atom("😀"),
    "atom_255_four_bytes": Atom("😀" * 255),
    "tuple_256": (7,) * 256,
    "list_empty": [],
    "list_string": list(b"hello"),
    "list_256": [255, 256],
    "list_nested": [[], [[]], [1, [2.0]]],
    "list_improper": ImproperList([1, 2], Atom("tail")),
    "list_improper_pair": ImproperList([Atom("alias")], 5),
    "list_improper_nested": ImproperList([ImproperList([A], B)], (C,)),
    "binary_empty": b"",
    "binary_utf8": "grün".encode(),
    "binary_all_bytes": bytes(range(256)),
    "bits_3": BitString(b"\xab\xcd\xe0", 3),
    "bits_only": BitString(b"\x80", 1),
    "map_mixed": {1: A, b"k": [Atom("x")]},
    "map_int_float": Map([(1, Atom("int")), (1.0, Atom("float"))]),
    "map_true_one": Map([(1, B), (True, A)]),
    "map_false_zero": Map([(0, B), (0.0, C), (False, A)]),
    "map_nested_collision": Map([((1,), Atom("int")), ((1.0,), Atom("float"))]),
    "map_list_keys": Map([([], C), ([1], A), ([97, 98], B)]),
    "map_map_keys": Map([({}, A), ({B: 1}, C)]),
    "map_improper_key": Map([(ImproperList([A], B), C)]),
    "map_collision_inside_key": Map([(Map([(1, A), (1.0, B)]), C)]),
    "map_33": {number: number * number for number in range(1, 34)},
    "export_mnesia": Export(Atom("mnesia"), Atom("write"), 1),
    "export_names": Export(Atom("true"), Atom("nil"), 255),
    "fun_env": Fun(GOLDEN["fun_env"][1:]),
    "fun_in_tuple": (A, Fun(GOLDEN["fun_env"][1:]), B),
    "date_time": DATE_TIME,
    "node_update": (
        Atom("$gen_cast"),
        (Atom("node_update"), (Atom("b@127.0.0.1"), Atom("offline"))),
    ),
    "tracker_row": ROW,
    "tracker_event": (
        Atom("mnesia_table_event"),
        (
            Atom("write"),
            ROW[0],
            (*ROW[:2], Atom("offline"), DATE_TIME),
            [ROW],
            (Atom("tid"), 5, PID),
        ),
    ),
    "gen_call": (
        Atom("$gen_call"),
        (PID, ImproperList([ImproperList([Atom("alias")], REF)], 7)),
        (Atom("is_auth"), Atom("a@10.0.0.1")),
    ),
    "pid_ref_keys": {REF: B, PID: A},
    "minor_0": ALL_FORMS,
    "minor_1": ALL_FORMS,
    "compressed": [7] * 500,
    "compressed_string_65535": [7] * 65535,
    "compressed_list_65536": [7] * 65536,
    "compressed_tuple_70000": (7,) * 70000,
    "compressed_int_70000_bytes": 2**560000,
    "compressed_binary_1_mib": b"ab" * 2**19,
    "old_atom_latin1": Atom("é"),
    "old_small_atom_true": True,
    "long_form_big": -7,
    "big_zero": 0,
    "bits_8": b"ab",
    "bits_padding": BitString(b"\xe0", 3),
    "list_of_none_tail": 5,
    "list_tail_list": [1, 2],
    "list_tail_string": [1, 2, 3],
    "list_tail_improper": ImproperList([1, 2], 3),
    "pid": PID,
    "pid_max": Pid(NODE, MAX, MAX, MAX),
    "pid_old": Pid(NODE, 143, 2, 3),
    "pid_node_nil": Pid(Atom("nil"), 1, 0, 0),
    "port": Port(NODE, 7, CREATION),
    "port_old": Port(NODE, 7, 3),
    "port_v4": Port(NODE, 2**28, 1),
    "port_v4_max": Port(NODE, 2**64 - 1, MAX),
    "ref_1": Reference(NODE, 9, (1,)),
    "ref_3": Reference(NODE, 9, (1, 2, 3)),
    "ref_5": Reference(NODE, MAX, (1, 2, 3, 4, MAX)),
    "ref_new": Reference(NODE, 3, (1, 2, 3)),
    "ref_old": Reference(NODE, 3, (7,)),
}

# What a BEAM writes, or reads, in a form that we don't write.
NOT_CANONICAL = {
    "a list of bytes, which is a STRING_EXT": {
        "list_string", "map_list_keys", "map_tuple_with_list_key", "string_empty",
        "list_tail_string",
    },
    "older or longer forms": {
        "minor_0", "minor_1", "old_atom", "old_atom_latin1", "old_small_atom",
        "old_small_atom_true", "long_form_atom", "long_form_int", "long_form_big",
        "long_form_tuple", "big_with_zeros", "big_zero", "bits_8", "list_of_none",
        "list_of_none_tail", "list_tail_list", "list_tail_improper", "pid_old", "pid_latin1_node",
        "port_old", "port_v4_small", "ref_new", "ref_old",
    },
    "padding that is not zero": {"bits_padding"},
    "compressed": {name for name in GOLDEN if name.startswith("compressed")},
}  # fmt: skip
EXCEPTIONS = set().union(*NOT_CANONICAL.values())


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    """What the BEAM wrote is read as the value written here by hand."""
    term, expected = decode(GOLDEN[name]), SHAPES[name]
    assert term == expected
    if not isinstance(expected, int):  # the digits of the largest are more than Python prints
        assert repr(term) == repr(expected)
    assert type(term) is type(expected)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("int_")])
def test_integers(name: str) -> None:
    """The integers carry their value in their names."""
    digits = name.removeprefix("int_")
    if "bytes" not in digits:
        assert decode(GOLDEN[name]) == int(digits)


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes(name: str) -> None:
    """Read and written again, a term has the BEAM's bytes, but for the exceptions listed."""
    assert (encode(decode(GOLDEN[name])) == GOLDEN[name]) == (name not in EXCEPTIONS)


@pytest.mark.parametrize("name", GOLDEN)
def test_again(name: str) -> None:
    """What we wrote we read as the same term."""
    ours = encode(decode(GOLDEN[name]))
    assert encode(decode(ours)) == ours


def test_there_are_enough() -> None:
    """The file is whole, and the tables above speak of terms that are in it."""
    assert len(GOLDEN) == len(LINES) == 157
    assert set(SHAPES) <= set(GOLDEN)
    assert set(GOLDEN) >= EXCEPTIONS


def judged_by_a_beam(erl: str, lines: list[str], tmp_path: Path) -> list[str]:
    """What `golden_terms:check/1` prints for lines of name, golden hex and our hex."""
    (tmp_path / "lines").write_text("".join(line + "\n" for line in lines))
    run = (
        "[Source, Lines] = init:get_plain_arguments(),"
        "{ok, Module, Binary} = compile:file(Source, [binary]),"
        "{module, _} = code:load_binary(Module, Source, Binary),"
        "Module:check([Lines]), halt(0)."
    )
    command = [erl, "-noshell", "-eval", run, "-extra", str(GENERATOR), str(tmp_path / "lines")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *findings, last = done.stdout.splitlines()
    assert last == "checked"
    return findings


def test_equal_to_a_beam(erl: str, tmp_path: Path) -> None:
    """A real BEAM finds that what we write is the term that it wrote."""
    lines = [
        f"{name}\t{golden.hex()}\t{encode(decode(golden)).hex()}" for name, golden in GOLDEN.items()
    ]
    assert judged_by_a_beam(erl, lines, tmp_path) == []


def test_beam_tells_what_differs(erl: str, tmp_path: Path) -> None:
    """The judge of the test above is no yea-sayer."""
    pairs = {"value": (1, 2), "type": (1, 1.0), "zero": (0.0, -0.0), "key": ({1: 2}, {1.0: 2})}
    lines = [f"{name}\t{encode(a).hex()}\t{encode(b).hex()}" for name, (a, b) in pairs.items()]
    findings = judged_by_a_beam(erl, [*lines, "bytes\t8361\x30\x31\t83ff"], tmp_path)
    assert [finding.split(":")[0] for finding in findings] == [*pairs, "bytes"]
