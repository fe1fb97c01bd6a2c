"""Terms that the tests of `distribution` share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pybeethoven.distribution import control as c
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.etf import Atom, Pid, Reference

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
