"""SeekChat: the bytes that a Locator and a beacon exchange."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.cluster.seek_chat import (
    MAX_SIZE,
    REPLY,
    SEEKING,
    TYPES,
    WATCHING,
    Message,
    SeekChatError,
    decode,
    encode,
)

MESSAGES = [
    Message("py@10.0.0.7", SEEKING, "join"),
    Message("py@10.0.0.7", WATCHING, "check"),
    Message("a@10.0.0.1", REPLY, "joined"),
    Message("a@10.0.0.1", REPLY, []),
    Message("a@10.0.0.1", REPLY, ["b@10.0.0.2", "c@10.0.0.3"]),
    Message('quote"back\\slash{}[]', REPLY, "grüße"),
]


def reply(**fields: object) -> bytes:
    """A good reply with some fields replaced; None leaves the field out."""
    message = {"sender": "a@10.0.0.1", "type": "reply", "payload": "joined", **fields}
    return json.dumps(
        {name: value for name, value in message.items() if value is not None}
    ).encode()


def test_bytes_as_beethoven_sends_them() -> None:
    """The request is exactly what Beethoven's own Locator sends."""
    expected = b'{"sender":"py@10.0.0.7","type":"seeking","payload":"join"}'
    assert encode(Message("py@10.0.0.7", SEEKING, "join")) == expected


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_round_trip_and_every_cut(message: Message) -> None:
    """A whole message is decoded; a prefix of it gives None, and white space is ignored."""
    data = encode(message)
    assert [decode(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert decode(data) == message
    assert decode(b"\r\n " + data + b"\n") == message


@given(
    sender=st.text(),
    kind=st.sampled_from(TYPES),
    payload=st.one_of(st.text(), st.lists(st.text(), max_size=3)),
)
def test_round_trip_of_anything(sender: str, kind: str, payload: str | list[str]) -> None:
    """Every message survives, whatever text is in it."""
    message = Message(sender, kind, payload)
    assert decode(encode(message)) == message


def test_utf8_cut_in_a_character() -> None:
    """A character that came in half is not an error."""
    data = '{"sender":"ü@h","type":"reply","payload":"joined"}'.encode()
    assert decode(data[: data.index("ü".encode()) + 1]) is None
    assert decode(data) == Message("ü@h", REPLY, "joined")


def test_further_fields_are_ignored() -> None:
    """Fields may come in any order, with others between them."""
    data = b'{"payload": "joined", "more": {"x": [1]}, "type": "reply", "sender": "a@h"}'
    assert decode(data) == Message("a@h", REPLY, "joined")


def test_size_is_limited() -> None:
    """A message may have `MAX_SIZE` bytes, and not one more, complete or not."""
    padded = encode(MESSAGES[0]).ljust(MAX_SIZE)
    assert decode(padded) == MESSAGES[0]
    assert decode(b"{" + b" " * (MAX_SIZE - 1)) is None
    for data in (padded + b" ", b"{" + b" " * MAX_SIZE):
        with pytest.raises(SeekChatError, match="over 65536 bytes"):
            decode(data)


@pytest.mark.parametrize(
    "data",
    [b"x", b"HTTP/1.1 400 Bad Request\r\n", b"\x00", b"[", b'"joined"', b"1", b"  null", b"\xff{"],
    ids=repr,
)
def test_message_begins_as_an_object(data: bytes) -> None:
    """Bytes that do not begin as an object are refused at the first one."""
    with pytest.raises(SeekChatError, match="no JSON object"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        reply(sender=None),
        reply(type=None),
        reply(payload=None),
        reply(sender=1),
        reply(sender=["a@10.0.0.1"]),
        reply(type=1),
        reply(type="replies"),
        reply(type=[]),
        reply(payload=1),
        reply(payload={}),
        reply(payload=True),
        reply(payload=["b@10.0.0.2", 1]),
        reply(payload=[["b@10.0.0.2"]]),
    ],
    ids=repr,
)
def test_missing_or_mistyped_fields_are_refused(data: bytes) -> None:
    """Fields that are missing or of another type are refused."""
    with pytest.raises(SeekChatError, match="sender, type and payload"):
        decode(data)


@pytest.mark.parametrize(
    "data", [b'{"a":' * 10_000, b'{"a":' + b"[" * 60_000, b'{"a":' + b"9" * 5000], ids=len
)
def test_too_deep_or_long_json_is_incomplete(data: bytes) -> None:
    """JSON that is too deep or long for Python's parser raises nothing."""
    assert decode(data) is None
