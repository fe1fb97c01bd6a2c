"""The bytes of the handshake's messages: one function to build, one to parse each.

    name        'N' flags:64 creation:32 nlen:16 name:nlen rest
    old name    'n' version:16 flags:32 name
    complement  'c' flags_high:32 creation:32
    status      's' text
    named       's' "named:" nlen:16 name:nlen creation:32 rest
    challenge   'N' flags:64 challenge:32 creation:32 nlen:16 name:nlen rest
    reply       'r' challenge:32 digest:16/bytes
    ack         'a' digest:16/bytes

All numbers are big-endian; `rest` is to be ignored. On the wire each message follows its length,
which neither builders nor parsers see.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#the-handshake-in-detail
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from pybeethoven.distribution.flags import Flag, expand_digest
from pybeethoven.errors import HandshakeError, brief

MAX_NAME_SIZE: Final = 255 * 4
"""Bytes of the longest node name: an atom has at most 255 characters."""

NAMED: Final = "named:"
"""The status that gives the initiator its name."""

_LENGTH: Final = Struct(">H")
_NAME: Final = Struct(">cQIH")
_OLD_NAME: Final = Struct(">cHI")
_COMPLEMENT: Final = Struct(">cII")
_CHALLENGE: Final = Struct(">cQIIH")
_CREATION: Final = Struct(">I")
_REPLY: Final = Struct(">cI16s")
_ACK: Final = Struct(">c16s")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: its full name, its flags and its creation (32 bits).

    A peer's flags have MANDATORY_25_DIGEST expanded into what it stands for.
    """

    name: str
    flags: Flag
    creation: int


def digest(cookie: str, challenge: int) -> bytes:
    """The 16 bytes that prove to know `cookie`, whose characters below 256 are one byte each."""
    text = f"{cookie}{challenge}"
    encoding = "latin-1" if all(character <= "\xff" for character in text) else "utf-8"
    return hashlib.md5(text.encode(encoding), usedforsecurity=False).digest()


def build_name(own: Identity) -> bytes:
    """The name message of version 6."""
    name = own.name.encode()
    return _NAME.pack(b"N", own.flags, own.creation, len(name)) + name


def build_challenge(own: Identity, challenge: int) -> bytes:
    """The challenge message of version 6; `challenge` has 32 bits."""
    name = own.name.encode()
    return _CHALLENGE.pack(b"N", own.flags, challenge, own.creation, len(name)) + name


def build_status(text: str) -> bytes:
    """The status message."""
    return b"s" + text.encode("latin-1")


def build_reply(challenge: int, own_digest: bytes) -> bytes:
    """The challenge reply: our digest, and our own challenge."""
    return _REPLY.pack(b"r", challenge, own_digest)


def build_ack(own_digest: bytes) -> bytes:
    """The challenge acknowledgement."""
    return _ACK.pack(b"a", own_digest)


def parse_name(message: bytes) -> Identity:
    """The peer of a version 6 name message. With NAME_ME, its name is only a host.

    Raises `HandshakeError`, like all parsers here, when the message is out of form.
    """
    _, flags, creation, size = _unpack_head(_NAME, message, "name")
    name = _text_at(message, _NAME.size, size)
    return _identity(name, flags, creation)


def parse_old_name(message: bytes) -> Identity:
    """The peer of an old name message: only the low 32 flags, and 0 in place of its creation."""
    _, _, flags = _unpack_head(_OLD_NAME, message, "name")
    name = _text_at(message, _OLD_NAME.size, len(message) - _OLD_NAME.size)
    return _identity(name, flags, 0)


def parse_complement(message: bytes, old: Identity) -> Identity:
    """The whole identity of a peer that sent an old name message."""
    _, flags_high, creation = _unpack_whole(_COMPLEMENT, message, "complement")
    return _identity(old.name, flags_high << 32 | old.flags, creation)


def parse_status(message: bytes) -> str:
    """The status, or the answer to `alive`, whatever it says."""
    return message[1:].decode("latin-1")


def parse_named(message: bytes, asked: Identity) -> Identity:
    """Who we are by the status NAMED; `asked` is what we sent, with our host in place of a name."""
    start = len(NAMED) + 1
    (size,) = _unpack_head(_LENGTH, message[start:], "name status")
    name = _text_at(message, start + _LENGTH.size, size)
    end = start + _LENGTH.size + size
    (creation,) = _unpack_head(_CREATION, message[end:], "name status")
    check_node_name(name)
    if name.partition("@")[2] != asked.name:
        raise HandshakeError(f"the peer named us {brief(name)}, which is no node on {asked.name!r}")
    return Identity(name, asked.flags & ~Flag.NAME_ME, creation)


def parse_challenge(message: bytes) -> tuple[Identity, int]:
    """The peer and its challenge."""
    _, flags, challenge, creation, size = _unpack_head(_CHALLENGE, message, "challenge")
    name = _text_at(message, _CHALLENGE.size, size)
    return _identity(name, flags, creation), challenge


def parse_reply(message: bytes) -> tuple[int, bytes]:
    """The peer's challenge and digest."""
    _, challenge, peer_digest = _unpack_whole(_REPLY, message, "challenge reply")
    return challenge, peer_digest


def parse_ack(message: bytes) -> bytes:
    """The peer's digest."""
    _, peer_digest = _unpack_whole(_ACK, message, "challenge ack")
    return bytes(peer_digest)


def check_node_name(name: str) -> None:
    """Raise `HandshakeError` unless `name` is `alive@host`, neither part empty."""
    alive_name, _, host = name.partition("@")
    if not alive_name or not host or "@" in host or len(name) > 255 or not name.isprintable():
        raise HandshakeError(f"the peer gave the name {brief(name)}, which is no node name")


def _identity(name: str, flags: int, creation: int) -> Identity:
    return Identity(name, expand_digest(Flag(flags)), creation)


def _unpack_head(head: Struct, message: bytes, what: str) -> tuple[Any, ...]:
    if len(message) < head.size:
        raise HandshakeError(f"a {what} message of {len(message)} bytes is too short")
    return head.unpack_from(message)


def _unpack_whole(whole: Struct, message: bytes, what: str) -> tuple[Any, ...]:
    if len(message) != whole.size:
        raise HandshakeError(f"a {what} message has {whole.size} bytes, not {len(message)}")
    return whole.unpack(message)


def _text_at(message: bytes, start: int, size: int) -> str:
    if size > MAX_NAME_SIZE:
        raise HandshakeError(f"a node name of {size} bytes is longer than {MAX_NAME_SIZE}")
    if start + size > len(message):
        raise HandshakeError(f"the message ends within a node name of {size} bytes")
    try:
        return message[start : start + size].decode()
    except UnicodeDecodeError as error:
        raise HandshakeError(f"the peer's name is not UTF-8: {error}") from None
