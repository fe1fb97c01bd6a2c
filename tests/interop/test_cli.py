"""The command `pybeethoven join`, as a person or a supervisor would run it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from pybeethoven.testing import Peers, free_port
from tests.certificates import Authority
from tests.command_line import next_event, next_lines, options, run, running
from tests.helpers import LIMIT
from tests.interop.members import PY, A, B
from tests.timing import UNIT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_joined_updates_and_end(cluster: Peers, number: signal.Signals) -> None:
    """It says who is there, who goes and comes back, and ends cleanly on a signal."""
    a = await cluster.start(A)
    b = await cluster.start(B)
    async with running(*options(cluster), "--json") as process:
        joined = await next_event(process)
        assert (joined["event"], joined["via"], joined["mode"]) == ("joined", A, "clustered")
        assert {(n["node"], n["status"]) for n in joined["nodes"]} == {
            (name, "online") for name in (A, B, PY)
        }
        await b.kill()
        gone = await next_event(process)
        assert gone.pop("last_change").endswith("Z")
        assert gone == {"event": "node_update", "node": B, "status": "offline"}
        await cluster.start(B)
        assert (await next_event(process))["status"] == "online"
        process.send_signal(number)
        async with asyncio.timeout(1 * UNIT):
            assert await process.wait() == 0
        out, err = await process.communicate()
        assert (out, err) == (b"", b"")
    await cluster.await_tracker(a, {PY: "offline"})


async def test_killed_and_started_again(cluster: Peers) -> None:
    """A process that is killed is offline for the peers; under the same name it is online again."""
    a = await cluster.start(A)
    for _ in range(2):
        async with running(*options(cluster), "--json") as process:
            assert (await next_event(process))["event"] == "joined"
            await cluster.await_tracker(a, {PY: "online"})
            process.kill()
            await cluster.await_tracker(a, {PY: "offline"})


async def test_standalone_for_a_while(cluster: Peers) -> None:
    """Without another node it says so and goes on; --for ends it. In text and in JSON."""
    args = [*options(cluster), "--for", str(2 * UNIT)]
    assert await run(*args) == (0, "no other node found: standalone until one comes\n", "")
    assert await run(*args, "--json") == (0, '{"event":"standalone"}\n', "")


@pytest.mark.parametrize("as_json", [True, False])
async def test_mode(cluster: Peers, as_json: bool) -> None:
    """It says when the mode changes, and which node made it so; in JSON and in text."""
    a = await cluster.start(A)
    async with running(*options(cluster), *(["--json"] if as_json else [])) as process:

        async def next_words() -> tuple[str, str]:
            if not as_json:
                first, second, *_ = (await next_lines(process, 1))[0].split()
                return first, second
            event = await next_event(process)
            return event.get("node", "now"), event.get("status") or event["mode"]

        if as_json:
            assert (await next_event(process))["event"] == "joined"
        else:
            assert (await next_lines(process, 3))[0] == f"joined through {A}: clustered"
        await a.kill()
        assert [await next_words() for _ in range(2)] == [(A, "offline"), ("now", "standalone")]
        await cluster.start(A)
        assert [await next_words() for _ in range(2)] == [(A, "online"), ("now", "clustered")]


async def test_text(cluster: Peers) -> None:
    """Without --json a person can read it."""
    await cluster.start(A)
    status, out, err = await run(*options(cluster), "--for", str(1 * UNIT))
    assert (status, err) == (0, "")
    assert out.startswith(f"joined through {A}: clustered\n  {A} online 20")


async def test_variables_and_cookie_files(
    cluster: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option can be a variable; the cookie can be in a file, by default the one erl uses."""
    monkeypatch.delenv("PYBEETHOVEN_COOKIE")
    await cluster.start(A)
    env = {
        "PYBEETHOVEN_NAME": PY,
        "PYBEETHOVEN_NET": cluster.cluster_net,
        "PYBEETHOVEN_PORT": str(cluster.listener_port),
        "PYBEETHOVEN_FOR": "0.5",
        "PYBEETHOVEN_JSON": "1",
        "HOME": str(tmp_path),
    }
    cookie = tmp_path / ".erlang.cookie"
    cookie.write_text(cluster.cookie)
    cookie.chmod(0o600)
    for more in ({}, {"PYBEETHOVEN_COOKIE": cluster.cookie}, {"PYBEETHOVEN_COOKIE_FILE": cookie}):
        status, out, _ = await run(
            "join", env={**env, **{name: str(v) for name, v in more.items()}}
        )
        assert (status, json.loads(out)["event"]) == (0, "joined")
    more = {"PYBEETHOVEN_COOKIE": "another"}
    status, out, _ = await run("join", "--cookie-file", str(cookie), env={**env, **more})
    assert (status, json.loads(out)["event"]) == (0, "joined")
    cookie.chmod(0o644)
    status, out, err = await run("join", env=env)
    assert (status, out) == (2, "")
    assert (
        err == f"pybeethoven: others may read the cookie file {cookie}; run: chmod 400 {cookie}\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--name", "py"], "the node name 'py' has no '@'; it must look like py@127.0.0.1"),
        (["--name", "p y@127.0.0.1"], "letters, digits, '_' or '-' before the '@'"),
        (["--name", "py@"], "no usable host behind the '@'"),
        (["--net", "10.0.0.0/33"], "'10.0.0.0/33' is not a network; it must look like"),
        (["--net", "10.0.0.0/8"], "the network 10.0.0.0/8 has over 65536 hosts"),
        (["--port", "0"], "the listener port is 0; it must be from 1 to 65535"),
        (["--port", "65536"], "the listener port is 65536; it must be from 1 to 65535"),
        (["--cookie", ""], "the cookie must hold 1 to 255 printable characters"),
        (["--name", "py@192.0.2.1"], "cannot listen on the host of 'py@192.0.2.1'"),
        (["--listen-port", "any"], "--listen-port is 'any'; it must be a port like 9100, or two"),
        (["--listen-port", "9-8"], "listen_port is (9, 8)"),
        (["--interface", "lo"], "use_interface is 'lo'; it must be an address of this machine"),
        (["--certfile", "py.crt"], "TLS needs both --certfile and --cacertfile"),
        (["--keyfile", "py.key"], "TLS needs both --certfile and --cacertfile"),
        (["--proof", "--no-beacon"], "--proof has a beacon ask for proofs; leave out --no-beacon"),
        (["--check-client-host"], "TLS needs both --certfile and --cacertfile"),
        (["--crlfile", "x.crl"], "TLS needs both --certfile and --cacertfile"),
        (["--certfile", "", "--cacertfile", ""], "certfile '' can't be read"),
        (["--certfile", "no.crt", "--cacertfile", "x"], "certfile 'no.crt' can't be read: No such"),
    ],
)
async def test_settings_that_cannot_be_used(cluster: Peers, args: list[str], message: str) -> None:
    """One line says what is wrong; the exit status is 2."""
    status, out, err = await run(*options(cluster), *args)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


async def test_over_tls(cluster: Peers, tmp_path: Path) -> None:
    """With a certificate it joins a cluster that speaks TLS, at the port it was told to have."""
    authority, host = Authority(tmp_path, "cluster"), "127.0.0.1"
    certificate = authority.issue("good", host, addresses=(host,))
    await cluster.start(A, flags=certificate.beam_flags(authority))
    port = free_port()
    arguments = [
        *("--certfile", str(certificate.certfile), "--keyfile", str(certificate.keyfile)),
        *("--cacertfile", str(authority.certfile), "--listen-port", f"{port}-{port}"),
        *("--crlfile", str(authority.revoke()), "--check-client-host"),
        *("--interface", host, "--json"),
    ]
    async with running(*options(cluster), *arguments) as process:
        assert (await next_event(process))["event"] == "joined"
        _, writer = await asyncio.open_connection(host, port)
        writer.close()


async def test_name_taken(cluster: Peers) -> None:
    """A name that a live node has is refused."""
    await cluster.start(A)
    status, _, err = await run(*options(cluster, A))
    assert (status, err.count("\n")) == (2, 1)
    assert "the name 'a' is already registered with EPMD" in err


async def test_epmd_out_of_reach(cluster: Peers, tmp_path: Path) -> None:
    """With no EPMD to reach, to start or to be, it names the address that it tried."""
    port = str(free_port())
    env = {"ERL_EPMD_ADDRESS": "127.0.0.1,192.0.2.1", "ERL_EPMD_PORT": port, "PATH": str(tmp_path)}
    status, _, err = await run(*options(cluster), env=env)
    assert (status, err.count("\n")) == (2, 1)
    assert f"the embedded EPMD can't listen at 192.0.2.1:{port}" in err


async def test_wrong_cookie(cluster: Peers) -> None:
    """A beacon that refuses us is an error that names the likely cause, and no cookie."""
    await cluster.start(A)
    status, _, err = await run(*options(cluster), "--cookie", "another")
    assert (status, err.count("\n")) == (2, 1)
    assert "answered 'join_failed'" in err
    assert "the cookie differs" in err
    assert "another" not in err


@pytest.mark.parametrize("payload", ["join_failed", "error"])
async def test_beacon_that_refuses(cluster: Peers, payload: str) -> None:
    """The answers that a healthy beacon gives only to nodes in trouble end the command too."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        reply = {"type": "reply", "sender": A, "payload": payload}
        writer.write(json.dumps(reply).encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", cluster.listener_port):
        status, _, err = await run(*options(cluster))
    assert (status, err.count("\n")) == (2, 1)
    assert f"answered {payload!r}" in err


async def test_reader_that_goes_away(cluster: Peers) -> None:
    """When nobody reads the output any more it ends without a traceback."""
    a = await cluster.start(A)
    async with running(*options(cluster), "--json") as process:
        assert process.stdout is not None
        await next_event(process)
        transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()
        await cluster.start(B)
        assert await asyncio.wait_for(process.wait(), LIMIT) == 0
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    await cluster.await_tracker(a, {PY: "offline"})
