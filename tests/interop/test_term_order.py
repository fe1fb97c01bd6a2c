"""Our term order against that of a real BEAM, on random terms.

`PYBEETHOVEN_SEED` repeats a run; the seed is printed at its end.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from erlang_interop.oracle import Oracle
from pybeethoven.etf import Atom, Map, Term
from pybeethoven.etf.order import exact_key, order_key
from pybeethoven.etf.terms import ATOM_TYPES
from pybeethoven.mnesia.guards import pairs_of
from tests.random_specs import parts
from tests.random_terms import Terms

CASES = [2_000, pytest.param(10_000, marks=pytest.mark.slow)]
BATCH = 500


def some_terms(random: Random, terms: Terms) -> list[Term]:
    """Three to six terms, most of them derived from one before."""
    some = [terms.term()]
    for _ in range(random.randint(2, 5)):
        some.append(terms.near(random.choice(some)) if random.random() < 0.8 else terms.term())
    return some


def compared(one: Term, other: Term) -> tuple[bool, bool, bool]:
    """What we make of two terms: `<`, `==` and `=:=`."""
    a, b = order_key(one), order_key(other)
    assert (hash(a) == hash(b)) >= (a == b)
    return a < b, a == b, exact_key(one) == exact_key(other)


def keys_of_maps(term: Term) -> list[Term]:
    """The keys of all maps in a term, however deep."""
    return [
        key for part in parts(term) if isinstance(part, dict | Map) for key, _ in pairs_of(part)
    ]


def differs_among_beams(term: Term) -> bool:
    """Whether a map has a key with a map in it that has atoms as keys. Since OTP 26 a BEAM compares
    these in the order in which it has met them."""
    inner = [key for outer in keys_of_maps(term) for key in keys_of_maps(outer)]
    return any(isinstance(key, ATOM_TYPES) for key in inner)


@pytest.mark.parametrize("cases", CASES)
def test_term_order_of_a_beam(oracle: Oracle, seed: int, cases: int) -> None:
    """Each two neighbours of a list, and the list sorted, are as the BEAM has them."""
    random = Random(seed)
    terms = Terms(random, oracle.terms, oracle.release)
    outcomes = {(True, False, False): 0, (False, True, True): 0, (False, True, False): 0}
    for _ in range(cases // BATCH):
        lists = [some_terms(random, terms) for _ in range(BATCH)]
        if oracle.release >= 26:
            lists = [[t for t in some if not differs_among_beams(t)] for some in lists]
        answers = oracle.ask((Atom("order"), lists))
        for some, (neighbours, as_sorted) in zip(lists, answers, strict=True):
            for (one, other), expected in zip(pairwise(some), neighbours, strict=True):
                assert compared(one, other) == expected, f"seed {seed}: {one!r}, {other!r}"
                outcomes[expected] = outcomes.get(expected, 0) + 1
            # lists:sort/1 may give 1 and 1.0 in either order.
            ours = sorted(map(order_key, some))
            assert ours == list(map(order_key, as_sorted)), f"seed {seed}: {some!r}"
    shares = {outcome: count / sum(outcomes.values()) for outcome, count in outcomes.items()}
    assert min(shares.values()) > 0.01, f"seed {seed}: too few of one kind, {shares}"
