"""What is said of a term, in an error or a log, is short, whatever the term."""

from __future__ import annotations

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
from pybeethoven.errors import SupervisorError
from pybeethoven.testing import Epmd
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
