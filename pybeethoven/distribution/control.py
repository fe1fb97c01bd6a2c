"""Control messages: what one node tells another about processes.

A control message is a tuple whose first element is the operation. Some are followed by a second
term, the payload. `_SHAPES` is the list of them all: operation, elements, payload or not. The
operations ending in `_TT` are twins of others, with a sequential trace token as one more element.

Sources: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#protocol-between-connected-nodes
and, for the checks that a BEAM makes, erts_net_message() in erts/emulator/beam/dist.c of OTP.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Final, NamedTuple, TypeAlias

from pybeethoven.distribution.flags import Flag
from pybeethoven.errors import ProtocolError
from pybeethoven.etf.terms import Atom, Pid, Reference, Term


class Nothing(Enum):
    """The type of `NOTHING`, which no term equals."""

    NOTHING = "NOTHING"


NOTHING: Final = Nothing.NOTHING
"""Stands where a control message has no payload."""

Control: TypeAlias = tuple[Term, ...]
Signal: TypeAlias = tuple[Control, Term]
"""A control message, and its payload or `NOTHING`: what the constructors below return."""


class Op(IntEnum):
    """The operations, without their `DOP_` prefix."""

    LINK = 1
    SEND = 2
    EXIT = 3
    UNLINK = 4
    REG_SEND = 6
    GROUP_LEADER = 7
    EXIT2 = 8
    SEND_TT = 12
    EXIT_TT = 13
    REG_SEND_TT = 16
    EXIT2_TT = 18
    MONITOR_P = 19
    DEMONITOR_P = 20
    MONITOR_P_EXIT = 21
    SEND_SENDER = 22
    SEND_SENDER_TT = 23
    PAYLOAD_EXIT = 24
    PAYLOAD_EXIT_TT = 25
    PAYLOAD_EXIT2 = 26
    PAYLOAD_EXIT2_TT = 27
    PAYLOAD_MONITOR_P_EXIT = 28
    SPAWN_REQUEST = 29
    SPAWN_REQUEST_TT = 30
    SPAWN_REPLY = 31
    SPAWN_REPLY_TT = 32
    ALIAS_SEND = 33
    ALIAS_SEND_TT = 34
    UNLINK_ID = 35
    UNLINK_ID_ACK = 36
    ALTACT_SIG_SEND = 37


# The empty atom, in the place of the cookie of old.
_UNUSED: Final = Atom("")
_SEND_SENDER: Final = int(Flag.SEND_SENDER)
_EXIT_PAYLOAD: Final = int(Flag.EXIT_PAYLOAD)

SPAWN_FLAG_LINK: Final = 1
"""In the flags of SPAWN_REPLY: the new process is linked to its parent."""
SPAWN_FLAG_MONITOR: Final = 2
"""In the flags of SPAWN_REPLY: the parent monitors the new process."""

_Kind: TypeAlias = frozenset[type]

_ANY: Final[_Kind] = frozenset()
_PID: Final[_Kind] = frozenset({Pid})
_REF: Final[_Kind] = frozenset({Reference})
# The atoms true, false and nil are decoded to bool and None.
_ATOM: Final[_Kind] = frozenset({Atom, bool, type(None)})
_PROCESS: Final[_Kind] = _PID | _ATOM
_INT: Final[_Kind] = frozenset({int})
_MFA: Final[_Kind] = frozenset({tuple})
_LIST: Final[_Kind] = frozenset({list})
_OP: Final[_Kind] = frozenset({int, Op})

_NO_PAYLOAD: Final = False
_PAYLOAD: Final = True

_SHAPES: Final[dict[Op, tuple[bool, dict[str, _Kind]]]] = {
    Op.LINK: (_NO_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.SEND: (_PAYLOAD, {"unused": _ANY, "to": _PID}),
    Op.EXIT: (_NO_PAYLOAD, {"from": _PID, "to": _PID, "reason": _ANY}),
    Op.UNLINK: (_NO_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.REG_SEND: (_PAYLOAD, {"from": _PID, "unused": _ANY, "to": _ATOM}),
    Op.GROUP_LEADER: (_NO_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.EXIT2: (_NO_PAYLOAD, {"from": _PID, "to": _PID, "reason": _ANY}),
    Op.MONITOR_P: (_NO_PAYLOAD, {"from": _PID, "to": _PROCESS, "ref": _REF}),
    Op.DEMONITOR_P: (_NO_PAYLOAD, {"from": _PID, "to": _PROCESS, "ref": _REF}),
    Op.MONITOR_P_EXIT: (
        _NO_PAYLOAD,
        {"from": _PROCESS, "to": _PID, "ref": _REF, "reason": _ANY},
    ),
    Op.SEND_SENDER: (_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.PAYLOAD_EXIT: (_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.PAYLOAD_EXIT2: (_PAYLOAD, {"from": _PID, "to": _PID}),
    Op.PAYLOAD_MONITOR_P_EXIT: (_PAYLOAD, {"from": _PROCESS, "to": _PID, "ref": _REF}),
    Op.SPAWN_REQUEST: (
        _PAYLOAD,
        {"req_id": _REF, "from": _PID, "group_leader": _PID, "mfa": _MFA, "opts": _LIST},
    ),
    Op.SPAWN_REPLY: (
        _NO_PAYLOAD,
        {"req_id": _REF, "to": _PID, "flags": _INT, "result": _PROCESS},
    ),
    Op.ALIAS_SEND: (_PAYLOAD, {"from": _PID, "alias": _REF}),
    Op.UNLINK_ID: (_NO_PAYLOAD, {"id": _INT, "from": _PID, "to": _PID}),
    Op.UNLINK_ID_ACK: (_NO_PAYLOAD, {"id": _INT, "from": _PID, "to": _PID}),
    Op.ALTACT_SIG_SEND: (_PAYLOAD, {"flags": _INT, "from": _PID, "to": _PROCESS | _REF}),
}

_TWINS: Final[dict[Op, tuple[Op, int]]] = {
    Op.SEND_TT: (Op.SEND, 3),
    Op.EXIT_TT: (Op.EXIT, 3),
    Op.REG_SEND_TT: (Op.REG_SEND, 4),
    Op.EXIT2_TT: (Op.EXIT2, 3),
    Op.SEND_SENDER_TT: (Op.SEND_SENDER, 3),
    Op.PAYLOAD_EXIT_TT: (Op.PAYLOAD_EXIT, 3),
    Op.PAYLOAD_EXIT2_TT: (Op.PAYLOAD_EXIT2, 3),
    Op.SPAWN_REQUEST_TT: (Op.SPAWN_REQUEST, 6),
    Op.SPAWN_REPLY_TT: (Op.SPAWN_REPLY, 5),
    Op.ALIAS_SEND_TT: (Op.ALIAS_SEND, 3),
    # ALTACT_SIG_SEND has an optional token: it is its own twin.
    Op.ALTACT_SIG_SEND: (Op.ALTACT_SIG_SEND, 4),
}
"""A twin, the operation that it is without its token, and the index of the token."""


def _is_unlink_id(control: Control) -> bool:
    return control[1] in range(1, 1 << 64)


def _has_callable_mfa(control: Control) -> bool:
    mfa = control[4]
    return (
        len(mfa) == 3
        and type(mfa[0]) in _ATOM
        and type(mfa[1]) in _ATOM
        and type(mfa[2]) is int
        and mfa[2] >= 0
    )


_VALUE_CHECKS: Final[dict[Op, Callable[[Control], bool]]] = {
    Op.SPAWN_REQUEST: _has_callable_mfa,
    Op.SPAWN_REQUEST_TT: _has_callable_mfa,
    Op.SPAWN_REPLY: lambda control: control[3] >= 0,
    Op.SPAWN_REPLY_TT: lambda control: control[3] >= 0,
    Op.UNLINK_ID: _is_unlink_id,
    Op.UNLINK_ID_ACK: _is_unlink_id,
}


class _Row(NamedTuple):
    op: Op
    has_payload: bool
    kinds: tuple[tuple[int, _Kind], ...]
    check_values: Callable[[Control], bool] | None


def _row(op: Op, has_payload: bool, kinds: list[_Kind]) -> tuple[tuple[int, int], _Row]:
    checked = tuple((index, kind) for index, kind in enumerate(kinds, 1) if kind)
    return (op, 1 + len(kinds)), _Row(op, has_payload, checked, _VALUE_CHECKS.get(op))


def _twin_row(twin: Op, plain: Op, token: int) -> tuple[tuple[int, int], _Row]:
    has_payload, elements = _SHAPES[plain]
    kinds = list(elements.values())
    return _row(twin, has_payload, [*kinds[: token - 1], _ANY, *kinds[token - 1 :]])


# Keyed by operation and number of elements, so that one look-up answers for both.
_ROWS: Final[dict[tuple[int, int], _Row]] = dict(
    [_row(op, has_payload, list(kinds.values())) for op, (has_payload, kinds) in _SHAPES.items()]
    + [_twin_row(twin, plain, token) for twin, (plain, token) in _TWINS.items()]
)


def check_control(control: Term, message: Term) -> Op:
    """The operation of a control message that came with the payload `message` (or `NOTHING`).

    Raises `ProtocolError`, naming the operation, when there is no such operation or the message has
    not its shape. The atoms `true`, `false` and `nil` pass as names: as `bool` and None.
    """
    if type(control) is not tuple or not control or type(control[0]) not in _OP:
        raise ProtocolError("a control message is not a tuple that starts with an operation")
    row = _ROWS.get((control[0], len(control)))
    if row is None:
        raise ProtocolError(_no_row_text(control))
    if (message is NOTHING) is row.has_payload:
        raise ProtocolError(
            f"{row.op.name} came {'without' if row.has_payload else 'with'} payload"
        )
    for index, kind in row.kinds:
        if type(control[index]) not in kind:
            found = type(control[index]).__name__
            raise ProtocolError(f"{row.op.name} has a {found} as element {index + 1}")
    if row.check_values is not None and not row.check_values(control):
        raise ProtocolError(f"{row.op.name} has an element out of range")
    return row.op


def strip_token(control: Control) -> Control:
    """The plain twin of a checked control message with a trace token; any other as it is."""
    twin = _TWINS.get(control[0])
    if twin is None:
        return control
    op, token = twin
    return (op, *control[1:token], *control[token + 1 :])


# Elsewhere the sender is the element behind the operation.
_SENDER_AT: Final[dict[Op, int]] = {
    Op.SPAWN_REQUEST: 2,
    Op.SPAWN_REPLY: 4,
    Op.UNLINK_ID: 2,
    Op.UNLINK_ID_ACK: 2,
    Op.ALTACT_SIG_SEND: 2,
}


def sender_of(control: Control) -> Term:
    """The process that a plain control message is from: a pid, or what stands in its place where
    the message does not tell (the name in a DOWN, the reason why none was spawned)."""
    return control[_SENDER_AT.get(control[0], 1)]


def _no_row_text(control: Control) -> str:
    if control[0] in list(Op):
        return f"{Op(control[0]).name} came with {len(control)} elements"
    # A number of any size can stand here; Python refuses to write out the largest.
    number = control[0] if 0 <= control[0] < 256 else "out of range"
    return f"a control message has an unknown operation: {number}"


def send_sender(flags: Flag, from_: Pid, to: Pid, message: Term) -> Signal:
    """`message` to a process: SEND_SENDER, or SEND when that is not negotiated.

    All constructors return the two arguments `control, message` of `encode_message`. Those that
    depend on what was negotiated take `flags` first.
    """
    if int(flags) & _SEND_SENDER:
        return (Op.SEND_SENDER, from_, to), message
    return (Op.SEND, _UNUSED, to), message


def reg_send(from_: Pid, to: Atom, message: Term) -> Signal:
    """`message` to the process with the registered name `to`."""
    return (Op.REG_SEND, from_, _UNUSED, to), message


def alias_send(from_: Pid, alias: Reference, message: Term) -> Signal:
    """`message` to the process with the alias `alias`. Needs Flag.ALIAS."""
    return (Op.ALIAS_SEND, from_, alias), message


def link(from_: Pid, to: Pid) -> Signal:
    """Link two processes."""
    return (Op.LINK, from_, to), NOTHING


def unlink(from_: Pid, to: Pid) -> Signal:
    """Unlink two processes by the old protocol: only where Flag.UNLINK_ID is not negotiated."""
    return (Op.UNLINK, from_, to), NOTHING


def unlink_id(id_: int, from_: Pid, to: Pid) -> Signal:
    """Unlink two processes. `id_`: 1 to 2**64 - 1, unique until acknowledged."""
    return (Op.UNLINK_ID, id_, from_, to), NOTHING


def unlink_id_ack(id_: int, from_: Pid, to: Pid) -> Signal:
    """Acknowledge UNLINK_ID: the same `id_`, `from_` and `to` exchanged."""
    return (Op.UNLINK_ID_ACK, id_, from_, to), NOTHING


def exit_(flags: Flag, from_: Pid, to: Pid, reason: Term) -> Signal:
    """A link is broken, as `from_` ended with `reason`: PAYLOAD_EXIT, or EXIT if not negotiated."""
    if int(flags) & _EXIT_PAYLOAD:
        return (Op.PAYLOAD_EXIT, from_, to), reason
    return (Op.EXIT, from_, to, reason), NOTHING


def exit2(flags: Flag, from_: Pid, to: Pid, reason: Term) -> Signal:
    """Erlang's `exit(To, Reason)`: PAYLOAD_EXIT2, or EXIT2 when that is not negotiated."""
    if int(flags) & _EXIT_PAYLOAD:
        return (Op.PAYLOAD_EXIT2, from_, to), reason
    return (Op.EXIT2, from_, to, reason), NOTHING


def monitor_p(from_: Pid, to: Pid | Atom, ref: Reference) -> Signal:
    """`from_` monitors a process, given by pid or registered name."""
    return (Op.MONITOR_P, from_, to, ref), NOTHING


def demonitor_p(from_: Pid, to: Pid | Atom, ref: Reference) -> Signal:
    """Take a monitor back; the arguments are those of `monitor_p`."""
    return (Op.DEMONITOR_P, from_, to, ref), NOTHING


def monitor_p_exit(flags: Flag, from_: Pid | Atom, to: Pid, ref: Reference, reason: Term) -> Signal:
    """A monitored process ended: PAYLOAD_MONITOR_P_EXIT, or MONITOR_P_EXIT if not negotiated.

    `from_`: the process as it was given in MONITOR_P. `to`: the process that monitors it.
    """
    if int(flags) & _EXIT_PAYLOAD:
        return (Op.PAYLOAD_MONITOR_P_EXIT, from_, to, ref), reason
    return (Op.MONITOR_P_EXIT, from_, to, ref, reason), NOTHING


def spawn_request(
    req_id: Reference,
    from_: Pid,
    group_leader: Pid,
    mfa: tuple[Atom, Atom, int],
    opts: list[Term],
    args: list[Term],
) -> Signal:
    """Spawn a process that runs `mfa` with `args`. Needs Flag.SPAWN."""
    return (Op.SPAWN_REQUEST, req_id, from_, group_leader, mfa, opts), args


def spawn_reply(req_id: Reference, to: Pid, flags: int, result: Pid | Atom) -> Signal:
    """Answer a SPAWN_REQUEST: the new pid, or why there is none.

    `flags`: SPAWN_FLAG_LINK and SPAWN_FLAG_MONITOR, or 0.
    """
    return (Op.SPAWN_REPLY, req_id, to, flags, result), NOTHING
