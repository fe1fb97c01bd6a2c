"""The second part of `make demo`: BEAM nodes join a cluster that began with Python, and come and
go, and a Python service in their cluster reports each.

The peers are the stand-in in `pybeethoven.testing`, on real BEAMs with a real Mnesia; with
`--beethoven-ebin DIR` they are a compiled Beethoven.
"""

from __future__ import annotations

import asyncio
import os
import time

import click

from erlang_interop.story import Story
from pybeethoven import Beethoven, GenServer, Term, Updates
from pybeethoven.errors import BeethovenError
from pybeethoven.testing import BeamNode, Peers

A, B, C = "a@127.0.0.1", "b@127.0.0.1", "c@127.0.0.1"
PY = "py@127.0.0.1"
PATIENCE = 20.0
"""Seconds that a change may take to reach the service; then the demo has failed."""


class Billing(GenServer):
    """A Python service that wants to know which nodes are there."""

    def __init__(self, beethoven: Beethoven, story: Story) -> None:
        self._beethoven = beethoven
        self._story = story
        self.heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def init(self) -> None:
        """Ask to be alerted."""
        await self._beethoven.core_server.alert_me(self)

    async def handle_cast(self, message: Term) -> None:
        """Take `{node_update, {node, status}}`."""
        _, (node, status) = message
        self._story.tell(f"  billing (Python) heard: {node} {status}")
        self.heard.put_nowait((node, status))

    async def expect(self, node: str, status: str) -> None:
        """Wait until it hears of a change, which must be exactly this."""
        async with asyncio.timeout(PATIENCE):
            heard = await self.heard.get()
        if heard != (node, status):
            raise BeethovenError(f"the service heard {heard} in place of {(node, status)}")


def member(peers: Peers, *, beacon: bool) -> Beethoven:
    """The Python node; it can be a beacon when no other node of this host is."""
    return Beethoven(
        PY,
        cookie=peers.cookie,
        cluster_net=peers.cluster_net,
        listener_port=peers.listener_port,
        beacon=beacon,
    )


async def begin(peers: Peers, story: Story) -> tuple[BeamNode, BeamNode]:
    """A Python node begins the cluster, and two BEAM nodes join through it."""
    story.tell("a Python process finds no other node: the cluster begins with it")
    async with member(peers, beacon=True) as beethoven:
        story.tell("starting two BEAM nodes, a and b, each with Mnesia and a Beethoven CoreServer")
        updates = beethoven.core_server.updates()
        a = await peers.start(A)
        story.tell(f"  the Python node heard: {await _heard(updates)}")
        b = await peers.start(B)
        story.tell(f"  the Python node heard: {await _heard(updates)}")
        copies = await b.eval(":mnesia.table_info(CoreTracker, :ram_copies)")
        story.tell(f"their Mnesia has the tracker now: {', '.join(sorted(copies))}")
        story.tell(f"b's tracker: {await peers.tracker(b)}")
    story.tell(f"the Python process left: {await peers.await_tracker(a, {PY: 'offline'})}")
    return a, b


async def _heard(updates: Updates) -> str:
    async with asyncio.timeout(PATIENCE):
        update = await anext(updates)
    return f"{update.node} {update.status}"


async def show(peers: Peers, story: Story) -> None:
    """This part of the demo."""
    os.environ.update(peers.env)
    a, b = await begin(peers, story)
    story.tell("a Python process looks for their beacon")
    sought = time.perf_counter()
    async with member(peers, beacon=False) as beethoven:
        joined = time.perf_counter() - sought
        story.tell(f"joined through {beethoven.via} after {1000 * joined:.0f} ms")
        story.tell(f"a's tracker: {await peers.await_tracker(a, {PY: 'online'})}")
        billing = Billing(beethoven, story)
        await beethoven.start(billing, name="billing")

        story.tell("kill -9 b")
        killed = time.perf_counter()
        await b.kill()
        await billing.expect(B, "offline")
        story.tell(f"  that is {1000 * (time.perf_counter() - killed):.0f} ms after the kill")
        story.tell("b starts again under its old name")
        await peers.start(B)
        await billing.expect(B, "online")
        story.tell("c joins")
        await peers.start(C)
        await billing.expect(C, "online")
        story.tell("kill -9 a: the peer whose Mnesia we mirror; another takes its place")
        await a.kill()
        await billing.expect(A, "offline")
        call = f'GenServer.call({{Beethoven.CoreServer, :"{PY}"}}, :get_mode)'
        c = await peers.start("d@127.0.0.1")
        await billing.expect("d@127.0.0.1", "online")
        story.tell(f"d, an Elixir node, asks: {call} -> :{await c.eval(call)}")
    await peers.await_tracker(c, {PY: "offline"})
    story.tell("the Python process left; d's tracker has it offline. That is all.")


async def _demo(beethoven_ebin: str | None) -> None:
    story = Story()
    story.tell("compiling the Elixir side")
    async with Peers(beethoven_ebin=beethoven_ebin) as peers:
        await show(peers, story)


@click.command()
@click.option("--beethoven-ebin", metavar="DIR", help="A compiled Beethoven to use for the peers.")
def main(beethoven_ebin: str | None) -> None:
    """Show a cluster of Python and BEAM nodes, and a Python service that reports each change."""
    asyncio.run(_demo(beethoven_ebin))


if __name__ == "__main__":
    main()
