"""Tests of `distribution.handshake_messages`, beside those in `test_handshake`."""

from __future__ import annotations

from hashlib import md5

import pytest

from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.handshake_messages import Identity
from pybeethoven.errors import HandshakeError

LONGEST = "x@" + 253 * "\U0001f600"
"""A name of 255 characters, nearly all of which have 4 bytes."""


@pytest.mark.parametrize("name", ["x@h", LONGEST, 255 * "\U0001f600"], ids=len)
def test_names_of_any_allowed_size_are_parsed(name: str) -> None:
    """Up to the 1,020 bytes that 255 characters can have."""
    peer = Identity(name, OFFERED, 7)
    assert messages.parse_name(messages.build_name(peer)) == peer
    assert messages.parse_challenge(messages.build_challenge(peer, 9)) == (peer, 9)


def test_longest_node_name_is_accepted() -> None:
    """A node name has up to 255 characters."""
    messages.check_node_name(LONGEST)
    with pytest.raises(HandshakeError, match="no node name"):
        messages.check_node_name(LONGEST + "h")


def test_dynamic_name_must_have_exactly_the_host_that_was_sent() -> None:
    """A host that only ends like it is another host."""
    asked = Identity("h", OFFERED | Flag.NAME_ME, 0)
    with pytest.raises(HandshakeError, match="no node on 'h'"):
        messages.parse_named(b"snamed:\0\5a@i.h\0\0\0\5", asked)


@pytest.mark.parametrize(
    ("cookie", "hashed"), [("\xff", b"\xff7"), ("\u0100", b"\xc4\x807")], ids=["latin-1", "utf-8"]
)
def test_encoding_of_the_cookie_depends_on_its_characters(cookie: str, hashed: bytes) -> None:
    """Those below 256 are one byte each; one above makes it UTF-8."""
    assert messages.digest(cookie, 7) == md5(hashed).digest()
