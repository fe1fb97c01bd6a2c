"""Tests of `distribution.epmd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution import epmd
from pybeethoven.distribution.epmd import NOT_REGISTERED, Alive2Response, Port2Response
from pybeethoven.errors import EpmdError

Parser = Callable[[bytes], Any]

PORT2 = b"w\0" + bytes.fromhex("abcd 4d 00 0006 0005 0001") + b"x"


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (
            epmd.alive2_request("py", 0xABCD, hidden=True),
            b"\0\x0fx\xab\xcdH\0\0\x06\0\x06\0\x02py\0\0",
        ),
        (
            epmd.alive2_request("\xe9", 1, hidden=False),
            b"\0\x0fx\0\1M\0\0\x06\0\x06\0\x02\xc3\xa9\0\0",
        ),
        (epmd.port_please2_request("py"), b"\0\3zpy"),
    ],
)
def test_request_has_these_bytes(request_: bytes, data: bytes) -> None:
    """Each request is its length and its message."""
    assert request_ == data


ANSWERS: list[tuple[Parser, bytes, Any]] = [
    (epmd.parse_alive2_response, b"v\0\1\2\3\4", Alive2Response(0, 0x01020304)),
    (epmd.parse_alive2_response, b"v\1\0\0\0\x63", Alive2Response(1, 99)),
    (epmd.parse_alive2_response, b"y\0\1\2", Alive2Response(0, 0x0102)),
    (epmd.parse_port2_response, b"w\1", NOT_REGISTERED),
    (epmd.parse_port2_response, PORT2 + b"\0\0", Port2Response(0xABCD, 77, 6, 5, "x", b"")),
    (epmd.parse_port2_response, PORT2 + b"\0\2ex", Port2Response(0xABCD, 77, 6, 5, "x", b"ex")),
]


@pytest.mark.parametrize(("parse", "data", "answer"), ANSWERS)
def test_answer_is_understood_when_complete(parse: Parser, data: bytes, answer: Any) -> None:
    """Each answer is parsed whole; cut anywhere, it needs more; longer, it is an error."""
    assert [parse(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert parse(data) == answer
    with pytest.raises(EpmdError, match="1 bytes more"):
        parse(data + b"x")


@pytest.mark.parametrize(
    ("parse", "data", "text"),
    [
        (epmd.parse_alive2_response, b"w", "with the message 119"),
        (epmd.parse_port2_response, b"v", "with the message 118"),
        (epmd.parse_port2_response, PORT2[:-1] + b"\xff\0\0", "not UTF-8"),
    ],
)
def test_answer_out_of_form_is_an_error(parse: Parser, data: bytes, text: str) -> None:
    """Something else than the answer is an error that says what came."""
    with pytest.raises(EpmdError) as raised:
        parse(data)
    assert text in str(raised.value)


@given(
    st.sampled_from([epmd.parse_alive2_response, epmd.parse_port2_response]),
    st.sampled_from([b"", b"v", b"y", b"w", b"w\0", PORT2]),
    st.binary(max_size=50),
)
def test_random_bytes_raise_only_epmd_errors(parse: Parser, start: bytes, rest: bytes) -> None:
    """Whatever EPMD sends, there is an answer, None, or `EpmdError`."""
    try:
        parse(start + rest)
    except EpmdError:
        return
