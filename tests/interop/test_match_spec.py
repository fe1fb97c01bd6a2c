"""Our match specifications against those of a real BEAM, on random specs and rows.

`PYBEETHOVEN_SEED` repeats a run; the seed is printed at its end.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from erlang_interop.oracle import Oracle
from pybeethoven.errors import MatchSpecError
from pybeethoven.etf import Atom, ImproperList, Map, NativeRecord, Term
from pybeethoven.etf.order import Key, exact_key
from pybeethoven.mnesia import Row, Table
from pybeethoven.mnesia.match_spec import Context, MatchSpec
from tests.random_specs import KINDS, Specs, parts
from tests.random_terms import Terms

CASES = [2_000, pytest.param(10_000, marks=pytest.mark.slow)]
BATCH = 500


def same(ours: Term, theirs: Term) -> bool:
    """Whether two results are the same, but for what BEAMs differ in among themselves."""
    return exact_key(ours) == exact_key(theirs) or roughly(ours) == roughly(theirs)


def roughly(term: Term) -> Key:
    """The key of a term, without the sign of zeros and the last digits of floats.

    OTP 25 has `abs(-0.0)` as `-0.0`; and when it makes a float of a large integer it rounds more
    than once, in a way that the processor has a say in.
    """
    rough, tokens = [], iter(exact_key(term))
    for token in tokens:
        if isinstance(token, float):
            token = float(f"{token:.12e}")
            next(tokens)  # it as text, which tells the zeros apart
        rough.append(token)
    return tuple(rough)


def in_order(results: list[Term]) -> list[Term]:
    """The results of a set, which come in any order."""
    return sorted(results, key=roughly)


class Judge:
    """Compares what we make of cases with what the BEAM made of them, and counts."""

    def __init__(self, oracle: Oracle) -> None:
        self._context = Context(oracle.node, oracle.pid)
        self.counts: Counter[str] = Counter()

    def check(self, rows: list[Row], spec: Term, answer: Any) -> None:
        """Raise `AssertionError` when there is a difference."""
        tests, run, in_set, in_ordered_set = answer
        try:
            ours = MatchSpec(spec)
        except MatchSpecError:
            assert {*tests, run, in_set, in_ordered_set} == {"error"}
            self.counts["invalid"] += 1
            return
        if spec:  # ets:select/2 takes none at all, the others don't
            self._check_runs(rows, ours, tests, run)
        if not has_maps([clause[0][1:2] for clause in spec if isinstance(clause[0], tuple)]):
            self._check_set(rows, ours, in_set)
        if not has_maps([clause[0] for clause in spec]) and not misleads(spec):
            self._check_ordered_set(rows, ours, in_ordered_set)

    def _check_runs(self, rows: list[Row], spec: MatchSpec, tests: Any, run: Any) -> None:
        results = spec.run(rows, self._context)
        assert same((Atom("ok"), results), run)
        for row, test in zip(rows, tests, strict=True):
            (result,) = spec.run([row], self._context) or [False]
            assert same((Atom("ok"), result), test)
        self.counts["valid"] += 1
        self.counts["matched"] += bool(results)
        self.counts["missed"] += len(results) < len(rows)
        self.counts["built"] += any(result not in rows for result in results)
        self.counts["EXIT"] += "EXIT" in repr(results)

    def _check_set(self, rows: list[Row], spec: MatchSpec, answer: Any) -> None:
        results = Table("tab", rows).select(spec, self._context)
        assert same((Atom("ok"), in_order(results)), (answer[0], in_order(answer[1])))
        self.counts["by key"] += spec.keys is not None

    def _check_ordered_set(self, rows: list[Row], spec: MatchSpec, answer: Any) -> None:
        results = Table("tab", rows, "ordered_set").select(spec, self._context)
        assert same((Atom("ok"), results), answer)
        self.counts["in order"] += len(results) > 1


def has_maps(terms: Term) -> bool:
    """Whether there are maps: what such keys find in ETS depends on its release, on hashes and on
    other clauses."""
    return any(isinstance(part, dict | Map) for part in parts(terms))


def misleads(spec: list[Any]) -> bool:
    """Whether OTP 25 may look for rows of an ordered set in too small a range.

    It does where several clauses have keys that are tuples or lists, or hold both 1 and 1.0.
    """
    heads = [clause[0] for clause in spec if isinstance(clause[0], tuple)]
    keys = [head[1] for head in heads if len(head) > 1]
    numbers = [key for key in keys if KINDS["number"](key)]
    flat = not any(isinstance(key, tuple | list | ImproperList) for key in keys)
    return len(spec) > 1 and not (flat and len(set(numbers)) == len(set(map(exact_key, numbers))))


A, M, R, EXIT = map(Atom, ("a", "m", "r", "EXIT"))
RECORD = NativeRecord(M, R, {A: 1})

IS_RECORD: list[tuple[tuple[Term, ...], Term, Term]] = [
    (((A, 1), A, 2), True, True),
    (((A, 1), A, -1), False, False),
    (((A, 1), b"a", 2), EXIT, EXIT),
    (((A, 1), A, 2.0), EXIT, EXIT),
    (((A, 1), A, A), EXIT, False),
    ((1, A, None), EXIT, False),
]
"""Arguments of `is_record`, what it gives before OTP 29, and what since."""

IS_NATIVE_RECORD: list[tuple[tuple[Term, ...], Term, Term]] = [
    ((RECORD, M, R), None, True),
    ((RECORD, M, A), None, False),
    ((RECORD, A, R), None, False),
    ((RECORD, M, 2), None, False),
    ((RECORD, 1, R), None, EXIT),
]
"""The same, where there is no before: OTP 29 brings native records."""


def test_is_record(oracle: Oracle) -> None:
    """Since OTP 29 it takes a name in place of a size, and so do we."""
    has_native = oracle.release >= 29
    calls = IS_RECORD + IS_NATIVE_RECORD * has_native
    rows = [[(A, arguments[0])] for arguments, _, _ in calls]
    specs: list[Term] = [
        [((A, Atom("$1")), [], [(Atom("is_record"), Atom("$1"), *others)])]
        for (_, *others), _, _ in calls
    ]
    answers = oracle.ask((Atom("match_spec"), list(zip(rows, specs, strict=True))))
    theirs = [run for _, run, _, _ in answers]
    assert theirs == [(Atom("ok"), [since if has_native else was]) for _, was, since in calls]
    context = Context(oracle.node, oracle.pid)
    ours = [MatchSpec(spec).run(row, context) for row, spec in zip(rows, specs, strict=True)]
    assert ours == [[since] for _, _, since in calls]


@pytest.mark.parametrize("cases", CASES)
def test_match_specs_as_on_a_beam(oracle: Oracle, seed: int, cases: int) -> None:
    """ETS runs each spec, and selects with it from a set and an ordered set, to the same result."""
    random = Random(seed)
    terms = Terms(random, oracle.terms, oracle.release)
    specs = Specs(random, terms, oracle.release)
    judge = Judge(oracle)
    for _ in range(cases // BATCH):
        batch = [specs.case() for _ in range(BATCH)]
        answers = oracle.ask((Atom("match_spec"), batch))
        for (rows, spec), answer in zip(batch, answers, strict=True):
            try:
                judge.check(rows, spec, answer)
            except AssertionError as error:
                error.add_note(f"seed {seed}\nrows {rows!r}\nspec {spec!r}\nBEAM {answer!r}")
                raise
    enough = {
        "valid": 0.75, "invalid": 0.05, "matched": 0.45, "missed": 0.4, "built": 0.4, "EXIT": 0.05,
        "by key": 0.15, "in order": 0.04,
    }  # fmt: skip
    for what, share in enough.items():
        assert judge.counts[what] > share * cases, f"seed {seed}: only {judge.counts[what]} {what}"
