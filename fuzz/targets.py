"""What is fuzzed: functions that take any bytes and return, or fail with a finding.

Each feeds its input whole and in pieces. A finding is any exception but those of the `RemoteError`
family, a result that depends on the cut, or more bytes held than the limits allow.

The first byte of an input of `framing` and `handshake` says how the rest is read; see there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from pybeethoven.distribution import epmd_server
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.framing import NOTHING, MessageReader
from pybeethoven.distribution.handshake import (
    Event,
    Handshake,
    Identity,
    NameReceived,
    State,
    Status,
    StatusReceived,
)
from pybeethoven.errors import DecodeError, HandshakeError, RemoteError
from pybeethoven.etf import Term, decode, encode

MAX_MESSAGE: Final = 4096
MAX_UNFINISHED: Final = 8192
MAX_DECOMPRESSED: Final = 1 << 16
MAX_DEPTH: Final = 64

COOKIE: Final = "fuzz"
CHALLENGE: Final = 0x01020304
OWN: Final = Identity("fuzz@127.0.0.1", OFFERED, 7)
PEER: Final = "seed@127.0.0.1"
"""The node that the seeds were recorded from."""

FLAGS: Final = (OFFERED, OFFERED & ~Flag.FRAGMENTS, Flag.DIST_HDR_ATOM_CACHE)
"""Header and fragments; pass-through; header alone: by the low two bits of an input's first byte,
the last twice."""
LENGTHS_GIVEN: Final = 4
"""A bit of the first byte: each frame follows 2 bytes of length in place of its own 4, and one that
is cut short by the end counts as whole. It spares the fuzzer from guessing lengths."""

INITIATOR: Final = 1
"""A bit of the first byte of `handshake`: the side that dialled."""
STATUSES: Final = tuple(Status)
"""An acceptor's answer, by the next three bits modulo their number."""
KEEPS_OLDER: Final = 16
"""A bit of the first byte of `handshake`: as an initiator, not to proceed when alive."""
NAMELESS: Final = 32
"""A bit of the first byte of `handshake`: as an initiator, to ask for a name."""
UNNAMED: Final = Identity("127.0.0.1", OFFERED | Flag.NAME_ME, 0)

Ending: TypeAlias = tuple[State, bytes, list[Event]]
"""Where a handshake ended, what it left to framing, and what it told."""
Outcome: TypeAlias = tuple[list[bytes], type[RemoteError] | None]


def decoder(data: bytes) -> None:
    """One external term."""
    try:
        term = decode(data, max_depth=MAX_DEPTH, max_size=MAX_DECOMPRESSED)
    except DecodeError:
        return
    encoded = encode(term)
    assert encode(decode(encoded)) == encoded, "a term changes when it is sent on"


def framing(data: bytes) -> None:
    """The frames of a connection."""
    how, stream = data[:1], data[1:]
    if not how:
        return
    flags = FLAGS[min(how[0] & 3, len(FLAGS) - 1)]
    if how[0] & LENGTHS_GIVEN:
        stream = b"".join(_with_lengths(stream))
    whole = read_frames(flags, [stream])
    for size in (1, 7):
        assert read_frames(flags, pieces(stream, size)) == whole, "frames depend on the cut"


def handshake(data: bytes) -> None:
    """All that one side of a handshake receives."""
    how, stream = data[:1], data[1:]
    if not how:
        return
    one_by_one = shake_hands(how[0], messages(stream))
    bytewise = shake_hands(how[0], pieces(stream, 1))
    assert bytewise == one_by_one, "the handshake depends on the cut"
    for parts in ([stream], pieces(stream, 7)):
        cut = shake_hands(how[0], parts)
        assert cut == one_by_one or only_lost_to_an_error(cut, one_by_one), (
            "the cut does more than it may"
        )


def epmd(data: bytes) -> None:
    """The requests of one connection to the EPMD of ours."""
    for size in (1, 1 + len(data)):
        registry = epmd_server.Registry(4369, lambda: CHALLENGE)
        session = epmd_server.Session(registry, local=True)
        for part in pieces(data, size):
            session.receive_data(part)
            assert len(session._received) < 2 + epmd_server.MAX_REQUEST_SIZE, "a session grows"
        session.close()
        assert not registry.entries(), "a name stays when its connection is closed"


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "decoder": decoder,
    "framing": framing,
    "handshake": handshake,
    "epmd": epmd,
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The data in pieces of `size` bytes."""
    return (data[start : start + size] for start in range(0, len(data), size))


def messages(stream: bytes) -> Iterator[bytes]:
    """The messages of a handshake, each with its length; what is left over comes last."""
    while stream:
        end = 2 + int.from_bytes(stream[:2])
        yield stream[:end]
        stream = stream[end:]


def read_frames(flags: Flag, parts: Iterable[bytes]) -> Outcome:
    """The messages in `parts`, in their external form, and the error that ended them."""
    reader = MessageReader(flags, max_message_size=MAX_MESSAGE, max_unfinished_size=MAX_UNFINISHED)
    got: list[bytes] = []
    try:
        for part in parts:
            for message in reader.receive_data(part):
                got.append(_external(*message))
            check_reader(reader)
    except RemoteError as error:
        return got, type(error)
    return got, None


def check_reader(reader: MessageReader) -> None:
    """Fail if a reader holds more than its limits allow."""
    assert len(reader._buffer) < MAX_MESSAGE + 4, "the buffer of a reader grows"
    unfinished = reader._reassembly.unfinished_size
    held = sum(len(sequence.data) for sequence in reader._reassembly._sequences.values())
    assert held <= unfinished <= MAX_UNFINISHED, "unfinished messages exceed their limit"


def shake_hands(how: int, parts: Iterable[bytes]) -> Ending:
    """The ending of a handshake that receives `parts`."""
    machine = _new_handshake(how)
    events: list[Event] = []
    try:
        for part in parts:
            for event in machine.receive_data(part):
                events.append(event)
                _decide(machine, event, how)
            machine.data_to_send()
            _check_handshake(machine)
    except HandshakeError:
        assert machine.state is State.CLOSED, "an error leaves the handshake open"
    return machine.state, machine.trailing_data, events


def only_lost_to_an_error(cut: Ending, one_by_one: Ending) -> bool:
    """Whether `cut` tells less since an error came in one piece with what was before it.

    To send ahead what should wait for our answer is an error, but one that is seen only if it is
    there when the machine has to decide.
    """
    state, _, events = cut
    same_end = one_by_one[0] is State.CLOSED or any(map(_asks, one_by_one[2]))
    return state is State.CLOSED and same_end and events == one_by_one[2][: len(events)]


def _with_lengths(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 2])
        content = data[start + 2 : start + 2 + size]
        yield len(content).to_bytes(4) + content
        start += 2 + size


def _external(control: tuple[Term, ...], message: Term) -> bytes:
    return encode(control) if message is NOTHING else encode(control) + encode(message)


def _new_handshake(how: int) -> Handshake:
    if how & INITIATOR:
        own = UNNAMED if how & NAMELESS else OWN
        return Handshake.initiator(own, PEER, COOKIE, CHALLENGE)
    return Handshake.acceptor(OWN, COOKIE, CHALLENGE)


def _asks(event: Event) -> bool:
    return isinstance(event, NameReceived) or event == StatusReceived(Status.ALIVE)


def _decide(machine: Handshake, event: Event, how: int) -> None:
    match event:
        case NameReceived():
            machine.send_status(STATUSES[(how >> 1 & 7) % len(STATUSES)])
        case StatusReceived(Status.ALIVE):
            machine.answer_alive(not how & KEEPS_OLDER)


def _check_handshake(machine: Handshake) -> None:
    if machine.state is not State.DONE:
        assert len(machine._received) < 2 + (1 << 16), "the buffer of a handshake grows"
