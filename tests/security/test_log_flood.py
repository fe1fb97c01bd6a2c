"""What unauthenticated peers can write into the log is bounded, in size and in rate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pybeethoven import Node
from pybeethoven.cluster import beacon_server
from pybeethoven.cluster.beacon_server import BeaconServer
from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.distribution.handshake import Handshake, Identity
from pybeethoven.errors import HandshakeError
from pybeethoven.net import log_limit
from pybeethoven.net.log_limit import LOG_INTERVAL, LogLimit
from pybeethoven.testing import free_port
from tests.certificates import Authority
from tests.helpers import soon

HOST = "127.0.0.1"
PY = f"py@{HOST}"
OWN = Identity(PY, OFFERED, 1)
LONGEST = "\a" * 1019
STRANGERS = 5
MAX_LINE = 700


def accept(name: str, flags: Flag = OFFERED) -> Handshake:
    """An acceptor that is given a name."""
    handshake = Handshake.acceptor(OWN, "cookie", 1)
    message = messages.build_name(Identity(name, flags, 1))
    handshake.receive_data(len(message).to_bytes(2) + message)
    return handshake


def dial(name: str) -> Handshake:
    """An initiator whose peer calls itself something else than what was dialled."""
    handshake = Handshake.initiator(OWN, f"a@{HOST}", "cookie", 1)
    for message in (
        messages.build_status("ok"),
        messages.build_challenge(Identity(name, OFFERED, 1), 2),
    ):
        handshake.receive_data(len(message).to_bytes(2) + message)
    return handshake


@pytest.mark.parametrize(
    "shake_hands",
    [
        lambda: accept(LONGEST),
        lambda: accept(LONGEST, OFFERED | Flag.NAME_ME),
        lambda: accept("a" * 240 + "@h").receive_data(b"\0\1x"),
        lambda: dial(LONGEST),
    ],
)
def test_names_are_cut(shake_hands: Callable[[], object]) -> None:
    """An error shows only the beginning of a long name."""
    with pytest.raises(HandshakeError) as caught:
        shake_hands()
    assert 100 < len(str(caught.value)) < 320


async def refused(port: int, data: bytes) -> None:
    """Say something to a node, and wait until it has closed the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(data)
    try:
        await soon(reader.read())
    except ConnectionResetError:
        pass
    finally:
        writer.close()


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The levels of what was logged, other than DEBUG."""
    return [r.levelname for r in caplog.records if r.levelno > logging.DEBUG]


async def test_refused_connections_are_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of many there is one warning, and one line in the verbose log; the events have all."""
    port = free_port()
    name = messages.build_name(Identity("a" * 240 + "@h", OFFERED, 1))
    async with Node(PY, "cookie", epmd=False, listen_port=port) as node:
        caplog.set_level(logging.DEBUG, "pybeethoven")
        events = node.connection_events()
        for _ in range(STRANGERS):
            await refused(port, len(name).to_bytes(2) + name + b"\0\1x")
        kinds = [(await soon(anext(events))).kind for _ in range(STRANGERS)]
        assert kinds == ["refused"] * STRANGERS
        assert levels(caplog) == ["WARNING", "INFO"]
        assert max(len(record.getMessage()) for record in caplog.records) < MAX_LINE


async def test_failed_tls_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """So it is with peers that don't speak TLS."""
    authority = Authority(tmp_path, "cluster")
    options = authority.issue("good", HOST).options(authority)
    port = free_port()
    async with Node(PY, "cookie", epmd=False, listen_port=port, tls=options):
        caplog.set_level(logging.DEBUG, "pybeethoven")
        for _ in range(STRANGERS):
            await refused(port, b"GET / HTTP/1.1\r\n\r\n")
        assert levels(caplog) == ["WARNING", "INFO"]


async def test_what_seekers_call_themselves_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A beacon does not log each that gives another bad name."""

    async def add(name: str) -> None:
        """Add nothing."""

    port = free_port("0.0.0.0")
    async with Node(PY, "cookie", epmd=False) as node:
        await node.start(BeaconServer(port, add_node=add, nodes=list))
        caplog.set_level(logging.INFO, beacon_server.__name__)
        caplog.clear()
        for number in range(STRANGERS):
            seeking = f'{{"sender": "bad {number}", "type": "seeking", "payload": "join"}}'
            await refused(port, seeking.encode())
        assert levels(caplog) == ["INFO"]


def test_each_level_has_its_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of little weight does not keep a warning back; after a minute there is another."""
    now = 7.0
    monkeypatch.setattr(log_limit, "time", SimpleNamespace(monotonic=lambda: now))
    limit = LogLimit()
    assert limit.level(logging.INFO) == logging.INFO
    assert limit.level(logging.WARNING) == logging.WARNING
    now += LOG_INTERVAL - 0.1
    assert limit.level(logging.WARNING) == logging.DEBUG
    now += 0.1
    assert limit.level(logging.WARNING) == logging.WARNING
    assert limit.level(logging.WARNING) == logging.DEBUG
