"""What a peer is asked to call for each change of a table; that it does it is tested in interop."""

from __future__ import annotations

from typing import Any

import pytest

from pybeethoven import Atom, ConfigError, Export, Term
from pybeethoven.etf import decode, encode
from pybeethoven.mnesia import Delete, DeleteObject, Operation, Write
from pybeethoven.mnesia.operations import (
    dirty,
    one_after_another,
    send,
    transaction,
    update_counter,
)

TAB = Atom("tab")
ROW = (TAB, 1, 2)


def export(text: str) -> Export:
    """`module:function/arity` as a term."""
    module, _, rest = text.partition(":")
    function, _, arity = rest.partition("/")
    return Export(Atom(module), Atom(function), int(arity))


@pytest.mark.parametrize(
    ("operation", "function", "argument"),
    [
        (Write(ROW), "write", ROW),
        (Delete(1), "delete", (TAB, 1)),
        (Delete((1, [])), "delete", (TAB, (1, []))),
        (DeleteObject(ROW), "delete_object", ROW),
    ],
)
def test_calls(operation: Operation, function: str, argument: Term) -> None:
    """Each operation is one call, in a transaction and without."""
    assert dirty(TAB, operation) == (export(f"mnesia:dirty_{function}/1"), [argument])
    mnesia_transaction, [zipwith, args] = transaction(TAB, [operation, Write(ROW)])
    assert mnesia_transaction == export("mnesia:transaction/2")
    assert zipwith == export("lists:zipwith/3")
    functions = [export(f"mnesia:{function}/1"), export("mnesia:write/1")]
    assert args == [export("erlang:apply/2"), functions, [[argument], [ROW]]]


def test_one_after_another() -> None:
    """Calls of any functions, in their order, as terms that can be sent."""
    calls = [update_counter(TAB, b"key", -3), send(TAB, (1, 2))]
    args = one_after_another(calls)
    assert args == [
        export("erlang:apply/2"),
        [export("mnesia:dirty_update_counter/2"), export("erlang:send/2")],
        [[(TAB, b"key"), -3], [TAB, (1, 2)]],
    ]
    assert decode(encode(args)) == args


@pytest.mark.parametrize("kind", [Write, DeleteObject])
@pytest.mark.parametrize("row", [(), (TAB,), (TAB, 1), (Atom("other"), 1, 2), [TAB, 1, 2], None, 5])
def test_no_row(kind: Any, row: Any) -> None:
    """What can't be a row of the table is refused before anybody is asked."""
    with pytest.raises(ConfigError, match=r"is no row of tab; it must be a tuple of Atom\('tab'\)"):
        dirty(TAB, kind(row))


@pytest.mark.parametrize("what", [None, ROW, ("write", ROW), Write])
def test_no_operation(what: Any) -> None:
    """So is what is no operation."""
    with pytest.raises(ConfigError, match="is no operation; give a Write, a Delete or a"):
        transaction(TAB, [what])
