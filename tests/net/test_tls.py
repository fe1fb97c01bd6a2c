"""TLS without a BEAM: settings, hosts of certificates, and unauthenticated peers."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import re
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import Limits, Node, TlsOptions
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.handshake import (
    TLS_LENGTH_SIZE,
    Completed,
    Handshake,
    Identity,
    Status,
    StatusReceived,
)
from pybeethoven.errors import ConfigError, HandshakeError, NoConnection
from pybeethoven.net import epmd as epmd_client
from pybeethoven.net.tls import TlsContexts, check_host
from pybeethoven.net.tls_layer import TlsLayer
from pybeethoven.testing import Epmd
from tests.certificates import Authority, Certificate
from tests.helpers import LIMIT, Recorder, soon
from tests.net.peers import impostor, says_nothing, talk
from tests.net.rig import Clock, Rig
from tests.timing import UNIT

A, B = "a@127.0.0.1", "b@127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of the cluster."""
    return Authority(tmp_path, "cluster")


@pytest.fixture
def good(authority: Authority) -> Certificate:
    """The certificate of each node of the cluster."""
    return authority.issue("good", "127.0.0.1")


@pytest.fixture
def options(authority: Authority, good: Certificate) -> TlsOptions:
    """The TLS options of each node of the cluster."""
    return good.options(authority)


async def test_nodes_connect_over_tls(epmd: Epmd, options: TlsOptions) -> None:
    """Two nodes connect, and messages of every size arrive in order."""
    async with Node(A, "cookie", tls=options) as a, Node(B, "cookie", tls=options) as b:
        recorder = Recorder()
        b.spawn(recorder, name="recorder")
        sizes = [0, 1, 3_000_000, 16_384, 5, 1_000_000]
        for size in sizes:
            a.send(("recorder", B), bytes(size))
        assert [len(await recorder.next()) for _ in sizes] == sizes
        assert await b.ping(A)
        assert a.disconnect(B)
        assert await a.ping(B)


async def test_handshake_timeout_ends_with_the_handshake(epmd: Epmd, options: TlsOptions) -> None:
    """A connection that is up may last longer than its handshake might have."""
    async with (
        Node(A, "cookie", tls=options, limits=Limits(handshake_time=0.5 * UNIT)) as a,
        Node(B, "cookie", tls=options, limits=Limits(handshake_time=0.5 * UNIT)),
    ):
        recorder = Recorder()
        a.spawn(recorder)
        await a.connect(B)
        a.monitor_nodes(recorder)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recorder.messages.get(), 0.7 * UNIT)


async def test_refused_peer_gets_close_notify(epmd: Epmd, options: TlsOptions) -> None:
    """A peer can tell a closed connection from one that was cut."""

    def talk(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), LIMIT) as plain,
            TlsContexts(options).client.wrap_socket(plain, suppress_ragged_eofs=False) as sock,
        ):
            sock.sendall(b"\0\0\0\1?")
            return sock.recv(1)

    async with Node(A, "cookie", tls=options):
        port = await epmd_client.look_up("a", "127.0.0.1")
        assert port is not None
        assert await soon(asyncio.to_thread(talk, port)) == b""


async def test_connection_is_closed_though_its_owner_raises(options: TlsOptions) -> None:
    """A socket that is lost during the TLS handshake sets `closed`, whatever the owner does."""
    rig = Rig(Clock())
    layer = TlsLayer(rig.connection, TlsContexts(options), None, time_limit=LIMIT)
    layer.connection_made(rig.transport)
    rig.owner.then["down"] = lambda: 1 // 0
    rig.transport.lost = True
    with pytest.raises(ZeroDivisionError):
        layer.connection_lost(None)
    assert rig.connection.closed.done()


async def test_older_tls_version_is_refused(epmd: Epmd, options: TlsOptions) -> None:
    """A node does not speak a TLS version older than its minimum."""
    new = dataclasses.replace(options, minimum_version=ssl.TLSVersion.TLSv1_3)
    async with Node(A, "cookie", tls=new), Node(B, "cookie", tls=options) as b:
        assert b.network._tls is not None
        b.network._tls.client.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(NoConnection, match="it has refused: protocol version"):
            await b.connect(A)


async def test_peer_without_certificate_is_refused(
    epmd: Epmd, options: TlsOptions, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that shows no certificate is not let in."""
    context = ssl.create_default_context(cafile=authority.certfile)
    context.check_hostname = False
    async with Node(A, "cookie", tls=options):
        reader, writer = await connect(A, ssl=context)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await soon(reader.read())
        writer.close()
    assert "peer did not return a certificate" in caplog.text


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_unfinished_tls_handshake_times_out(
    epmd: Epmd, options: TlsOptions, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A TLS handshake has the time of a handshake, and no more."""
    async with Node(A, "cookie", tls=options, limits=Limits(handshake_time=0.2 * UNIT)):
        reader, writer = await connect(A)
        writer.write(said)
        assert await soon(reader.read()) == b""
        writer.close()
    assert f"took over {0.18 * UNIT:g} seconds" in caplog.text
    assert ("maybe it does not speak TLS" in caplog.text) == (not said)


@pytest.mark.parametrize("said", [b"\x00\x20N" + bytes(31), b"GET / HTTP/1.1\r\n\r\n"])
async def test_peer_without_tls_is_closed(
    epmd: Epmd, options: TlsOptions, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that does not speak TLS is closed at once, and the log says so."""
    async with Node(A, "cookie", tls=options):
        reader, writer = await connect(A)
        writer.write(said)
        assert await soon(reader.read()) == b""
        writer.close()
    assert "failed: it does not speak TLS" in caplog.text


async def test_broken_record_gets_an_alert(
    epmd: Epmd, options: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken record gets an alert, and the node lives on."""
    async with Node(A, "cookie", tls=options), Node(B, "cookie", tls=options) as b:
        reader, writer = await connect(A)
        writer.write(b"\x16\x03\x01\x00\x04\xff\xff\xff\xff")
        assert (await soon(reader.read()))[:2] == b"\x15\x03"
        writer.close()
        assert await b.ping(A)


@pytest.mark.parametrize("situation", ["unconnected", "connected", "dialled"])
@pytest.mark.parametrize("claimed", [B, "\N{LATIN SMALL LETTER A WITH RING ABOVE}@127.0.0.1"])
async def test_client_is_refused_a_name_of_another_host(
    epmd: Epmd,
    options: TlsOptions,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    situation: str,
    claimed: str,
) -> None:
    """It is told so, learns nothing, and ends neither a connection nor a dial of that name."""
    checking = dataclasses.replace(options, check_client_host=True)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(Node(A, "cookie", tls=checking))
        if situation == "connected":
            b = await stack.enter_async_context(Node(B, "cookie", tls=options))
            await b.connect(A)
        elif situation == "dialled":
            await stack.enter_async_context(impostor(says_nothing))
            a.network.connect_soon(B)
        before = dict(a.network._up), dict(a.network._attempts)
        elsewhere = authority.issue("elsewhere", "elsewhere.org").options(authority)
        assert await dial(claimed, elsewhere) == [StatusReceived(Status.NOT_ALLOWED)]
        assert (a.network._up, a.network._attempts) == before
    words = f"{claimed}: its certificate is not for the host '127.0.0.1', but for ['elsewhere.org']"
    assert words in caplog.text


async def test_client_may_give_any_name_by_default(
    epmd: Epmd, options: TlsOptions, authority: Authority
) -> None:
    """As with OTP, any certificate of the CA will do for a node that dials."""
    elsewhere = authority.issue("elsewhere", "elsewhere.org").options(authority)
    async with Node(A, "cookie", tls=options):
        assert isinstance((await dial(B, elsewhere))[-1], Completed)


async def test_renewed_certificate_is_used(
    epmd: Epmd, options: TlsOptions, authority: Authority, good: Certificate
) -> None:
    """A certificate and a CA that were replaced count for the next connection, on both sides."""
    async with Node(A, "cookie", tls=options) as a, Node(B, "cookie", tls=options) as b:
        await b.connect(A)
        new = Authority(authority.certfile.parent, "new")
        new.issue("renewed", "127.0.0.1").replace(good)
        new.certfile.replace(authority.certfile)
        assert (shown_to(a), shown_to(b)) == ("good", "good")
        assert b.disconnect(A)
        await b.connect(A)
        assert (shown_to(a), shown_to(b)) == ("renewed", "renewed")


@pytest.mark.parametrize("state", ["old key", "missing", "empty", "cut"])
async def test_unusable_new_files_change_nothing(
    epmd: Epmd,
    options: TlsOptions,
    authority: Authority,
    good: Certificate,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    """The old ones stay in use, with one warning, until the new ones are whole."""
    lasting = authority.issue("lasting", "127.0.0.1").options(authority)
    renewed = authority.issue("renewed", "127.0.0.1")
    text = renewed.certfile.read_text()
    async with Node(A, "cookie", tls=options), Node(B, "cookie", tls=lasting) as b:
        if state == "missing":
            good.certfile.unlink()
        else:
            cut = {"old key": text, "empty": "", "cut": text[: len(text) // 2]}[state]
            good.certfile.write_text(cut)
        for _ in range(2):
            await b.connect(A)
            assert shown_to(b) == "good"
            assert b.disconnect(A)
        warning = "the TLS files have changed, the old ones stay in use: certfile"
        assert caplog.text.count(warning) == 1
        renewed.replace(good)
        await b.connect(A)
        assert shown_to(b) == "renewed"
        assert caplog.text.count("TLS files") == 1


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("good", None),
        ("revoked", "its certificate is not accepted: certificate revoked"),
        ("CA revoked", "its certificate is not accepted: certificate revoked"),
        ("lacking", r"unable to get certificate CRL \(crlfile lacks that of a CA above it\)"),
        ("expired", r"CRL has expired \(crlfile needs a newer one\)"),
    ],
)
async def test_revoked_peer_is_refused(
    epmd: Epmd,
    options: TlsOptions,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    case: str,
    words: str | None,
) -> None:
    """Each certificate up to the CA is looked for in a CRL, both ways; none is an error."""
    middle = Authority(authority.certfile.parent, "middle", authority)
    peer = middle.issue("peer", "127.0.0.1")
    root = authority.revoke(*[middle.certfile] * (case == "CA revoked"))
    crlfile = middle.revoke(*[peer.certfile] * (case == "revoked"), expired=case == "expired")
    crlfile.write_text(root.read_text() + crlfile.read_text() * (case != "lacking"))
    peer.certfile.write_text(peer.certfile.read_text() + middle.certfile.read_text())
    checking = dataclasses.replace(options, crlfile=crlfile)
    async with Node(A, "cookie", tls=checking) as a, Node(B, "cookie", tls=peer.options(authority)):
        if words is None:
            await a.connect(B)
            return
        with pytest.raises(NoConnection, match=words):
            await a.connect(B)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await dial(B, peer.options(authority))
    assert re.search(f"TLS with .* failed: .*{words}", caplog.text)


async def test_new_crl_is_used(
    epmd: Epmd, options: TlsOptions, authority: Authority, good: Certificate
) -> None:
    """A certificate that is revoked while the node runs is refused from then on."""
    checking = dataclasses.replace(options, crlfile=authority.revoke())
    async with Node(A, "cookie", tls=checking) as a, Node(B, "cookie", tls=options):
        await a.connect(B)
        authority.revoke(good.certfile)
        assert a.disconnect(B)
        with pytest.raises(NoConnection, match="certificate revoked"):
            await a.connect(B)


async def test_stop_ends_tls_handshakes(
    epmd: Epmd, options: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that stops waits for no TLS handshake, keeps nothing of it, and logs no error."""
    caplog.set_level(logging.WARNING)
    async with Node(A, "cookie", tls=options) as a:
        _, writer = await connect(A)
        await asyncio.sleep(0.05 * UNIT)
        await soon(a.stop())
    writer.close()
    assert caplog.text == ""
    gc.collect()
    assert not any(isinstance(each, TlsLayer) for each in gc.get_objects())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certfile": "nosuch.pem"}, "certfile 'nosuch.pem' can't be read: No such file"),
        ({"keyfile": "nosuch.pem"}, "keyfile 'nosuch.pem' can't be read: No such file"),
        ({"cacertfile": "nosuch.pem"}, "cacertfile 'nosuch.pem' can't be read: No such file"),
        ({"keyfile": "other.key"}, "the key is not that of the certificate"),
        ({"keyfile": None}, "both must be in PEM"),
        ({"certfile": "junk"}, "both must be in PEM"),
        ({"cacertfile": "junk"}, "has no certificate in PEM"),
        ({"crlfile": "nosuch.pem"}, "crlfile 'nosuch.pem' can't be read: No such file"),
        ({"crlfile": "junk"}, "crlfile 'junk' must have CRLs in PEM, and no certificates"),
        ({"crlfile": "cluster.pem"}, "crlfile 'cluster.pem' must have CRLs in PEM"),
        ({"crlfile": "mixed"}, "crlfile 'mixed' must have CRLs in PEM"),
        ({"crlfile": "cut"}, "crlfile 'cut' must have CRLs in PEM"),
        (
            {"certfile": "locked.crt", "keyfile": "locked.key"},
            "both must be in PEM, and a password",
        ),
        (
            {"certfile": "locked.crt", "keyfile": "locked.key", "password": "wrong"},
            "both must be in PEM, and a password",
        ),
    ],
)
def test_unusable_files_are_refused(
    authority: Authority,
    options: TlsOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    words: str,
) -> None:
    """The error names the file and what is wrong with it, when the node is made."""
    monkeypatch.chdir(tmp_path)
    Path("junk").write_text("no certificate")
    authority.issue("other", "127.0.0.1").keyfile.rename("other.key")
    crl = authority.revoke().read_text()
    Path("mixed").write_text(crl + Authority(tmp_path, "another").certfile.read_text())
    Path("cut").write_text(crl + crl[: len(crl) // 2])
    locked = authority.issue("locked", "127.0.0.1", password=b"sesame")
    locked.certfile.rename("locked.crt")
    locked.keyfile.rename("locked.key")
    with pytest.raises(ConfigError, match=words):
        Node(A, "cookie", tls=dataclasses.replace(options, **changes))


def test_encrypted_key_is_decrypted(authority: Authority) -> None:
    """An encrypted key is used with its password."""
    locked = authority.issue("locked", "127.0.0.1", password=b"sesame")
    TlsContexts(locked.options(authority, password="sesame"))


HOSTS = {"subjectAltName": (("DNS", "One.example"), ("IP Address", "0:0:0:0:0:0:0:1"))}
COMMON = {"subject": ((("countryName", "x"),), (("commonName", "one.example"),))}


@pytest.mark.parametrize(
    ("certificate", "host"),
    [
        (HOSTS, "one.example"),
        (HOSTS, "ONE.EXAMPLE"),
        (HOSTS, "::1"),
        ({"subjectAltName": (("DNS", "10.0.0.7"),)}, "10.0.0.7"),
        (COMMON, "one.example"),
        ({"subjectAltName": (("DirName", COMMON["subject"]), ("DNS", "one"))}, "one"),
    ],
)
def test_certificate_matches_its_hosts(certificate: dict[str, Any], host: str) -> None:
    """A host is a DNS name or address in the certificate, or its common name if it has none."""
    check_host(certificate, host)


@pytest.mark.parametrize(
    ("certificate", "host"),
    [
        (HOSTS, "two.example"),
        (HOSTS, "::2"),
        (HOSTS, ""),
        ({"subjectAltName": (("DNS", "*.example"),)}, "one.example"),
        ({"subjectAltName": (("DNS", "two.example"),), **COMMON}, "one.example"),
        ({}, "one.example"),
    ],
)
def test_certificate_matches_no_other_host(certificate: dict[str, Any], host: str) -> None:
    """Other names do not match, nor does one with a `*`."""
    with pytest.raises(HandshakeError, match="certificate is not for the host"):
        check_host(certificate, host)


def shown_to(node: Node) -> str:
    """The name in the certificate of its only peer."""
    [connection] = node.network._up.values()
    return str(connection.certificate["subject"][0][0][1])


async def dial(name: str, options: TlsOptions) -> list[object]:
    """What happens to a node that dials `A` under a name."""
    reader, writer = await connect(A, ssl=TlsContexts(options).client)
    own = Identity(name, OFFERED, 7)
    handshake = Handshake.initiator(own, A, "cookie", 1, length_size=TLS_LENGTH_SIZE)
    try:
        return await soon(talk(handshake, reader, writer))
    finally:
        writer.close()


async def connect(node: str, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a node without a handshake."""
    alive_name, _, host = node.partition("@")
    return await asyncio.open_connection(
        host, await epmd_client.look_up(alive_name, host), **options
    )
