"""The Erlang types that Python lacks.

Of the others, `int`, `float`, `tuple`, `list` and `bytes` (a binary) are themselves; `True`,
`False` and `None` are the atoms `true`, `false` and `nil`; `str` is sent as a UTF-8 binary, as
Elixir has it. A map is a `dict` wherever Python can hold it as one, else a `Map`.

Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Term: TypeAlias = Any
"""Any value that `encode` takes and `decode` gives."""

MAX_ATOM_CHARACTERS = 255


class Atom(str):
    """An atom. It equals the `str` of the same text, so it can be compared and printed as one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Atom({str(self)!r})"


ATOM_TYPES = (Atom, bool, type(None))
"""The types of atoms, `true`, `false` and `nil` among them."""


@dataclass(frozen=True, slots=True)
class Pid:
    """A process identifier (NEW_PID_EXT)."""

    node: Atom
    id: int
    serial: int
    creation: int


@dataclass(frozen=True, slots=True)
class Port:
    """A port identifier (NEW_PORT_EXT, V4_PORT_EXT)."""

    node: Atom
    id: int
    creation: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference (NEWER_REFERENCE_EXT); `ids` holds one to five 32-bit words, in wire order."""

    node: Atom
    creation: int
    ids: tuple[int, ...]

    def __hash__(self) -> int:
        # Python hashes text with a secret: who makes references can't make many of one hash.
        return hash((self.node, self.creation, str(self.ids)))


@dataclass(frozen=True, slots=True)
class Export:
    """An external fun, `fun module:function/arity` (EXPORT_EXT)."""

    module: Atom
    function: Atom
    arity: int


@dataclass(frozen=True, slots=True)
class Fun:
    """A fun of a BEAM (NEW_FUN_EXT), opaque: `data` is its external form, tag included."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BitString:
    """A bit string whose last byte holds only its `bits` highest bits, 1 to 7 (BIT_BINARY_EXT)."""

    data: bytes
    bits: int


class _Reducible:
    """A mutable class with slots that pickle protocols 0 and 1 take, too."""

    __slots__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__slots__)


@dataclass(slots=True)
class ImproperList(_Reducible):
    """A list whose tail is not a list: `[1, 2 | tail]`. `elements` has at least one."""

    elements: list[Term]
    tail: Term


@dataclass(slots=True)
class NativeRecord(_Reducible):
    """A native record, `#module:name{field = value}`, which OTP has since 29 (RECORD_EXT).

    `fields` has the values by the fields' names, which are atoms, in the order of the definition.
    """

    module: Atom
    name: Atom
    fields: dict[Atom, Term]
    exported: bool = True


@dataclass(slots=True)
class Map(_Reducible):
    """A map that no `dict` can hold: its keys are lists or maps, or equal in Python alone, or so
    many of them have one hash that a `dict` would be slow.

    `pairs` keeps them in wire order. `1`, `1.0` and `True` are three keys in Erlang, one in Python.
    """

    pairs: list[tuple[Term, Term]]

    def __iter__(self) -> Iterator[tuple[Term, Term]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)
