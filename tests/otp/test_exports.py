"""Tests of `otp.exports`, beside those with a node in `test_rpc`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pybeethoven.errors import ConfigError
from pybeethoven.etf import Atom, Reference, Term, encode
from pybeethoven.otp.exports import BADARG, ERROR, RETURN, UNDEF, Exports

M, F = Atom("m"), Atom("f")


@pytest.mark.parametrize(
    ("function", "overlaps"),
    [
        (lambda: 0, False),
        (lambda a, b, c, d: 0, False),
        (lambda a, b, c, d, *rest: 0, False),
        (lambda a, b=0: 0, True),
        (lambda a, b, c, d=0: 0, True),
        (lambda a=0, b=0, c=0, d=0: 0, True),
        (lambda *rest: 0, True),
    ],
    ids=["0", "4", "4 on", "1-2", "3-4", "0-4", "any"],
)
async def test_functions_of_one_name_differ_in_arity(
    function: Callable[..., object], overlaps: bool
) -> None:
    """A function of 2 to 3 arguments excludes each other one that takes 2 or 3."""
    exports = Exports()
    exports.add("m", lambda a, b, c=0: 1, "f")
    if overlaps:
        with pytest.raises(ConfigError, match="m:f is exported already for as many arguments"):
            exports.add("m", function, "f")
    else:
        exports.add("m", function, "f")
    assert (await exports.apply(M, F, [0, 0])).value == 1


async def test_class_is_exported_whole_or_not_at_all() -> None:
    """If one name is taken, the functions before it are not exported either."""

    class Billing:
        @staticmethod
        def charge() -> None: ...

        @staticmethod
        def f() -> None: ...

    exports = Exports()
    exports.add("m", lambda: 1, "f")
    with pytest.raises(ConfigError):
        exports.add("m", Billing, None)
    assert (await exports.apply(M, Atom("charge"), [])).value == UNDEF
    assert (await exports.apply(M, F, [])).kind == RETURN


@pytest.mark.parametrize("args", [(), b"", None, {}], ids=repr)
async def test_arguments_outside_a_list_are_badarg(args: Term) -> None:
    """As on a BEAM, arguments come in a list only."""
    exports = Exports()
    exports.add("m", lambda: 1, "f")
    assert (await exports.apply(M, F, args)).value == BADARG


async def test_stack_trace_with_a_long_name_can_be_sent() -> None:
    """A Python name may be longer than an atom; in the stack trace it is cut."""
    name = "x" * 300
    made: dict[str, Callable[[], object]] = {}
    exec(f"def {name}(): 1 // 0", made)
    exports = Exports()
    exports.add("m", lambda: made[name](), "f")
    answer = await exports.answer(Reference(Atom("a@h"), 1, (1,)), M, F, [])
    encode(answer)
    assert answer[1] == ERROR
    assert answer[3][0][1] == "x" * 255
