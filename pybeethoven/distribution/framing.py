"""Frames: how control messages and their payloads travel once the handshake is done.

    frame    length:32 content:length              length 0, without content, is a tick
    content  112 131 control [131 payload]         pass-through
           | 131 68 nrefs:8 control [payload]      with a distribution header
           | 131 69 ...  |  131 70 ...             a fragment of the latter: see `fragments`

The header forms are used, in both directions, once FRAGMENTS or DIST_HDR_ATOM_CACHE is negotiated;
fragments need FRAGMENTS. `nrefs`, the number of references to an atom cache, is 0 here: this node
never offers one.

Sources: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#protocol-between-connected-nodes
https://www.erlang.org/doc/apps/erts/erl_ext_dist.html#distribution-header
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct
from typing import Final

from pybeethoven.distribution.control import NOTHING, Control, Nothing, check_control, strip_token
from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.fragments import Reassembly
from pybeethoven.errors import DecodeError, EncodeError, ProtocolError
from pybeethoven.etf import Term, decode_term, encode_into
from pybeethoven.etf.decoder import MAX_DEPTH, MAX_TERMS

__all__ = [
    "HEADED_SIZE",
    "MAX_MESSAGE_SIZE",
    "MAX_UNFINISHED_SIZE",
    "NOTHING",
    "TICK",
    "MessageReader",
    "Nothing",
    "encode_frame",
    "encode_message",
]

TICK: Final = b"\0\0\0\0"
"""The frame that only says that its sender lives."""
MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of the largest message that is accepted, fragmented or not, unless told otherwise."""
MAX_UNFINISHED_SIZE: Final = 2 * MAX_MESSAGE_SIZE
"""Bytes that all unfinished fragmented messages may hold, unless told otherwise."""

LARGE_SIZE: Final = 64 * 1024
"""Messages of more bytes are decoded at once only if they have few terms."""
FEW_TERMS: Final = 20_000

_LENGTH: Final = Struct(">I")
_HEADER_FLAGS: Final = int(Flag.FRAGMENTS | Flag.DIST_HDR_ATOM_CACHE)
_VERSION: Final = b"\x83"
_PASS_THROUGH: Final = b"\x70\x83"
_HEADER: Final = b"\x83\x44\0"
"""With no reference to an atom cache."""
HEADED_SIZE: Final = _LENGTH.size + len(_HEADER)
"""Bytes of a frame with a header that are before its control message."""
_FIRST_FRAGMENT: Final = b"\x83\x45"
_FOLLOWING_FRAGMENT: Final = b"\x83\x46"


class Large(Enum):
    """What comes in the place of a message that takes long to decode, just before it."""

    LARGE = "LARGE"


class MessageReader:
    """Turns the bytes of one connection, cut anyhow, into messages.

    `flags`: what the handshake negotiated. `max_message_size`, `max_unfinished_size`: in bytes.
    `max_depth`: levels of nesting in a term. `max_terms`: terms in a control message, and in a
    payload. The cost is linear in the bytes received. After an error the reader is not to be used
    any more.
    """

    def __init__(
        self,
        flags: Flag,
        *,
        max_message_size: int = MAX_MESSAGE_SIZE,
        max_unfinished_size: int = MAX_UNFINISHED_SIZE,
        max_depth: int = MAX_DEPTH,
        max_terms: int = MAX_TERMS,
    ) -> None:
        self._has_header = bool(flags & _HEADER_FLAGS)
        self._may_fragment = bool(flags & Flag.FRAGMENTS)
        self._max_message_size = max_message_size
        self._max_depth = max_depth
        self._max_terms = max_terms
        self._reassembly = Reassembly(max_message_size, max_unfinished_size)
        self._buffer = bytearray()
        self._offset = 0

    def receive_data(self, data: bytes) -> Iterator[tuple[Control, Term]]:
        """Take received bytes; give each message that is complete: control message, and payload.

        The payload is `NOTHING` where the operation has none. Control messages have passed
        `check_control` and `strip_token`. Ticks give nothing. The bytes are taken at once, the
        messages decoded as the iterator gets to them.

        The iterator raises `ProtocolError` for what is wrong with a frame or a control message and
        `DecodeError`, as the decoder raised it, for a term; what came before was given by then.
        """
        return (each for each in self.receive_in_steps(data) if each is not Large.LARGE)

    def receive_in_steps(self, data: bytes) -> Iterator[tuple[Control, Term] | Large]:
        """The same, with a step before each message that takes long to decode. So another thread
        can do that, while no more is taken from the iterator."""
        self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[tuple[Control, Term] | Large]:
        while (frame := self._next_frame()) is not None:
            if self._has_header and frame.startswith(_HEADER):
                data, start, version = frame, len(_HEADER), b""
            elif (found := self._process_frame(frame)) is not None:
                data, start, version = found
            else:
                continue
            if len(data) > LARGE_SIZE:
                try:
                    message = self._parse_terms(data, start, version, FEW_TERMS)
                except DecodeError:  # that it has more, or another error
                    yield Large.LARGE
                else:
                    yield message
                    continue
            yield self._parse_terms(data, start, version, self._max_terms)
        del self._buffer[: self._offset]
        self._offset = 0

    def _next_frame(self) -> bytes | None:
        start = self._offset + _LENGTH.size
        if len(self._buffer) < start:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer, self._offset)
        if size > self._max_message_size:
            raise ProtocolError(
                f"a frame of {size} bytes exceeds {self._max_message_size} (Limits.message_size)"
            )
        end = start + size
        if len(self._buffer) < end:
            return None
        self._offset = end
        return bytes(self._buffer[start:end])

    def _process_frame(self, frame: bytes) -> tuple[bytes, int, bytes] | None:
        """The bytes of a message, where its control message is, and what begins its payload."""
        if not frame:
            return None
        if self._has_header:
            data = self._join_fragment(frame)
            return None if data is None else (data, 0, b"")
        if not frame.startswith(_PASS_THROUGH):
            raise ProtocolError(f"a frame starts with {frame[:2].hex(' ')} in place of 70 83")
        return frame, len(_PASS_THROUGH), _VERSION

    def _join_fragment(self, frame: bytes) -> bytes | None:
        if frame.startswith(_FIRST_FRAGMENT) and self._may_fragment:
            return self._reassembly.receive_first(frame)
        if frame.startswith(_FOLLOWING_FRAGMENT) and self._may_fragment:
            return self._reassembly.receive_following(frame)
        raise ProtocolError(f"a frame starts with {frame[:3].hex(' ')}, which was not negotiated")

    def _parse_terms(
        self, data: bytes, offset: int, version: bytes, max_terms: int
    ) -> tuple[Control, Term]:
        max_depth, max_terms = self._max_depth, min(max_terms, self._max_terms)
        control, offset = decode_term(data, offset, max_depth=max_depth, max_terms=max_terms)
        message: Term = NOTHING
        if offset != len(data):
            if not data.startswith(version, offset):
                raise ProtocolError(f"a payload starts with {data[offset]:02x} in place of 83")
            message, offset = decode_term(
                data, offset + len(version), max_depth=max_depth, max_terms=max_terms
            )
            if offset != len(data):
                raise ProtocolError(f"{len(data) - offset} bytes follow the payload of a message")
        check_control(control, message)
        return strip_token(control), message


def encode_frame(flags: int, control: Control, message: Term = NOTHING) -> tuple[bytearray, int]:
    """A whole frame, its length included, and the offset of its payload, or of its end if it has
    none. `flags`: what the handshake negotiated.

    Raises `EncodeError` for a term without external form, or a frame over 4 GiB.
    """
    frame = bytearray(_LENGTH.size)
    has_header = flags & _HEADER_FLAGS
    frame += _HEADER if has_header else _PASS_THROUGH
    encode_into(frame, control)
    payload_at = len(frame)
    if message is not NOTHING:
        if not has_header:
            frame += _VERSION
        encode_into(frame, message)
    _put_length(frame)
    return frame, payload_at


def encode_message(flags: Flag, control: Control, message: Term = NOTHING) -> bytes:
    """The frame alone; see `encode_frame`. A peer takes it whole, whatever its size."""
    return bytes(encode_frame(int(flags), control, message)[0])


def _put_length(frame: bytearray) -> None:
    size = len(frame) - _LENGTH.size
    if size >= 1 << 32:
        raise EncodeError(f"a message of {size} bytes is longer than a frame can be")
    _LENGTH.pack_into(frame, 0, size)
