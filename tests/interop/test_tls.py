"""Python nodes and BEAMs that speak TLS: `-proto_dist inet_tls`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pybeethoven import Atom, Beethoven, From, GenServer, Limits, Node, Term
from pybeethoven.errors import NoConnection
from pybeethoven.testing import BeamNode, Peers
from tests.certificates import Authority, Certificate
from tests.helpers import Recorder, atoms, until_logged
from tests.interop.members import PY, A
from tests.interop.nodes import connect_at_once
from tests.timing import UNIT

HOST = "127.0.0.1"
PING = f'Node.ping(:"{PY}")'


class Echo(GenServer):
    """Answers calls with what they hold."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        return request


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of the cluster."""
    return Authority(tmp_path, "cluster")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """A CA that the cluster does not know."""
    return Authority(tmp_path, "stranger")


@pytest.fixture
def good(authority: Authority) -> Certificate:
    """What each node of the cluster may have: OTP 25 takes a DNS name, OTP 27 an address."""
    return authority.issue("good", HOST, addresses=(HOST,))


@pytest.fixture
async def node(cluster: Peers, authority: Authority, good: Certificate) -> AsyncIterator[Node]:
    """A Python node of the cluster."""
    async with Node(PY, cluster.cookie, tls=good.options(authority)) as node:
        yield node


@pytest.fixture(params=["tlsv1.2", "tlsv1.3"])
async def a(
    request: pytest.FixtureRequest, cluster: Peers, authority: Authority, good: Certificate
) -> BeamNode:
    """A BEAM of the cluster, which speaks the one version of TLS or the other."""
    return await cluster.start_bare(A, flags=good.beam_flags(authority, request.param))


async def test_beam_dials(a: BeamNode, node: Node) -> None:
    """A BEAM connects, again after it was disconnected, and calls, monitors and gets exits."""
    await node.start(Echo(), name="echo")
    assert await a.eval(PING) == "pong"
    assert await a.eval(f'GenServer.call({{:echo, :"{PY}"}}, {{:a, 1}})') == (Atom("a"), 1)
    recorder = node.spawn(Recorder(), name="recorder")
    await a.eval(f'ref = Process.monitor({{:recorder, :"{PY}"}})')
    assert await a.eval(PING) == "pong"
    node.exit(recorder, Atom("gone"))
    assert await a.eval("receive do {:DOWN, ^ref, _, _, reason} -> reason end") == "gone"
    await a.eval(f'true = Node.disconnect(:"{PY}")')
    assert await a.eval(PING) == "pong"


async def test_python_dials(a: BeamNode, node: Node) -> None:
    """A Python node connects, calls, monitors, and sees that the BEAM is gone."""
    recorder = Recorder()
    node.spawn(recorder)
    await node.connect(A)
    assert await node.ping(A)
    assert await node.call(("net_kernel", A), Atom("longnames")) is True
    pid = await a.eval("spawn(fn -> receive do reason -> exit(reason) end end)")
    reference = recorder.monitor(pid)
    node.send(pid, Atom("enough"))
    assert await recorder.next_down(reference) == "enough"
    reference = recorder.monitor(("net_kernel", A))
    assert await node.ping(A)
    await a.kill()
    assert await recorder.next_down(reference) == "noconnection"


async def test_disconnected_peer_sees_it_at_once(a: BeamNode, node: Node) -> None:
    """What was sent before a disconnect arrives, and then the BEAM has `nodedown`."""
    await a.eval(
        f'ControlShell.collect(:seen, name: :ears, setup: fn -> Node.monitor(:"{PY}", true) end)'
    )
    assert await a.eval(PING) == "pong"
    big = bytes(1_000_000)
    node.send(("ears", A), big)
    assert node.disconnect(A)
    assert await a.next_event("seen") == (Atom("seen"), big)
    assert await a.next_event("seen") == (Atom("seen"), atoms("nodedown", PY))


async def test_large_messages(a: BeamNode, node: Node) -> None:
    """Megabytes arrive whole, both ways, and small ones in their order."""
    await node.start(Echo(), name="echo")
    await a.eval("big = :rand.bytes(12_000_000); byte_size(big)")
    assert await a.eval(f'GenServer.call({{:echo, :"{PY}"}}, big, 30_000) == big') is True
    recorder = Recorder()
    node.spawn(recorder, name="recorder")
    await a.eval(f'for n <- 1..3_000, do: send({{:recorder, :"{PY}"}}, n)')
    assert [await recorder.next() for _ in range(3_000)] == list(range(1, 3_001))


async def test_both_connect_at_once(a: BeamNode, node: Node) -> None:
    """When both dial at the same moment one connection comes of it, and every message arrives."""
    await connect_at_once(a, node, turns=10)


async def test_idle_connection_stays(
    cluster: Peers, authority: Authority, good: Certificate
) -> None:
    """Ticks go over TLS both ways."""
    ticktime = max(1, round(UNIT))
    flags = [*good.beam_flags(authority), "-kernel", "net_ticktime", str(ticktime)]
    await cluster.start_bare(A, flags=flags)
    options = good.options(authority)
    async with Node(PY, cluster.cookie, net_ticktime=ticktime, tls=options) as node:
        recorder = Recorder()
        node.spawn(recorder)
        await node.connect(A)
        node.monitor_nodes(recorder)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recorder.messages.get(), 3 * ticktime)


async def test_member_joins(cluster: Peers, authority: Authority, good: Certificate) -> None:
    """A Beethoven node joins a cluster over TLS, and the peers see it come and go."""
    a = await cluster.start(A, flags=good.beam_flags(authority))
    async with Beethoven(
        PY,
        cookie=cluster.cookie,
        cluster_net=cluster.cluster_net,
        listener_port=cluster.listener_port,
        tls=good.options(authority),
    ) as member:
        assert member.via == A
        await member.until_ready()
        await cluster.await_tracker(a, {PY: "online"})
        assert await member.get_active_cluster_nodes() == [A, PY]
    await cluster.await_tracker(a, {PY: "offline"})


# What does not fit. Each side is told what is wrong; none connects.


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unknown", "certificate is not accepted: .*no CA in cacertfile"),
        ("expired", "certificate is not accepted: certificate has expired"),
        ("elsewhere", "certificate is not for the host '127.0.0.1', but for .*'elsewhere.org'"),
    ],
)
async def test_certificate_of_a_beam_that_is_dialled(
    cluster: Peers,
    authority: Authority,
    stranger: Authority,
    node: Node,
    kind: str,
    words: str,
) -> None:
    """A BEAM whose certificate is not right is not connected to."""
    certificate = bad_certificate(authority, stranger, kind)
    await cluster.start_bare(A, flags=certificate.beam_flags(authority))
    with pytest.raises(NoConnection, match=words):
        await node.connect(A)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unknown", "certificate is not accepted: .*no CA in cacertfile"),
        ("expired", "certificate is not accepted: certificate has expired"),
    ],
)
async def test_certificate_of_a_beam_that_dials(
    cluster: Peers,
    authority: Authority,
    stranger: Authority,
    node: Node,
    kind: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A BEAM whose certificate is not right is not let in."""
    certificate = bad_certificate(authority, stranger, kind)
    a = await cluster.start_bare(A, flags=certificate.beam_flags(authority))
    assert await a.eval(PING) == "pang"
    await until_logged(caplog, words)
    assert node.nodes() == []


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unknown", "does not accept the certificate of this node: unknown ca"),
        ("expired", "does not accept the certificate of this node: certificate expired"),
    ],
)
async def test_own_certificate_is_refused(
    cluster: Peers,
    authority: Authority,
    stranger: Authority,
    good: Certificate,
    version: str,
    kind: str,
    words: str,
) -> None:
    """What a BEAM has against our certificate is told, in TLS 1.3 where it comes late, too."""
    await cluster.start_bare(A, flags=good.beam_flags(authority, version))
    options = bad_certificate(authority, stranger, kind).options(authority)
    async with Node(PY, cluster.cookie, tls=options) as node:
        with pytest.raises(NoConnection, match=words):
            await node.connect(A)


async def test_beam_checks_our_host(
    a: BeamNode, authority: Authority, cluster: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """A BEAM that dials a node with another host's certificate refuses it, as we do."""
    certificate = authority.issue("elsewhere", "elsewhere.org")
    async with Node(PY, cluster.cookie, tls=certificate.options(authority)):
        assert await a.eval(PING) == "pang"
        await until_logged(caplog, "refused: handshake failure|of this node: bad certificate")


async def test_other_hosts_certificate_when_unchecked(
    cluster: Peers, authority: Authority, good: Certificate
) -> None:
    """Without `check_host` any certificate of the cluster will do; an address will in any case."""
    elsewhere = authority.issue("elsewhere", "elsewhere.org")
    address = authority.issue("address", addresses=(HOST,))
    await cluster.start_bare(A, flags=elsewhere.beam_flags(authority))
    await cluster.start_bare("b@127.0.0.1", flags=address.beam_flags(authority))
    async with Node(PY, cluster.cookie, tls=good.options(authority, check_host=False)) as node:
        await node.connect(A)
        await node.connect("b@127.0.0.1")
    async with Node(PY, cluster.cookie, tls=good.options(authority)) as node:
        await node.connect("b@127.0.0.1")


async def test_host_of_a_beam_that_dials(
    a: BeamNode,
    cluster: Peers,
    authority: Authority,
    good: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With `check_client_host` a BEAM gets in only if its certificate is for its own host."""
    elsewhere = authority.issue("elsewhere", "elsewhere.org")
    b = await cluster.start_bare("b@127.0.0.1", flags=elsewhere.beam_flags(authority))
    options = good.options(authority, check_client_host=True)
    async with Node(PY, cluster.cookie, tls=options) as node:
        assert await a.eval(PING) == "pong"
        assert await b.eval(PING) == "pang"
        await until_logged(caplog, "b@127.0.0.1: its certificate is not for the host '127.0.0.1'")
        assert node.nodes() == [A]


async def test_beam_without_tls(
    cluster: Peers, authority: Authority, good: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain BEAM and a node with TLS don't connect, whoever dials."""
    a = await cluster.start_bare(A)
    options = good.options(authority)
    async with Node(PY, cluster.cookie, limits=Limits(handshake_time=UNIT), tls=options) as node:
        assert await a.eval(PING) == "pang"
        await until_logged(caplog, "it does not speak TLS")
        with pytest.raises(NoConnection, match=r"seconds; maybe it does not speak TLS"):
            await node.connect(A)


async def test_beam_with_tls_and_plain_node(
    a: BeamNode, cluster: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """A BEAM with TLS and a plain node don't connect, whoever dials."""
    async with Node(PY, cluster.cookie) as node:
        with pytest.raises(NoConnection, match="uses TLS; this node does not"):
            await node.connect(A)
        assert await a.eval(PING) == "pang"
        await until_logged(caplog, "uses TLS; this node does not")


async def test_cookie_counts_over_tls(
    a: BeamNode, cluster: Peers, authority: Authority, good: Certificate
) -> None:
    """A certificate does not stand in for the cookie."""
    async with Node(PY, "another", tls=good.options(authority)) as node:
        with pytest.raises(NoConnection, match="cookie"):
            await node.connect(A)
        assert await a.eval(PING) == "pang"


def bad_certificate(authority: Authority, stranger: Authority, kind: str) -> Certificate:
    """A certificate that is not right in one way."""
    match kind:
        case "unknown":
            return stranger.issue(kind, HOST)
        case "expired":
            return authority.issue(kind, HOST, expired=True)
    return authority.issue(kind, "elsewhere.org")
