"""Random match specifications, valid and invalid, with rows that often match them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from pybeethoven.etf import (
    Atom,
    BitString,
    ImproperList,
    Map,
    NativeRecord,
    Pid,
    Port,
    Reference,
    Term,
)
from pybeethoven.etf.order import as_map
from pybeethoven.mnesia.guards import pairs_of
from pybeethoven.mnesia.patterns import variable
from tests.random_terms import Terms

SIGNATURES = """
    any:bool is_atom is_binary is_float is_function is_integer is_list is_map is_number is_pid
             is_port is_reference is_tuple
    any,any:bool == /= =:= =/= < =< > >=
    any,map:bool is_map_key
    bool:bool not
    bool,bool:bool xor and or andalso orelse andthen
    bool,bool,bool:bool and or andalso orelse
    bool,any:any andalso orelse
    number:number + - abs float
    number:integer round trunc
    number,number:number + - * /
    integer:integer bnot
    integer,integer:integer div rem band bor bxor
    integer,small:integer bsl bsr
    bits:integer bit_size byte_size size
    binary,small,small:binary binary_part
    binary,place:binary binary_part
    tuple:integer size
    list:integer length
    map:integer map_size
    small,tuple:any element
    list:any hd
    list:list tl
    any,map:any map_get
    identifier:atom node
    :atom node
    :identifier self
"""
SINCE_27 = """
    bits,small,small:bits binary_part
    bits,place:bits binary_part
"""
SINCE_26 = """
    any:bool is_bitstring is_boolean
    any,small:bool is_function
    any,any:any min max
    number:integer ceil floor
    tuple:integer tuple_size
"""
BEFORE_29 = """
    any,atom,count:bool is_record
"""
SINCE_29 = """
    any,atom,small:bool is_record
    record,atom,atom:bool is_record
"""
KINDS: dict[str, Callable[[Any], bool]] = {
    "any": lambda _: True,
    "atom": lambda term: isinstance(term, Atom | bool | None),
    "binary": lambda _: (
        False
    ),  # in another row it could be a bit string, as OTP 27 does not take it
    "bits": lambda term: isinstance(term, bytes | BitString),
    "bool": lambda term: isinstance(term, bool),
    "count": lambda _: False,  # an atom could be in another row, as OTP 29 alone takes it
    "identifier": lambda term: isinstance(term, Pid | Port | Reference),
    "integer": lambda term: isinstance(term, int) and not isinstance(term, bool),
    "list": lambda term: isinstance(term, list | ImproperList),
    "map": lambda term: isinstance(term, dict | Map),
    "number": lambda term: isinstance(term, int | float) and not isinstance(term, bool),
    "place": lambda _: False,
    "record": lambda term: isinstance(term, NativeRecord),
    "small": lambda term: isinstance(term, int) and abs(term) < 10,
    "tuple": lambda term: isinstance(term, tuple),
}
VARIABLES = [
    *3 * ["$1", "$2", "$3", "$0"],
    *("$12", "$25", "$100", "$99999999999", "$4294967297"),
]
NO_VARIABLES = [Atom(name) for name in ("$", "$01", "$-1", "$1a", "$a", "$2147483648", "$\uff11")]


def functions(release: int) -> dict[str, list[tuple[Atom, list[str]]]]:
    """By the kind of their results: the name and the kinds of the arguments."""
    table: dict[str, list[tuple[Atom, list[str]]]] = {}
    kinds: list[str] = []
    result = ""
    newer = (SINCE_26 if release >= 26 else "") + (SINCE_27 if release >= 27 else "")
    newer += SINCE_29 if release >= 29 else BEFORE_29
    for word in (SIGNATURES + newer).split():
        if ":" in word and word != "=:=":
            arguments, result = word.split(":")
            kinds = arguments.split(",") if arguments else []
        else:
            table.setdefault(result, []).append((Atom(word), kinds))
    return table


class Specs:
    """Makes cases: rows, and a match specification."""

    def __init__(self, random: Random, terms: Terms, release: int) -> None:
        self._random = random
        self._terms = terms
        self._release = release
        self._functions = functions(release)
        self._known: dict[str, Term] = {}
        self._row: Term = ()

    def case(self) -> tuple[list[tuple[Term, ...]], Term]:
        """Some rows, and a specification made with one of them in mind."""
        rows = self._rows()
        while True:
            spec: Term = [
                self._clause(self._random.choice(rows)) for _ in range(self._few(1, 1, 2))
            ]
            if self._chance(0.15):
                spec = self._broken(spec)
            if not goes_wrong(spec) and (self._release >= 29 or not names_record(spec)):
                return rows, spec

    def _rows(self) -> list[tuple[Term, ...]]:
        first = (Atom("tab"), *(self._terms.term(2) for _ in range(self._few(1, 2, 2, 3))))
        rows = [first]
        for _ in range(self._few(1, 2, 3)):
            near = self._terms.near(self._random.choice(rows))
            rows.append(near if len(near) > 1 else (Atom("tab"), self._terms.leaf()))
        return rows

    # --- heads ---

    def _clause(self, row: tuple[Term, ...]) -> Term:
        self._row, self._known = row, {}
        head = self._head(row)
        guards = [self._guard() for _ in range(self._few(0, 0, 1, 1, 2))]
        body = [self._expression("any", 3) for _ in range(self._few(1, 1, 1, 2))]
        return head, guards, body

    def _head(self, row: tuple[Term, ...]) -> Term:
        if self._chance(0.1):
            return self._random.choice((Atom("_"), self._variable(row)))
        return tuple(self._pattern(term) for term in row)

    def _pattern(self, term: Term) -> Term:
        if self._chance(0.3):
            return self._variable(term)
        if self._chance(0.1):
            return Atom("_")
        match term:
            case list() if term and self._chance(0.3):
                return ImproperList(list(map(self._pattern, term[:1])), self._pattern(term[1:]))
            case tuple() | list():
                return type(term)(map(self._pattern, term))
            case ImproperList(elements, tail):
                return ImproperList(list(map(self._pattern, elements)), self._tail(tail))
            case dict() | Map():
                pairs = [(key, self._pattern(value)) for key, value in pairs_of(term)]
                return as_map(pair for pair in pairs if self._chance(0.8))
        return self._terms.near(term) if self._chance(0.05) else term

    def _tail(self, term: Term) -> Term:
        tail = self._pattern(term)
        return term if isinstance(tail, list | ImproperList) else tail

    def _variable(self, term: Term) -> Atom:
        name = Atom(self._random.choice(VARIABLES))
        if name in self._known and self._chance(0.8):
            name = next((n for n in map(Atom, VARIABLES) if n not in self._known), name)
        self._known.setdefault(name, term)
        return name

    # --- guards and bodies ---

    def _guard(self) -> Term:
        if self._chance(0.5):
            # Most random guards are false; one such as this is true.
            name = self._random.choice([*self._known, "$_"])
            value = self._known.get(name, self._row)
            return Atom(self._random.choice(("==", "=:=", ">=", "=<"))), Atom(name), const(value)
        return self._expression("bool", 3)

    def _expression(self, kind: str, depth: int) -> Term:
        if self._chance(0.06) and kind not in ("binary", "count"):
            kind = "any"
        if not depth or self._chance(0.35):
            return self._simple(kind)
        if kind in ("tuple", "list", "map") or (kind == "any" and self._chance(0.4)):
            return self._container(kind, depth - 1)
        kinds = [kind] if kind != "any" else list(self._functions)
        kinds += ["integer"] * (kind == "number")
        options = self._functions.get(self._random.choice(kinds))
        if not options:
            return self._simple(kind)
        name, arguments = self._random.choice(options)
        return (name, *(self._expression(argument, depth - 1) for argument in arguments))

    def _container(self, kind: str, depth: int) -> Term:
        some = [self._expression("any", depth) for _ in range(self._few(0, 1, 2, 2, 3))]
        match kind if kind != "any" else self._random.choice(("tuple", "list", "map", "improper")):
            case "tuple":
                return (tuple(some),)
            case "list":
                return some
            case "map":
                return self._map(depth)
        tail = self._expression(self._random.choice(("any", "list")), 0)
        return ImproperList(some, tail) if some and not isinstance(tail, list) else some

    def _map(self, depth: int) -> Term:
        # OTP 25 has its faults here. Of three keys, two that become the same are both kept; and it
        # gives what is no longer there for a variable in a map of over 32 keys, or for one in a key
        # when all values are constants.
        if self._chance(0.05):
            return {number: const(self._terms.term(1)) for number in range(34)}
        if self._chance(0.5):
            return {key: self._expression("any", depth) for key in (1, 2.0, b"k")}
        return as_map([(self._expression("any", 1), Atom("$_"))])

    def _simple(self, kind: str) -> Term:
        """A variable that has this kind in the row, or a constant."""
        fits = KINDS[kind]
        known = [Atom(name) for name, value in self._known.items() if fits(value)]
        known += [Atom("$_")] * (kind in ("any", "tuple")) + [Atom("$$")] * (
            kind in ("any", "list")
        )
        if known and self._chance(0.6):
            return self._random.choice(known)
        return const(self._constant(kind))

    def _constant(self, kind: str) -> Term:
        match kind:
            case "bool":
                return self._random.choice((True, False))
            case "count":
                return self._random.choice((self._random.randint(-1, 4), 2.0, b"2", 1 << 70))
            case "small":
                return self._random.randint(-1, 4)
            case "place":
                return self._random.randint(-1, 3), self._random.randint(-2, 3)
            case "number":
                # Before OTP 27, a product that is -0.0 would be the same as the 0.0 it is not here.
                return self._terms.number() or 1
            case "integer":
                return int(self._random.choice((self._terms.number(), self._random.randint(-9, 9))))
            case "atom":
                return self._random.choice((*NO_VARIABLES, self._terms.atom()))
            case "binary":
                return self._terms.binary()
            case "bits":
                return self._random.choice((self._terms.binary(), self._terms.bit_string()))
        options = [self._terms.term(2) for _ in range(4)]
        return next((term for term in options if KINDS[kind](term)), options[0])

    # --- invalid ones ---

    def _broken(self, spec: Term) -> Term:
        """The specification with one part, however deep inside, replaced."""
        if self._chance(0.12):
            return self._random.choice(self._junk(spec))
        match spec:
            case tuple() | list() if spec:
                place = self._random.randrange(len(spec))
                changed = [*spec[:place], self._broken(spec[place]), *spec[place + 1 :]]
                return type(spec)(changed)
        return self._random.choice(self._junk(spec))

    def _junk(self, part: Term) -> Sequence[Term]:
        name = Atom(
            self._random.choice(("const", "hd", "and", "orelse", "self", "node", "+", "is"))
        )
        return (
            *((), [], {}, Atom("$77"), Atom("_"), (Atom("_"),), (part,), (part, part), [part]),
            *((name,), (name, part), (name, part, part), (name, part, part, part)),
            *(
                {Atom("$1"): Atom("$_")},
                {Atom("_"): part},
                {1: part},
                ImproperList([part], Atom("a")),
            ),
            *((Atom("message"), True), (Atom("is_seq_trace"),), (Atom("get_tcw"),), (1, part)),
            *(self._random.choice(NO_VARIABLES), Atom(self._random.choice(VARIABLES))),
        )

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _few(self, *counts: int) -> int:
        return self._random.choice(counts)


def goes_wrong(spec: Term) -> bool:
    """Whether OTP 25 may crash or give nonsense.

    It gives what is no longer there for a variable in a body that also stands in an argument that
    `andalso` or `orelse` did not look at. Where a head has variables over $24, it gives others for
    variables in constants.
    """
    clauses = spec if isinstance(spec, list) else []
    bodies = [clause[2] for clause in clauses if isinstance(clause, tuple) and len(clause) == 3]
    lazy = {"andalso", "andthen", "orelse"}
    return any(variables(call[1:]) for call in calls(spec, {"const"})) or any(
        len(variables(body)) > 1 and any(variables(call[2:]) for call in calls(body, lazy))
        for body in bodies
    )


def names_record(spec: Term) -> bool:
    """Whether `is_record` may be asked for a native record, where before OTP 29 it fails."""
    return any(not isinstance(call[-1], int | float | bytes) for call in calls(spec, {"is_record"}))


def parts(term: Term) -> Iterator[Term]:
    """A term and all in it."""
    yield term
    if isinstance(term, tuple | list):
        inner = list(term)
    elif isinstance(term, ImproperList):
        inner = [*term.elements, term.tail]
    elif isinstance(term, dict | Map):
        inner = [part for pair in pairs_of(term) for part in pair]
    elif isinstance(term, NativeRecord):
        inner = list(term.fields.values())
    else:
        inner = []
    for part in inner:
        yield from parts(part)


def variables(term: Term) -> list[Term]:
    """Each place in a term where a variable is."""
    return [part for part in parts(term) if part == "$$" or variable(part) is not None]


def calls(term: Term, names: set[str]) -> list[Any]:
    """The tuples in a term that start with one of these atoms."""
    tuples = (part for part in parts(term) if isinstance(part, tuple) and part)
    return [part for part in tuples if isinstance(part[0], Atom) and part[0] in names]


def const(term: Term) -> Term:
    """A term as an expression of which it is the value."""
    if isinstance(term, tuple | list | dict | Map | ImproperList):
        return Atom("const"), term
    return term
