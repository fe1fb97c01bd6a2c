"""What a Locator and a BeaconServer say to each other: one JSON object each way.

Source: the module Beethoven.SeekChat of Beethoven 0.3.9.

    -> {"sender":"py@10.0.0.7","type":"seeking","payload":"join"}
    <- {"type":"reply","sender":"a@10.0.0.1","payload":"joined"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from pybeethoven.errors import RemoteError

SEEKING: Final = "seeking"
WATCHING: Final = "watching"
REPLY: Final = "reply"
TYPES: Final = (SEEKING, WATCHING, REPLY)

JOINED: Final = "joined"
JOIN_FAILED: Final = "join_failed"
SELF: Final = "self"
ERROR: Final = "error"
"""What a beacon answers to `seeking`."""

MAX_SIZE = 65536
"""A message may have so many bytes."""

MAX_PARSED: Final = 16 * MAX_SIZE
"""Maximum number of bytes that are parsed for one message, all of it each time when more has come:
one in small pieces must not keep the event loop busy."""


class SeekChatError(RemoteError):
    """Bytes that are no SeekChat message."""


@dataclass(frozen=True, slots=True)
class Message:
    """`type`: one of `TYPES`. `payload`: `join`, `check`, `joined`, `join_failed`, `self`, `error`,
    or a list of node names. `proof`: see `prover`; empty where there is none."""

    sender: str
    type: str
    payload: str | list[str]
    proof: str = ""


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    fields = {"sender": message.sender, "type": message.type, "payload": message.payload}
    if message.proof:
        fields["proof"] = message.proof
    return json.dumps(fields, separators=(",", ":")).encode()


class Receiver:
    """Puts one message together from the pieces in which it comes."""

    def __init__(self) -> None:
        self.data = b""
        """What has come."""
        self._parsed = 0

    def receive(self, piece: bytes) -> Message | None:
        """The message, or None while it may be incomplete.

        Raises `SeekChatError` as `decode` does, and if it comes in too small pieces.
        """
        self.data += piece
        if (message := decode(self.data)) is not None:
            return message
        if self.data.rstrip()[-1:] == b"}":
            self._parsed += len(self.data)
        if self._parsed > MAX_PARSED:
            raise SeekChatError(f"{len(self.data)} bytes came in too small pieces")
        return None


def decode(data: bytes) -> Message | None:
    """The message in `data`, or None while it may be incomplete.

    Raises `SeekChatError` when it is too long, no JSON object, or one without the fields.
    """
    if len(data) > MAX_SIZE:
        raise SeekChatError(f"a SeekChat message has over {MAX_SIZE} bytes")
    text = data.strip()
    if text[:1] not in (b"", b"{"):
        raise SeekChatError("not a SeekChat message: it is no JSON object")
    if text[-1:] != b"}":
        return None  # at once: one that comes byte by byte is not parsed as often
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return _message(fields)


def _message(fields: object) -> Message:
    match fields:
        case {
            "sender": str(sender),
            "type": str(kind),
            "payload": str() | list() as payload,
            **others,
        } if kind in TYPES and _is_payload(payload):
            proof = others.get("proof")
            return Message(sender, kind, payload, proof if isinstance(proof, str) else "")
    raise SeekChatError("not a SeekChat message: sender, type and payload must be there")


def _is_payload(payload: object) -> bool:
    return isinstance(payload, str) or (
        isinstance(payload, list) and all(isinstance(name, str) for name in payload)
    )
