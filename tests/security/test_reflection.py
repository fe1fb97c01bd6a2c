"""A challenge that this node has given is not answered by this node: that would be the answer which
a peer without the cookie lacks.

Source: the handshake of https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html, in which the
side that has dialled answers first, whatever the challenge.
"""

from __future__ import annotations

import asyncio

import pytest

from pybeethoven import NoConnection, Node
from pybeethoven.distribution import handshake_messages as messages
from pybeethoven.distribution.handshake import Handshake
from pybeethoven.net.epmd import look_up
from pybeethoven.testing import Epmd
from tests.helpers import soon
from tests.net.peers import HOST, A, B, identity, impostor, open_to, talk

EVIL = f"evil@{HOST}"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def receive(stream: Stream) -> bytes:
    """The next message of a handshake."""
    return await stream[0].readexactly(int.from_bytes(await stream[0].readexactly(2)))


def send(stream: Stream, *parts: bytes) -> None:
    """Send messages of a handshake."""
    stream[1].writelines(len(part).to_bytes(2) + part for part in parts)


async def challenge_of(stream: Stream, alive_name: str) -> int:
    """Begin a handshake under a name, and give the challenge that comes."""
    send(stream, messages.build_name(identity(alive_name)))
    assert await receive(stream) == b"sok"
    return messages.parse_challenge(await receive(stream))[1]


async def nothing_comes(stream: Stream) -> None:
    """Check that the node ends a connection and sends nothing more."""
    try:
        assert await soon(stream[0].read()) == b""
    except ConnectionResetError:
        pass
    finally:
        stream[1].close()


async def challenge_with(stream: Stream, alive_name: str, challenge: int) -> None:
    """Take the name of the node that has dialled, and give it a challenge."""
    await receive(stream)
    send(stream, b"sok", messages.build_challenge(identity(alive_name), challenge))


async def test_challenge_of_an_acceptor_is_not_answered_by_an_initiator(
    epmd: Epmd, caplog: pytest.LogCaptureFixture
) -> None:
    """Both connections end, with a warning that names both peers."""
    ended = asyncio.Event()

    async def reflect(*dialled: *Stream) -> None:
        accepted = await open_to("a")
        await challenge_with(dialled, "b", await challenge_of(accepted, "evil"))
        await nothing_comes(dialled)
        await nothing_comes(accepted)
        ended.set()

    async with impostor(reflect), Node(A, "cookie") as node:
        with pytest.raises(NoConnection, match=f"had given to {EVIL}"):
            await soon(node.connect(B))
        await soon(ended.wait())
        assert node.nodes() == []
        assert node.info().handshakes == 0
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert B in warning.getMessage()
    assert EVIL in warning.getMessage()


async def test_challenge_of_an_initiator_is_not_answered_by_another(epmd: Epmd) -> None:
    """Nothing has to connect to the node: it may be made to dial twice."""
    given: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    ended: asyncio.Queue[None] = asyncio.Queue()

    async def reflect(*dialled: *Stream) -> None:
        if given.done():
            await challenge_with(dialled, "evil", given.result())
        else:
            await challenge_with(dialled, "b", 1)
            given.set_result(messages.parse_reply(await receive(dialled))[0])
        await nothing_comes(dialled)
        ended.put_nowait(None)

    async with impostor(reflect), Node(A, "cookie") as node:
        port = await look_up("b", HOST)
        assert port is not None
        first = asyncio.create_task(node.connect(B))
        await soon(given)
        for dial in (node.connect(EVIL, (HOST, port)), first):
            with pytest.raises(NoConnection, match=f"had given to {B}"):
                await soon(dial)
            await soon(ended.get())


async def test_challenge_of_an_initiator_is_not_answered_by_an_acceptor(epmd: Epmd) -> None:
    """Not even when the first answer is right, as it is when it was got from another node."""
    ended = asyncio.Event()

    async def reflect(*dialled: *Stream) -> None:
        await challenge_with(dialled, "b", 1)
        challenge, _ = messages.parse_reply(await receive(dialled))
        accepted = await open_to("a")
        own = await challenge_of(accepted, "evil")
        send(accepted, messages.build_reply(challenge, messages.digest("cookie", own)))
        await nothing_comes(dialled)
        await nothing_comes(accepted)
        ended.set()

    async with impostor(reflect), Node(A, "cookie") as node:
        with pytest.raises(NoConnection, match=f"had given to {B}"):
            await soon(node.connect(B))
        await soon(ended.wait())
        assert node.nodes() == []


async def test_challenge_of_a_handshake_that_is_over_is_answered(epmd: Epmd) -> None:
    """By chance two honest nodes may give the same one, each at its time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(Handshake.acceptor(identity("b"), "cookie", challenge), reader, writer)

    async with Node(A, "cookie") as node:
        events = node.connection_events()
        accepted = await open_to("a")
        challenge = await challenge_of(accepted, "evil")
        accepted[1].close()
        await soon(anext(events))
        async with impostor(serve):
            await soon(node.connect(B))
