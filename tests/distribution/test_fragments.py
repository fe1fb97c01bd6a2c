"""Tests of `distribution.fragments`."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution.fragments import Reassembly
from pybeethoven.errors import ProtocolError

MAX_MESSAGE = 1000
MAX_UNFINISHED = 3000


def first(sequence: int, fragment: int, data: bytes = b"", refs: int = 0) -> bytes:
    """The frame that starts a sequence."""
    return struct.pack(">BBQQB", 131, 69, sequence, fragment, refs) + data


def following(sequence: int, fragment: int, data: bytes = b"") -> bytes:
    """A frame that continues a sequence."""
    return struct.pack(">BBQQ", 131, 70, sequence, fragment) + data


def feed(reassembly: Reassembly, *frames: bytes) -> list[bytes | None]:
    """What each frame brings."""
    return [
        reassembly.receive_first(frame) if frame[1] == 69 else reassembly.receive_following(frame)
        for frame in frames
    ]


@pytest.mark.parametrize(
    ("frames", "results"),
    [
        ([first(1, 1, b"abc")], [b"abc"]),
        ([first(1, 3, b"a"), following(1, 2, b"b"), following(1, 1, b"c")], [None, None, b"abc"]),
        ([first(1, 2), following(1, 1, b"abc")], [None, b"abc"]),
        (
            [first(1, 2, b"a"), first(9, 2, b"x"), following(1, 1, b"b"), following(9, 1, b"y")],
            [None, None, b"ab", b"xy"],
        ),
        ([first(1, 1, b"a"), first(1, 1, b"b")], [b"a", b"b"]),
        ([first(2**64 - 1, 1, b"a"), first(0, 1, b"b")], [b"a", b"b"]),
    ],
)
def test_fragments_are_joined(frames: list[bytes], results: list[bytes | None]) -> None:
    """Sequences, interleaved or not, give what they carry with their last fragment."""
    reassembly = Reassembly(MAX_MESSAGE, MAX_UNFINISHED)
    assert feed(reassembly, *frames) == results
    assert reassembly.unfinished_size == 0


@pytest.mark.parametrize(
    ("before", "frame", "text"),
    [
        ([], following(1, 1), "continues the unknown sequence 1"),
        ([first(1, 1)], following(1, 0), "unknown sequence 1"),
        ([first(1, 3)], first(1, 2), "sequence 1 starts while it is unfinished"),
        ([first(1, 3)], following(1, 3), "fragment 3 came in place of 2"),
        ([first(1, 3)], following(1, 1), "fragment 1 came in place of 2"),
        ([first(1, 3)], following(1, 0), "fragment 0 came in place of 2"),
        ([], first(1, 0), "a sequence of 0 fragments"),
        ([], first(1, 2**64 - 1), "fragments can't be"),
        ([], first(1, 1, refs=1), "atom cache"),
        ([], b"\x83\x45" + bytes(16), "too short"),
        ([first(1, 2)], following(1, 1)[:-1], "too short"),
        ([], first(1, 1, bytes(MAX_MESSAGE + 1)), "exceeds 1000 bytes"),
        ([first(1, 3, bytes(600))], following(1, 2, bytes(401)), "exceeds 1000 bytes"),
        (
            [first(1, 2, bytes(900)), first(2, 2, bytes(900))],
            first(3, 2, bytes(900)),
            "exceed 3000 bytes",
        ),
    ],
)
def test_wrong_fragment_is_an_error(before: list[bytes], frame: bytes, text: str) -> None:
    """Wrong order, unknown sequences, lying counts and too much data are errors."""
    reassembly = Reassembly(MAX_MESSAGE, MAX_UNFINISHED)
    feed(reassembly, *before)
    with pytest.raises(ProtocolError) as raised:
        feed(reassembly, frame)
    assert text in str(raised.value)


def test_message_of_the_largest_size_is_taken() -> None:
    """The limits themselves are within the limits."""
    reassembly = Reassembly(MAX_MESSAGE, MAX_UNFINISHED)
    frames = first(1, 2, bytes(500)), following(1, 1, bytes(500))
    assert feed(reassembly, *frames) == [None, bytes(1000)]


def test_endless_empty_sequences_are_bounded() -> None:
    """Sequences without data are charged for: their number, and so the memory, is bounded."""
    reassembly = Reassembly(MAX_MESSAGE, 1_000_000)
    frames = [first(sequence, 2) for sequence in range(10_000)]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="exceed 1000000 bytes"):
            feed(reassembly, *frames)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@given(st.data())
def test_interleaved_sequences_carry_their_own_data(data: st.DataObject) -> None:
    """Whatever the order between sequences, each gives its own bytes."""
    carried = data.draw(
        st.dictionaries(st.integers(0, 9), st.lists(st.binary(max_size=9), min_size=1), max_size=4)
    )
    order = data.draw(st.permutations([s for s, parts in carried.items() for _ in parts]))
    reassembly = Reassembly(10_000, 100_000)
    done: dict[int, bytes] = {}
    seen = dict.fromkeys(carried, 0)
    for sequence in order:
        parts, index = carried[sequence], seen[sequence]
        seen[sequence] += 1
        frame = following if index else first
        [result] = feed(reassembly, frame(sequence, len(parts) - index, parts[index]))
        if result is not None:
            done[sequence] = result
    assert done == {sequence: b"".join(parts) for sequence, parts in carried.items()}
