"""Match specifications: what heads match, what guards let through, and what bodies make.

`tests/interop/test_match_spec.py` asks a real BEAM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pybeethoven.errors import BeethovenError, MatchSpecError
from pybeethoven.etf import Atom, BitString, ImproperList, Map, Pid, Term
from pybeethoven.etf.order import exact_key
from pybeethoven.mnesia.match_spec import MAX_DEPTH, Context, MatchSpec

NODE = Atom("py@h")
CONTEXT = Context(NODE, Pid(NODE, 1, 0, 1))
TAB = Atom("tab")


def atoms(term: Any) -> Term:
    """The term with atoms for its strings: all that starts with ', and what is a name."""
    match term:
        case str():
            return Atom(term)
        case tuple() | list():
            return type(term)(map(atoms, term))
        case ImproperList(elements, tail):
            return ImproperList(atoms(elements), atoms(tail))
        case Map(pairs):
            return Map(atoms(pairs))
        case dict():
            return {atoms(key): atoms(value) for key, value in term.items()}
    return term


def matched(head: Any, row: Any) -> Any:
    """What the variables of the head are in the row, None when it does not match."""
    results = MatchSpec([(atoms(head), [], [Atom("$$")])]).run([atoms(row)])
    return results[0] if results else None


def evaluated(expression: Any, *values: Any) -> Any:
    """What an expression of `$1` to `$9` gives in a body."""
    head = tuple(Atom(f"${place}") for place in range(1, len(values) + 1))
    return MatchSpec([(head, [], [atoms(expression)])]).run([atoms(values)], CONTEXT)[0]


def passes(guard: Any, *values: Any) -> bool:
    """Whether a guard of `$1` to `$9` lets a row through."""
    head = tuple(Atom(f"${place}") for place in range(1, len(values) + 1))
    return bool(MatchSpec([(head, [atoms(guard)], [1])]).run([atoms(values)], CONTEXT))


@pytest.mark.parametrize(
    ("head", "row", "bound"),
    [
        ("_", ("tab", 1), []),
        ("$1", ("tab", 1), [("tab", 1)]),
        ("tab", ("tab", 1), None),
        (("tab", "$1"), ("tab", 1), [1]),
        (("tab", "$1"), ("other", 1), None),
        (("tab", "$1"), ("tab", 1, 2), None),
        (("tab", "$2", "$0", "$1"), ("tab", 2, 0, 1), [0, 1, 2]),
        (("$1", "$1"), (1, 1), [1]),
        (("$1", "$1"), (1, 1.0), None),
        (("$1", "$1"), ({1: 2}, Map([(1, 2)])), [{1: 2}]),
        ((1,), (1.0,), None),
        ((1,), (True,), None),
        ((0.0,), (-0.0,), None),
        ((b"a",), (Atom("a"),), None),
        ((None,), (Atom("nil"),), []),
        ((2**70,), (2**70,), []),
        (((),), ((),), []),
        (((),), ((1,),), None),
        (([],), ([],), []),
        (([],), ([1],), None),
        ((["$1", 2],), ([1, 2],), [1]),
        ((["$1", 2],), ([1, 2, 3],), None),
        ((["$1", 2],), (ImproperList([1], 2),), None),
        ((ImproperList(["$1"], "$2"),), ([1, 2, 3],), [1, [2, 3]]),
        ((ImproperList(["$1"], "$2"),), ([1],), [1, []]),
        ((ImproperList(["$1"], "$2"),), ([],), None),
        ((ImproperList(["$1"], "$2"),), (ImproperList([1, 2], 3),), [1, ImproperList([2], 3)]),
        ((ImproperList(["$1"], "$2"),), (ImproperList([1], 3),), [1, 3]),
        ((ImproperList(["$1"], 3),), (ImproperList([1], 3),), [1]),
        ((ImproperList(["_"], 3),), (ImproperList([1], 4),), None),
        ((ImproperList([1], "_"),), ((1, 2),), None),
        (({},), ({1: 2},), []),
        (({},), ((),), None),
        (({"k": "$1"},), ({"k": 1, "l": 2},), [1]),
        (({"k": "$1"},), ({"l": 2},), None),
        (({"k": "$1"},), ({b"k": 2},), None),
        (({1: "$1"},), (Map([(1.0, "f"), (1, "i")]),), ["i"]),
        ((Map([([], "$1")]),), (Map([([], 5)]),), [5]),
        (({"k": {"l": ("$1", ["_", "$2"])}},), ({"k": {"l": (1, [2, 3])}},), [1, 3]),
        ((BitString(b"\x80", 1),), (BitString(b"\x80", 1),), []),
        (("$01",), ("$01",), []),
        (("$01",), (1,), None),
        (("$1x",), (1,), None),
        (("$",), (1,), None),
        (("$2147483648",), (1,), None),
        (("$1", "$4294967297"), (1, 1), [1]),
        (("$1", "$4294967297"), (1, 2), None),
        (("$99999999999",), (1,), [1]),
    ],
    ids=repr,
)  # fmt: skip
def test_head(head: Any, row: Any, bound: Any) -> None:
    """A head matches a row, or not, and binds its variables."""
    assert exact_key(matched(head, row)) == exact_key(atoms(bound))


@pytest.mark.parametrize(
    ("expression", "values", "result"),
    [
        ("a", (), "a"),
        ("$1", (5,), 5),
        ("$_", (5, 6), (5, 6)),
        ("$$", (5, 6), [5, 6]),
        ("_", (), "_"),
        ("$01", (), "$01"),
        (b"$1", (5,), b"$1"),
        (("const", "$1"), (5,), "$1"),
        (("const", ("a", {"$1": "$_"})), (5,), ("a", {"$1": "$_"})),
        (((),), (), ()),
        ((("$1", ("const", (1,))),), (5,), (5, (1,))),
        (["$1", (("$2",),)], (5, 6), [5, (6,)]),
        (ImproperList(["$1"], "$2"), (5, 6), ImproperList([5], 6)),
        (ImproperList(["$1"], "$2"), (5, [6]), [5, 6]),
        (ImproperList(["$1"], "$2"), (5, ImproperList([6], 7)), ImproperList([5, 6], 7)),
        ({"$1": "$2"}, (5, 6), {5: 6}),
        ({("const", ("a",)): 1}, (), {("a",): 1}),
        ({"$1": ("+", "$2", 1), "k": (("$1",),)}, (5, 6), {5: 7, "k": (5,)}),
        ({"$2": 2, "$1": 1}, (5, 5), {5: 2}),
        ({"$2": 1, "$1": 2}, (5, 5), {5: 1}),
        (Map([("$1", 1), ("$2", 2)]), (1, 1.0), Map([(1, 1), (1.0, 2)])),
        (("+", 1, ("*", 2, "$1")), (3,), 7),
        (("hd", "$1"), (5,), "EXIT"),
        (("is_atom", ("hd", "$1")), (5,), True),
        ((("a", ("hd", "$1")),), (5,), ("a", "EXIT")),
        (("+", 1, ("hd", "$1")), (5,), "EXIT"),
        (("and", True, True, True), (), True),
        (("and", False, True), (), False),
        (("and", False, 1), (), "EXIT"),
        (("and", True), (), True),
        (("or", False, True), (), True),
        (("or", True, 1), (), "EXIT"),
        (("andalso", False, 1), (), False),
        (("andalso", True, 1), (), 1),
        (("andalso", 1, True), (), "EXIT"),
        (("andalso", 1), (), 1),
        (("andthen", True, "a"), (), "a"),
        (("andalso", False, ("hd", 1)), (), False),
        (("orelse", True, ("hd", 1)), (), True),
        (("orelse", False, False, 7), (), 7),
        (("orelse", None, True), (), "EXIT"),
        (("self",), (), CONTEXT.pid),
        (("node",), (), NODE),
        (("binary_part", b"abc", 1, 2), (), b"bc"),
    ],
    ids=repr,
)  # fmt: skip
def test_body(expression: Any, values: Any, result: Any) -> None:
    """An expression has its value; what cannot be called gives the atom `EXIT`."""
    assert exact_key(evaluated(expression, *values)) == exact_key(atoms(result))


@pytest.mark.parametrize(
    ("guard", "values", "expected"),
    [
        (True, (), True),
        ("true", (), True),
        (b"true", (), False),
        (False, (), False),
        ("a", (), False),
        (1, (), False),
        ("$1", (True,), True),
        (("const", True), (), True),
        (("==", "$1", 1), (1.0,), True),
        (("=:=", "$1", 1), (1.0,), False),
        (("hd", "$1"), (5,), False),
        (("not", ("hd", "$1")), (5,), False),
        (("is_atom", ("hd", "$1")), (5,), False),
        (("not", ("is_list", "$1")), (5,), True),
        (("or", True, ("hd", "$1")), (5,), False),
        (("orelse", True, ("hd", "$1")), (5,), True),
        (("orelse", ("hd", "$1"), True), (5,), False),
        (("andalso", True, 1), (), False),
        (("=:=", "$_", (("$1",),)), (5,), True),
        (("=:=", "$$", ["$1"]), (5,), True),
        (("=:=", ("node", ("self",)), ("node",)), (), True),
    ],
    ids=repr,
)  # fmt: skip
def test_guard(guard: Any, values: Any, expected: bool) -> None:
    """A guard lets a row through when it is `true`; one that fails does not."""
    assert passes(guard, *values) is expected


def test_all_guards_have_to_be_true() -> None:
    """One is not enough."""
    spec = [(Atom("$1"), [True, (Atom("is_list"), Atom("$1"))], [1])]
    assert MatchSpec(spec).run([(1,)]) == []


def test_first_clause_that_matches() -> None:
    """The clauses are tried in order; a row gives one result at most, and the last of a body."""
    spec = atoms([
        (("tab", "$1"), [("is_atom", "$1")], [b"ignored", b"atom"]),
        (("tab", "$1"), [("hd", "$1")], [b"never"]),
        (("tab", "$1"), [], ["$1"]),
        ("_", [], [b"other"]),
    ])  # fmt: skip
    rows = [(TAB, 1), (TAB, Atom("a")), (TAB,), (TAB, 2)]
    assert MatchSpec(spec).run(rows) == [1, b"atom", b"other", 2]


def test_no_clause_matches_nothing() -> None:
    """As with `ets:select/2`."""
    assert MatchSpec([]).run([(TAB, 1)]) == []


def test_without_context() -> None:
    """Where nobody says what node it is, it is no node."""
    spec = MatchSpec(atoms([("_", [], [[("node",), ("node", ("self",))]])]))
    assert spec.run([(TAB, 1)]) == [[Atom("nonode@nohost")] * 2]


def deep(levels: int, nest: Callable[[Any], Term] = lambda term: [term]) -> Term:
    """An expression, and a head, of so many levels."""
    term: Term = 1
    for _ in range(levels):
        term = nest(term)
    return term


INVALID: list[tuple[Any, str]] = [
    ({}, r"a list of \(head, guards, body\), not {}"),
    (ImproperList([("_", [], [1])], "a"), "a list of"),
    ([("_", [], [1]), 5], r"clause 2: .* tuple \(head, guards, body\), not 5"),
    ([("_", [1])], "clause 1: "),
    ([("_", "a", [1])], r"clause 1, guards: it has to be a list, not Atom\('a'\)"),
    ([("_", [], "a")], "clause 1, body: it has to be a list"),
    ([("_", [], ImproperList([1], 2))], "clause 1, body: it has to be a list"),
    ([("_", [], [])], r"clause 1, body: it is empty; it needs a term to give, such as '\$_'"),
    ([("_", [], ["$1"])], r"body: \$1 is not in the head, which has no variables"),
    ([(("$2", "$10"), [], ["$1"])], r"body: \$1 is not in the head, which has \$2, \$10"),
    ([("$1", [("==", "$2", 1)], [1])], r"guards: \$2 is not in the head"),
    ([("$1", [], ["$2", 1])], r"body: \$2 is not"),
    ([("_", [], [()])], r"body: \(\) is neither a call nor a tuple"),
    ([("_", [], [(1, 2)])], r"\(1, 2\) is neither .* another tuple: \(\(1, 2\),\)"),
    ([("$1", [], [("$1", 2)])], "neither a call nor a tuple"),
    ([("_", [], [("hd",)])], "there is no function hd of 0 arguments"),
    ([("_", [], [("hd", 1, 2)])], "there is no function hd of 2 arguments"),
    ([("_", [("nothing", 1)], [1])], "guards: there is no function nothing of 1 arg"),
    ([("_", [], [("const",)])], "const of 0"),
    ([("_", [], [("const", 1, 2)])], "const of 2"),
    ([("_", [], [("and",)])], "and of 0"),
    ([("_", [], [("andalso",)])], "andalso of 0"),
    ([("_", [], [("self", 1)])], "self of 1"),
    ([("_", [], [("message", True)])], "message of 1"),
    ([("_", [], [("$_",)])], r"function \$_ of 0"),
    ([("_", [], [(True, 1)])], "neither a call"),
    ([("_", [], [[[("no",)]]])], "function no"),
    ([("_", [], [{("no",): 1}])], "function no"),
    ([("_", [], [{1: ("no",)}])], "function no"),
    ([("_", [], [ImproperList([1], ("no",))])], "function no"),
    ([("_", [], [((("no",),),)])], "function no"),
    ([(("tab", {"$1": 1}), [], [1])], r"head: Atom\('\$1'\) is a key of a map; only values"),
    ([(("tab", {"_": 1}), [], [1])], "is a key of a map"),
    ([(deep(MAX_DEPTH + 1), [], [1])], "head: nested deeper than 100 levels"),
    ([("_", [], [deep(MAX_DEPTH + 1)])], "body: nested deeper than 100 levels"),
]


@pytest.mark.parametrize(("spec", "message"), INVALID, ids=[message for _, message in INVALID])
def test_invalid(spec: Any, message: str) -> None:
    """What ETS would not take is refused, and the message says which part, and why."""
    with pytest.raises(MatchSpecError, match=message) as caught:
        MatchSpec(atoms(spec))
    assert isinstance(caught.value, BeethovenError)
    assert isinstance(caught.value, ValueError)


def test_deepest() -> None:
    """The deepest that is taken also runs."""
    spec = MatchSpec([((deep(MAX_DEPTH - 1),), [], [deep(MAX_DEPTH)])])
    assert spec.run([(deep(MAX_DEPTH - 1),)]) == [deep(MAX_DEPTH)]


IN_BOTH: list[Callable[[Any], Term]] = [
    lambda term: [term],
    lambda term: ImproperList([term], 1),
    lambda term: ImproperList([1], term),
    lambda term: {1: term},
]
IN_HEADS: list[Callable[[Any], Term]] = [*IN_BOTH, lambda term: (term,)]
IN_BODIES: list[Callable[[Any], Term]] = [
    *IN_BOTH,
    lambda term: ((term,),),
    lambda term: Map([(term, 1)]),
    lambda term: (Atom("hd"), term),
    lambda term: (Atom("orelse"), True, term),
]


def test_depth_is_limited_in_each_kind_of_term() -> None:
    """`MAX_DEPTH` levels are accepted, and one more is refused."""
    for nest in IN_HEADS:
        MatchSpec([(deep(MAX_DEPTH, nest), [], [1])])
        with pytest.raises(MatchSpecError, match="head: nested deeper"):
            MatchSpec([(deep(MAX_DEPTH + 1, nest), [], [1])])
    for nest in IN_BODIES:
        MatchSpec([("_", [deep(MAX_DEPTH, nest)], [deep(MAX_DEPTH, nest)])])
        with pytest.raises(MatchSpecError, match="guards: nested deeper"):
            MatchSpec([("_", [deep(MAX_DEPTH + 1, nest)], [1])])
        with pytest.raises(MatchSpecError, match="body: nested deeper"):
            MatchSpec([("_", [], [deep(MAX_DEPTH + 1, nest)])])


@pytest.mark.parametrize(
    ("heads", "keys"),
    [
        ([("tab", 1, "_")], [1]),
        ([("tab", (1, [b"a"]), "_")], [(1, [b"a"])]),
        ([("tab", (1, [{"k": 1}]), "_")], None),
        ([("tab", {})], None),
        ([("tab", 1), ("tab", 2, "$1")], [1, 2]),
        ([("tab", 1), ("tab", "$1")], None),
        ([("tab", 1), "_"], None),
        (["$1"], None),
        ([("tab", "_")], None),
        ([("tab", (1, "$1"))], None),
        ([("tab", [1, "_"])], None),
        ([("tab", ImproperList([1], "_"))], None),
        ([("tab", {"k": "$1"})], None),
        ([("tab",), "tab", ["tab", 1], 5], []),
        ([("tab", b"$1")], [b"$1"]),
        ([], []),
    ],
    ids=repr,
)
def test_keys(heads: Any, keys: Any) -> None:
    """The keys outside of which no row can match; None when there is no such bound."""
    spec = MatchSpec([(atoms(head), [], [1]) for head in heads])
    assert exact_key(spec.keys) == exact_key(atoms(keys))


def test_binary_underscore_is_no_variable() -> None:
    """A `str` is a binary, whatever is in it."""
    spec = MatchSpec([("_", [], [1]), ((TAB, "$1"), [], [2])])
    assert spec.keys == ["$1"]
    assert spec.run([(TAB, 1), (TAB, b"$1")]) == [2]
