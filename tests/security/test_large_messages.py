"""What one message may cost: time that grows with its bytes, and a bounded multiple of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from struct import pack

import pytest

from pybeethoven import Limits
from pybeethoven.distribution import control
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.framing import MAX_MESSAGE_SIZE, MessageReader, encode_message
from pybeethoven.errors import DecodeError, ProtocolError
from pybeethoven.etf import Atom, Pid, Term, decode, decode_term
from pybeethoven.etf.decoder import MAX_COLLECTED_SIZE, MAX_TERMS

PEER = Pid(Atom("peer@127.0.0.9"), 1, 0, 1)
HEADER = encode_message(OFFERED, *control.reg_send(PEER, Atom("nobody"), 0))[4:-2]
MAX_MULTIPLE = 80
"""The documented maximum of bytes of memory for a byte of a term."""


def a_list(element: bytes, size: int) -> bytes:
    """The external form of a list of equal elements, of about `size` bytes."""
    count = size // len(element)
    return b"l" + pack(">I", count) + element * count + b"j"


def read(payload: bytes, limits: Limits) -> list[tuple[control.Control, Term]]:
    """What a connection with these limits reads of a message to nobody."""
    frame = HEADER + payload
    reader = MessageReader(OFFERED, max_message_size=limits.message_size, max_terms=limits.terms)
    return list(reader.receive_data(pack(">I", len(frame)) + frame))


@pytest.fixture
def collections() -> Iterator[list[str]]:
    """The starts of garbage collections, from now on."""
    starts: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            starts.append(phase)

    gc.callbacks.append(note)
    yield starts
    gc.callbacks.remove(note)


CONTAINERS = pytest.mark.parametrize(
    "element", [b"j", b"h\1" * 500 + b"j", b"t\0\0\0\1a\1j"], ids=["nils", "deep tuples", "maps"]
)


@CONTAINERS
def test_no_collection_looks_at_what_is_decoded(element: bytes, collections: list[str]) -> None:
    """Each would look at all containers so far, so that the cost would not be linear."""
    data = b"\x83" + a_list(element, 4 * MAX_COLLECTED_SIZE)
    collections.clear()
    term = decode(data)
    assert len(collections) <= 1, "more than the one that comes when all is decoded"
    del term


def wrong(data: bytes) -> None:
    """Decode what is wrong at its end."""
    with pytest.raises(DecodeError):
        decode(data[:-1])


@pytest.mark.parametrize("end", [decode, wrong], ids=["whole", "truncated"])
@pytest.mark.parametrize("was_on", [True, False])
def test_collection_is_afterwards_as_it_was(end: Callable[[bytes], Term], was_on: bool) -> None:
    """On or off, whether the bytes are a term or not."""
    data = b"\x83" + a_list(b"j", 2 * MAX_COLLECTED_SIZE)
    try:
        if not was_on:
            gc.disable()
        end(data)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("data", "terms"),
    [
        (b"h\0", 1),
        (b"h\3jjj", 4),
        (b"h\1h\2jj", 4),
        (b"i\0\0\0\2jj", 3),
        (b"l\0\0\0\2jjj", 4),
        (b"l\0\0\0\1jl\0\0\0\1jj", 5),
        (b"t\0\0\0\1jj", 3),
        (b"h\2a\1h\1m\0\0\0\1x", 4),
    ],
)
def test_terms_are_counted(data: bytes, terms: int) -> None:
    """As many as the limit are let in, one more is not."""
    filled = b"h\2" + data + b"m\0\0\0\x40" + bytes(64)  # not decided by its bytes alone
    decode_term(filled, max_terms=terms + 2)
    with pytest.raises(DecodeError, match=f"more than the {terms + 1} terms"):
        decode_term(filled, max_terms=terms + 1)


def test_too_many_terms_are_refused_before_they_are_read() -> None:
    """By default ten million, however few bytes they have: their list is never opened."""
    tracemalloc.start()
    try:
        payload = a_list(b"j", MAX_TERMS)
        with pytest.raises(DecodeError, match="more than the 10000000 terms"):
            read(payload, Limits())
        assert tracemalloc.get_traced_memory()[1] < 6 * MAX_TERMS
    finally:
        tracemalloc.stop()


@CONTAINERS
def test_memory_is_a_multiple_of_the_bytes_and_comes_back(element: bytes) -> None:
    """At most what is documented while the terms are there, nothing afterwards."""
    data = b"\x83" + a_list(element, 100_000)
    tracemalloc.start()
    try:
        decode(data)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MULTIPLE * len(data)
    assert left < peak / 10  # Python keeps some tuples to use them again


def test_messages_are_limited_to_64_mib() -> None:
    """By default, told from their length: nothing is waited for."""
    assert Limits().message_size == MAX_MESSAGE_SIZE == 64 * 1024 * 1024
    with pytest.raises(ProtocolError, match="message_size"):
        list(MessageReader(OFFERED).receive_data(pack(">I", MAX_MESSAGE_SIZE + 1)))
