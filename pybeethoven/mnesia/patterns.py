"""The heads of match specifications: what their variables are, and what terms they match.

A pattern is a function that says whether a term matches, and binds variables on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from pybeethoven.etf import Atom, Fun, ImproperList, Map, Term
from pybeethoven.etf.order import Key, exact_key
from pybeethoven.mnesia.guards import pairs_of

Bound: TypeAlias = list[Any]
"""What the variables are bound to, each in its slot."""

Pattern: TypeAlias = Callable[[Term, Bound], bool]

_CONTAINERS: Final = frozenset({tuple, list, dict, ImproperList, Map})


def variable(term: Term) -> int | None:
    """The number of a variable, None of anything else. `$1` is one, `$01` is not.

    A BEAM counts in 32 bits: `$4294967297` is `$1`, and `$2147483648` no variable.
    """
    if not isinstance(term, Atom) or not re.fullmatch(r"\$(0|[1-9][0-9]*)", term):
        return None
    number = int(term[1:]) & 0xFFFFFFFF
    return number if number < 1 << 31 else None


def is_open(term: Term) -> bool:
    """Whether a term is a variable or `_`."""
    return isinstance(term, Atom) and (term == "_" or variable(term) is not None)


def is_ground(pattern: Term) -> bool:
    """Whether only one term matches it: there are no variables, `_` or maps in it."""
    rest = [pattern]
    while rest:
        term = rest.pop()
        if is_open(term):
            return False
        if isinstance(term, tuple | list):
            rest += term
        elif isinstance(term, ImproperList):
            rest += (*term.elements, term.tail)
        elif isinstance(term, dict | Map):
            return False
    return True


def anything(_: Term, __: Bound) -> bool:
    """The pattern `_`."""
    return True


def binding_pattern(slot: int) -> Pattern:
    """A variable where it comes first: it matches all."""

    def match(term: Term, bound: Bound) -> bool:
        bound[slot] = term
        return True

    return match


def same_pattern(slot: int) -> Pattern:
    """A variable where it comes again: what matches has to be the same (`=:=`)."""
    return lambda term, bound: exact_key(term) == exact_key(bound[slot])


def literal_pattern(pattern: Term) -> Pattern:
    """A term that is no container: it matches what `=:=` it."""
    wanted, is_fun = exact_key(pattern), isinstance(pattern, Fun)
    return lambda term, _: (
        type(term) not in _CONTAINERS
        and isinstance(term, Fun) == is_fun
        and exact_key(term) == wanted
    )


def tuple_pattern(size: int, patterns: list[tuple[int, Pattern]]) -> Pattern:
    """A tuple of that size; `patterns` have their places, and leave out those that match all."""

    def match(term: Term, bound: Bound) -> bool:
        if not isinstance(term, tuple) or len(term) != size:
            return False
        for place, matches in patterns:  # noqa: SIM110 (slower)
            if not matches(term[place], bound):
                return False
        return True

    return match


def list_pattern(size: int, patterns: list[tuple[int, Pattern]]) -> Pattern:
    """A proper list of that length."""

    def match(term: Term, bound: Bound) -> bool:
        if not isinstance(term, list) or len(term) != size:
            return False
        return all(matches(term[place], bound) for place, matches in patterns)

    return match


def improper_pattern(size: int, patterns: list[tuple[int, Pattern]], tail: Pattern) -> Pattern:
    """`[a, b | tail]`, where the tail can be a variable that binds the rest of the list."""

    def match(term: Term, bound: Bound) -> bool:
        elements = term.elements if isinstance(term, ImproperList) else term
        if not isinstance(elements, list) or len(elements) < size:
            return False
        rest: Term = elements[size:]
        if isinstance(term, ImproperList):
            rest = ImproperList(rest, term.tail) if rest else term.tail
        return all(matches(elements[place], bound) for place, matches in patterns) and tail(
            rest, bound
        )

    return match


def map_pattern(wanted: list[tuple[Key, Pattern]]) -> Pattern:
    """A map that has at least these keys, with values that match."""

    def match(term: Term, bound: Bound) -> bool:
        if not isinstance(term, dict | Map):
            return False
        found = {exact_key(key): value for key, value in pairs_of(term)} if wanted else {}
        return all(key in found and matches(found[key], bound) for key, matches in wanted)

    return match
