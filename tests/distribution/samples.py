"""Terms and frames that the tests of `distribution` share."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from pybeethoven.distribution import control as c
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import NOTHING
from pybeethoven.etf import Atom, Pid, Reference, encode_into

OURS = Pid(Atom("py@h"), 1, 0, 7)
THEIRS = Pid(Atom("x@h"), 85, 0, 9)
REF = Reference(Atom("x@h"), 9, (1, 2, 3))
NAME = Atom("echo")
TOKEN = (1, 2, 3, OURS, 4)
MFA = (Atom("m"), Atom("f"), 1)

WITH_HEADER = OFFERED
PASS_THROUGH = OFFERED & ~Flag.FRAGMENTS

payloads: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.binary(max_size=40) | st.just(NAME) | st.just(THEIRS) | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)

signals: st.SearchStrategy[c.Signal] = st.one_of(
    st.builds(c.send_sender, st.just(OFFERED), st.just(OURS), st.just(THEIRS), payloads),
    st.builds(c.reg_send, st.just(OURS), st.just(NAME), payloads),
    st.just(c.link(OURS, THEIRS)),
    st.just(c.monitor_p(OURS, NAME, REF)),
)


def frame(content: bytes) -> bytes:
    """A frame of any content."""
    return len(content).to_bytes(4) + content


def terms(signal: c.Signal) -> bytes:
    """A control message and its payload, as they stand behind a header."""
    buffer = bytearray()
    for part in signal:
        if part is not NOTHING:
            encode_into(buffer, part)
    return bytes(buffer)


def fragments(signal: c.Signal, size: int, sequence: int = 1) -> list[bytes]:
    """The frames of a fragmented message, each with up to `size` bytes of it."""
    data = terms(signal)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    ids = [struct.pack(">QQ", sequence, len(parts) - i) for i in range(len(parts))]
    heads = [b"\x83\x45" + ids[0] + b"\0", *(b"\x83\x46" + id_ for id_ in ids[1:])]
    return [frame(head + part) for head, part in zip(heads, parts, strict=True)]
