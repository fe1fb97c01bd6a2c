"""The proof that those who ask a beacon, or answer for it, have the cookie.

    -> {"sender":"py@10.0.0.7","type":"seeking","payload":"join","proof":"1790000000 8f1c 5d02"}
    <- {"sender":"q@10.0.0.1","type":"reply","payload":"joined","proof":"1790000001 8f1c a07e"}

A proof is the time in seconds, a nonce, and an HMAC-SHA256 over these two, the message, and both
addresses of the connection, so that it is of no use to anybody else. The reply has the nonce of the
request. The key is made of the cookie by scrypt (RFC 7914): a stranger who has a proof has to try
cookies at that cost each. Elixir nodes send no proof, and pass over one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from pybeethoven.cluster.seek_chat import Message
from pybeethoven.net.listening import plain_address

MAX_SKEW: Final = 60.0
"""Seconds by which the clocks of two nodes may differ."""

_SALT: Final = b"pybeethoven beacon 1"
_SCRYPT_N: Final = 1 << 13
"""It takes 20 ms, once in a process, in the event loop: a thread for it would be there for good."""
_NONCE_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Way:
    """The addresses that a message goes from and to."""

    source: str
    target: str


class Prover:
    """Proves messages of a node with `cookie`, and checks those of others.

    `clock` gives the time in seconds.
    """

    def __init__(self, cookie: str, clock: Callable[[], float] = time.time) -> None:
        self._cookie = cookie
        self._clock = clock
        self._seen: dict[str, float] = {}
        """The nonces of the requests that were proven, and until when they could be used again; the
        oldest first."""

    def prove(self, message: Message, way: Way, *, request: Message | None = None) -> Message:
        """The message with a proof; that of a reply is for the proven `request` alone."""
        nonce = secrets.token_hex(_NONCE_SIZE) if request is None else _nonce(request)
        now = str(int(self._clock()))
        digest = self._digest(message, way, now, nonce)
        return replace(message, proof=f"{now} {nonce} {digest}")

    def is_proven(self, message: Message, way: Way, *, request: Message | None = None) -> bool:
        """Whether the sender of a message has the cookie, as far as it was sent on this way, now,
        and for the first time; a reply only if it is one to `request`."""
        now, (sent, nonce, digest) = self._clock(), _parts(message)
        if not sent.isdecimal() or abs(int(sent) - now) > MAX_SKEW:
            return False
        if not hmac.compare_digest(self._digest(message, way, sent, nonce), digest):
            return False
        return self._is_new(nonce, now) if request is None else nonce == _nonce(request)

    def _is_new(self, nonce: str, now: float) -> bool:
        while self._seen and next(iter(self._seen.values())) < now:
            del self._seen[next(iter(self._seen))]
        if nonce in self._seen:
            return False
        self._seen[nonce] = now + 2 * MAX_SKEW
        return True

    def _digest(self, message: Message, way: Way, sent: str, nonce: str) -> str:
        key = _key(self._cookie)
        addresses = [str(plain_address(address)) for address in (way.source, way.target)]
        said = [message.type, message.payload, message.sender, *addresses, sent, nonce]
        return hmac.digest(key, json.dumps(said).encode(), "sha256").hex()


@lru_cache(maxsize=8)
def _key(cookie: str) -> bytes:
    return hashlib.scrypt(
        cookie.encode("utf-8", "surrogatepass"), salt=_SALT, n=_SCRYPT_N, r=8, p=1, dklen=32
    )


def _parts(message: Message) -> tuple[str, str, str]:
    """The time, the nonce and the digest in a proof; of what is none, empty ones."""
    match message.proof.split(" "):
        case [sent, nonce, digest] if len(sent) <= 20 and message.proof.isascii():
            return sent, nonce, digest
    return "", "", ""


def _nonce(message: Message) -> str:
    return _parts(message)[1]
