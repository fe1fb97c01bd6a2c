"""Mutations of the corpus, without coverage: what is done where atheris is not installed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

INTERESTING: Final = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x83")


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs, each made of one or two of `seeds`; the same ones for the same `seed`."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        if chance.random() < 0.2:
            data = _spliced(data, chance.choice(seeds), chance)
        for _ in range(chance.randint(1, 4)):
            _mutate(data, chance)
        yield bytes(data)


def _spliced(data: bytearray, other: bytes, chance: random.Random) -> bytearray:
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _mutate(data: bytearray, chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.randint(1, 8))
    match chance.randrange(5):
        case 0:
            data[start:end] = b""
        case 1:
            data[start:start] = data[start:end] or b"\0"
        case 2:
            data[start:start] = chance.choice(INTERESTING)
        case 3:
            piece = chance.choice(INTERESTING)
            data[start : start + len(piece)] = piece
        case _:
            data[start:end] = chance.randbytes(end - start)
