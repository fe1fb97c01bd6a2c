"""What the match specifications of a peer may cost, since they run in our event loop."""

from __future__ import annotations

import itertools
import math
from typing import Final

from pybeethoven.etf import Atom, BitString, Fun, ImproperList, Map, NativeRecord, Term
from pybeethoven.mnesia.guards import Function

STEPS: Final = 60_000
"""Steps that one call of a peer may take: for each term that is looked at or made, one."""
ROW_STEPS: Final = 200
"""A call that is one query may take so many more for each row."""
TERM_STEPS: Final = 4
"""And so many for each term in a row."""
MAX_WEIGHT: Final = 10_000
"""Maximum weight of a match specification, which has to be compiled."""


class OverBudget(Exception):
    """A call has taken all the steps that it may take."""


class Budget:
    """The steps that one call has left. With `of_rows`, each row that it looks at brings more."""

    def __init__(self, steps: float = STEPS, *, of_rows: bool) -> None:
        self._left = steps
        self._of_rows = of_rows
        self.row_weight = 0
        """That of the row which is looked at."""

    def spend(self, steps: int) -> None:
        """Take steps. Raises `OverBudget` if there are not so many left."""
        self._left -= steps
        if self._left < 0:
            raise OverBudget

    def spend_on(self, term: Term) -> None:
        """Take as many steps as a term weighs. Raises `OverBudget` as soon as there are too few."""
        self.spend(weight(term, self._left))

    def look_at(self, row: Term) -> None:
        """Go on to a row."""
        if self._of_rows:
            self.row_weight = weight(row)
            self._left += ROW_STEPS + TERM_STEPS * self.row_weight
        else:
            self.row_weight = weight(row, self._left)
            self.spend(self.row_weight)

    def call(self, function: Function, arguments: list[Term]) -> Term:
        """What a function gives, for the weight of its arguments and of its result."""
        for argument in arguments:
            self.spend_on(argument)
        result = function(*arguments)
        self.spend_on(result)
        return result


def weight(term: Term, limit: float = math.inf) -> int:
    """How many terms a term is; counting ends above `limit`.

    What takes longer counts for more: long binaries; large integers, by the square of their length,
    as a division does; funs, by their bytes, since comparing them decodes them.
    """
    total, rest = 0, [term]
    while rest and total <= limit:
        term = rest.pop()
        total += 1
        kind = type(term)
        if kind is Atom:
            continue
        if kind is int:
            total += (term.bit_length() >> 8) ** 2
        elif kind is tuple or kind is list:
            rest += term
        elif kind is dict:
            rest += term
            rest += term.values()
        elif kind is bytes:
            total += len(term) >> 6
        elif kind is Map:
            rest += itertools.chain.from_iterable(term.pairs)
        elif kind is ImproperList:
            rest += (*term.elements, term.tail)
        elif kind is NativeRecord:
            rest += term.fields.values()
        elif kind is BitString:
            total += len(term.data) >> 6
        elif kind is Fun:
            total += len(term.data)
    return total
