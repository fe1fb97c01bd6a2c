"""The lengths before the messages of a handshake: of 2 bytes, and over TLS of 4."""

from __future__ import annotations

import pytest

from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.handshake import (
    LENGTH_SIZE,
    TLS_LENGTH_SIZE,
    Completed,
    Handshake,
    Identity,
    Status,
)
from pybeethoven.errors import HandshakeError

OWN, PEER = Identity("own@h", OFFERED, 1), Identity("peer@h", OFFERED, 2)
SIZES = pytest.mark.parametrize("size", [LENGTH_SIZE, TLS_LENGTH_SIZE])
TLS_STARTS = pytest.mark.parametrize("start", [b"\x16\x03\x01\x02", b"\x15\x03\x03\x00"])


def initiator(size: int) -> Handshake:
    """The side that has dialled `PEER`."""
    return Handshake.initiator(OWN, PEER.name, "cookie", 1, length_size=size)


def acceptor(size: int) -> Handshake:
    """The side that is dialled."""
    return Handshake.acceptor(PEER, "cookie", 2, length_size=size)


@SIZES
def test_every_message_has_the_length_size(size: int) -> None:
    """A whole handshake, byte by byte; each message stands behind a length of that many bytes."""
    ours, theirs = initiator(size), acceptor(size)
    name = ours.data_to_send()
    assert int.from_bytes(name[:size]) == len(name) - size
    for byte in name:
        theirs.receive_data(bytes([byte]))
    theirs.send_status(Status.OK)
    answer = theirs.data_to_send()
    assert answer.startswith((3).to_bytes(size) + b"sok")
    for byte in answer:
        ours.receive_data(bytes([byte]))
    reply = ours.data_to_send()
    assert reply[:size] == (21).to_bytes(size)
    assert theirs.receive_data(reply) == [Completed(OWN, OFFERED)]
    ack = theirs.data_to_send()
    assert ack[:size] == (17).to_bytes(size)
    assert ours.receive_data(ack + b"frames") == [Completed(PEER, OFFERED)]
    assert ours.trailing_data == b"frames"


def test_length_that_no_message_has() -> None:
    """Over TLS a peer may not announce gigabytes."""
    with pytest.raises(HandshakeError, match="sent a message of 65536 bytes"):
        acceptor(TLS_LENGTH_SIZE).receive_data(b"\x00\x01\x00\x00")


@TLS_STARTS
def test_tls_where_there_is_none(start: bytes) -> None:
    """A peer that uses TLS is known by its first bytes, and not waited for."""
    with pytest.raises(HandshakeError, match="the peer uses TLS; this node does not"):
        acceptor(LENGTH_SIZE).receive_data(start)
    with pytest.raises(HandshakeError, match="node 'peer@h' uses TLS; this node does not"):
        initiator(LENGTH_SIZE).receive_data(start)
