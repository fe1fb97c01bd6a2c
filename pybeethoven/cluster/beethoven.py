"""Beethoven: a node, joined to a cluster, and its CoreServer.

Source: the modules Beethoven, Beethoven.Locator and Beethoven.Substrate of Beethoven 0.3.9.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

from pybeethoven.cluster.core_server import CoreServer
from pybeethoven.cluster.dial_policy import DialPolicy
from pybeethoven.cluster.locator import BACKOFF, Locator, check_port, hosts_of
from pybeethoven.cluster.prover import Prover
from pybeethoven.cluster.readers import Modes
from pybeethoven.cluster.rejoin import REJOIN_INTERVAL, Backoff
from pybeethoven.cluster.substrate import NAME, Role, Substrate, by_score, role_of
from pybeethoven.cluster.tracker import CLUSTERED, ONLINE, STANDALONE, ServerStatus, TrackerRow
from pybeethoven.errors import ConfigError, JoinError, MirrorError, NotReady, brief
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.etf.order import order_key
from pybeethoven.mnesia import Mirror, Row
from pybeethoven.net.finder import Resolve
from pybeethoven.net.limits import Limits
from pybeethoven.net.names import check_host
from pybeethoven.net.network import NET_TICKTIME
from pybeethoven.net.registrar import EpmdSetting
from pybeethoven.net.tasks import create_task
from pybeethoven.net.tls import TlsOptions
from pybeethoven.otp import GenServer, Node
from pybeethoven.otp.cookie import check_cookie, read_cookie

logger = logging.getLogger(__name__)

SETTLE_TIME = 1.0
"""Seconds after which who had been looking for a beacon when ours opened has one of its own."""
READY_INTERVAL = 0.015
"""Seconds between two looks of `until_ready`."""


class Beethoven:
    """This process as a member of a Beethoven cluster. `async with` joins and leaves.

    `name`: the node's name, like `py@10.0.0.7`; peers must reach this machine at its host part.
    `cookie`: the cluster's secret, by default what `~/.erlang.cookie` holds.
    `cluster_net`, `listener_port`: where to look for a beacon, as the cluster's own nodes have them
    in `cluster_net`, `cluster_net_mask` and `listener_port`.
    `first_host`: a host that is asked for a beacon before all others; it may be outside of
    `cluster_net`.
    `on_progress(asked, all)`: called again and again while it looks, with how many hosts of the
    network were asked; in the background, too, as long as it is in no cluster.
    `hidden`: stay out of the peers' `nodes()`; a node that is not gets replicas and roles that it
    cannot hold.
    `net_ticktime` (seconds): silence after which a peer is down, best the same on all nodes.
    `epmd`, `listen_port`, `use_interface`, `resolve`: how the node registers, where it listens and
    where it dials, see `Node`.
    `rejoin_interval` (seconds): the first and the longest pause between two attempts to be in the
    cluster again, see `rejoin`.
    `beacon`: whether others find the cluster through this node, at `listener_port`. A node is let
    in if its host is the address that the request comes from, in `cluster_net` or `first_host`.
    `"proof"`: also only if it proves that it has the cookie, and this node joins only through a
    beacon that does. For clusters that Python nodes alone look for: Elixir nodes prove nothing.
    Clocks may differ by 60 seconds, and no address may be translated on the way.
    `beacon_nets`: more such networks. A request from one of them may be for any host in them or in
    `cluster_net`: for hosts behind NAT or with several addresses. Trust all hosts in them.
    `limits`: how much it bears of peers and strangers; by default `Limits()`.
    `tls`: speak TLS with all peers; the beacon and EPMD are still asked without.

    Raises `ConfigError` for a value that can't be used.
    """

    def __init__(
        self,
        name: str,
        *,
        cookie: str | None = None,
        cluster_net: str = "127.0.0.0/29",
        listener_port: int = 33000,
        first_host: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        hidden: bool = True,
        net_ticktime: float = NET_TICKTIME,
        epmd: EpmdSetting = True,
        listen_port: int | tuple[int, int] = 0,
        use_interface: str | None = None,
        resolve: Resolve | None = None,
        rejoin_interval: tuple[float, float] = REJOIN_INTERVAL,
        beacon: bool | Literal["proof"] = True,
        beacon_nets: Sequence[str] = (),
        limits: Limits | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        Backoff(rejoin_interval)  # raises for what is none
        if beacon not in (True, False, "proof"):
            raise ConfigError(f"beacon is {brief(beacon)}; it must be True, False or 'proof'")
        cookie = read_cookie() if cookie is None else check_cookie(cookie)
        self._prover = Prover(cookie)
        self._needs_proof = beacon == "proof"
        self._rejoin_interval = rejoin_interval
        self._locator = Locator(
            name,
            hosts_of(cluster_net),
            check_port(listener_port),
            backoff=lambda: random.uniform(*BACKOFF),
            first=None if first_host is None else check_host(first_host, "first_host"),
            on_progress=on_progress,
            prover=self._prover,
            needs_proof=self._needs_proof,
        )
        self.node = Node(
            name,
            cookie,
            hidden=hidden,
            net_ticktime=net_ticktime,
            epmd=epmd,
            listen_port=listen_port,
            use_interface=use_interface,
            resolve=resolve,
            limits=limits,
            tls=tls,
        )
        self._locator.connected = self.node.nodes
        self._locator.expecting = self.node.network.expecting
        self.via: str | None = None
        """The node whose beacon has let us in last; None: none has since `join`."""
        self._beacon = bool(beacon)
        self._dial_policy = DialPolicy([cluster_net], first_host, beacon_nets)
        self._use_interface = use_interface
        self._began = 0.0
        self._substrate: Substrate | None = None
        self._joining: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

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

    @property
    def core_server(self) -> CoreServer:
        """The CoreServer of this node. Raises `NotReady` before it has joined."""
        return self.substrate.core_server

    @property
    def substrate(self) -> Substrate:
        """The supervisor of this node's processes. Raises `NotReady` before it has joined."""
        if self._substrate is None:
            raise NotReady(f"{self.node.name} has not joined; await join(), or use async with")
        return self._substrate

    async def join(self) -> None:
        """Start the node, the CoreServer and the beacon, find another beacon, and join; without
        one, go on standalone: others join us then. From then on it looks by itself whenever it is
        in no cluster.

        Raises `NameTaken`, `EpmdUnreachable` or `EpmdError`; `ConfigError` if the name's host is
        not this machine; `JoinError` if no beacon lets us in; `MirrorError` if the cluster has no
        tracker; `NotReady` if it leaves meanwhile. On an error, or when cancelled, nothing stays
        behind.
        """
        if self.node.running or self._is_joining():
            raise ConfigError(f"{self.node.name} has joined already; await leave() first")
        self._joining = create_task(self._join(), f"join {self.node.name}")
        try:
            await asyncio.shield(self._joining)
        except asyncio.CancelledError:
            if self._joining.cancelled():
                raise NotReady(f"{self.node.name} left while it was joining") from None
            await self.leave()
            raise

    async def _join(self) -> None:
        try:
            await self.node.start_node()
            self._seeking = asyncio.Lock()
            self._locator.forget()
            self.via = None
            self._substrate = Substrate(
                seek=self._seek_again,
                backoff=Backoff(self._rejoin_interval),
                beacon_port=self._locator.port if self._beacon else None,
                interface=self._use_interface,
                dial_policy=self._dial_policy,
                prover=self._prover,
                needs_proof=self._needs_proof,
            )
            async with self._seeking:
                await self.node.start(self._substrate, name=NAME)
                self._began = asyncio.get_running_loop().time()
                await self._seek_first()
            self._watcher = create_task(self._watch(self._substrate), f"watch {self.node.name}")
        except BaseException:
            await self.node.stop()
            raise

    async def _seek_first(self) -> None:
        try:
            await self._locator.seek(enter=self._enter)
        except JoinError as error:
            if self.core_server.standing.members() == {self.node.name}:
                raise
            logger.warning("%s; others have joined %s meanwhile", error, self.node.name)

    async def _seek_again(self, again: bool = False) -> str | None:
        """One round of looking for a beacon that is not of our cluster: the node whose beacon lets
        us in, if one does. `again`: ask those last that have let us in without effect."""
        async with self._seeking:
            if not again:
                self._locator.forget()
            standing = self.core_server.standing
            settled = asyncio.get_running_loop().time() - self._began > SETTLE_TIME
            try:
                via = await self._locator.seek(rounds=1, known=standing.members())
            except JoinError:  # there are others, but we can't be one of them
                if settled:
                    standing.looked_around()
                raise
            if via is not None:
                self.via = via
            elif settled:
                standing.looked_around()
            return via

    async def _enter(self, via: str) -> None:
        await self.core_server.standing.enter(via)
        self.via = via

    def _is_joining(self) -> bool:
        return self._joining is not None and not self._joining.done()

    async def _watch(self, substrate: Substrate) -> None:
        """A member whose CoreServer is given up is none: leave, so that the others see it."""
        await substrate.wait_end()
        if self.node.running:
            logger.error("%s leaves the cluster: its CoreServer was given up", self.node.name)
            await self.node.stop()

    async def leave(self) -> None:
        """End all processes in order, as `Node.stop` does, and disconnect; the peers see this node
        offline at once.

        It may `join` again. A `join` under way is given up. When cancelled, leaving goes on. In a
        forked child it does nothing.
        """
        if self.node.network.in_child:
            return
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.wait({self._joining})
        await self.node.stop()
        if self._watcher is not None and not self._watcher.done():
            await asyncio.wait({self._watcher})

    async def start(self, server: GenServer, name: str | None = None) -> Pid:
        """Run a GenServer on this node, registered as `name` if one is given; see `Node.start`."""
        return await self.node.start(server, name)

    # What Elixir's module Beethoven offers

    def ready(self) -> bool:
        """Whether this node is a full member: the CoreServer runs, the cluster's tables are here.

        One that found no beacon has none to wait for. Source: `Beethoven.ready?/0`.
        """
        if self._substrate is None or self.node.process(NAME) is not self._substrate:
            return False
        return not self._is_joining() and self._substrate.ready()

    async def until_ready(self, timeout: float = 5.0) -> None:
        """Wait until `ready`, up to `timeout` seconds; then raise `NotReady`."""
        try:
            async with asyncio.timeout(timeout):
                while not self.ready():
                    await asyncio.sleep(READY_INTERVAL)
        except TimeoutError as error:
            raise NotReady(f"{self.node.name} was not ready within {timeout:g} seconds") from error

    def modes(self) -> Modes:
        """The changes of the mode from now on: `async for mode in beethoven.modes()`.

        Raises `NotReady` before it has joined. They end when the node leaves.
        """
        return self.core_server.modes()

    async def until_mode(self, mode: ServerStatus | str, timeout: float | None = 5.0) -> None:
        """Wait until the mode is `clustered` or `standalone`, up to `timeout` seconds (None: for
        ever).

        Raises `NotReady` when the time is up, or when the node leaves; `ConfigError` for another
        mode; `NoProcess` when the CoreServer has ended for good.
        """
        if mode not in (STANDALONE, CLUSTERED):
            raise ConfigError(f"the mode is {mode!r}; give 'standalone' or 'clustered'")
        modes = self.modes()
        try:
            async with asyncio.timeout(timeout):
                while self.core_server.mode != mode:
                    await anext(modes)
        except TimeoutError as error:
            raise NotReady(f"{self.node.name} was not {mode} within {timeout:g} seconds") from error
        except StopAsyncIteration:
            raise NotReady(f"{self.node.name} left before it was {mode}") from None

    async def get_node_status(self) -> ServerStatus:
        """`clustered` or `standalone`; see `CoreServer.get_mode`."""
        return await self.core_server.get_mode()

    async def get_cluster_nodes(self) -> list[Atom]:
        """Every node that has ever joined, in the order of their names."""
        return [row.node for row in await self.core_server.fetch_all()]

    async def get_active_cluster_nodes(self) -> list[Atom]:
        """Those of them that are online."""
        return [r.node for r in await self.core_server.fetch_all() if r.status == ONLINE]

    async def get_detailed_cluster_nodes(self) -> list[TrackerRow]:
        """Every node that has ever joined, with its status and since when it has it."""
        return await self.core_server.fetch_all()

    async def get_roles(self) -> list[Role]:
        """The cluster's roles, in the order of their names. Raises `MirrorError` while no connected
        peer offers them."""
        return [role_of(row) for row in _rows_of(self.substrate.roles)]

    async def whois_hosting(self, role: Term) -> list[Atom]:
        """The nodes that host a role, an atom (a `str` is taken for one); none if there is no such
        role. Errors as `get_roles`."""
        key = order_key(Atom(role) if isinstance(role, str) else role)
        return [n for r in await self.get_roles() if order_key(r.role) == key for n in r.nodes]

    async def allocation_list(self) -> list[Atom]:
        """The nodes that take work, the least busy first. Errors as `get_roles`."""
        return [row[1] for row in by_score(_rows_of(self.substrate.allocations))]

    async def allocate(self) -> Atom:
        """The least busy node; of several, any. Errors as `get_roles`, also when there is none."""
        nodes = await self.allocation_list()
        if not nodes:
            raise MirrorError("no node of the cluster takes work: AllocTracker is empty")
        return nodes[0]


def _rows_of(mirror: Mirror) -> list[Row]:
    if mirror.source is None:
        raise MirrorError(f"no connected peer offers the table {mirror.table.name}")
    return mirror.table.rows()
