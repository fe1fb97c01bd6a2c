"""What waits to be written on one connection, large messages in fragments.

All waits in one line, first in, first out. A large message that gets to its head steps aside: it
goes on in fragments, one behind each `FRAGMENT_SIZE` bytes of the line, by turns with other large
ones. Until its last fragment is out, whatever its sender sends waits behind it. So the signals of
one process arrive in the order in which it sent them, at every receiver and however it addressed
him (pid, name or alias), and those of other processes don't wait for its large ones. A BEAM does
the same: it suspends the sender.

Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html#distribution-header-for-fragmented-messages
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from struct import Struct
from typing import Final

from pybeethoven.distribution.flags import Flag
from pybeethoven.distribution.framing import HEADED_SIZE

FRAGMENT_SIZE: Final = 64 * 1024
"""Bytes of payload in a fragment, as a BEAM has it. A longer message is fragmented."""

_FIRST: Final = Struct(">IBBQQB")
_FOLLOWING: Final = Struct(">IBBQQ")
_FRAGMENTING: Final = int(Flag.FRAGMENTS | Flag.SEND_SENDER)


def may_fragment(flags: Flag) -> bool:
    """Whether large messages are fragmented. Without SEND_SENDER, SEND does not tell its sender:
    then they go whole, which keeps their order, too."""
    return int(flags) & _FRAGMENTING == _FRAGMENTING


class LargeMessage:
    """A message that leaves in fragments.

    `frame`: the whole of it, with a header, as `encode_frame` gives it. `payload_at`: where in it
    the payload begins; a peer wants all that is before that in the first fragment.
    """

    def __init__(self, frame: bytearray, payload_at: int) -> None:
        self._data = memoryview(frame)
        self._offset = HEADED_SIZE
        self._end = payload_at + FRAGMENT_SIZE
        self._left = -(-(len(frame) - payload_at) // FRAGMENT_SIZE)

    @property
    def size(self) -> int:
        """Bytes that are left of it, headers not counted."""
        return max(0, len(self._data) - self._offset)

    def next_frame(self, sequence: int) -> bytes:
        """The next fragment as a frame. `sequence`: the number of the message, from 1 to
        2**64 - 1, always the same and no other's that is unfinished."""
        data = self._data[self._offset : self._end]
        if self._offset == HEADED_SIZE:
            size = _FIRST.size - 4 + len(data)
            head = _FIRST.pack(size, 131, 69, sequence, self._left, 0)
        else:
            size = _FOLLOWING.size - 4 + len(data)
            head = _FOLLOWING.pack(size, 131, 70, sequence, self._left)
        self._offset, self._end = self._end, self._end + FRAGMENT_SIZE
        self._left -= 1
        return b"".join((head, data))

    @property
    def finished(self) -> bool:
        """Whether that was the last one."""
        return self._left == 0


class Outbox:
    """The line of one connection."""

    def __init__(self) -> None:
        self._line: deque[bytearray | _Turn] = deque()
        self._turns: deque[_Turn] = deque()
        self._held: dict[Hashable, deque[bytearray | LargeMessage]] = {}
        self._sequence = 0  # a BEAM takes 0 for that of a message that is not fragmented
        self.size = self.large_size = 0
        """Bytes that wait, and those of them that are of large messages."""

    def put(self, sender: Hashable, message: bytearray | LargeMessage) -> None:
        """Let a frame or a large message wait, behind what `sender` has put before."""
        if isinstance(message, LargeMessage):
            self.size += message.size
            self.large_size += message.size
        else:
            self.size += len(message)
        held = self._held.get(sender)
        if held is None:
            self._line_up(sender, message, deque())
        else:
            held.append(message)

    def next_data(self) -> bytes:
        """What is to be written next: whole frames, of about `FRAGMENT_SIZE` bytes, and a fragment
        of up to as many more. Empty when nothing waits."""
        parts: list[bytes | bytearray] = []
        size = 0
        while self._line and size < FRAGMENT_SIZE:
            item = self._line.popleft()
            if isinstance(item, _Turn):
                self._turns.append(item)
            else:
                parts.append(item)
                size += len(item)
        self.size -= size
        if self._turns:
            parts.append(self._next_fragment(self._turns.popleft()))
        return b"".join(parts)

    def _line_up(
        self,
        sender: Hashable,
        message: bytearray | LargeMessage,
        held: deque[bytearray | LargeMessage],
    ) -> None:
        if isinstance(message, LargeMessage):
            self._held[sender] = held
            self._sequence = self._sequence % 0xFFFFFFFFFFFFFFFF + 1
            self._line.append(_Turn(sender, message, self._sequence))
        else:
            self._line.append(message)

    def _next_fragment(self, turn: _Turn) -> bytes:
        before = turn.message.size
        frame = turn.message.next_frame(turn.sequence)
        taken = before - turn.message.size
        self.size -= taken
        self.large_size -= taken
        if turn.message.finished:
            self._release(turn.sender)
        else:
            self._turns.append(turn)
        return frame

    def _release(self, sender: Hashable) -> None:
        """Let what was held back line up, as far as the next large message."""
        held = self._held.pop(sender)
        while held and sender not in self._held:
            self._line_up(sender, held.popleft(), held)


class _Turn:
    """A large message under way."""

    __slots__ = ("message", "sender", "sequence")

    def __init__(self, sender: Hashable, message: LargeMessage, sequence: int) -> None:
        self.sender, self.message, self.sequence = sender, message, sequence
