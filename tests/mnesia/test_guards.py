"""The functions of match specifications, each with arguments that it takes and that it doesn't.

`tests/interop/test_match_spec.py` asks a real BEAM.
"""

from __future__ import annotations

from typing import Any

import pytest

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
from pybeethoven.etf.order import exact_key
from pybeethoven.mnesia.guards import FUNCTIONS, BadArgument

NODE = Atom("a@h")
PID, PORT, REF = Pid(NODE, 1, 0, 1), Port(NODE, 1, 1), Reference(NODE, 1, (1, 2, 3))
FUN = Fun(b"p\0\0\0\x1e\x02")
BITS = BitString(b"ab\xe0", 3)
IMPROPER = ImproperList([1, 2], 3)
MIXED = Map([(1, b"int"), (1.0, b"float"), ([], b"nil")])
A, T = Atom("a"), Atom("true")
RECORD = NativeRecord(A, A, {A: 1})
BAD: Any = BadArgument

CALLS: dict[str, list[tuple[Term, ...]]] = {
    "is_atom": [(A, True), (True, True), (None, True), ("a", False), (b"a", False), (1, False)],
    "is_binary": [(b"", True), ("a", True), (A, False), (BITS, False), (bytearray(b"a"), True)],
    "is_bitstring": [(b"", True), (BITS, True), ("a", True), (A, False)],
    "is_boolean": [(True, True), (T, True), (False, True), (None, False), (1, False)],
    "is_float": [(1.0, True), (1, False), (True, False)],
    "is_function": [
        (Export(A, A, 2), True), (A, False), (Export(A, A, 2), 2, True), (A, 2, False),
        (Export(A, A, 2), 3, False), (Export(A, A, 2), -1, BAD), (A, A, BAD), (FUN, True),
        (FUN, 2, True), (FUN, 3, False),
    ],
    "is_integer": [(1, True), (2**70, True), (1.0, False), (True, False)],
    "is_list": [([], True), (IMPROPER, True), ((), False), (b"", False)],
    "is_map": [({}, True), (MIXED, True), ([], False), (RECORD, False)],
    "is_map_key": [(1, MIXED, True), (2, MIXED, False), ([], MIXED, True), (1, [], BAD)],
    "is_number": [(1, True), (1.5, True), (True, False), (b"1", False)],
    "is_pid": [(PID, True), (REF, False)],
    "is_port": [(PORT, True), (PID, False)],
    "is_record": [
        ((A, 1), A, 2, True), ((A, 1), A, 3, False), ((A, 1), Atom("b"), 2, False),
        ((True, 1), T, 2, True), ((), A, 0, False), (1, A, 2, False), ((A, 1), b"a", 2, BAD),
        ((A, 1), A, A, False), (RECORD, A, A, True), (RECORD, A, True, False),
        (RECORD, A, 2, False), (RECORD, b"a", A, BAD), ((A, 1), A, b"a", BAD),
        ((A, 1), A, 2**59, BAD), ((A, 1), A, 2**59 - 1, False),
    ],
    "is_reference": [(REF, True), (PID, False)],
    "is_tuple": [((), True), ([], False), (RECORD, False)],
    "==": [(1, 1.0, True), (1, True, False), ("a", b"a", True), ([1], [1.0], True)],
    "/=": [(1, 1.0, False), (1, 2, True)],
    "=:=": [(1, 1.0, False), (1, 1, True), ({1: 2}, Map([(1, 2)]), True), (0.0, -0.0, False)],
    "=/=": [(1, 1.0, True), (T, True, False)],
    "<": [(1, A, True), (2**53 + 1, 2.0**53, False), (A, 1, False), (1, 1.0, False)],
    "=<": [(1, 1.0, True), (2, 1, False)],
    ">": [(A, 1, True), (1, 1.0, False)],
    ">=": [(1, 1.0, True), (1, 2, False)],
    "min": [(1, 1.0, 1), (1.0, 1, 1.0), (A, 1, 1)],
    "max": [(1, 1.0, 1), (1.0, 1, 1.0), (A, 1, A)],
    "not": [(True, False), (Atom("false"), True), (1, BAD), (None, BAD)],
    "xor": [(True, False, True), (T, True, False), (True, 1, BAD)],
    "+": [(1, 1), (-1.5, -1.5), (A, BAD), (1, 2, 3), (1, 2.5, 3.5), (1, True, BAD),
          (10**400, 1.0, BAD), (1.7e308, 1.7e308, BAD)],
    "-": [(1, -1), (0.0, -0.0), (3, 1, 2), (b"", 1, BAD)],
    "*": [(2, 3, 6), (2**100, 2**100, 2**200), (1e300, 1e300, BAD), (-1, 0.0, -0.0)],
    "/": [(4, 2, 2.0), (1, 0, BAD), (1, 0.0, BAD), (10**400, 10**400, BAD), (1, A, BAD)],
    "abs": [(-1, 1), (-1.5, 1.5), (A, BAD)],
    "ceil": [(1.2, 2), (-1.2, -1), (3, 3), (A, BAD)],
    "float": [(1, 1.0), (1.5, 1.5), (10**400, BAD), (A, BAD)],
    "floor": [(1.2, 1), (-1.2, -2), (3, 3)],
    "round": [(0.5, 1), (-0.5, -1), (1.5, 2), (2.5, 3), (0.49999999999999994, 0),
              (1e22, 10**22), (2.0**52 + 1, 2**52 + 1), (7, 7)],
    "trunc": [(1.9, 1), (-1.9, -1), (1e22, 10**22), (7, 7), (b"", BAD)],
    "div": [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3), (1, 0, BAD), (7.0, 2, BAD)],
    "rem": [(7, 2, 1), (-7, 2, -1), (7, -2, 1), (-7, -2, -1), (1, 0, BAD), (7, 2.0, BAD)],
    "band": [(-2, 7, 6), (1.0, 1, BAD)],
    "bor": [(1, 4, 5)],
    "bxor": [(7, 2, 5)],
    "bnot": [(0, -1), (True, BAD)],
    "bsl": [(1, 70, 2**70), (5, -1, 2), (-1, -99, -1), (1, 2**70, BAD), (0, 2**70, 0),
            (1, 2**22, BAD), (1, 2**22 - 1, 1 << 2**22 - 1), (1, -(2**70), 0), (1.0, 1, BAD)],
    "bsr": [(2**70, 70, 1), (-1, 2**70, -1), (1, -3, 8), (1, -(2**70), BAD)],
    "binary_part": [
        (b"abc", (1, 2), b"bc"), (b"abc", (3, -2), b"bc"), (b"abc", (2, 2), BAD),
        (b"abc", (1,), BAD), (b"abc", 1, BAD), (b"abc", 0, 0, b""), (b"abc", 1, -2, BAD),
        ("é", 0, 1, b"\xc3"), (BITS, 0, 2, BAD), (A, 0, 0, BAD),
        (b"abc", A, 0, BAD), (b"abc", 0, 1.0, BAD), (b"abc", 4, -1, BAD),
    ],
    "bit_size": [(b"ab", 16), (BITS, 19), ("é", 16), (A, BAD)],
    "byte_size": [(b"ab", 2), (BITS, 3), ("é", 2), ((), BAD)],
    "element": [(1, (A,), A), (2, (A,), BAD), (0, (A,), BAD), (1.0, (A,), BAD), (1, [A], BAD)],
    "hd": [([1, 2], 1), (IMPROPER, 1), ([], BAD), ((1,), BAD)],
    "length": [([], 0), ([1, 2], 2), (IMPROPER, BAD), ((), BAD)],
    "map_get": [(1.0, MIXED, b"float"), ([], MIXED, b"nil"), (2, MIXED, BAD), (1, [], BAD)],
    "map_size": [({}, 0), (MIXED, 3), ((), BAD)],
    "node": [(PID, NODE), (PORT, NODE), (REF, NODE), (NODE, BAD)],
    "size": [((1, 2), 2), (b"ab", 2), (BITS, 2), ("é", 2), ([], BAD), ({}, BAD)],
    "tl": [([1, 2], [2]), ([1], []), (IMPROPER, ImproperList([2], 3)), ([], BAD),
           (ImproperList([1], 3), 3), ((), BAD)],
    "tuple_size": [((1, 2), 2), (b"ab", BAD)],
}  # fmt: skip
"""For each function its calls: the arguments, and then the result."""


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    """Each call has its result, the type of which is right, too."""
    for *arguments, expected in CALLS[name]:
        function = FUNCTIONS[name, len(arguments)]
        if expected is BAD:
            with pytest.raises(BadArgument):
                pytest.fail(f"{name}{tuple(arguments)} is {function(*arguments)!r}")
        else:
            result = function(*arguments)
            assert exact_key(result) == exact_key(expected), f"{name}{tuple(arguments)}"


def test_all_are_called() -> None:
    """No function is left out."""
    called = {(name, len(call) - 1) for name, calls in CALLS.items() for call in calls}
    assert called == set(FUNCTIONS)
