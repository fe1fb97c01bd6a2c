"""Maps whose keys others have chosen."""

from __future__ import annotations

from typing import Final

from pybeethoven.etf.terms import Atom, Map, Term

FEW_KEYS: Final = 64
"""The keys of a map with so many are not looked at."""
MAX_STEPS: Final = 24
"""Maximum number of taken places that are found for each key of a dict, on an average. Integers in
a row find none, random ones 1.4; ten thousand multiples of `2**32`, as bad as honest keys get, 19.
"""

_SECRET_HASHES: Final = frozenset({Atom, bytes, str})
"""Types whose hashes Python makes with a secret."""
_SIZE_T: Final = (1 << 64) - 1


def make_map(keys: list[Term], values: list[Term]) -> dict[Term, Term] | Map:
    """A map: a `dict`, or a `Map` where Python can't hold the keys apart, or not hash them, or
    only with much work."""
    try:
        if not _are_slow(keys):
            result = dict(zip(keys, values, strict=True))
            if len(result) == len(keys):
                return result
    except TypeError:  # a key that has no hash
        pass
    return Map(list(zip(keys, values, strict=True)))


def _are_slow(keys: list[Term]) -> bool:
    """Whether these keys, put into a dict, are in each other's way.

    Python's hashes of numbers and tuples are no secret, so keys can be chosen that look for a free
    place in the same order. This counts the places that are found taken, as CPython goes through
    them, for each size that the dict has while it grows (see its Objects/dictobject.c).
    """
    if len(keys) <= FEW_KEYS or all(type(key) in _SECRET_HASHES for key in keys):
        return False
    hashes = [hash(key) & _SIZE_T for key in keys]
    steps, size = MAX_STEPS * len(keys), 2 * FEW_KEYS
    while True:
        mask, taken = size - 1, bytearray(size)
        for rest in hashes[: 2 * size // 3]:
            place = rest & mask
            while taken[place]:
                if not steps:
                    return True
                steps -= 1
                rest >>= 5
                place = (5 * place + rest + 1) & mask
            taken[place] = 1
        if len(keys) <= 2 * size // 3:
            return False
        size *= 2
