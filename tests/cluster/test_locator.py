"""The Locator, with TCP servers that answer as beacons do, or as they should not.

Real beacons are met in tests/interop/test_join.py.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from pybeethoven.cluster import locator as locator_module
from pybeethoven.cluster.locator import MAX_HOSTS, ROUNDS, Locator, check_port, hosts_of
from pybeethoven.cluster.seek_chat import MAX_SIZE
from pybeethoven.errors import ConfigError, JoinError
from pybeethoven.testing import free_port
from tests.helpers import soon
from tests.timing import UNIT

PY = "py@127.0.0.1"
SEEKING = {"sender": PY, "type": "seeking", "payload": "join"}
WATCHING = {"sender": PY, "type": "watching", "payload": "check"}


# Where to look


@pytest.mark.parametrize(
    ("cluster_net", "hosts"),
    [
        ("10.0.0.0/30", ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.2/30", ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.7/32", ["10.0.0.7"]),
        ("10.0.0.7", ["10.0.0.7"]),
        ("10.0.0.6/31", ["10.0.0.6", "10.0.0.7"]),
        ("10.0.0.0/255.255.255.252", ["10.0.0.1", "10.0.0.2"]),
        ("fd00::/126", ["fd00::1", "fd00::2", "fd00::3"]),
        ("::1/128", ["::1"]),
    ],
)
def test_hosts_of_a_network(cluster_net: str, hosts: list[str]) -> None:
    """The addresses of a network that hosts can have, in order."""
    assert hosts_of(cluster_net) == hosts


@pytest.mark.parametrize("cluster_net", ["10.0.0.0/16", "fd00::/112"])
def test_network_of_16_bits_is_accepted(cluster_net: str) -> None:
    """A network of 16 bits has the maximum number of hosts."""
    assert MAX_HOSTS - 2 <= len(hosts_of(cluster_net)) <= MAX_HOSTS


@pytest.mark.parametrize(
    ("cluster_net", "text"),
    [
        ("10.0.0.0/15", "over 65536 hosts; give a smaller one, e.g. 10.0.0.0/16"),
        ("0.0.0.0/0", "e.g. 0.0.0.0/16"),
        ("fd00::/111", "e.g. fd00::/112"),
        ("fd00::/64", "over 65536 hosts"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not a network; it must look like 10.0.0.0/24"),
        ("10.0.0", "it must look like"),
        ("localhost", "it must look like"),
        ("10.0.0.0/24/24", "it must look like"),
        ("", "it must look like"),
    ],
)
def test_unusable_network_is_refused(cluster_net: str, text: str) -> None:
    """The error shows a valid network."""
    with pytest.raises(ConfigError) as caught:
        hosts_of(cluster_net)
    assert text in str(caught.value)


@pytest.mark.parametrize("port", [1, 3000, 33000, 65535])
def test_valid_port_is_returned(port: int) -> None:
    """A port is given back."""
    assert check_port(port) == port


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_invalid_port_is_refused(port: int) -> None:
    """A port is a number from 1 to 65535."""
    with pytest.raises(ConfigError, match=f"the listener port is {port}; it must be from 1 to"):
        check_port(port)


# Joining


def reply(payload: object, sender: str = "a@127.0.0.1") -> bytes:
    """A beacon's answer."""
    return json.dumps({"sender": sender, "type": "reply", "payload": payload}).encode()


class FakeBeacon:
    """Answers whatever it is asked with `answer`, if that is not None, and waits for the other side
    to close; with `hang_up` it closes first."""

    def __init__(self, answer: bytes | None, *, hang_up: bool = False) -> None:
        self.answer, self.hang_up = answer, hang_up
        self.requests: list[Any] = []
        self.asked = asyncio.Event()
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.left = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to the end of it."""
        self.connections += 1
        self.open.add(writer)
        try:
            if request := await reader.read(4096):
                self.requests.append(json.loads(request))
                self.asked.set()
                for number in range(len(self.answer or b"")):
                    writer.write((self.answer or b"")[number : number + 1])
                if not self.hang_up:
                    await reader.read()
        except (ConnectionResetError, BrokenPipeError):
            pass
        finally:
            writer.close()
            with suppress(OSError):  # asyncio logs what nobody waits for
                await writer.wait_closed()
            async with self.left:
                self.open.discard(writer)
                self.left.notify_all()

    async def all_left(self) -> None:
        """Wait until the other side has closed every connection."""
        async with self.left:
            await soon(self.left.wait_for(lambda: not self.open))


Serve = Callable[..., Coroutine[Any, Any, list[FakeBeacon]]]


@pytest.fixture
def port() -> int:
    """The port of the test's beacons."""
    return free_port("0.0.0.0")


@pytest.fixture
async def serve(port: int) -> AsyncIterator[Serve]:
    """Start beacons on 127.0.0.1, 127.0.0.2, ..."""
    async with AsyncExitStack() as stack:

        async def start(*beacons: FakeBeacon) -> list[FakeBeacon]:
            for number, beacon in enumerate(beacons, 1):
                server = await asyncio.start_server(beacon.serve, f"127.0.0.{number}", port)
                stack.callback(server.close)
                stack.push_async_callback(beacon.all_left)
            return list(beacons)

        yield start


@pytest.fixture
def backoffs() -> list[float]:
    """The pauses that the locator made."""
    return []


@pytest.fixture
def locator(port: int, backoffs: list[float]) -> Locator:
    """Looks for the test's beacons."""

    def backoff() -> float:
        backoffs.append(0.0)
        return 0.0

    return Locator(PY, hosts_of("127.0.0.0/29"), port, backoff)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's beacons are on another machine."""
    monkeypatch.setattr(locator_module, "is_local", lambda _transport: False)


async def test_only_beacon_lets_the_node_in(
    serve: Serve, locator: Locator, backoffs: list[float]
) -> None:
    """The only beacon lets the node in, and is asked once."""
    [beacon] = await serve(FakeBeacon(reply("joined")))
    assert await soon(locator.seek()) == "a@127.0.0.1"
    assert beacon.requests == [SEEKING]
    assert backoffs == []


async def test_first_beacon_is_asked_to_join(serve: Serve, locator: Locator) -> None:
    """The first in the network's order is asked to let the node in; the others get `watching`."""
    beacons = await serve(
        FakeBeacon(reply("joined", "a@127.0.0.1")),
        FakeBeacon(reply(["a@127.0.0.1"], "b@127.0.0.2")),
        FakeBeacon(reply("error", "c@127.0.0.3")),
    )
    assert await soon(locator.seek()) == "a@127.0.0.1"
    for beacon in beacons:
        await soon(beacon.asked.wait())
    assert [beacon.requests for beacon in beacons] == [[SEEKING], [WATCHING], [WATCHING]]


@pytest.mark.parametrize("answer", [None, b"junk", reply("joined", "b@127.0.0.2")])
async def test_answer_to_watching_does_not_matter(
    answer: bytes | None, serve: Serve, locator: Locator
) -> None:
    """Once the node is in, other beacons may answer anything, or nothing."""
    _, other = await serve(FakeBeacon(reply("joined")), FakeBeacon(answer))
    assert await soon(locator.seek()) == "a@127.0.0.1"
    await soon(other.asked.wait())
    assert other.requests == [WATCHING]


@pytest.mark.parametrize(
    "first",
    [
        (b"junk", False),
        (b"junk", True),
        (None, True),
        (b'{"sender":', True),
        (b"{" + b" " * MAX_SIZE, False),
        (b"[]", False),
        (b"{}", False),
        (json.dumps(SEEKING).encode(), False),
        (reply("join_failed"), False),
        (reply("error"), False),
        (reply("self", PY), False),
        (reply("joined", PY), False),
        (reply(["b@127.0.0.2"]), False),
        (reply("what"), False),
        (reply("joined", "\x1b[31mno name"), False),
    ],
    ids=lambda first: repr(first)[:40],
)
async def test_second_beacon_is_asked_after_the_first(
    first: tuple[bytes | None, bool], serve: Serve, locator: Locator, backoffs: list[float]
) -> None:
    """If the first beacon does not let the node in, the second is asked in the same round."""
    answer, hang_up = first
    one, two = await serve(
        FakeBeacon(answer, hang_up=hang_up), FakeBeacon(reply("joined", "b@127.0.0.2"))
    )
    assert await soon(locator.seek()) == "b@127.0.0.2"
    assert one.requests == two.requests == [SEEKING]
    assert backoffs == []


async def test_silent_beacon_times_out(
    serve: Serve, locator: Locator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beacon that never answers is given up, and the next one is asked."""
    monkeypatch.setattr(locator_module, "REPLY_TIMEOUT", 0.05 * UNIT)
    await serve(FakeBeacon(None), FakeBeacon(reply("joined", "b@127.0.0.2")))
    assert await soon(locator.seek()) == "b@127.0.0.2"


async def test_closed_connection_is_made_again(
    serve: Serve, locator: Locator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beacon that has closed the connection while another was asked is connected to again."""
    monkeypatch.setattr(locator_module, "REPLY_TIMEOUT", 0.3 * UNIT)

    class Impatient(FakeBeacon):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.connections:
                await super().serve(reader, writer)
            else:
                self.connections += 1
                writer.close()

    _, beacon = await serve(FakeBeacon(None), Impatient(reply("joined", "b@127.0.0.2")))
    assert await soon(locator.seek()) == "b@127.0.0.2"
    assert (beacon.connections, beacon.requests) == (3, [WATCHING, SEEKING])


async def test_silent_beacons_are_an_error(
    serve: Serve, locator: Locator, backoffs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beacons that accept connections and never answer are an error, not a lack of beacons."""
    monkeypatch.setattr(locator_module, "REPLY_TIMEOUT", 0.05 * UNIT)
    await serve(FakeBeacon(None))
    with pytest.raises(JoinError, match="did not answer within") as caught:
        await soon(locator.seek())
    assert caught.value.answer == "timeout"
    assert backoffs == []


@pytest.mark.parametrize(
    ("answer", "said", "cause"),
    [
        (reply("join_failed"), "join_failed", f"it could not reach {PY}: the cookie differs"),
        (reply("self", PY), "self", "give this node another name"),
        (reply("error"), "error", "see the log of that node"),
        (reply("joined", PY), "joined", "not an answer"),
        (reply(["b@127.0.0.2"]), "['b@127.0.0.2']", "not an answer"),
        (reply("what"), "what", "not an answer"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_refusal_in_every_round_is_an_error(
    answer: bytes,
    said: str,
    cause: str,
    serve: Serve,
    locator: Locator,
    backoffs: list[float],
    elsewhere: None,
) -> None:
    """The error names the beacon, its answer and the cause."""
    [beacon] = await serve(FakeBeacon(answer))
    with pytest.raises(JoinError) as caught:
        await soon(locator.seek())
    assert caught.value.answer == said
    assert cause in str(caught.value)
    assert "at 127.0.0.1 answered" in str(caught.value)
    assert beacon.connections == ROUNDS
    assert len(backoffs) == ROUNDS - 1


async def test_own_beacon_is_not_joined(
    serve: Serve, locator: Locator, backoffs: list[float]
) -> None:
    """A beacon that answers `self` is the node's own, which counts as no answer."""
    [own] = await serve(FakeBeacon(reply("self", PY)))
    assert await soon(locator.seek()) is None
    assert (own.connections, len(backoffs)) == (ROUNDS, ROUNDS - 1)


@pytest.mark.parametrize("payload", ["joined", "join_failed"])
async def test_other_beacon_counts_beside_the_own(
    payload: str, serve: Serve, locator: Locator
) -> None:
    """Beside the node's own beacon, another one lets it in, or refuses."""
    await serve(FakeBeacon(reply("self", PY)), FakeBeacon(reply(payload, "b@127.0.0.2")))
    if payload == "joined":
        assert await soon(locator.seek()) == "b@127.0.0.2"
    else:
        with pytest.raises(JoinError, match="the beacon of b@127"):
            await soon(locator.seek())


async def test_own_beacon_answers_self_only(serve: Serve, locator: Locator) -> None:
    """Any other answer in the node's own name is a refusal."""
    await serve(FakeBeacon(reply("joined", PY)))
    with pytest.raises(JoinError, match="not an answer"):
        await soon(locator.seek())


@pytest.mark.parametrize("turned", [False, True])
async def test_refusal_of_another_is_told_before_self(
    turned: bool, serve: Serve, locator: Locator, elsewhere: None
) -> None:
    """Of several refusals, `self` is reported last."""
    beacons = [FakeBeacon(reply("self", PY)), FakeBeacon(reply("join_failed", "b@127.0.0.2"))]
    await serve(*(reversed(beacons) if turned else beacons))
    with pytest.raises(JoinError, match="the beacon of b@127"):
        await soon(locator.seek())


async def test_refused_node_is_let_in_later(serve: Serve, port: int) -> None:
    """A beacon that refuses at first is asked again, and its refusal is forgotten."""
    [beacon] = await serve(FakeBeacon(reply("join_failed")))

    def backoff() -> float:
        beacon.answer = reply("joined")
        return 0.0

    assert await soon(Locator(PY, ["127.0.0.1"], port, backoff).seek()) == "a@127.0.0.1"
    assert beacon.requests == [SEEKING, SEEKING]


async def test_only_the_last_round_counts(serve: Serve, port: int) -> None:
    """When the last round finds no beacon, earlier refusals are not reported."""
    [beacon] = await serve(FakeBeacon(reply("join_failed")))

    def backoff() -> float:
        beacon.answer, beacon.hang_up = None, True
        return 0.0

    assert await soon(Locator(PY, ["127.0.0.1"], port, backoff).seek()) is None


async def test_no_beacon_after_three_rounds(locator: Locator, backoffs: list[float]) -> None:
    """A network without a listener has no beacon, after three rounds."""
    assert await soon(locator.seek()) is None
    assert len(backoffs) == ROUNDS - 1 == 2


async def test_long_round_is_not_repeated(
    locator: Locator, backoffs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long round the search goes on behind the start."""
    monkeypatch.setattr(locator_module, "ROUNDS_TIME", -1.0)
    assert await soon(locator.seek()) is None
    assert backoffs == []


@pytest.mark.parametrize("answer", [None, b"junk", b"{}"])
async def test_other_service_is_not_a_beacon(
    answer: bytes | None, serve: Serve, locator: Locator, backoffs: list[float]
) -> None:
    """Another service on the port is not taken for a beacon in any of the three rounds."""
    [other] = await serve(FakeBeacon(answer, hang_up=True))
    assert await soon(locator.seek()) is None
    assert other.connections == ROUNDS
    assert len(backoffs) == ROUNDS - 1


async def test_found_in_a_later_round(serve: Serve, port: int) -> None:
    """A beacon that comes up between two rounds is found in the next."""
    starts: list[asyncio.Task[Any]] = []

    def backoff() -> float:
        starts.append(asyncio.create_task(serve(FakeBeacon(reply("joined")))))
        return 0.1 * UNIT

    assert await soon(Locator(PY, ["127.0.0.1"], port, backoff).seek()) == "a@127.0.0.1"
    assert len(starts) == 1


async def test_every_host_is_asked(
    serve: Serve, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each host is asked, however few are asked at once."""
    monkeypatch.setattr(locator_module, "AT_ONCE", 2)
    beacons = await serve(*(FakeBeacon(None, hang_up=True) for _ in range(4)))
    locator = Locator(PY, hosts_of("127.0.0.0/29"), port, lambda: 0.0)
    assert await soon(locator.seek()) is None
    assert [beacon.connections for beacon in beacons] == [ROUNDS] * 4


@pytest.mark.parametrize(
    ("soft", "at_once"), [(resource.RLIM_INFINITY, 512), (1024, 512), (256, 128), (1, 1), (0, 1)]
)
def test_sweep_leaves_file_descriptors(
    soft: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most half of the file descriptors that the process may have are for the sweep."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert locator_module._at_once() == at_once


async def test_progress_is_reported(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`on_progress` gets how many hosts were asked, from the beginning in each round."""
    monkeypatch.setattr(locator_module, "AT_ONCE", 4)
    told: list[tuple[int, int]] = []
    hosts = hosts_of("127.0.0.0/29")
    locator = Locator(PY, hosts, port, lambda: 0.0, on_progress=lambda *told_: told.append(told_))
    assert await soon(locator.seek(rounds=2)) is None
    assert told == [(4, 6), (6, 6)] * 2
    assert await soon(locator.look()) == {}
    assert told == [(4, 6), (6, 6)] * 3


# The first host


@pytest.mark.parametrize("first", ["127.0.0.3", "127.0.0.9", "localhost"])
async def test_first_host_is_asked_alone(first: str, serve: Serve, port: int) -> None:
    """If the first host lets the node in, no other is asked; it may be outside of the network."""
    beacons = await serve(FakeBeacon(reply("joined")), FakeBeacon(None), FakeBeacon(None))
    server = None
    if first == "127.0.0.3":
        beacons[2].answer = reply("joined")
    elif first == "127.0.0.9":
        server = await asyncio.start_server(beacons[0].serve, first, port)
    locator = Locator(PY, hosts_of("127.0.0.0/29"), port, lambda: 0.0, first=first)
    assert await soon(locator.seek()) == "a@127.0.0.1"
    assert sum(beacon.connections for beacon in beacons) == 1
    if server is not None:
        server.close()


@pytest.mark.parametrize("first", ["127.0.0.1", "127.0.0.9", "nosuch.invalid", "x" * 70, ""])
async def test_others_are_asked_after_the_first_host(first: str, serve: Serve, port: int) -> None:
    """If the first host does not let the node in, the others are asked, each once."""
    beacons = await serve(
        FakeBeacon(reply("join_failed")), FakeBeacon(reply("joined", "b@127.0.0.2"))
    )
    locator = Locator(PY, hosts_of("127.0.0.0/29"), port, lambda: 0.0, first=first)
    assert await soon(locator.seek()) == "b@127.0.0.2"
    assert [beacon.requests for beacon in beacons] == [[SEEKING], [SEEKING]]


# Looking without joining


async def test_look_gives_what_beacons_see(
    serve: Serve, locator: Locator, caplog: pytest.LogCaptureFixture
) -> None:
    """Each beacon but the node's own gives the nodes that it sees; other services are left out."""
    beacons = await serve(
        FakeBeacon(reply("self", PY)),
        FakeBeacon(reply(["c@127.0.0.3"], "b@127.0.0.2")),
        FakeBeacon(reply([], "c@127.0.0.3")),
        FakeBeacon(b"junk"),
        FakeBeacon(reply("joined", "e@127.0.0.5")),
        FakeBeacon(reply([], PY)),
    )
    for _ in range(2):
        seen = await soon(locator.look())
        assert seen == {"b@127.0.0.2": ["c@127.0.0.3"], "c@127.0.0.3": []}
    assert [beacon.requests for beacon in beacons] == [[WATCHING] * 2] * 6
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "127.0.0.4" in texts[0]
    assert "127.0.0.5 answered 'joined'" in texts[1]


async def test_look_leaves_out_silent_beacons(
    serve: Serve, locator: Locator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beacons that do not answer are waited for together, and left out."""
    monkeypatch.setattr(locator_module, "REPLY_TIMEOUT", 0.5 * UNIT)
    await serve(*(FakeBeacon(None) for _ in range(5)), FakeBeacon(reply([])))
    began = asyncio.get_running_loop().time()
    assert await soon(locator.look()) == {"a@127.0.0.1": []}
    assert asyncio.get_running_loop().time() - began < 1.5 * UNIT


# Known beacons


async def test_known_beacons_are_not_asked_to_join(
    serve: Serve, locator: Locator, caplog: pytest.LogCaptureFixture
) -> None:
    """Beacons of the node's cluster, and its own, get `watching` and nothing else."""
    beacons = await serve(
        FakeBeacon(reply([], "a@127.0.0.1")),
        FakeBeacon(reply("self", PY)),
        FakeBeacon(b"junk"),
    )
    assert await soon(locator.seek(rounds=1, known=frozenset({"a@127.0.0.1"}))) is None
    assert [beacon.requests for beacon in beacons] == [[WATCHING]] * 3


@pytest.mark.parametrize("payload", ["joined", "join_failed"])
async def test_beacon_of_another_cluster_is_asked_to_join(
    payload: str, serve: Serve, locator: Locator
) -> None:
    """A beacon of another cluster is asked to let the node in, on a second connection."""
    known, other = await serve(
        FakeBeacon(reply([], "a@127.0.0.1")), FakeBeacon(reply(payload, "b@127.0.0.2"))
    )
    seeking = locator.seek(rounds=1, known=["a@127.0.0.1", "c@127.0.0.3"])
    if payload == "joined":
        assert await soon(seeking) == "b@127.0.0.2"
    else:
        with pytest.raises(JoinError, match="the beacon of b@127"):
            await soon(seeking)
    assert (known.requests, other.requests) == ([WATCHING], [WATCHING, SEEKING])


@pytest.mark.parametrize("what", ["seek", "known", "look"])
@pytest.mark.parametrize("answers", [(None, None), ("join_failed", "joined"), ("joined", None)])
async def test_cancelled_search_closes_its_connections(
    answers: tuple[str | None, ...], what: str, serve: Serve, locator: Locator
) -> None:
    """A search that is cancelled at any moment leaves no connection open."""
    replies = [None if answer is None else reply(answer) for answer in answers]
    beacons = await serve(*map(FakeBeacon, replies))
    for turns in range(60):
        known = ["c@127.0.0.3"] if what == "known" else []
        task = locator.look() if what == "look" else locator.seek(known=known)
        seeking: asyncio.Task[Any] = asyncio.create_task(task)
        for _ in range(turns):
            await asyncio.sleep(0)
        seeking.cancel()
        await asyncio.gather(seeking, return_exceptions=True)
        for beacon in beacons:
            await beacon.all_left()
    assert any(beacon.requests for beacon in beacons)
