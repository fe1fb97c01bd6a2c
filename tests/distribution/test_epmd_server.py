"""Tests of `distribution.epmd_server`; tests/net/test_epmd_server.py compares it with OTP's."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.distribution import epmd as client
from pybeethoven.distribution import epmd_server as server
from pybeethoven.distribution.epmd import NOT_REGISTERED, Alive2Response, Port2Response
from pybeethoven.distribution.epmd_server import Registry, Session
from tests import epmd_requests as requests

PORT = 4369


def registry(first: int = 1000) -> Registry:
    """One whose first creations are known."""
    numbers = count(first)
    return Registry(PORT, lambda: next(numbers))


def ask(names: Registry, request: bytes, *, local: bool = True) -> tuple[bytes, Session]:
    """What a new connection gets for a request."""
    session = Session(names, local=local)
    return session.receive_data(request), session


def register(names: Registry, name: str, *, port: int = 1) -> Session:
    """Register as our own client does."""
    answer, session = ask(names, client.alive2_request(name, port, hidden=True))
    assert client.parse_alive2_response(answer) is not None
    assert session.entry is not None
    return session


def creation(session: Session) -> int:
    """The creation that a registration got."""
    assert session.entry is not None
    return session.entry.creation


def test_our_own_client_understands_it() -> None:
    """A node registers, is found, refused a second time, and gone when its connection is."""
    names = registry()
    answer, session = ask(names, client.alive2_request("py", 4711, hidden=True))
    assert client.parse_alive2_response(answer) == Alive2Response(0, 1000)
    assert not session.closing
    answer, looking = ask(names, client.port_please2_request("py"))
    assert client.parse_port2_response(answer) == Port2Response(4711, 72, 6, 6, "py", b"")
    assert looking.closing
    answer, second = ask(names, client.alive2_request("py", 1, hidden=True))
    assert client.parse_alive2_response(answer) == Alive2Response(1, 99)
    assert second.closing
    second.close()
    session.close()
    answer, _ = ask(names, client.port_please2_request("py"))
    assert client.parse_port2_response(answer) == NOT_REGISTERED


def test_names() -> None:
    """Each name is a line, the newest first."""
    names = registry()
    register(names, "a", port=1)
    register(names, "é", port=65535)
    text = "name é at port 65535\nname a at port 1\n"
    assert ask(names, requests.NAMES)[0] == b"\0\0\x11\x11" + text.encode()


@pytest.mark.parametrize(
    ("first", "creations"),
    [(1000, [1000, 1001, 1002]), (0, [4, 5, 6]), (0xFFFFFFFE, [0xFFFFFFFE, 0xFFFFFFFF, 4])],
)
def test_creation_of_a_name_that_comes_back(first: int, creations: list[int]) -> None:
    """It is another one each time, never 0, and never one that only old nodes have."""
    names = registry(first)
    for number in creations:
        session = register(names, "a")
        assert creation(session) == number
        session.close()


def test_creation_of_an_old_node() -> None:
    """A node of version 5 gets 1, 2 or 3, in turn."""
    names = registry(6)
    for number in (1, 2, 3, 1):
        answer, session = ask(names, requests.alive2(b"old", version=5))
        assert answer == bytes([121, 0, 0, number])
        session.close()


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many names are registered, and so many remembered."""
    monkeypatch.setattr(server, "MAX_NAMES", 3)
    monkeypatch.setattr(server, "MAX_REMEMBERED", 2)
    names = registry()
    sessions = [register(names, name) for name in "abc"]
    answer, session = ask(names, client.alive2_request("d", 1, hidden=True))
    assert client.parse_alive2_response(answer) == Alive2Response(1, 99)
    assert session.closing
    for session in sessions:
        session.close()
    assert [creation(register(names, name)) for name in "cba"] == [1003, 1002, 1003]


@pytest.mark.parametrize("request_", requests.REFUSED_BY_OURS.values(), ids=repr)
def test_name_that_is_refused(request_: bytes) -> None:
    """A name that could pass for another line of the list of names can't be had."""
    names = registry()
    answer, session = ask(names, request_)
    assert answer == b"v\1\0\0\0\x63"
    assert session.closing
    assert ask(names, requests.NAMES)[0] == b"\0\0\x11\x11"


def test_another_host() -> None:
    """From there, one may look up, and nothing else."""
    names = registry()
    register(names, "a")
    assert ask(names, requests.LOOK_UPS["registered"], local=False)[0].startswith(b"w\0")
    assert ask(names, requests.NAMES, local=False)[0].endswith(b"name a at port 1\n")
    for request in (requests.alive2(b"b"), requests.framed(b"k")):
        answer, session = ask(names, request, local=False)
        assert (answer, session.closing) == (b"", True)
    assert names.find("b") is None


@pytest.mark.parametrize("request_", [b"?", b"d", b"sa", b"x", b"z"])
def test_not_answered(request_: bytes) -> None:
    """What is no request, or one that is refused, ends the connection."""
    answer, session = ask(registry(), requests.framed(request_))
    assert (answer, session.closing) == (b"", True)
    assert session.receive_data(requests.NAMES) == b""


def test_bytes_of_a_registered_node() -> None:
    """It has nothing to say: its name is given back."""
    names = registry()
    session = register(names, "a")
    assert session.receive_data(b"n") == b""
    assert session.closing
    assert names.find("a") is None


EVERY = [*requests.ANSWERED.values(), *requests.UNANSWERED.values()]
EVERY += [*requests.REGISTRATIONS.values(), *requests.REFUSED.values()]


@pytest.mark.parametrize("request_", EVERY, ids=repr)
def test_any_cut(request_: bytes) -> None:
    """A request that comes in single bytes is answered as one that comes whole."""
    whole, session = ask(registry(), request_)
    bytewise = Session(registry(), local=True)
    answer = b"".join(bytewise.receive_data(bytes([byte])) for byte in request_)
    more_than_one = len(request_) > 2 + int.from_bytes(request_[:2])
    assert answer == whole or more_than_one
    assert bytewise.closing == session.closing


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(EVERY) | st.binary(max_size=40))),
    st.booleans(),
)
def test_random_requests(steps: list[tuple[int, bytes]], local: bool) -> None:
    """Whatever comes on however many connections, names and connections that hold them agree."""
    names = registry()
    sessions = [Session(names, local=local) for _ in range(6)]
    for number, data in steps:
        if sessions[number].closing:
            sessions[number].close()
            sessions[number] = Session(names, local=local)
        sessions[number].receive_data(data)
        held = [s.entry for s in sessions if s.entry is not None]
        assert {e.name for e in held} == {e.name for e in names.entries()}
        assert len(held) == len(names.entries())
    for session in sessions:
        session.close()
    assert names.entries() == []
