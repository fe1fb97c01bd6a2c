"""Large messages come in fragments, those of several messages interleaved.

    first      131 69 sequence:64 fragment:64 nrefs:8 data      nrefs is 0 without an atom cache
    following  131 70 sequence:64 fragment:64 data

`fragment` starts at the number of fragments and counts down to 1. What the fragments of a sequence
carry, joined, is what a message that is not fragmented has behind its header.

Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html#distribution-header-for-fragmented-messages
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from pybeethoven.errors import ProtocolError

_IDS: Final = Struct(">xxQQ")
_FIRST_SIZE: Final = _IDS.size + 1
_OVERHEAD: Final = 256
"""Bytes by which an unfinished sequence is charged for besides its data."""


@dataclass(slots=True)
class _Sequence:
    awaited: int
    data: bytearray = field(default_factory=bytearray)


class Reassembly:
    """The unfinished sequences of one connection.

    `max_message_size`: bytes that one sequence may carry. `max_unfinished_size`: bytes that all
    unfinished ones may hold together.
    """

    def __init__(self, max_message_size: int, max_unfinished_size: int) -> None:
        self._max_message_size = max_message_size
        self._max_unfinished_size = max_unfinished_size
        self._sequences: dict[int, _Sequence] = {}
        self._unfinished_size = 0

    @property
    def unfinished_size(self) -> int:
        """Bytes held for all unfinished sequences."""
        return self._unfinished_size

    def receive_first(self, frame: bytes) -> bytes | None:
        """Take the frame that starts a sequence; return what the sequence carries if that is all.

        Raises `ProtocolError`, also for a count of fragments that no message can have.
        """
        sequence_id, fragment = _parse_ids(frame, _FIRST_SIZE)
        if frame[_IDS.size] != 0:
            raise ProtocolError("a fragment refers to an atom cache that was not negotiated")
        if sequence_id in self._sequences:
            raise ProtocolError(f"fragment sequence {sequence_id} starts while it is unfinished")
        if not 0 < fragment <= self._max_message_size:
            raise ProtocolError(f"a sequence of {fragment} fragments can't be")
        self._sequences[sequence_id] = _Sequence(fragment)
        self._charge(_OVERHEAD)
        return self._receive(sequence_id, fragment, frame[_FIRST_SIZE:])

    def receive_following(self, frame: bytes) -> bytes | None:
        """Take a frame that continues a sequence; return what the sequence carries if that is all.

        Raises `ProtocolError`.
        """
        sequence_id, fragment = _parse_ids(frame, _IDS.size)
        if sequence_id not in self._sequences:
            raise ProtocolError(f"a fragment continues the unknown sequence {sequence_id}")
        return self._receive(sequence_id, fragment, frame[_IDS.size :])

    def _receive(self, sequence_id: int, fragment: int, data: bytes) -> bytes | None:
        sequence = self._sequences[sequence_id]
        if fragment != sequence.awaited:
            raise ProtocolError(f"fragment {fragment} came in place of {sequence.awaited}")
        if len(sequence.data) + len(data) > self._max_message_size:
            raise ProtocolError(
                f"a fragmented message exceeds {self._max_message_size} bytes (Limits.message_size)"
            )
        self._charge(len(data))
        sequence.data += data
        sequence.awaited -= 1
        return None if sequence.awaited else self._finish(sequence_id)

    def _charge(self, size: int) -> None:
        self._unfinished_size += size
        if self._unfinished_size > self._max_unfinished_size:
            raise ProtocolError(
                f"unfinished fragmented messages exceed {self._max_unfinished_size} bytes "
                "(Limits.unfinished_size)"
            )

    def _finish(self, sequence_id: int) -> bytes:
        data = bytes(self._sequences.pop(sequence_id).data)
        self._unfinished_size -= len(data) + _OVERHEAD
        return data


def _parse_ids(frame: bytes, least_size: int) -> tuple[int, int]:
    if len(frame) < least_size:
        raise ProtocolError(f"a fragment of {len(frame)} bytes is too short for its header")
    sequence_id, fragment = _IDS.unpack_from(frame)
    return sequence_id, fragment
