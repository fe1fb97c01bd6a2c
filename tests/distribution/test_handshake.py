"""Tests of `distribution.handshake`: each role against bytes, and against the other role."""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import md5
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution.flags import OFFERED, REQUIRED, Flag
from pybeethoven.distribution.handshake import (
    AliveAnswered,
    Completed,
    Event,
    Handshake,
    Identity,
    NameReceived,
    State,
    Status,
    StatusReceived,
)
from pybeethoven.errors import HandshakeError

COOKIE = "s3cretcookie"
OUR_CHALLENGE = 0x01020304
PEER_CHALLENGE = 0xFFFFFFFE
OWN = Identity("py@h", OFFERED, 7)
UNNAMED = Identity("h", OFFERED | Flag.NAME_ME, 0)
PEER = Identity("x@h", OFFERED | Flag.PUBLISHED | Flag.DIST_HDR_ATOM_CACHE, 9)


def frame(message: bytes) -> bytes:
    """A handshake message behind its length."""
    return len(message).to_bytes(2) + message


def name(who: Identity, rest: bytes = b"") -> bytes:
    """A name message."""
    head = struct.pack(">cQIH", b"N", who.flags, who.creation, len(who.name))
    return frame(head + who.name.encode() + rest)


def old_name(who: Identity) -> bytes:
    """An old name message."""
    return frame(struct.pack(">cHI", b"n", 5, who.flags & 0xFFFFFFFF) + who.name.encode())


def complement(who: Identity) -> bytes:
    """The rest of an old name message."""
    return frame(struct.pack(">cII", b"c", who.flags >> 32, who.creation))


def challenge(who: Identity, number: int, rest: bytes = b"") -> bytes:
    """A challenge message."""
    head = struct.pack(">cQIIH", b"N", who.flags, number, who.creation, len(who.name))
    return frame(head + who.name.encode() + rest)


def digest(number: int, cookie: str = COOKIE) -> bytes:
    """What proves to know the cookie."""
    return md5(cookie.encode() + str(number).encode()).digest()


def reply(number: int, answered: int) -> bytes:
    """A challenge reply."""
    return frame(b"r" + number.to_bytes(4) + digest(answered))


def ack(answered: int) -> bytes:
    """A challenge ack."""
    return frame(b"a" + digest(answered))


def status(text: str) -> bytes:
    """A status message."""
    return frame(b"s" + text.encode())


def initiator() -> Handshake:
    """Our side of a connection that we dialled."""
    return Handshake.initiator(OWN, PEER.name, COOKIE, OUR_CHALLENGE)


def unnamed() -> Handshake:
    """Our side of one that we dialled without a name."""
    return Handshake.initiator(UNNAMED, PEER.name, COOKIE, OUR_CHALLENGE)


def naming(text: str, creation: int = 5, *, size: int | None = None, rest: bytes = b"") -> bytes:
    """The status that gives a name."""
    encoded = text.encode()
    head = b"snamed:" + struct.pack(">H", len(encoded) if size is None else size)
    return frame(head + encoded + struct.pack(">I", creation) + rest)


def acceptor() -> Handshake:
    """Our side of a connection that the peer dialled."""
    return Handshake.acceptor(OWN, COOKIE, OUR_CHALLENGE)


def answering(answer: Status) -> Callable[[Handshake], None]:
    """The acceptor's driver decides."""
    return lambda handshake: handshake.send_status(answer)


def proceeding(proceed: bool) -> Callable[[Handshake], None]:
    """The initiator's driver decides."""
    return lambda handshake: handshake.answer_alive(proceed)


Step: TypeAlias = tuple[Any, ...]
Row: TypeAlias = tuple[Callable[[], Handshake], list[Step], State]

DONE = Completed(PEER, OFFERED)
OLD_PEER = Identity(PEER.name, PEER.flags & 0xFFFFFFFF, 0)
STARTED = [("sends", name(OWN))]
NAMED = [("gets", name(PEER), NameReceived(PEER))]
OLD_NAMED = [("gets", old_name(PEER), NameReceived(OLD_PEER))]
OK_SENT = [("does", answering(Status.OK)), ("sends", status("ok") + challenge(OWN, OUR_CHALLENGE))]
ALIVE_SENT = [("does", answering(Status.ALIVE)), ("sends", status("alive"))]
CHALLENGED: list[Step] = [
    ("gets", challenge(PEER, PEER_CHALLENGE)),
    ("sends", reply(OUR_CHALLENGE, PEER_CHALLENGE)),
    ("gets", ack(OUR_CHALLENGE), DONE),
]
REPLIED: list[Step] = [
    ("gets", reply(PEER_CHALLENGE, OUR_CHALLENGE), DONE),
    ("sends", ack(PEER_CHALLENGE)),
]


def received(text: str) -> Step:
    """The initiator gets a status."""
    return ("gets", status(text), StatusReceived(Status(text)))


HANDSHAKES: dict[str, Row] = {
    "initiator, ok": (initiator, [*STARTED, received("ok"), *CHALLENGED], State.DONE),
    "initiator, ok_simultaneous": (
        initiator,
        [*STARTED, received("ok_simultaneous"), *CHALLENGED],
        State.DONE,
    ),
    "initiator, alive, proceeds": (
        initiator,
        [
            *STARTED,
            received("alive"),
            ("does", proceeding(True)),
            ("sends", status("true")),
            *CHALLENGED,
        ],
        State.DONE,
    ),
    "initiator, alive, gives up": (
        initiator,
        [
            *STARTED,
            received("alive"),
            ("does", proceeding(False)),
            ("sends", status("false")),
        ],
        State.CLOSED,
    ),
    "initiator, nok": (initiator, [*STARTED, received("nok")], State.CLOSED),
    "initiator, not_allowed": (initiator, [*STARTED, received("not_allowed")], State.CLOSED),
    "initiator, named": (
        unnamed,
        [
            ("sends", name(UNNAMED)),
            ("gets", naming("2K9@h", rest=b"more"), StatusReceived(Status.OK)),
            *CHALLENGED,
        ],
        State.DONE,
    ),
    "initiator, not to be named": (
        unnamed,
        [("sends", name(UNNAMED)), received("not_allowed")],
        State.CLOSED,
    ),
    "initiator, longer challenge": (
        initiator,
        [
            *STARTED,
            received("ok"),
            ("gets", challenge(PEER, PEER_CHALLENGE, b"more")),
            *CHALLENGED[1:],
        ],
        State.DONE,
    ),
    "acceptor, ok": (acceptor, [*NAMED, *OK_SENT, *REPLIED], State.DONE),
    "acceptor, ok_simultaneous": (
        acceptor,
        [
            *NAMED,
            ("does", answering(Status.OK_SIMULTANEOUS)),
            ("sends", status("ok_simultaneous") + challenge(OWN, OUR_CHALLENGE)),
            *REPLIED,
        ],
        State.DONE,
    ),
    "acceptor, longer name": (
        acceptor,
        [("gets", name(PEER, b"more"), NameReceived(PEER)), *OK_SENT, *REPLIED],
        State.DONE,
    ),
    "acceptor, alive, proceeds": (
        acceptor,
        [
            *NAMED,
            *ALIVE_SENT,
            ("gets", status("true"), AliveAnswered(True)),
            ("sends", challenge(OWN, OUR_CHALLENGE)),
            *REPLIED,
        ],
        State.DONE,
    ),
    "acceptor, alive, gives up": (
        acceptor,
        [*NAMED, *ALIVE_SENT, ("gets", status("false"), AliveAnswered(False))],
        State.CLOSED,
    ),
    "acceptor, nok": (
        acceptor,
        [*NAMED, ("does", answering(Status.NOK)), ("sends", status("nok"))],
        State.CLOSED,
    ),
    "acceptor, not_allowed": (
        acceptor,
        [*NAMED, ("does", answering(Status.NOT_ALLOWED)), ("sends", status("not_allowed"))],
        State.CLOSED,
    ),
    "acceptor, old name": (
        acceptor,
        [*OLD_NAMED, *OK_SENT, ("gets", complement(PEER)), *REPLIED],
        State.DONE,
    ),
    "acceptor, old name, ok_simultaneous": (
        acceptor,
        [
            *OLD_NAMED,
            ("does", answering(Status.OK_SIMULTANEOUS)),
            ("sends", status("ok_simultaneous") + challenge(OWN, OUR_CHALLENGE)),
            ("gets", complement(PEER)),
            *REPLIED,
        ],
        State.DONE,
    ),
    "acceptor, old name, nok": (
        acceptor,
        [*OLD_NAMED, ("does", answering(Status.NOK)), ("sends", status("nok"))],
        State.CLOSED,
    ),
    "acceptor, old name, not_allowed": (
        acceptor,
        [*OLD_NAMED, ("does", answering(Status.NOT_ALLOWED)), ("sends", status("not_allowed"))],
        State.CLOSED,
    ),
    "acceptor, old name, alive, gives up": (
        acceptor,
        [*OLD_NAMED, *ALIVE_SENT, ("gets", status("false"), AliveAnswered(False))],
        State.CLOSED,
    ),
    "acceptor, old name, alive": (
        acceptor,
        [
            *OLD_NAMED,
            *ALIVE_SENT,
            ("gets", status("true"), AliveAnswered(True)),
            ("sends", challenge(OWN, OUR_CHALLENGE)),
            ("gets", complement(PEER) + REPLIED[0][1], DONE),
            *REPLIED[1:],
        ],
        State.DONE,
    ),
}

rows = pytest.mark.parametrize("row", HANDSHAKES.values(), ids=HANDSHAKES.keys())


def run(steps: list[Step], handshake: Handshake, cut: Callable[[bytes], list[bytes]]) -> None:
    """Play the steps, with what is received cut by `cut`."""
    for kind, what, *events in steps:
        if kind == "does":
            what(handshake)
        elif kind == "sends":
            assert handshake.data_to_send() == what
            assert handshake.data_to_send() == b""
        else:
            assert [e for part in cut(what) for e in handshake.receive_data(part)] == events


def whole(data: bytes) -> list[bytes]:
    """Not cut at all."""
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    """Cut behind each byte."""
    return [data[i : i + 1] for i in range(len(data))]


@rows
@pytest.mark.parametrize("cut", [whole, bytewise])
def test_handshake_runs_as_written(row: Row, cut: Callable[[bytes], list[bytes]]) -> None:
    """Each handshake gives its events and its bytes, whole and byte by byte."""
    make, steps, end = row
    handshake = make()
    run(steps, handshake, cut)
    assert handshake.state is end
    assert handshake.trailing_data == b""


@rows
def test_data_behind_the_handshake_is_kept_for_framing(row: Row) -> None:
    """What follows the last message is trailing data when done, and dropped when closed."""
    make, steps, end = row
    handshake = make()
    run(steps, handshake, lambda data: [data + b"\0\0"] if data == last_received(steps) else [data])
    handshake.receive_data(b"\0\0")
    assert handshake.state is end
    assert handshake.trailing_data == (b"\0\0\0\0" if end is State.DONE else b"")


def last_received(steps: list[Step]) -> bytes | None:
    """The data of the last step that receives, unless something has to be decided behind it."""
    kind, data = [step for step in steps if step[0] != "sends"][-1][:2]
    return data if kind == "gets" else None


@given(st.data())
def test_any_cut_gives_the_same_events(data: st.DataObject) -> None:
    """However the received bytes are cut, events and bytes are the same."""
    make, steps, end = data.draw(st.sampled_from(list(HANDSHAKES.values())))

    def anyhow(received: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(received)), max_size=5)))
        return [received[a:b] for a, b in zip([0, *cuts], [*cuts, len(received)], strict=True)]

    handshake = make()
    run(steps, handshake, anyhow)
    assert handshake.state is end


def pump(dialling: Handshake, accepting: Handshake, answer: Status) -> list[Event]:
    """Connect two handshakes until neither has anything to say; proceed when alive."""
    events: list[Event] = []
    while (there := dialling.data_to_send()) + (back := accepting.data_to_send()):
        arrived = accepting.receive_data(there) + dialling.receive_data(back)
        events += arrived
        if any(isinstance(event, NameReceived) for event in arrived):
            accepting.send_status(answer)
        if StatusReceived(Status.ALIVE) in arrived:
            dialling.answer_alive(True)
    return events


@pytest.mark.parametrize("answer", list(Status))
@pytest.mark.parametrize("cookie", ["", "secret", "K\xf6k", "\u0436"])
def test_both_roles_understand_each_other(answer: Status, cookie: str) -> None:
    """Our two roles complete a handshake with each status that lets them, with any cookie."""
    dialling = Handshake.initiator(OWN, PEER.name, cookie, 1)
    accepting = Handshake.acceptor(PEER, cookie, 2)
    events = pump(dialling, accepting, answer)
    assert events[:2] == [NameReceived(OWN), StatusReceived(answer)]
    refused = answer in (Status.NOK, Status.NOT_ALLOWED)
    assert accepting.state is dialling.state is (State.CLOSED if refused else State.DONE)
    if not refused:
        assert events[-2:] == [Completed(OWN, OFFERED), Completed(PEER, OFFERED)]


def test_cookie_beyond_ascii_is_latin_1() -> None:
    """A cookie's characters below 256 are hashed as one byte each, as Erlang does."""
    handshake = Handshake.acceptor(OWN, "K\xf6k", OUR_CHALLENGE)
    run(NAMED, handshake, whole)
    handshake.send_status(Status.OK)
    proof = md5(b"K\xf6k" + str(OUR_CHALLENGE).encode()).digest()
    assert handshake.receive_data(frame(b"r\0\0\0\0" + proof)) == [DONE]


def test_a_peer_may_send_the_digest_flag_for_the_required_ones() -> None:
    """MANDATORY_25_DIGEST alone is enough, and the flags negotiated have what it stands for."""
    handshake = acceptor()
    peer = Identity("x@h", Flag.MANDATORY_25_DIGEST, 9)
    [event] = handshake.receive_data(name(peer))
    assert isinstance(event, NameReceived)
    assert event.peer.flags == Flag.MANDATORY_25_DIGEST | REQUIRED


def named(text: str | bytes, flags: Flag = OFFERED) -> bytes:
    """A name message with any name."""
    encoded = text.encode() if isinstance(text, str) else text
    return frame(struct.pack(">cQIH", b"N", flags, 1, len(encoded)) + encoded)


UNNAMED_STARTED = [("sends", name(UNNAMED))]
OK_RECEIVED = [*STARTED, received("ok")]
BAD_DIGEST = frame(b"a" + digest(OUR_CHALLENGE, "other"))
ERRORS: dict[str, tuple[Callable[[], Handshake], list[Step], bytes, str]] = {
    "unknown status": (initiator, STARTED, status("maybe"), "unknown status 'maybe'"),
    "alive answer as status": (initiator, STARTED, status("true"), "unknown status 'true'"),
    "dynamic name": (initiator, STARTED, status("named:\0\3a@b\0\0\0\1"), "did not ask"),
    "no name": (unnamed, [*UNNAMED_STARTED], status("ok"), "was asked for a name, and said 'ok'"),
    "alive in place of a name": (unnamed, [*UNNAMED_STARTED], status("alive"), "and said 'alive'"),
    "name on another host": (unnamed, [*UNNAMED_STARTED], naming("a@i"), "no node on 'h'"),
    "empty dynamic name": (unnamed, [*UNNAMED_STARTED], naming("@h"), "no node name"),
    "dynamic name of two hosts": (unnamed, [*UNNAMED_STARTED], naming("a@h@h"), "no node name"),
    "dynamic name cut off": (unnamed, [*UNNAMED_STARTED], naming("a@h", size=99), "ends within"),
    "dynamic name without creation": (
        unnamed,
        [*UNNAMED_STARTED],
        naming("a@h", size=5),
        "too short",
    ),
    "dynamic name without size": (unnamed, [*UNNAMED_STARTED], status("named:"), "too short"),
    "dynamic name not UTF-8": (
        unnamed,
        [*UNNAMED_STARTED],
        frame(b"snamed:\0\3\xff@h\0\0\0\1"),
        "not UTF-8",
    ),
    "challenge too early": (
        initiator,
        STARTED,
        challenge(PEER, 1),
        "unexpected message b'N' while the handshake was awaiting the status",
    ),
    "empty message": (initiator, STARTED, frame(b""), "unexpected message b''"),
    "status twice": (initiator, OK_RECEIVED, status("ok"), "awaiting the challenge"),
    "other node": (
        initiator,
        OK_RECEIVED,
        challenge(Identity("y@h", OFFERED, 1), 1),
        "'x@h' was dialled, 'y@h' answered",
    ),
    "flags of the acceptor": (
        initiator,
        OK_RECEIVED,
        challenge(Identity("x@h", REQUIRED & ~Flag.MAP_TAG, 1), 1),
        "'x@h' lacks the flags MAP_TAG",
    ),
    "short challenge": (initiator, OK_RECEIVED, frame(b"N" + bytes(17)), "too short"),
    "cookie of the acceptor": (
        initiator,
        [*OK_RECEIVED, *CHALLENGED[:2]],
        BAD_DIGEST,
        "'x@h' has another cookie",
    ),
    "short ack": (initiator, [*OK_RECEIVED, *CHALLENGED[:2]], frame(b"a" + bytes(15)), "17 bytes"),
    "undecided about alive": (
        initiator,
        [*STARTED, received("alive")],
        challenge(PEER, 1),
        "deciding whether",
    ),
    "undecided about the status": (acceptor, NAMED, status("true"), "deciding on the status"),
    "cookie of the initiator": (
        acceptor,
        [*NAMED, *OK_SENT],
        frame(b"r\0\0\0\1" + digest(OUR_CHALLENGE, "other")),
        "'x@h' has another cookie",
    ),
    "long reply": (acceptor, [*NAMED, *OK_SENT], frame(b"r" + bytes(21)), "21 bytes, not 22"),
    "complement of a new name": (acceptor, [*NAMED, *OK_SENT], complement(PEER), "message b'c'"),
    "no complement": (acceptor, [*OLD_NAMED, *OK_SENT], REPLIED[0][1], "awaiting the complement"),
    "alive answer": (acceptor, [*NAMED, *ALIVE_SENT], status("yes"), "answered 'yes' to alive"),
    "no handshake at all": (acceptor, [], frame(b"GET / HTTP"), "message b'G'"),
    "name beyond the message": (acceptor, [], frame(b"N" + bytes(13) + b"\4x@h"), "ends within"),
    "long name": (acceptor, [], named("x@" + 1019 * "h"), "1021 bytes is longer"),
}
REFUSALS: dict[str, tuple[bytes, str]] = {
    "no host": (named("x"), "'x', which is no node name"),
    "empty host": (named("x@"), "no node name"),
    "empty name": (named("@h"), "no node name"),
    "two hosts": (named("x@h@i"), "no node name"),
    "line break": (named("x\n@h"), "no node name"),
    "256 characters": (named("x@" + 254 * "h"), "no node name"),
    "flags": (named("x@h", REQUIRED & ~Flag.UTF8_ATOMS & ~Flag.FUN_TAGS), "FUN_TAGS, UTF8_ATOMS"),
    "old name without version 6": (
        old_name(Identity("x@h", REQUIRED & ~Flag.HANDSHAKE_23, 1)),
        "HANDSHAKE_23",
    ),
    "dynamic name": (named("h", OFFERED | Flag.NAME_ME), "asks to be named"),
    "empty dynamic name": (named("", OFFERED | Flag.NAME_ME), "asks to be named"),
}


@pytest.mark.parametrize(("make", "steps", "data", "text"), ERRORS.values(), ids=ERRORS.keys())
def test_wrong_message_ends_the_handshake(
    make: Callable[[], Handshake], steps: list[Step], data: bytes, text: str
) -> None:
    """An error says what was wrong; the handshake is closed and says no more."""
    handshake = make()
    run(steps, handshake, whole)
    with pytest.raises(HandshakeError) as raised:
        handshake.receive_data(data)
    assert text in str(raised.value)
    assert COOKIE not in str(raised.value) + repr(handshake)
    assert handshake.state is State.CLOSED
    assert handshake.data_to_send() == b""
    assert handshake.receive_data(b"more") == []


@pytest.mark.parametrize(("data", "text"), REFUSALS.values(), ids=REFUSALS.keys())
def test_unacceptable_name_is_refused_aloud(data: bytes, text: str) -> None:
    """A peer that can't be accepted gets `not_allowed` before the error closes the connection."""
    handshake = acceptor()
    with pytest.raises(HandshakeError) as raised:
        handshake.receive_data(data)
    assert text in str(raised.value)
    assert handshake.data_to_send() == status("not_allowed")
    assert handshake.state is State.CLOSED


def test_name_that_is_not_utf_8() -> None:
    """A name in another encoding is an error, which doesn't repeat the bytes as text."""
    with pytest.raises(HandshakeError, match="not UTF-8"):
        acceptor().receive_data(named(b"\xff@h"))


def test_name_that_the_peer_gave() -> None:
    """It is our name from then on, with the creation that came with it, and no request for one."""
    handshake = unnamed()
    handshake.receive_data(naming("2K9@h", 5))
    assert handshake.own == Identity("2K9@h", OFFERED, 5)
    assert initiator().own == OWN


def test_peer_name_is_known_early() -> None:
    """It is that of the node dialled, or what an acceptable name message has; else None."""
    assert initiator().peer_name == PEER.name
    accepting = acceptor()
    assert accepting.peer_name is None
    accepting.receive_data(name(PEER))
    assert accepting.peer_name == PEER.name
    refused = acceptor()
    with pytest.raises(HandshakeError):
        refused.receive_data(named("no node"))
    assert refused.peer_name is None


EOFS: dict[str, tuple[Callable[[], Handshake], list[Step], str]] = {
    "before the status": (initiator, STARTED, "it may refuse us"),
    "after alive": (initiator, [*STARTED, received("alive")], "still alive"),
    "before the challenge": (initiator, OK_RECEIVED, "before its challenge"),
    "after our reply": (initiator, [*OK_RECEIVED, *CHALLENGED[:2]], "cookie differs"),
    "after nok": (initiator, [*STARTED, received("nok")], "was over"),
    "after the end": (acceptor, [*NAMED, *OK_SENT, *REPLIED], "was done"),
    "before the name": (acceptor, [], "before it gave its name"),
    "after the name": (acceptor, NAMED, "before its name was answered"),
    "after the old name": (acceptor, OLD_NAMED, "before its name was answered"),
    "after our challenge": (acceptor, [*NAMED, *OK_SENT], "refused our flags"),
    "instead of the complement": (acceptor, [*OLD_NAMED, *OK_SENT], "refused our flags"),
    "after our alive": (acceptor, [*NAMED, *ALIVE_SENT], "before it answered alive"),
    "after our alive, old": (acceptor, [*OLD_NAMED, *ALIVE_SENT], "before it answered alive"),
}


@pytest.mark.parametrize(("make", "steps", "text"), EOFS.values(), ids=EOFS.keys())
def test_eof_tells_its_likely_cause(
    make: Callable[[], Handshake], steps: list[Step], text: str
) -> None:
    """A peer that just closes gives an error with what is likely behind it, never the cookie."""
    handshake = make()
    run(steps, handshake, whole)
    with pytest.raises(HandshakeError) as raised:
        handshake.receive_eof()
    assert text in str(raised.value)
    assert COOKIE not in str(raised.value)
    assert handshake.state is State.CLOSED


@pytest.mark.parametrize(
    ("make", "decide"),
    [
        (initiator, answering(Status.OK)),
        (initiator, proceeding(True)),
        (acceptor, answering(Status.OK)),
        (acceptor, proceeding(True)),
    ],
)
def test_deciding_unasked_is_the_callers_error(
    make: Callable[[], Handshake], decide: Callable[[Handshake], None]
) -> None:
    """What the driver does wrong is not a `HandshakeError`, and changes nothing."""
    handshake = make()
    before = handshake.state
    with pytest.raises(RuntimeError):
        decide(handshake)
    assert handshake.state is before


@given(st.sampled_from([initiator, acceptor]), st.lists(st.binary(max_size=200)))
def test_random_bytes_raise_only_handshake_errors(
    make: Callable[[], Handshake], parts: list[bytes]
) -> None:
    """Whatever comes in, there is nothing but events and `HandshakeError`."""
    handshake = make()
    try:
        for part in parts:
            handshake.receive_data(part)
    except HandshakeError:
        assert handshake.state is State.CLOSED


@given(st.sampled_from(list(HANDSHAKES.values())), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_raises_only_handshake_errors(row: Row, position: int, bits: int) -> None:
    """One byte other than it should be gives other events or a `HandshakeError`, nothing else."""
    make, steps, _ = row
    incoming = bytearray(b"".join(step[1] for step in steps if step[0] == "gets"))
    incoming[position % len(incoming)] ^= bits
    handshake = make()
    try:
        for event in handshake.receive_data(bytes(incoming)):
            decide(handshake, event)
    except HandshakeError:
        assert handshake.state is State.CLOSED


def decide(handshake: Handshake, event: Event) -> None:
    """Go on wherever possible."""
    if isinstance(event, NameReceived):
        handshake.send_status(Status.OK)
    if event == StatusReceived(Status.ALIVE):
        handshake.answer_alive(True)
