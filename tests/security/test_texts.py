"""What is said of a term, in an error or a log, is short, whatever the term."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from pybeethoven import (
    Aborted,
    Atom,
    BeethovenError,
    ErlangError,
    Node,
    ProcessExit,
    Term,
)
from pybeethoven.errors import SupervisorError, brief
from pybeethoven.etf import ImproperList, Map
from pybeethoven.testing import Epmd
from tests.etf.test_terms import CONTAINERS, VALUES
from tests.helpers import soon
from tests.security.odd_terms import ODD_TERMS

MAX_TEXT = 1000
"""Maximum number of characters of such a text."""
PLACE = Atom("m"), Atom("f")


def _location(file: Term, line: Term) -> Term:
    return [(Atom("file"), file), (Atom("line"), line)]


@pytest.mark.parametrize("odd", ODD_TERMS)
@pytest.mark.parametrize(
    "make",
    [
        lambda odd: ProcessExit(odd),
        lambda odd: ProcessExit(odd, "server"),
        lambda odd: SupervisorError(odd, odd),
        lambda odd: Aborted("table", odd),
        lambda odd: ErlangError(odd),
        lambda odd: ErlangError(1, [odd, odd, odd]),
        lambda odd: ErlangError(1, [(*PLACE, odd, [])]),
        lambda odd: ErlangError(1, [(*PLACE, 1, odd)]),
        lambda odd: ErlangError(1, [(*PLACE, 1, _location(odd, 1))]),
        lambda odd: ErlangError(1, [(*PLACE, 1, _location([97], odd))]),
    ],
    ids=range(10),
)
def test_text_of_an_error_is_short(make: Callable[[Any], BeethovenError], odd: Any) -> None:
    """An error that has a term of a peer shows the beginning of it, or its type."""
    assert len(str(make(odd))) < MAX_TEXT


@pytest.mark.parametrize("odd", ODD_TERMS)
async def test_text_about_an_address_is_short(epmd: Epmd, odd: Any) -> None:
    """A term of a peer that something is sent to, and that is not an address, is shown as well."""
    async with Node("py@127.0.0.1", "cookie") as node:
        for address in (odd, (odd, node.name), (node.name, odd)):
            with pytest.raises(BeethovenError) as raised:
                node.send(address, 1)
            assert len(str(raised.value)) < MAX_TEXT
            with pytest.raises(BeethovenError) as raised:
                await soon(node.call(address, 1))
            assert len(str(raised.value)) < MAX_TEXT


class Counted:
    """A value that counts how often it was shown."""

    shown = 0

    def __repr__(self) -> str:
        Counted.shown += 1
        return "x"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda values: values,
        lambda values: tuple(values),
        lambda values: [(each, []) for each in values],
        lambda values: ImproperList(values, 1),
        lambda values: Map([(each, each) for each in values]),
        lambda values: {number: (each, each) for number, each in enumerate(values)},
    ],
    ids=["list", "tuple", "nested", "improper list", "Map", "dict"],
)
def test_cost_of_a_text_is_bounded(monkeypatch: pytest.MonkeyPatch, wrap: Any) -> None:
    """No more of a term is written out than is shown, and what is shown is its beginning."""
    monkeypatch.setattr(Counted, "shown", 0)
    term = wrap([Counted() for _ in range(10_000)])
    text = brief(term)
    assert Counted.shown <= len(text) == 200
    assert repr(term).startswith(text)


def test_memory_of_a_text_is_bounded() -> None:
    """A binary of 10 MB takes no other."""
    binary = bytes(10_000_000)
    tracemalloc.start()
    try:
        assert brief((1, binary)).startswith("(1, b'\\x00")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("term", [*VALUES, *CONTAINERS], ids=repr)
def test_a_short_term_is_shown_whole(term: Any) -> None:
    """Whatever its type."""
    assert brief(term) == repr(term)
    assert brief([term]) == repr([term])
