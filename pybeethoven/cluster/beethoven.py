"""Beethoven: a node, joined to a cluster, and its CoreServer.

Source: the modules Beethoven, Beethoven.Locator and Beethoven.Substrate of Beethoven 0.3.9.
"""

from __future__ import annotations

import random
from types import TracebackType
from typing import Self

from pybeethoven.cluster import core_server
from pybeethoven.cluster.core_server import CoreServer
from pybeethoven.cluster.locator import BACKOFF, Locator, check_port, hosts_of
from pybeethoven.etf import Pid
from pybeethoven.net.network import NET_TICKTIME
from pybeethoven.otp import GenServer, Node


class Beethoven:
    """This process as a member of a Beethoven cluster. `async with` joins and leaves.

    `name`: the node's name, like `py@10.0.0.7`; peers must reach this machine at its host part.
    `cookie`: the cluster's secret, by default what `~/.erlang.cookie` holds.
    `cluster_net`, `listener_port`: where to look for a beacon, as the cluster's own nodes have them
    in `cluster_net`, `cluster_net_mask` and `listener_port`.
    `hidden`: stay out of the peers' `nodes()`; a node that is not gets replicas and roles that it
    cannot hold.
    `net_ticktime` (seconds): silence after which a peer is down, the same on all nodes.

    Raises `ConfigError` for a value that can't be used.
    """

    def __init__(
        self,
        name: str,
        *,
        cookie: str | None = None,
        cluster_net: str = "127.0.0.0/29",
        listener_port: int = 33000,
        hidden: bool = True,
        net_ticktime: float = NET_TICKTIME,
    ) -> None:
        self._locator = Locator(
            name,
            hosts_of(cluster_net),
            check_port(listener_port),
            backoff=lambda: random.uniform(*BACKOFF),
        )
        self.node = Node(name, cookie, hidden=hidden, net_ticktime=net_ticktime)
        self.via: str | None = None
        """The node whose beacon let us in; None: standalone."""
        self.core_server: CoreServer
        """There once joined."""

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    async def join(self) -> None:
        """Start the node, find a beacon, join, and start the CoreServer; without a beacon, go on
        standalone.

        Raises `NameTaken`, `EpmdUnreachable` or `EpmdError`; `ConfigError` if the name's host is
        not this machine; `JoinError` if no beacon lets us in; `MirrorError` if the cluster has no
        tracker. On an error, or when cancelled, nothing stays behind.
        """
        try:
            await self.node.start_node()
            self.via = await self._locator.seek()
            self.core_server = CoreServer(self.via)
            await self.node.start(self.core_server, name=core_server.NAME)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """End all processes and disconnect; the peers see this node offline at once."""
        await self.node.stop()

    async def start(self, server: GenServer, name: str | None = None) -> Pid:
        """Run a GenServer on this node, registered as `name` if one is given; see `Node.start`."""
        return await self.node.start(server, name)
