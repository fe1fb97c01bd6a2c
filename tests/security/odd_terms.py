"""Terms that Python can't show, or would show at length."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pybeethoven import Atom, Term
from pybeethoven.etf import Map


def _nested(wrap: Any) -> Term:
    """A term that is so deep that Python's `repr` may fail at it, and that a message can have."""
    term: Term = []
    for _ in range(250):
        term = wrap(term)
    return term


ODD_TERMS: Final = [
    pytest.param(10**5000, id="huge integer"),
    pytest.param([Atom("a"), -(10**5000)], id="huge integer in a list"),
    pytest.param(_nested(lambda term: (term,)), id="deep tuple"),
    pytest.param(_nested(lambda term: [term]), id="deep list"),
    pytest.param(_nested(lambda term: Map([([], term)])), id="deep map"),
    pytest.param(bytes(10_000), id="long binary"),
    pytest.param(list(range(1_000)), id="long list"),
    pytest.param(Atom("\U0001f600" * 255), id="long atom"),
]
"""Parameters of tests."""
