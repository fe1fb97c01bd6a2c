"""Random terms for the differential tests, in which near-equal ones are frequent."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from pybeethoven.etf import (
    Atom,
    BitString,
    Export,
    ImproperList,
    Map,
    NativeRecord,
    Pid,
    Port,
    Reference,
    Term,
)
from pybeethoven.etf.order import as_map

ATOMS: list[Term] = [
    True,
    False,
    None,
    *map(Atom, ("", "a", "b", "ab", "A", "_", "é", "你好", "你", "😀", "\uffff", "$x")),
]
NODES = [Atom("a@h"), Atom("b@h"), Atom("é@h")]
EDGES = [0, 1, 2, 2**18, 2**28 - 1, 2**28, 2**32 - 1]
CENTRES = [*(2**bits for bits in (31, 53, 54, 59, 60, 63, 64, 65, 100, 1023)), 10**22]
"""Near these, floats are no longer exact, or the BEAM stores integers in another way."""


class Terms:
    """Makes terms that BEAMs of an OTP release have. `own` are of the one that will see them."""

    def __init__(self, random: Random, own: Sequence[Term], release: int) -> None:
        self._random = random
        self._own = own
        self._minus_zero = release >= 27
        self._containers = [self._tuple, self._list, self._improper, self._map]
        self._containers += [self._record] * (release >= 29)

    def term(self, depth: int = 3) -> Term:
        """Any term, with at most so many containers inside each other."""
        if depth and self._random.random() < 0.5:
            return self._random.choice(self._containers)(depth - 1)
        return self.leaf()

    def leaf(self) -> Term:
        """A term that holds no other."""
        makers = (
            *3 * (self.number,),
            *2 * (self.atom, self.binary),
            *(self.bit_string, self._pid, self._port, self._reference, self._export, self._empty),
        )
        if self._random.random() < 0.1:
            return self._random.choice(self._own)
        return self._random.choice(makers)()

    def near(self, term: Term) -> Term:
        """A term that is equal to the other or differs little from it."""
        if self._random.random() < 0.2:
            return term
        match term:
            case bool() | None | Atom():
                return self.atom()
            case int() | float():
                return self._near_number(term)
            case bytes():
                return self._near_binary(term)
            case tuple() | list() if term:
                return type(term)(self._near_elements(term))
            case ImproperList(elements, tail):
                return self._improper_or_not(self._near_elements(elements), self.near(tail))
            case Map(pairs) if pairs:
                return as_map(self._near_pairs(pairs))
            case dict() if term:
                return as_map(self._near_pairs(list(term.items())))
            case NativeRecord():
                return self._near_record(term)
        return self.leaf()

    def atom(self) -> Term:
        """An atom, whatever Python has for it."""
        return self._random.choice(ATOMS)

    def number(self) -> int | float:
        """An integer or a float, often one that is close to the other kind."""
        match self._random.randrange(4):
            case 0:
                return self._random.randint(-3, 3)
            case 1:
                return self._float(
                    self._random.choice((-1.5, -1.0, 0.0, -0.0, 0.5, 1.0, 2.0, 1e22))
                )
            case 2:
                sign = self._random.choice((1, -1))
                centre = sign * self._random.choice(CENTRES) + self._random.randint(-2, 2)
                return self._random.choice((centre, self._float(centre)))
        (value,) = struct.unpack(">d", self._random.randbytes(8))
        return self._float(value) if math.isfinite(value) else 0

    def binary(self) -> bytes:
        """A short binary, often one that starts like another."""
        return self._random.choice((b"", b"a", b"ab", b"\0", b"\x80", "é".encode())) + (
            self._random.randbytes(self._random.randrange(3))
        )

    def bit_string(self) -> BitString:
        """A bit string that is no binary."""
        bits = self._random.randint(1, 7)
        last = self._random.randrange(256) & 0xFF00 >> bits & 0xFF
        return BitString(self.binary() + bytes((last,)), bits)

    def _float(self, value: float) -> float:
        value = float(value)
        return value if value or self._minus_zero else 0.0

    def _near_number(self, term: int | float) -> int | float:
        match self._random.randrange(4):
            case 0:
                return int(term)
            case 1 if abs(term) < 2**1020:
                return self._float(term)
            case 2 if abs(term) < 2**1020:
                return self._float(math.nextafter(term, self._random.choice((-math.inf, math.inf))))
        return int(term) + self._random.randint(-1, 1)

    def _near_binary(self, term: bytes) -> bytes | BitString:
        match self._random.randrange(3):
            case 0:
                return term[:-1]
            case 1:
                return term + b"\0"
        bits = self._random.randint(1, 7)
        return BitString(term[:-1] + bytes(((term or b"\0")[-1] & 0xFF00 >> bits & 0xFF,)), bits)

    def _near_elements(self, elements: Sequence[Term]) -> list[Term]:
        place = self._random.randrange(len(elements))
        changed = [*elements[:place], self.near(elements[place]), *elements[place + 1 :]]
        return changed + [self.leaf()] * (self._random.random() < 0.1)

    def _near_pairs(self, pairs: list[tuple[Term, Term]]) -> list[tuple[Term, Term]]:
        pairs = self._random.sample(pairs, len(pairs))
        key, value = pairs.pop()
        match self._random.randrange(4):
            case 0:
                return [*pairs, (self.near(key), value)]
            case 1:
                return [(self.near(key), self.near(value)), *pairs]
            case 2:
                return [(key, self.near(value)), *pairs]
        return [*((key, self.near(value)) for key, value in pairs), (key, value)]

    def _near_record(self, term: NativeRecord) -> NativeRecord:
        module, name, *fields = names = [term.module, term.name, *term.fields]
        values, exported = list(term.fields.values()), term.exported
        match self._random.randrange(4):
            case 0:
                module, name, *fields = self._random.sample(names, len(names))
            case 1 if values:
                values = self._near_elements(values)[: len(values)]
            case 2:
                exported = not exported
        return NativeRecord(module, name, dict(zip(fields, values, strict=True)), exported)

    def _many(self, depth: int) -> list[Any]:
        return [self.term(depth) for _ in range(self._random.choice((0, 1, 1, 2, 2, 3)))]

    def _tuple(self, depth: int) -> Term:
        return tuple(self._many(depth))

    def _list(self, depth: int) -> Term:
        return self._many(depth)

    def _improper(self, depth: int) -> Term:
        return self._improper_or_not([self.term(depth), *self._many(depth)], self.leaf())

    def _improper_or_not(self, elements: list[Term], tail: Term) -> Term:
        if isinstance(tail, list):
            return elements + tail
        if isinstance(tail, ImproperList):
            return ImproperList(elements + tail.elements, tail.tail)
        return ImproperList(elements, tail)

    def _map(self, depth: int) -> Term:
        pairs = [(self.term(depth), self.term(depth)) for _ in range(self._random.randrange(4))]
        if self._random.random() < 0.05:  # so large that a BEAM stores it in another way
            pairs += [(number, self.leaf()) for number in range(33)]
        return as_map(pairs)

    def _record(self, depth: int) -> Term:
        values = self._many(depth)
        module, name, *fields = self._random.sample(ATOMS, 2 + len(values))
        exported = self._random.random() < 0.8
        return NativeRecord(module, name, dict(zip(fields, values, strict=True)), exported)

    def _pid(self) -> Term:
        return Pid(self._node(), self._edge(), self._edge(), self._edge())

    def _port(self) -> Term:
        return Port(self._node(), self._random.choice((*EDGES, 2**64 - 1)), self._edge())

    def _reference(self) -> Term:
        # OTP 25 hashes one-word references, which none of its kind makes, each time differently.
        ids = tuple(self._edge() for _ in range(self._random.choice((2, 3, 3, 5))))
        return Reference(self._node(), self._edge(), ids)

    def _export(self) -> Term:
        names = [Atom(name) for name in ("a", "b", "true", "nil", "é")]
        module, function = self._random.choices(names, k=2)
        return Export(module, function, self._random.randrange(3))

    def _empty(self) -> Term:
        return self._random.choice(((), [], {}, b""))

    def _node(self) -> Atom:
        return self._random.choice(NODES)

    def _edge(self) -> int:
        return self._random.choice(EDGES)
