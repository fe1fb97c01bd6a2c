"""Match specifications, the queries of ETS and Mnesia, compiled to closures.

    head = (Atom("CoreTracker"), Atom("$1"), Atom("$2"), Atom("_"))
    spec = MatchSpec([(head, [(Atom("=/="), Atom("$2"), Atom("online"))], [Atom("$1")])])
    spec.run(rows)

A specification is a list of clauses `(head, guards, body)`; a row's result is the last term of the
body of the first clause whose head matches it and whose guards are all `true`.

Source: https://www.erlang.org/doc/apps/erts/match_spec.html, which leaves much open; the rest is as
`ets:select/2` does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from pybeethoven.errors import MatchSpecError, brief
from pybeethoven.etf import Atom, Fun, ImproperList, Map, Pid, Term
from pybeethoven.etf.order import as_map, exact_key
from pybeethoven.mnesia.budget import Budget, weight
from pybeethoven.mnesia.guards import FUNCTIONS, BadArgument, Function, is_true, pairs_of, truth
from pybeethoven.mnesia.patterns import (
    Bound,
    Pattern,
    anything,
    binding_pattern,
    improper_pattern,
    is_ground,
    is_open,
    list_pattern,
    literal_pattern,
    map_pattern,
    same_pattern,
    tuple_pattern,
    variable,
)

MAX_DEPTH: Final = 100
"""How deep heads, guards and bodies can be nested; ETS has its limit where its stack ends."""

EXIT: Final = Atom("EXIT")
"""What a function gives in a body when it cannot be called with its arguments."""

_NO_MATCH: Final = object()
_ROW, _CONTEXT, _VARIABLES = range(3)
"""The slots of what is bound: the row, the context, and then the variables."""

_Expression: TypeAlias = Callable[[Bound], Term]


@dataclass(frozen=True, slots=True)
class Context:
    """What `{node}` and `{self}` give, and what a metered specification may cost."""

    node: Atom
    pid: Pid
    budget: Budget = field(default_factory=partial(Budget, math.inf, of_rows=False))


_NOBODY: Final = Atom("nonode@nohost")
NO_CONTEXT: Final = Context(_NOBODY, Pid(_NOBODY, 0, 0, 0))


class MatchSpec:
    """A match specification, ready to run.

    `keys` are those that rows must have to match, the key being the second element; None when any
    row can match. A map matches all that have its pairs, in a key, too; OTP 25 takes one in a key
    literally. One that is `metered` takes steps of the budget in its context.

    Raises `MatchSpecError` where ETS would raise `badarg`: the message names the part.
    """

    def __init__(self, spec: Term, *, metered: bool = False) -> None:
        if not isinstance(spec, list):
            raise MatchSpecError(
                f"a match spec is a list of (head, guards, body), not {brief(spec)}"
            )
        clauses = [_Clause(number, clause, metered) for number, clause in enumerate(spec, 1)]
        self._clauses = [clause.compiled() for clause in clauses]
        self._metered = metered
        self._size = _VARIABLES + max((len(clause.slots) for clause in clauses), default=0)
        self.keys = _keys([clause.head for clause in clauses])

    def run(self, rows: Iterable[Term], context: Context = NO_CONTEXT) -> list[Term]:
        """The results of the rows that match, in the order of the rows.

        Raises `OverBudget` if it is metered and takes too many steps.
        """
        bound: Bound = [None] * self._size
        bound[_CONTEXT] = context
        results = []
        for row in rows:
            bound[_ROW] = row
            if self._metered:
                context.budget.look_at(row)
            for clause in self._clauses:
                result = clause(bound)
                if result is not _NO_MATCH:
                    results.append(result)
                    break
        return results


def _keys(heads: list[Term]) -> list[Term] | None:
    keys = []
    for head in heads:
        if is_open(head):
            return None
        if isinstance(head, tuple) and len(head) > 1:
            if not is_ground(head[1]):
                return None
            keys.append(head[1])
    return keys


class _Clause:
    """Compiles one clause. `slots` has the places of the variables that its head binds."""

    def __init__(self, number: int, clause: Term, metered: bool) -> None:
        self._where = f"clause {number}"
        if not isinstance(clause, tuple) or len(clause) != 3:
            raise self._error(f"it has to be a tuple (head, guards, body), not {brief(clause)}")
        self.head, self._guards, self._body = clause
        self.slots: dict[int, int] = {}
        self._variables: list[_Expression] = []
        """What gives the values of the variables, in the order of their numbers."""
        self._metered = metered
        self._costly_heads = 0
        """The parts of the head that look at all that is in a part of the row."""
        self._in_body = False

    def _error(self, what: str) -> MatchSpecError:
        return MatchSpecError(f"{self._where}: {what}")

    def compiled(self) -> Callable[[Bound], Term]:
        """What gives a row's result, or `_NO_MATCH`."""
        clause = self._where
        self._where = f"{clause}, head"
        matches = self._pattern(self.head, 0) or anything
        self._variables = [_reader(slot) for _, slot in sorted(self.slots.items())]
        self._where = f"{clause}, guards"
        guards = self._expressions(self._guards)
        self._where, self._in_body = f"{clause}, body", True
        # All have to be valid, but nothing is seen of any but the last.
        bodies = self._expressions(self._body)
        if not bodies:
            raise self._error("it is empty; it needs a term to give, such as '$_', the whole row")
        result = bodies[-1]

        def run(bound: Bound) -> Term:
            if not matches(bound[_ROW], bound):
                return _NO_MATCH
            try:
                for guard in guards:
                    if not is_true(guard(bound)):
                        return _NO_MATCH
            except BadArgument:
                return _NO_MATCH
            return result(bound)

        return self._with_meter(run) if self._metered else run

    def _with_meter(self, run: Callable[[Bound], Term]) -> Callable[[Bound], Term]:
        own, heads = weight((self.head, self._guards, self._body)), self._costly_heads

        def run_for_steps(bound: Bound) -> Term:
            budget = bound[_CONTEXT].budget
            budget.spend(own + heads * budget.row_weight)
            result = run(bound)
            if result is not _NO_MATCH:
                budget.spend_on(result)
            return result

        return run_for_steps

    # --- heads ---

    def _pattern(self, pattern: Term, depth: int) -> Pattern | None:
        """What says whether a term matches, None when all do."""
        self._check_depth(depth)
        if isinstance(pattern, Atom):
            if pattern == "_":
                return None
            if (number := variable(pattern)) is not None:
                return self._variable_pattern(number)
        if isinstance(pattern, tuple):
            return tuple_pattern(len(pattern), self._patterns(pattern, depth))
        if isinstance(pattern, list):
            return list_pattern(len(pattern), self._patterns(pattern, depth))
        if isinstance(pattern, ImproperList):
            patterns = self._patterns(pattern.elements, depth)
            tail = self._pattern(pattern.tail, depth + 1) or anything
            return improper_pattern(len(pattern.elements), patterns, tail)
        if isinstance(pattern, dict | Map):
            return self._map_pattern(pattern, depth)
        self._costly_heads += isinstance(pattern, Fun)
        return literal_pattern(pattern)

    def _patterns(self, patterns: Iterable[Term], depth: int) -> list[tuple[int, Pattern]]:
        """Those that not every term matches, each with its place."""
        compiled = [self._pattern(pattern, depth + 1) for pattern in patterns]
        return [(place, matches) for place, matches in enumerate(compiled) if matches]

    def _variable_pattern(self, number: int) -> Pattern:
        if number in self.slots:
            self._costly_heads += 1
            return same_pattern(self.slots[number])
        slot = self.slots[number] = _VARIABLES + len(self.slots)
        return binding_pattern(slot)

    def _map_pattern(self, pattern: Term, depth: int) -> Pattern:
        self._costly_heads += 1
        wanted = []
        for key, value in pairs_of(pattern):
            if is_open(key):
                raise self._error(f"{brief(key)} is a key of a map; only values can be variables")
            wanted.append((exact_key(key), self._pattern(value, depth + 1) or anything))
        return map_pattern(wanted)

    # --- guards and bodies ---

    def _expressions(self, expressions: Term) -> list[_Expression]:
        if not isinstance(expressions, list):
            raise self._error(f"it has to be a list, not {brief(expressions)}")
        return [self._expression(expression, 0) for expression in expressions]

    def _expression(self, term: Term, depth: int) -> _Expression:
        self._check_depth(depth)
        if isinstance(term, tuple):
            return self._tuple_expression(term, depth)
        if isinstance(term, list):
            elements = self._all(term, depth)
            return lambda bound: [element(bound) for element in elements]
        if isinstance(term, ImproperList):
            return self._call(_joined, self._all([*term.elements, term.tail], depth))
        if isinstance(term, dict | Map):
            # A BEAM evaluates them by key, which decides when two keys become the same.
            pairs = sorted(pairs_of(term), key=lambda pair: exact_key(pair[0]))
            keys = self._all([key for key, _ in pairs], depth)
            values = self._all([value for _, value in pairs], depth)
            both = [each for pair in zip(keys, values, strict=True) for each in pair]
            return self._call(_map_of, both)
        if isinstance(term, Atom):
            return self._atom_expression(term)
        return _constant(term)

    def _all(self, terms: Iterable[Term], depth: int) -> list[_Expression]:
        return [self._expression(term, depth + 1) for term in terms]

    def _atom_expression(self, term: Atom) -> _Expression:
        if term == "$_":
            return lambda bound: bound[_ROW]
        if term == "$$":
            return self._call(_list_of, self._variables)
        number = variable(term)
        if number is None:
            return _constant(term)
        if number not in self.slots:
            raise self._error(f"{term} is not in the head, which has {self._bound_names()}")
        return _reader(self.slots[number])

    def _bound_names(self) -> str:
        return ", ".join(f"${number}" for number in sorted(self.slots)) or "no variables"

    def _tuple_expression(self, term: tuple[Term, ...], depth: int) -> _Expression:
        if len(term) == 1 and isinstance(term[0], tuple):
            elements = self._all(term[0], depth)
            return lambda bound: tuple([element(bound) for element in elements])
        if not term or not isinstance(term[0], Atom) or variable(term[0]) is not None:
            raise self._error(
                f"{brief(term)} is neither a call nor a tuple, which is written in another tuple: "
                f"{brief((term,))}"
            )
        name, *arguments = term
        match name, len(arguments):
            case "const", 1:
                return _constant(arguments[0])
            case (("andalso" | "andthen"), count) if count:
                return self._lazy(self._all(arguments, depth), stop=False)
            case "orelse", count if count:
                return self._lazy(self._all(arguments, depth), stop=True)
            case "self", 0:
                return lambda bound: bound[_CONTEXT].pid
            case "node", 0:
                return lambda bound: bound[_CONTEXT].node
        return self._call(self._function(name, len(arguments)), self._all(arguments, depth))

    def _function(self, name: Atom, count: int) -> Function:
        if name in _OF_ANY_NUMBER and count:
            return _OF_ANY_NUMBER[name]
        if (name, count) not in FUNCTIONS:
            raise self._error(f"there is no function {name} of {count} arguments in match specs")
        return FUNCTIONS[name, count]

    def _call(self, function: Function, arguments: list[_Expression]) -> _Expression:
        call: _Expression
        if self._metered:
            call = lambda bound: bound[_CONTEXT].budget.call(  # noqa: E731 (as the others)
                function, [argument(bound) for argument in arguments]
            )
        elif len(arguments) == 1:
            (only,) = arguments
            call = lambda bound: function(only(bound))  # noqa: E731 (three forms of one)
        elif len(arguments) == 2:
            one, other = arguments
            call = lambda bound: function(one(bound), other(bound))  # noqa: E731
        else:
            call = lambda bound: function(*[argument(bound) for argument in arguments])  # noqa: E731
        return self._guarded(call)

    def _lazy(self, arguments: list[_Expression], *, stop: bool) -> _Expression:
        """`andalso` or `orelse`: the last argument can be any term."""
        *conditions, last = arguments

        def evaluate(bound: Bound) -> Term:
            for condition in conditions:
                if truth(condition(bound)) is stop:
                    return stop
            return last(bound)

        return self._guarded(evaluate)

    def _guarded(self, call: _Expression) -> _Expression:
        """In a guard an error is for the clause to handle, in a body it is the value."""
        if not self._in_body:
            return call

        def evaluate(bound: Bound) -> Term:
            try:
                return call(bound)
            except BadArgument:
                return EXIT

        return evaluate

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels")


def _constant(term: Term) -> _Expression:
    return lambda _: term


def _reader(slot: int) -> _Expression:
    return lambda bound: bound[slot]


def _list_of(*terms: Term) -> Term:
    return list(terms)


def _joined(*terms: Term) -> Term:
    """A list of all terms but the last, which is its tail."""
    *first, tail = terms
    if isinstance(tail, list):
        return first + tail
    if isinstance(tail, ImproperList):
        return ImproperList(first + tail.elements, tail.tail)
    return ImproperList(first, tail)


def _map_of(*terms: Term) -> Term:
    """A map of keys and values in turn."""
    return as_map(zip(terms[::2], terms[1::2], strict=True))


# All arguments are looked at, since any of them can be no boolean.
_OF_ANY_NUMBER: Final[dict[str, Function]] = {
    "and": lambda *terms: all(list(map(truth, terms))),
    "or": lambda *terms: any(list(map(truth, terms))),
}
