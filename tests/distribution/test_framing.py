"""Tests of `distribution.framing`."""

from __future__ import annotations

import tracemalloc
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution import control as c
from pybeethoven.distribution import framing
from pybeethoven.distribution.control import Signal
from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.framing import TICK, MessageReader, encode_message
from pybeethoven.errors import DecodeError, EncodeError, ProtocolError, RemoteError
from pybeethoven.etf import Term, decode_term, encode
from tests.distribution.samples import (
    NAME,
    OURS,
    PASS_THROUGH,
    REF,
    THEIRS,
    TOKEN,
    WITH_HEADER,
    fragments,
    frame,
    signals,
    terms,
)

SEND = c.send_sender(WITH_HEADER, THEIRS, OURS, b"hi")
LINK = c.link(THEIRS, OURS)
ATOM_CACHE = PASS_THROUGH | Flag.DIST_HDR_ATOM_CACHE

each_form = pytest.mark.parametrize("flags", [WITH_HEADER, PASS_THROUGH, ATOM_CACHE])


def term(value: Term) -> bytes:
    """The external form without the version byte."""
    return encode(value)[1:]


def read(flags: Flag, data: bytes, **limits: int) -> list[Signal]:
    """All messages in the data."""
    return list(MessageReader(flags, **limits).receive_data(data))


@pytest.mark.parametrize(
    ("flags", "signal", "content"),
    [
        (WITH_HEADER, LINK, b"\x83D\0" + term(LINK[0])),
        (WITH_HEADER, SEND, b"\x83D\0" + term(SEND[0]) + term(b"hi")),
        (ATOM_CACHE, SEND, b"\x83D\0" + term(SEND[0]) + term(b"hi")),
        (PASS_THROUGH, LINK, b"p" + encode(LINK[0])),
        (PASS_THROUGH, SEND, b"p" + encode(SEND[0]) + encode(b"hi")),
    ],
)
def test_message_has_the_form_negotiated(flags: Flag, signal: Signal, content: bytes) -> None:
    """What is written is the form that the flags ask for, and it is read again."""
    assert encode_message(flags, *signal) == frame(content)
    assert read(flags, frame(content)) == [signal]


def test_unencodable_message_is_the_callers_error() -> None:
    """A value without external form raises what the encoder raises."""
    with pytest.raises(EncodeError):
        encode_message(WITH_HEADER, (22, OURS, THEIRS), object())


class HugeBuffer(bytearray):
    """A buffer that claims to be longer than a frame can be."""

    def __len__(self) -> int:
        return (1 << 32) + 4


def test_frame_over_4_gib_is_the_callers_error() -> None:
    """A frame whose length has no 32 bits is not sent."""
    with pytest.raises(EncodeError, match="4294967296 bytes"):
        framing._put_length(HugeBuffer())


@each_form
def test_ticks_give_nothing(flags: Flag) -> None:
    """Ticks between messages, and alone, are passed over."""
    message = encode_message(flags, *LINK)
    assert read(flags, TICK) == []
    assert read(flags, TICK + message + TICK + TICK + message) == [LINK, LINK]


@each_form
def test_trace_token_is_stripped(flags: Flag) -> None:
    """A message with a trace token comes as the one without."""
    data = encode_message(flags, (23, THEIRS, OURS, TOKEN), b"hi")
    assert read(flags, data) == [SEND]


@each_form
def test_payload_may_be_any_term_even_an_empty_one(flags: Flag) -> None:
    """Payloads that are false in Python are not taken for none."""
    payloads: list[Term] = [[], None, False, 0, b"", ()]
    for payload in payloads:
        assert read(flags, encode_message(flags, SEND[0], payload)) == [(SEND[0], payload)]


HEADED = b"\x83D\0"
WRONG: list[tuple[Flag, bytes, type[RemoteError], str]] = [
    (WITH_HEADER, b"p" + encode(LINK[0]), ProtocolError, "starts with 70 83"),
    (WITH_HEADER, encode(LINK[0]), ProtocolError, "which was not negotiated"),
    (WITH_HEADER, b"\x83", ProtocolError, "starts with 83"),
    (WITH_HEADER, b"\x83D", ProtocolError, "starts with 83 44, which was not"),
    (WITH_HEADER, b"\x83D\1" + bytes(9), ProtocolError, "starts with 83 44 01, which was not"),
    (WITH_HEADER, b"\x83E" + bytes(15), ProtocolError, "too short"),
    (WITH_HEADER, b"\x83F" + bytes(16), ProtocolError, "unknown sequence"),
    (ATOM_CACHE, b"\x83E" + bytes(17), ProtocolError, "not negotiated"),
    (ATOM_CACHE, b"\x83F" + bytes(17), ProtocolError, "not negotiated"),
    (PASS_THROUGH, HEADED + terms(LINK), ProtocolError, "83 44 in place of 70 83"),
    (PASS_THROUGH, b"p" + terms(LINK), ProtocolError, "in place of 70 83"),
    (PASS_THROUGH, b"p" + encode(SEND[0]) + term(1), ProtocolError, "in place of 83"),
    (PASS_THROUGH, b"p" + encode(SEND[0]) + encode(1) + b"x", ProtocolError, "1 bytes follow"),
    (WITH_HEADER, HEADED + terms(SEND) + term(1), ProtocolError, "2 bytes follow the payload"),
    (WITH_HEADER, HEADED + term(SEND[0]), ProtocolError, "SEND_SENDER came without payload"),
    (WITH_HEADER, HEADED + terms(LINK) + term(1), ProtocolError, "LINK came with payload"),
    (WITH_HEADER, HEADED + term((99,)), ProtocolError, "unknown operation: 99"),
    (WITH_HEADER, HEADED + term(NAME), ProtocolError, "not a tuple"),
    (WITH_HEADER, HEADED, DecodeError, ""),
    (WITH_HEADER, HEADED + terms(LINK)[:-1], DecodeError, ""),
    (WITH_HEADER, HEADED + terms(SEND)[:-1], DecodeError, ""),
    (WITH_HEADER, HEADED + b"\x01", DecodeError, ""),
    (PASS_THROUGH, b"p\x83", DecodeError, ""),
]


@pytest.mark.parametrize(("flags", "content", "error", "text"), WRONG)
def test_wrong_frame_is_an_error_behind_the_good_ones(
    flags: Flag, content: bytes, error: type[RemoteError], text: str
) -> None:
    """What was complete before a wrong frame is given, then comes the error."""
    message = encode_message(flags, *LINK)
    messages = MessageReader(flags).receive_data(message + message + frame(content) + message)
    assert [next(messages), next(messages)] == [LINK, LINK]
    with pytest.raises(error) as raised:
        next(messages)
    assert text in str(raised.value)


@each_form
def test_size_is_checked_before_the_frame_is_there(flags: Flag) -> None:
    """A frame beyond the limit is refused by its length alone; one at the limit is taken."""
    message = encode_message(flags, *SEND)
    size = len(message) - 4
    assert read(flags, message, max_message_size=size) == [SEND]
    with pytest.raises(ProtocolError, match=f"{size} bytes exceeds {size - 1}"):
        read(flags, message[:4], max_message_size=size - 1)


def test_fragmented_message_is_put_together() -> None:
    """Fragments of two messages and a whole one, interleaved, give three messages."""
    big = c.send_sender(WITH_HEADER, THEIRS, OURS, bytes(range(256)) * 40)
    one, two = fragments(big, 1000, sequence=1), fragments(SEND, 20, sequence=2)
    between = encode_message(WITH_HEADER, *LINK)
    data = one[0] + two[0] + between + b"".join(two[1:]) + b"".join(one[1:])
    assert read(WITH_HEADER, data) == [LINK, SEND, big]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_fragments_may_be_cut_anywhere(size: int) -> None:
    """Wherever a message is cut, in its control message too, it is the same."""
    assert read(WITH_HEADER, b"".join(fragments(SEND, size))) == [SEND]
    assert read(WITH_HEADER, b"".join(fragments(LINK, size))) == [LINK]


def test_fragmented_message_is_checked_like_any_other() -> None:
    """A wrong control message is an error in fragments, too, and so are its limits."""
    with pytest.raises(ProtocolError, match="UNLINK_ID"):
        read(WITH_HEADER, b"".join(fragments(c.unlink_id(0, OURS, THEIRS), 9)))
    data = b"".join(fragments((SEND[0], bytes(2000)), 100))
    with pytest.raises(ProtocolError, match="a fragmented message exceeds 500 bytes"):
        read(WITH_HEADER, data, max_message_size=500)
    with pytest.raises(ProtocolError, match="unfinished fragmented messages exceed 700 bytes"):
        read(WITH_HEADER, data, max_unfinished_size=700)


def test_bytes_are_taken_even_if_no_message_is_asked_for() -> None:
    """A caller that stops in the middle loses nothing: the next call gives the rest."""
    message = encode_message(WITH_HEADER, *SEND)
    reader = MessageReader(WITH_HEADER)
    reader.receive_data(message[:7])
    assert next(reader.receive_data(message[7:] + message + message)) == SEND
    assert list(reader.receive_data(message)) == [SEND, SEND, SEND]


@given(st.lists(signals, max_size=5), st.sampled_from([WITH_HEADER, PASS_THROUGH]), st.data())
def test_any_cut_gives_the_same_messages(
    sent: list[Signal], flags: Flag, data: st.DataObject
) -> None:
    """However a stream of messages, fragments and ticks is cut, the messages are the same."""
    frames: list[bytes] = [TICK]
    for number, signal in enumerate(sent):
        fragmented = flags == WITH_HEADER and data.draw(st.booleans())
        frames += (
            fragments(signal, data.draw(st.integers(20, 90)), number)
            if fragmented
            else [encode_message(flags, *signal), TICK]
        )
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    reader = MessageReader(flags)
    got = [
        message
        for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for message in reader.receive_data(stream[a:b])
    ]
    assert got == sent


class CountingBuffer(bytearray):
    """A buffer that counts the bytes which are copied out of it."""

    copied = 0

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        result = super().__getitem__(key)
        if isinstance(result, bytearray):
            self.copied += len(result)
        return result


def test_cost_is_linear_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 MB that comes byte by byte is copied out once and decoded once."""
    decoded = []

    def counting_decode(data: bytes, offset: int, **limits: int) -> tuple[Term, int]:
        decoded.append(offset)
        return decode_term(data, offset, **limits)

    monkeypatch.setattr(framing, "decode_term", counting_decode)
    reader = MessageReader(WITH_HEADER)
    reader._buffer = buffer = CountingBuffer()
    message = encode_message(WITH_HEADER, SEND[0], bytes(1_000_000))
    got = [m for i in range(len(message)) for m in reader.receive_data(message[i : i + 1])]
    assert got == [(SEND[0], bytes(1_000_000))]
    assert buffer.copied == len(message) - 4
    assert len(decoded) == 2


def test_memory_does_not_grow_with_the_stream() -> None:
    """What was read is let go of: 10 MB of small messages leave a small buffer."""
    data = encode_message(WITH_HEADER, SEND[0], bytes(500)) * 100
    cuts = data[:30_001], data[30_001:]
    reader = MessageReader(WITH_HEADER)
    tracemalloc.start()
    try:
        for _ in range(180):
            count = sum(1 for cut in cuts for _ in reader.receive_data(cut))
            assert count == 100
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.sampled_from([WITH_HEADER, PASS_THROUGH]), st.binary(max_size=200))
def test_random_content_raises_only_remote_errors(flags: Flag, content: bytes) -> None:
    """Frames of random bytes, behind each start that a frame can have, raise nothing else."""
    for start in (b"", HEADED, b"p\x83", b"\x83E", b"\x83F", HEADED + terms(LINK)):
        try:
            read(flags, frame(start + content), max_message_size=1000, max_unfinished_size=5000)
        except RemoteError:
            continue


@given(st.lists(signals, min_size=1, max_size=3), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_raises_only_remote_errors(
    sent: list[Signal], position: int, bits: int
) -> None:
    """One byte other than it should be gives other messages or a `RemoteError`, nothing else."""
    parts = [f for s in sent for f in (*fragments(s, 30, 7), encode_message(WITH_HEADER, *s))]
    data = bytearray(b"".join(parts))
    data[position % len(data)] ^= bits
    try:
        read(WITH_HEADER, bytes(data))
    except RemoteError:
        return


def test_monitor_of_a_name_goes_through() -> None:
    """A message with no payload but an atom, a pid and a reference arrives as it was."""
    signal = c.monitor_p(THEIRS, NAME, REF)
    assert read(PASS_THROUGH, encode_message(PASS_THROUGH, *signal)) == [signal]
