"""Requests to an EPMD, in and out of form, for the one in Python and the real one alike."""

from __future__ import annotations

import struct


def framed(message: bytes) -> bytes:
    """A request as it is sent."""
    return struct.pack(">H", len(message)) + message


def alive2(
    name: bytes,
    port: int = 4711,
    *,
    version: int = 6,
    extra: bytes = b"",
    name_size: int | None = None,
    extra_size: int | None = None,
) -> bytes:
    """A registration; the sizes of its parts may be wrong."""
    name_size = len(name) if name_size is None else name_size
    extra_size = len(extra) if extra_size is None else extra_size
    head = struct.pack(">cHBBHHH", b"x", port, 77, 0, version, 5, name_size)
    return framed(head + name + struct.pack(">H", extra_size) + extra)


NAMES = framed(b"n")
LOOK_UPS = {
    "registered": framed(b"za"),
    "of version 5": framed(b"zold"),
    "with extra": framed(b"zextra"),
    "a name that is not ASCII": framed(b"z\xc3\xa9"),
    "nobody": framed(b"znobody"),
    "with a zero behind it": framed(b"za\0"),
    "a name of 254 characters": framed(b"z" + b"n" * 254),
}
ANSWERED = {
    **LOOK_UPS,
    "names": NAMES,
    "names and more": framed(b"nonsense"),
    "kill": framed(b"k"),
}
UNANSWERED = {
    "no name": framed(b"z"),
    "an empty name and a zero": framed(b"z\0"),
    "zero in a name": framed(b"za\0b"),
    "two zeros": framed(b"za\0\0"),
    "not UTF-8": framed(b"z\xff"),
    "a surrogate": framed(b"z\xed\xa0\x80"),
    "overlong": framed(b"z\xc0\xaf"),
    "256 characters": framed(b"z" + b"n" * 256),
    "stop": framed(b"sa"),
    "unknown": framed(b"?"),
    "an answer": framed(b"w\0"),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "size 0": framed(b""),
    "size 3058": framed(b"n" * 3058)[:2],
    "more than its size": NAMES + b"n",
    "two requests": NAMES + NAMES,
    "a registration too short": framed(alive2(b"")[2:]),
    "name beyond the end": alive2(b"c", name_size=2),
    "extra beyond the end": alive2(b"c", extra_size=1),
    "zero in the name": alive2(b"c\0d"),
    "only a type": framed(b"x"),
}
REGISTRATIONS = {
    "version 6": alive2(b"a"),
    "version 5": alive2(b"old", 1, version=5),
    "version 7": alive2(b"new", version=7),
    "extra": alive2(b"extra", 65535, extra=b"\0\1\2more"),
    "not ASCII": alive2("é".encode()),
    "bytes behind it": framed(alive2(b"behind")[2:] + b"more"),
    "254 characters": alive2(b"n" * 254),
    "port 0": alive2(b"zero", 0),
}
REFUSED = {
    "taken": alive2(b"a", 1),
    "taken, version 5": alive2(b"a", 1, version=5),
    "256 characters": alive2(b"m" * 256),
    "over 1020 bytes": alive2("é".encode() * 511),
    "not UTF-8": alive2(b"\xff"),
    "1021 bytes of extra": alive2(b"big", extra=bytes(1021)),
}
"""To be made while all REGISTRATIONS are held."""
REFUSED_BY_OURS = {
    "space": alive2(b"a b"),
    "line of a name": alive2(b"a at port 1\nname b"),
    "escape": alive2(b"\x1b[2J"),
    "empty": alive2(b"", extra=b"x"),
}
"""What OTP's registers, and ours does not."""
