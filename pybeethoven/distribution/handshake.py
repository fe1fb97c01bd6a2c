"""The version 6 handshake, both roles, as a state machine without I/O.

          initiator                                 acceptor

    AWAIT_STATUS      --- name ----------------->   AWAIT_NAME
                                                    DECIDE_STATUS       the driver: send_status()
                      <-- status ----------------   AWAIT_REPLY         ok, ok_simultaneous
    AWAIT_CHALLENGE                                 AWAIT_ALIVE_ANSWER  alive
    DECIDE_ALIVE                                    CLOSED              nok, not_allowed
      the driver:
      answer_alive()  --- true | false ---------->  AWAIT_REPLY | CLOSED
    AWAIT_CHALLENGE   <-- challenge -------------
    AWAIT_ACK         --- reply ----------------->
                      <-- ack -------------------   DONE
    DONE

Each side proves that it knows the cookie with a digest of it and the other's challenge, the
initiator first. A peer that starts with the old name message (OTP 23 and 24) sends the rest of it,
the complement, in front of its reply; the states ending in `_OLD` remember that it will.

The machine is `TRANSITIONS`, a table of data: state, then what happens in it, then the next state.
What happens is a message received, or the text of a status, received or sent. `_MESSAGES` says who
takes which message; one that its state does not take is an error, which ends the handshake.

The driver writes `data_to_send()` after each call, after one that failed, too. It gives what it
receives to `receive_data`, decides when an event asks for it, and goes on to framing, starting with
`trailing_data`, when `Completed` comes.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#distribution-handshake
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from hmac import compare_digest
from typing import Final, NoReturn, TypeAlias

from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.distribution.flags import REQUIRED, Flag, missing_flags
from pybeethoven.distribution.handshake_messages import Identity
from pybeethoven.errors import HandshakeError, brief

__all__ = [
    "AliveAnswered",
    "Completed",
    "Event",
    "Handshake",
    "Identity",
    "NameReceived",
    "State",
    "Status",
    "StatusReceived",
]


class Status(StrEnum):
    """An acceptor's answer to a name."""

    OK = "ok"
    OK_SIMULTANEOUS = "ok_simultaneous"
    NOK = "nok"
    NOT_ALLOWED = "not_allowed"
    ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class NameReceived:
    """Acceptor: a node wants to connect; answer it with `send_status`.

    After an old name message the creation is 0 and the flags are the low 32 only.
    """

    peer: Identity


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """Initiator: the answer to our name. ALIVE asks for `answer_alive`, NOK, NOT_ALLOWED end it."""

    status: Status


@dataclass(frozen=True, slots=True)
class AliveAnswered:
    """Acceptor: the initiator's answer to ALIVE; when it does not proceed, that is the end."""

    proceed: bool


@dataclass(frozen=True, slots=True)
class Completed:
    """Each side has proved to know the cookie. `flags` are those that both have.

    The acceptor's last message still waits in `data_to_send`.
    """

    peer: Identity
    flags: Flag


Event: TypeAlias = NameReceived | StatusReceived | AliveAnswered | Completed


class State(Enum):
    """Where a handshake is; the values complete the sentence "the handshake is ..."."""

    AWAIT_STATUS = "awaiting the status"
    DECIDE_ALIVE = "deciding whether to proceed while alive"
    AWAIT_CHALLENGE = "awaiting the challenge"
    AWAIT_ACK = "awaiting the challenge ack"
    AWAIT_NAME = "awaiting the name"
    DECIDE_STATUS = "deciding on the status"
    DECIDE_STATUS_OLD = "deciding on the status, after an old name message"
    AWAIT_ALIVE_ANSWER = "awaiting the answer to alive"
    AWAIT_ALIVE_ANSWER_OLD = "awaiting the answer to alive, after an old name message"
    AWAIT_COMPLEMENT = "awaiting the complement"
    AWAIT_REPLY = "awaiting the challenge reply"
    DONE = "done"
    CLOSED = "closed"


_S = State
TRANSITIONS: Final[dict[State, dict[str, State]]] = {
    # initiator
    _S.AWAIT_STATUS: {
        "ok": _S.AWAIT_CHALLENGE,
        "ok_simultaneous": _S.AWAIT_CHALLENGE,
        messages.NAMED: _S.AWAIT_CHALLENGE,
        "alive": _S.DECIDE_ALIVE,
        "nok": _S.CLOSED,
        "not_allowed": _S.CLOSED,
    },
    _S.DECIDE_ALIVE: {"true": _S.AWAIT_CHALLENGE, "false": _S.CLOSED},
    _S.AWAIT_CHALLENGE: {"challenge": _S.AWAIT_ACK},
    _S.AWAIT_ACK: {"ack": _S.DONE},
    # acceptor
    _S.AWAIT_NAME: {"name": _S.DECIDE_STATUS, "old name": _S.DECIDE_STATUS_OLD},
    _S.DECIDE_STATUS: {
        "ok": _S.AWAIT_REPLY,
        "ok_simultaneous": _S.AWAIT_REPLY,
        "alive": _S.AWAIT_ALIVE_ANSWER,
        "nok": _S.CLOSED,
        "not_allowed": _S.CLOSED,
    },
    _S.DECIDE_STATUS_OLD: {
        "ok": _S.AWAIT_COMPLEMENT,
        "ok_simultaneous": _S.AWAIT_COMPLEMENT,
        "alive": _S.AWAIT_ALIVE_ANSWER_OLD,
        "nok": _S.CLOSED,
        "not_allowed": _S.CLOSED,
    },
    _S.AWAIT_ALIVE_ANSWER: {"true": _S.AWAIT_REPLY, "false": _S.CLOSED},
    _S.AWAIT_ALIVE_ANSWER_OLD: {"true": _S.AWAIT_COMPLEMENT, "false": _S.CLOSED},
    _S.AWAIT_COMPLEMENT: {"complement": _S.AWAIT_REPLY},
    _S.AWAIT_REPLY: {"reply": _S.DONE},
    # over
    _S.DONE: {},
    _S.CLOSED: {},
}

_LIKELY_CAUSES: Final = {
    _S.AWAIT_STATUS: "before it answered our name: it may refuse us, or be no Erlang node",
    _S.DECIDE_ALIVE: "after it said that a connection of ours is still alive",
    _S.AWAIT_CHALLENGE: "before its challenge: it may have given up this attempt",
    _S.AWAIT_ACK: "after our challenge reply: most likely its cookie differs from ours",
    _S.AWAIT_NAME: "before it gave its name",
    _S.DECIDE_STATUS: "before its name was answered",
    _S.DECIDE_STATUS_OLD: "before its name was answered",
    _S.AWAIT_ALIVE_ANSWER: "before it answered alive",
    _S.AWAIT_ALIVE_ANSWER_OLD: "before it answered alive",
    _S.AWAIT_COMPLEMENT: "after our challenge: it may have refused our flags",
    _S.AWAIT_REPLY: "after our challenge: it may have refused our flags or our name",
    _S.DONE: "after the handshake was done",
    _S.CLOSED: "after the handshake was over",
}

LENGTH_SIZE: Final = 2
"""Bytes of the length before each message."""
TLS_LENGTH_SIZE: Final = 4
"""The same over TLS, where OTP has the lengths of frames from the start."""
_MAX_MESSAGE_SIZE: Final = 0xFFFF
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")
"""How a TLS alert and a TLS handshake begin."""

CheckChallenge: TypeAlias = Callable[[int], None]


def _answer_all(challenge: int) -> None:
    """Answer every challenge."""


class Handshake:
    """One handshake. Made by `initiator` or `acceptor`; never used for a second connection."""

    @classmethod
    def initiator(
        cls,
        own: Identity,
        peer_name: str,
        cookie: str,
        challenge: int,
        *,
        length_size: int = LENGTH_SIZE,
        check_challenge: CheckChallenge = _answer_all,
    ) -> Handshake:
        """The side that dialled.

        `own`: with NAME_ME, its name is only a host, and the peer gives the name; see `own`.
        `peer_name`: the node dialled, which the peer has to be. `cookie`: the cluster's secret.
        `challenge`: 32 random bits. `length_size`: `LENGTH_SIZE`, or `TLS_LENGTH_SIZE` over TLS.
        `check_challenge`: raises `HandshakeError` for a challenge that must not be answered.
        The name message is to be sent at once.
        """
        handshake = cls(State.AWAIT_STATUS, own, cookie, challenge, length_size, check_challenge)
        handshake._peer_name = peer_name
        handshake._send(messages.build_name(own))
        return handshake

    @classmethod
    def acceptor(
        cls,
        own: Identity,
        cookie: str,
        challenge: int,
        *,
        length_size: int = LENGTH_SIZE,
        check_challenge: CheckChallenge = _answer_all,
    ) -> Handshake:
        """The side that was dialled; the parameters are those of `initiator`."""
        return cls(State.AWAIT_NAME, own, cookie, challenge, length_size, check_challenge)

    def __init__(
        self,
        state: State,
        own: Identity,
        cookie: str,
        challenge: int,
        length_size: int,
        check_challenge: CheckChallenge,
    ) -> None:
        self._state = state
        self._own = own
        self._cookie = cookie
        self.challenge = challenge
        self._length_size = length_size
        self._check_challenge = check_challenge
        self._peer_name: str | None = None
        self._peer = Identity("", Flag(0), 0)
        self._received = bytearray()
        self._to_send = bytearray()

    @property
    def state(self) -> State:
        """Where the handshake is."""
        return self._state

    @property
    def own(self) -> Identity:
        """Who we are to the peer; with the name that it gave, after `StatusReceived`."""
        return self._own

    @property
    def peer_name(self) -> str | None:
        """The node that was dialled, or what the peer calls itself, if that is a node's name; it
        has not proved to be that until `Completed`."""
        return self._peer_name

    @property
    def trailing_data(self) -> bytes:
        """When DONE, the bytes received behind the last message; they belong to framing."""
        return bytes(self._received) if self._state is State.DONE else b""

    def data_to_send(self) -> bytes:
        """What is to be written now, each byte given once. Has the refusal after an error, too."""
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def receive_data(self, data: bytes) -> list[Event]:
        """Take received bytes, cut anyhow; return what they brought about.

        Raises `HandshakeError`; the handshake is then CLOSED. What comes when CLOSED is ignored.
        """
        self._received += data
        events: list[Event] = []
        try:
            while (message := self._next_message()) is not None:
                events += self._process_message(message)
        except HandshakeError:
            self._state = State.CLOSED
            raise
        finally:
            if self._state is State.CLOSED:
                self._received.clear()
        return events

    def receive_eof(self) -> NoReturn:
        """The peer closed the connection: raise the `HandshakeError` that says the likely cause."""
        cause = _LIKELY_CAUSES[self._state]
        self._state = State.CLOSED
        raise HandshakeError(f"{self._peer_text} closed the connection {cause}")

    def send_status(self, status: Status) -> None:
        """Answer the peer's name. OK and OK_SIMULTANEOUS go on, ALIVE asks back, the others end it.

        Raises `RuntimeError` unless `NameReceived` was the last event.
        """
        if self._state not in (State.DECIDE_STATUS, State.DECIDE_STATUS_OLD):
            raise RuntimeError(f"no status can be sent while {self._state.value}")
        self._send(messages.build_status(status))
        self._move(status)
        self._challenge_when_due()

    def answer_alive(self, proceed: bool) -> None:
        """Tell a peer that holds an older connection of ours for alive whether to use this one.

        Raises `RuntimeError` unless `StatusReceived(ALIVE)` was the last event.
        """
        if self._state is not State.DECIDE_ALIVE:
            raise RuntimeError(f"alive can't be answered while {self._state.value}")
        answer = "true" if proceed else "false"
        self._send(messages.build_status(answer))
        self._move(answer)

    @property
    def _peer_text(self) -> str:
        name = self._peer_name or self._peer.name
        return f"node {brief(str(name))}" if name else "the peer"

    def _send(self, message: bytes) -> None:
        self._to_send += len(message).to_bytes(self._length_size) + message

    def _move(self, event: str) -> None:
        self._state = TRANSITIONS[self._state][event]

    def _next_message(self) -> bytes | None:
        start = self._length_size
        if self._state in (State.DONE, State.CLOSED) or len(self._received) < start:
            return None
        end = start + self._next_length()
        if len(self._received) < end:
            return None
        message = bytes(self._received[start:end])
        del self._received[:end]
        return message

    def _next_length(self) -> int:
        if self._length_size == LENGTH_SIZE and bytes(self._received[:2]) in _TLS_RECORDS:
            raise HandshakeError(f"{self._peer_text} uses TLS; this node does not")
        length = int.from_bytes(self._received[: self._length_size])
        if length > _MAX_MESSAGE_SIZE:
            raise HandshakeError(f"{self._peer_text} sent a message of {length} bytes")
        return length

    def _process_message(self, message: bytes) -> list[Event]:
        process = _MESSAGES.get((self._state, message[:1]))
        if process is None:
            raise HandshakeError(
                f"{self._peer_text} sent an unexpected message {message[:1]!r} "
                f"while the handshake was {self._state.value}"
            )
        return process(self, message)

    def _process_status(self, message: bytes) -> list[Event]:
        status = messages.parse_status(message)
        if status.startswith(messages.NAMED):
            return self._take_name(message)
        if self._own.flags & Flag.NAME_ME and status != Status.NOT_ALLOWED:
            raise HandshakeError(
                f"{self._peer_text} was asked for a name, and said {status[:40]!r}"
            )
        if status not in TRANSITIONS[self._state]:
            raise HandshakeError(f"{self._peer_text} answered the unknown status {status[:40]!r}")
        self._move(status)
        return [StatusReceived(Status(status))]

    def _take_name(self, message: bytes) -> list[Event]:
        if not self._own.flags & Flag.NAME_ME:
            raise HandshakeError(f"{self._peer_text} gave us a name that we did not ask for")
        self._own = messages.parse_named(message, self._own)
        self._move(messages.NAMED)
        return [StatusReceived(Status.OK)]

    def _process_challenge(self, message: bytes) -> list[Event]:
        self._peer, peer_challenge = messages.parse_challenge(message)
        if self._peer.name != self._peer_name:
            raise HandshakeError(
                f"{self._peer_text} was dialled, {brief(self._peer.name)} answered"
            )
        self._check_flags()
        self._check_challenge(peer_challenge)
        self._send(messages.build_reply(self.challenge, self._digest_of(peer_challenge)))
        self._move("challenge")
        return []

    def _process_ack(self, message: bytes) -> list[Event]:
        self._check_digest(messages.parse_ack(message))
        self._move("ack")
        return [self._completed()]

    def _process_name(self, message: bytes) -> list[Event]:
        return self._accept_name(messages.parse_name(message), "name")

    def _process_old_name(self, message: bytes) -> list[Event]:
        return self._accept_name(messages.parse_old_name(message), "old name")

    def _process_alive_answer(self, message: bytes) -> list[Event]:
        answer = messages.parse_status(message)
        if answer not in TRANSITIONS[self._state]:
            raise HandshakeError(f"{self._peer_text} answered {answer[:40]!r} to alive")
        self._move(answer)
        self._challenge_when_due()
        return [AliveAnswered(answer == "true")]

    def _process_complement(self, message: bytes) -> list[Event]:
        self._peer = messages.parse_complement(message, self._peer)
        self._move("complement")
        return []

    def _process_reply(self, message: bytes) -> list[Event]:
        peer_challenge, peer_digest = messages.parse_reply(message)
        self._check_digest(peer_digest)
        self._check_challenge(peer_challenge)
        self._send(messages.build_ack(self._digest_of(peer_challenge)))
        self._move("reply")
        return [self._completed()]

    def _accept_name(self, peer: Identity, event: str) -> list[Event]:
        self._peer = peer
        try:
            self._check_name()
            self._peer_name = peer.name
            self._check_flags()
        except HandshakeError:
            self._send(messages.build_status(Status.NOT_ALLOWED))
            raise
        self._move(event)
        return [NameReceived(peer)]

    def _check_name(self) -> None:
        if self._peer.flags & Flag.NAME_ME:
            host = brief(self._peer.name)
            raise HandshakeError(f"a node on {host} asks to be named; we name none")
        messages.check_node_name(self._peer.name)

    def _check_flags(self) -> None:
        if missing := missing_flags(self._peer.flags, REQUIRED):
            raise HandshakeError(
                f"{self._peer_text} lacks the flags {', '.join(missing)}, "
                "which BEAMs have from OTP 23 on"
            )

    def _challenge_when_due(self) -> None:
        if self._state in (State.AWAIT_REPLY, State.AWAIT_COMPLEMENT):
            self._send(messages.build_challenge(self._own, self.challenge))

    def _digest_of(self, challenge: int) -> bytes:
        return messages.digest(self._cookie, challenge)

    def _check_digest(self, peer_digest: bytes) -> None:
        if not compare_digest(peer_digest, self._digest_of(self.challenge)):
            raise HandshakeError(f"{self._peer_text} has another cookie than this node")

    def _completed(self) -> Completed:
        return Completed(self._peer, self._own.flags & self._peer.flags)


_MESSAGES: Final[dict[tuple[State, bytes], Callable[[Handshake, bytes], list[Event]]]] = {
    (State.AWAIT_STATUS, b"s"): Handshake._process_status,
    (State.AWAIT_CHALLENGE, b"N"): Handshake._process_challenge,
    (State.AWAIT_ACK, b"a"): Handshake._process_ack,
    (State.AWAIT_NAME, b"N"): Handshake._process_name,
    (State.AWAIT_NAME, b"n"): Handshake._process_old_name,
    (State.AWAIT_ALIVE_ANSWER, b"s"): Handshake._process_alive_answer,
    (State.AWAIT_ALIVE_ANSWER_OLD, b"s"): Handshake._process_alive_answer,
    (State.AWAIT_COMPLEMENT, b"c"): Handshake._process_complement,
    (State.AWAIT_REPLY, b"r"): Handshake._process_reply,
}
