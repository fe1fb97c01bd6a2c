"""Keys that a peer has chosen do not make the dicts slow that hold them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Hashable
from typing import Final

import pytest

from pybeethoven.etf import Map, Term, decode, encode
from pybeethoven.etf.maps import FEW_KEYS, make_map
from pybeethoven.etf.order import Key, as_map, exact_key, order_key
from pybeethoven.etf.terms import Atom, Reference

MODULUS: Final = sys.hash_info.modulus
ORBIT_BITS: Final = 12


def orbit_keys() -> list[int]:
    """Integers with hashes of their own, of which most find a dict's places taken, hundreds for
    each: half of them take the places that the others go through."""
    mask, place = (1 << ORBIT_BITS) - 1, 1
    taken: dict[int, int] = {}
    while len(taken) < mask // 3:
        taken[place] = len(taken)
        place = 5 * place + 1 & mask
    late: list[int] = []
    key = mask
    while len(late) < mask // 3:
        key += 1
        place, rest = key & mask, key
        while rest and place in taken:
            rest >>= 5
            place = 5 * place + rest + 1 & mask
        if taken.get(place, mask) < mask // 12:
            late.append(key)
    return [*taken, *late]


def same_hashes(count: int) -> list[int]:
    """Integers that Python gives one hash."""
    return [MODULUS * number for number in range(1, count + 1)]


def tuples_of_one_hash() -> list[tuple[int, ...]]:
    """Python gives -1 and -2 one hash, and so tuples of them."""
    return [tuple(-1 - (number >> bit & 1) for bit in range(10)) for number in range(1024)]


CHOSEN: Final[dict[str, list[Hashable]]] = {
    "one orbit": [*orbit_keys()],
    "one hash": [*same_hashes(1000)],
    "small tuples of one hash": [*tuples_of_one_hash()],
    "large tuples of one hash": [(key, 1.5, "x") for key in same_hashes(1000)],
}


@pytest.mark.parametrize("name", CHOSEN)
def test_map_of_chosen_keys_is_no_dict(name: str) -> None:
    """It is a `Map`, whose pairs are all there."""
    data = encode(Map([(key, 0) for key in CHOSEN[name]]))
    term = decode(data)
    assert type(term) is Map
    assert encode(term) == data
    assert type(as_map((key, 0) for key in CHOSEN[name])) is Map


HONEST: Final[dict[str, Callable[[int], Hashable]]] = {
    "integers": lambda number: number,
    "negative": lambda number: -number,
    "squares": lambda number: number * number,
    "nanoseconds": lambda number: 1_800_000_000_000_000_000 + 10**9 * number,
    "high bits": lambda number: number << 32,
    "over 64 bits": lambda number: number << 70,
    "floats": lambda number: number / 10,
    "tuples": lambda number: (number // 100, number % 100),
    "atoms": lambda number: Atom(str(number)),
    "binaries": lambda number: b"%d" % number,
    "mixed": lambda number: b"%d" % number if number % 2 else number,
}


@pytest.mark.parametrize("count", [FEW_KEYS, 1000, 10_000])
@pytest.mark.parametrize("kind", HONEST)
def test_map_of_honest_keys_is_a_dict(kind: str, count: int) -> None:
    """Whatever pattern is in them."""
    keys = [HONEST[kind](number) for number in range(count)]
    assert type(decode(encode(dict.fromkeys(keys, 0)))) is dict


def test_few_keys_are_a_dict_whatever_their_hashes() -> None:
    """They can't do harm."""
    keys: list[Term] = [*same_hashes(FEW_KEYS)]
    assert type(make_map(keys, keys)) is dict


KEYS = pytest.mark.parametrize("key_of", [order_key, exact_key])


@KEYS
@pytest.mark.parametrize(
    "terms",
    [
        same_hashes(100),
        tuples_of_one_hash(),
        [(key,) for key in same_hashes(100)],
        [2.0 ** (61 * number) for number in range(16)],
        [0.75 * 2.0 ** (61 * number) for number in range(-16, 0)],
        [-1, -2],
        [
            Reference(
                Atom("a@b"), 1, tuple(MODULUS * number >> 32 * n & 0xFFFFFFFF for n in range(3))
            )
            for number in range(100)
        ],
    ],
    ids=["integers", "small tuples", "tuples", "floats", "fractions", "minus", "references"],
)
def test_keys_of_tables_have_hashes_of_their_own(
    key_of: Callable[[Term], Key], terms: list[Term]
) -> None:
    """Also those of terms that Python gives one hash."""
    assert len({hash(key_of(term)) for term in terms}) == len(terms)


@KEYS
def test_numbers_keep_their_order(key_of: Callable[[Term], Key]) -> None:
    """Also beside what sets their hashes apart, and in tuples."""
    numbers = [-(2**70), -MODULUS, -2, -1, 0, 1, MODULUS - 1, MODULUS, MODULUS + 1, 2**70]
    assert sorted(numbers, key=key_of) == numbers
    tuples: list[Term] = [(number, other) for number in numbers for other in numbers]
    assert sorted(tuples, key=key_of) == tuples


@pytest.mark.parametrize("number", [-1, 0, 5, MODULUS, 2**80, -(2**80)])
def test_equal_numbers_have_equal_keys(number: int) -> None:
    """Whether they are integers or floats."""
    assert order_key(float(number)) == order_key(int(float(number)))
    assert hash(order_key(float(number))) == hash(order_key(int(float(number))))


def test_references_have_hashes_of_their_own() -> None:
    """Monitors are kept by those that peers have made."""
    references = [Reference(Atom("a@b"), 1, (key,)) for key in same_hashes(100)]
    assert len({hash(reference) for reference in references}) == 100


def test_no_other_process_can_tell_the_hash_of_a_key() -> None:
    """It has a secret in it, as those of strings have."""
    program = "from pybeethoven.etf.order import order_key; print(hash(order_key((1, 2))))"
    run = [sys.executable, "-c", program]
    env = {"PYTHONPATH": ":".join(sys.path)}
    hashes = {subprocess.run(run, env=env, capture_output=True, check=True).stdout for _ in "ab"}
    assert len(hashes) == 2
