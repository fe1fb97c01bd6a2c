"""Tests of `distribution.control`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution import control as c
from pybeethoven.distribution.control import (
    NOTHING,
    Control,
    Op,
    Signal,
    check_control,
    strip_token,
)
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.errors import ProtocolError
from pybeethoven.etf import Atom, ImproperList
from tests.distribution.samples import MFA, NAME, OURS, REF, THEIRS, TOKEN, payloads

EMPTY = Atom("")
REASON = (Atom("shutdown"), 1)

SHAPES: dict[Op, Signal] = {
    Op.LINK: ((1, THEIRS, OURS), NOTHING),
    Op.SEND: ((2, EMPTY, OURS), b"hi"),
    Op.EXIT: ((3, THEIRS, OURS, REASON), NOTHING),
    Op.UNLINK: ((4, THEIRS, OURS), NOTHING),
    Op.REG_SEND: ((6, THEIRS, EMPTY, NAME), b"hi"),
    Op.GROUP_LEADER: ((7, THEIRS, OURS), NOTHING),
    Op.EXIT2: ((8, THEIRS, OURS, REASON), NOTHING),
    Op.SEND_TT: ((12, EMPTY, OURS, TOKEN), b"hi"),
    Op.EXIT_TT: ((13, THEIRS, OURS, TOKEN, REASON), NOTHING),
    Op.REG_SEND_TT: ((16, THEIRS, EMPTY, NAME, TOKEN), b"hi"),
    Op.EXIT2_TT: ((18, THEIRS, OURS, TOKEN, REASON), NOTHING),
    Op.MONITOR_P: ((19, THEIRS, NAME, REF), NOTHING),
    Op.DEMONITOR_P: ((20, THEIRS, OURS, REF), NOTHING),
    Op.MONITOR_P_EXIT: ((21, NAME, OURS, REF, REASON), NOTHING),
    Op.SEND_SENDER: ((22, THEIRS, OURS), b"hi"),
    Op.SEND_SENDER_TT: ((23, THEIRS, OURS, TOKEN), b"hi"),
    Op.PAYLOAD_EXIT: ((24, THEIRS, OURS), REASON),
    Op.PAYLOAD_EXIT_TT: ((25, THEIRS, OURS, TOKEN), REASON),
    Op.PAYLOAD_EXIT2: ((26, THEIRS, OURS), REASON),
    Op.PAYLOAD_EXIT2_TT: ((27, THEIRS, OURS, TOKEN), REASON),
    Op.PAYLOAD_MONITOR_P_EXIT: ((28, THEIRS, OURS, REF), REASON),
    Op.SPAWN_REQUEST: ((29, REF, THEIRS, THEIRS, MFA, [Atom("monitor")]), [1]),
    Op.SPAWN_REQUEST_TT: ((30, REF, THEIRS, THEIRS, MFA, [], TOKEN), [1]),
    Op.SPAWN_REPLY: ((31, REF, OURS, 2, THEIRS), NOTHING),
    Op.SPAWN_REPLY_TT: ((32, REF, OURS, 0, Atom("undef"), TOKEN), NOTHING),
    Op.ALIAS_SEND: ((33, THEIRS, REF), b"hi"),
    Op.ALIAS_SEND_TT: ((34, THEIRS, REF, TOKEN), b"hi"),
    Op.UNLINK_ID: ((35, 2**64 - 1, THEIRS, OURS), NOTHING),
    Op.UNLINK_ID_ACK: ((36, 1, THEIRS, OURS), NOTHING),
    Op.ALTACT_SIG_SEND: ((37, 4, THEIRS, REF), b"hi"),
}

each_shape = pytest.mark.parametrize(
    ("op", "signal"), SHAPES.items(), ids=[op.name for op in SHAPES]
)


def test_every_operation_is_tried_here() -> None:
    """The table above leaves no operation out."""
    assert set(SHAPES) == set(Op)


@each_shape
def test_right_shape_passes(op: Op, signal: Signal) -> None:
    """Each operation passes in its own shape."""
    assert check_control(*signal) is op


@each_shape
def test_payload_must_be_there_exactly_when_due(op: Op, signal: Signal) -> None:
    """A payload that lacks, or is too much, is an error that names the operation."""
    control, message = signal
    with pytest.raises(ProtocolError, match=op.name):
        check_control(control, b"hi" if message is NOTHING else NOTHING)


@each_shape
def test_other_number_of_elements_is_an_error(op: Op, signal: Signal) -> None:
    """One element less, or two more, is an error that names the operation."""
    control, message = signal
    for wrong in (control[:-1], (*control, TOKEN, TOKEN)):
        with pytest.raises(ProtocolError, match=f"{op.name} came with {len(wrong)} elements"):
            check_control(wrong, message)


@pytest.mark.parametrize(
    ("control", "message", "text"),
    [
        ((5,), NOTHING, "unknown operation: 5"),
        ((38, THEIRS, OURS), NOTHING, "unknown operation: 38"),
        ((-1,), NOTHING, "unknown operation: out of range"),
        ((1 << 40_000,), NOTHING, "unknown operation: out of range"),
        ((True, THEIRS, OURS), NOTHING, "not a tuple that starts"),
        ((1.0, THEIRS, OURS), NOTHING, "not a tuple that starts"),
        (([],), NOTHING, "not a tuple that starts"),
        ((), NOTHING, "not a tuple that starts"),
        ([1, THEIRS, OURS], NOTHING, "not a tuple that starts"),
        (b"x", NOTHING, "not a tuple that starts"),
        ((1, THEIRS, NAME), NOTHING, "LINK has a Atom as element 3"),
        ((2, EMPTY, REF), 1, "SEND has a Reference as element 3"),
        ((6, THEIRS, EMPTY, b"echo"), 1, "REG_SEND has a bytes as element 4"),
        ((6, THEIRS, EMPTY, OURS), 1, "REG_SEND has a Pid as element 4"),
        ((19, THEIRS, NAME, 1), NOTHING, "MONITOR_P has a int as element 4"),
        ((19, NAME, NAME, REF), NOTHING, "MONITOR_P has a Atom as element 2"),
        ((23, NAME, OURS, TOKEN), 1, "SEND_SENDER_TT has a Atom as element 2"),
        ((29, REF, OURS, OURS, MFA, ImproperList([1], 2)), [], "SPAWN_REQUEST has a ImproperList"),
        ((29, REF, OURS, OURS, MFA[:2], []), [], "SPAWN_REQUEST has an element out of range"),
        ((29, REF, OURS, OURS, (NAME, NAME, -1), []), [], "out of range"),
        ((29, REF, OURS, OURS, (NAME, NAME, True), []), [], "out of range"),
        ((29, REF, OURS, OURS, (NAME, b"f", 1), []), [], "out of range"),
        ((29, REF, OURS, OURS, (OURS, NAME, 1), []), [], "out of range"),
        ((31, REF, OURS, -1, THEIRS), NOTHING, "SPAWN_REPLY has an element out of range"),
        ((31, REF, OURS, 0, REF), NOTHING, "SPAWN_REPLY has a Reference as element 5"),
        ((35, 0, THEIRS, OURS), NOTHING, "UNLINK_ID has an element out of range"),
        ((35, 2**64, THEIRS, OURS), NOTHING, "UNLINK_ID has an element out of range"),
        ((35, True, THEIRS, OURS), NOTHING, "UNLINK_ID has a bool as element 2"),
        ((36, 0, THEIRS, OURS), NOTHING, "UNLINK_ID_ACK has an element out of range"),
    ],
)
def test_wrong_shape_is_an_error(control: Any, message: Any, text: str) -> None:
    """What no BEAM would take is an error that says which operation and what is wrong."""
    with pytest.raises(ProtocolError) as raised:
        check_control(control, message)
    assert text in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("name", [True, False, None])
def test_atoms_that_python_has_are_names(name: bool | None) -> None:
    """The atoms true, false and nil can be a name like any other."""
    assert check_control((6, THEIRS, EMPTY, name), 1) is Op.REG_SEND


PLAIN: dict[Op, Control] = {
    Op.SEND_TT: (2, EMPTY, OURS),
    Op.EXIT_TT: (3, THEIRS, OURS, REASON),
    Op.REG_SEND_TT: (6, THEIRS, EMPTY, NAME),
    Op.EXIT2_TT: (8, THEIRS, OURS, REASON),
    Op.SEND_SENDER_TT: (22, THEIRS, OURS),
    Op.PAYLOAD_EXIT_TT: (24, THEIRS, OURS),
    Op.PAYLOAD_EXIT2_TT: (26, THEIRS, OURS),
    Op.SPAWN_REQUEST_TT: (29, REF, THEIRS, THEIRS, MFA, []),
    Op.SPAWN_REPLY_TT: (31, REF, OURS, 0, Atom("undef")),
    Op.ALIAS_SEND_TT: (33, THEIRS, REF),
}


@each_shape
def test_stripped_twin_is_the_plain_operation(op: Op, signal: Signal) -> None:
    """A twin loses its token and gets the plain operation, in its shape; others are untouched."""
    control, message = signal
    stripped = strip_token(control)
    assert stripped == PLAIN.get(op, control)
    check_control(stripped, message)


def test_altact_sig_send_has_its_token_in_the_same_operation() -> None:
    """ALTACT_SIG_SEND comes with and without a token, and loses it, too."""
    control = (37, 2, THEIRS, OURS, TOKEN)
    assert check_control(control, b"hi") is Op.ALTACT_SIG_SEND
    assert strip_token(control) == (37, 2, THEIRS, OURS)


NO_PAYLOAD_OPS = OFFERED & ~Flag.EXIT_PAYLOAD & ~Flag.SEND_SENDER
CONSTRUCTED: list[tuple[Signal, Signal]] = [
    (c.send_sender(OFFERED, OURS, THEIRS, 1), ((22, OURS, THEIRS), 1)),
    (c.send_sender(NO_PAYLOAD_OPS, OURS, THEIRS, 1), ((2, EMPTY, THEIRS), 1)),
    (c.reg_send(OURS, NAME, 1), ((6, OURS, EMPTY, NAME), 1)),
    (c.alias_send(OURS, REF, 1), ((33, OURS, REF), 1)),
    (c.link(OURS, THEIRS), ((1, OURS, THEIRS), NOTHING)),
    (c.unlink(OURS, THEIRS), ((4, OURS, THEIRS), NOTHING)),
    (c.unlink_id(5, OURS, THEIRS), ((35, 5, OURS, THEIRS), NOTHING)),
    (c.unlink_id_ack(5, OURS, THEIRS), ((36, 5, OURS, THEIRS), NOTHING)),
    (c.exit_(OFFERED, OURS, THEIRS, REASON), ((24, OURS, THEIRS), REASON)),
    (c.exit_(NO_PAYLOAD_OPS, OURS, THEIRS, REASON), ((3, OURS, THEIRS, REASON), NOTHING)),
    (c.exit2(OFFERED, OURS, THEIRS, REASON), ((26, OURS, THEIRS), REASON)),
    (c.exit2(NO_PAYLOAD_OPS, OURS, THEIRS, REASON), ((8, OURS, THEIRS, REASON), NOTHING)),
    (c.monitor_p(OURS, NAME, REF), ((19, OURS, NAME, REF), NOTHING)),
    (c.demonitor_p(OURS, THEIRS, REF), ((20, OURS, THEIRS, REF), NOTHING)),
    (c.monitor_p_exit(OFFERED, NAME, THEIRS, REF, REASON), ((28, NAME, THEIRS, REF), REASON)),
    (
        c.monitor_p_exit(NO_PAYLOAD_OPS, OURS, THEIRS, REF, REASON),
        ((21, OURS, THEIRS, REF, REASON), NOTHING),
    ),
    (c.spawn_request(REF, OURS, OURS, MFA, [], [1]), ((29, REF, OURS, OURS, MFA, []), [1])),
    (
        c.spawn_reply(REF, THEIRS, c.SPAWN_FLAG_LINK | c.SPAWN_FLAG_MONITOR, OURS),
        ((31, REF, THEIRS, 3, OURS), NOTHING),
    ),
]


@pytest.mark.parametrize(("constructed", "signal"), CONSTRUCTED)
def test_constructors_order_the_elements_as_a_beam_does(
    constructed: Signal, signal: Signal
) -> None:
    """Each constructor gives a message in the shape of its operation."""
    assert constructed == signal
    check_control(*constructed)


@given(st.lists(payloads, max_size=6), st.integers(0, 40), st.just(NOTHING) | payloads)
def test_random_elements_raise_only_protocol_errors(
    elements: list[Any], op: int, message: Any
) -> None:
    """Any tuple at all passes or is a `ProtocolError`; what passes can be stripped."""
    control = (op, *elements)
    try:
        check_control(control, message)
    except ProtocolError:
        return
    check_control(strip_token(control), message)
