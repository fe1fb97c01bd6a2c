"""A cluster in which things fail.

    async with Cluster() as cluster:
        a = await cluster.start("a@127.0.0.1")
        b = await cluster.start("b@127.0.0.2")
        os.environ.update(cluster.env)
        async with Beethoven(**cluster.settings("py@127.0.0.4")) as beethoven:
            cluster.isolate("b@127.0.0.2")
            await cluster.await_tracker(a, {"b@127.0.0.2": "offline"})
            cluster.heal()

Each node, of a BEAM or of Python, has a host of its own, an address of the loopback. What a fault
does to a connection is told in `pybeethoven.testing.network`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self, TypedDict

from pybeethoven.testing.beam import BeamNode
from pybeethoven.testing.network import Network
from pybeethoven.testing.peers import Peers
from pybeethoven.testing.ports import free_port

TICKTIME: Final = 2
"""Seconds; OTP's own default of 60 would have each test of a cut wait that long."""

_LEAVE_MNESIA: Final = ":stopped = :mnesia.stop()"
_HAD_BEETHOVEN: Final = "Application.get_env(:beethoven, :listener_port) != nil"


class Settings(TypedDict):
    """What `pybeethoven.Beethoven` has to be told to be in the cluster."""

    name: str
    cookie: str
    cluster_net: str
    listener_port: int
    net_ticktime: float


class Cluster(Peers):
    """Peers whose connections, processes, Mnesia and EPMD can be made to fail.

    `net_ticktime`: whole seconds of silence after which a node calls another one down (it takes
    from 3/4 to 5/4 of it); on all nodes, and the time that a BEAM gives a handshake, too. The other
    parameters are those of `Peers`. With `beethoven_ebin` the nodes share a beacon port, and
    beacons are not cut off.

    Raises `BeamError` on entry when there is no Erlang or Elixir. When left, also by an error or
    when cancelled, no process, connection or listening port stays, whatever state they are in.
    """

    def __init__(
        self, *, net_ticktime: int = TICKTIME, flags: Sequence[str] = (), **peers: Any
    ) -> None:
        self.net_ticktime = net_ticktime
        times = ("net_ticktime", "net_setuptime")
        kernel = [arg for time in times for arg in ("-kernel", time, str(net_ticktime))]
        super().__init__(flags=[*kernel, *flags], **peers)
        hosts = [str(host) for host in ipaddress.IPv4Network(self.cluster_net).hosts()]
        self._network = Network(hosts, port=free_port("0.0.0.0"), epmd_port=self.epmd.port)
        self._listener_ports: dict[str, int] = {}

    @property
    def env(self) -> dict[str, str]:
        """What a node needs in its environment to be in this cluster, and to suffer its faults."""
        return {"ERL_EPMD_PORT": str(self._network.port)}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            self._network.open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            await self._network.close()

    def settings(self, name: str) -> Settings:
        """The parameters of a `pybeethoven.Beethoven` of this name. It needs `env`, too, which the
        fixture `beam_cluster` has set."""
        return {
            "name": name,
            "cookie": self.cookie,
            "cluster_net": self.cluster_net,
            "listener_port": self.listener_port_of(name),
            "net_ticktime": float(self.net_ticktime),
        }

    def light(self, name: str) -> None:
        """The beacon of a Python node is up: from now on others that seek can find it."""
        self._network.light(name)

    def listener_port_of(self, name: str) -> int:
        """Where the node of a name seeks a beacon, and has its own."""
        if self._beethoven_ebin is not None:
            return self.listener_port
        if name not in self._listener_ports:
            self._listener_ports[name] = free_port("0.0.0.0")
            self._network.add_seeker(name, self._listener_ports[name])
        return self._listener_ports[name]

    async def _boot(self, node: BeamNode) -> None:
        await super()._boot(node)
        if self._beethoven_ebin is None:
            self.light(node.name)
            node.when_down(lambda: self._went_down(node))

    def _went_down(self, node: BeamNode) -> None:
        if self.nodes[node.name] is node:
            self._network.put_out(node.name)

    # Faults of the network

    def cut(self, one: str, other: str) -> None:
        """Cut the connections between two nodes, given by name, and those to come.

        No end is told: they find out when the tick time is over.
        """
        self._network.cut(one, other)

    def isolate(self, name: str) -> None:
        """Cut a node off from every other that runs or was given its `settings`."""
        for other in {*self.nodes, *self._listener_ports} - {name}:
            self._network.cut(name, other)

    def slow(self, one: str, other: str, seconds: float) -> None:
        """Let all that two nodes say to each other take `seconds` to arrive; 0: as fast as can be.

        An answer thus takes twice as long.
        """
        self._network.wire(one, other).delay = seconds

    def mend(self, one: str, other: str) -> None:
        """Undo `cut` between two nodes. What was sent meanwhile arrives, if both still want it."""
        self._network.mend(one, other)

    def heal(self) -> None:
        """Undo every `cut`, `isolate` and `slow`. Frozen nodes stay so."""
        self._network.heal()

    # Faults of Mnesia and EPMD

    async def stop_mnesia(self, name: str) -> None:
        """Stop Mnesia on a node; what needs it there, ends."""
        await self.nodes[name].eval(_LEAVE_MNESIA)

    async def start_mnesia(self, name: str) -> None:
        """Start Mnesia again, and Beethoven on a node that had it, which joins anew.

        Raises `BeamError` when the node is not let in.
        """
        node = self.nodes[name]
        if await node.eval(_HAD_BEETHOVEN):
            await node.eval("Application.stop(:beethoven)")
            await self._boot(node)
        else:
            await node.eval(":ok = :mnesia.start()")

    async def kill_epmd(self) -> None:
        """Kill EPMD: no node finds another, and connections stay.

        Don't start nodes of Python meanwhile: like `erl` they would start an EPMD of their own.
        """
        self._network.close_epmd()
        await self.epmd.kill()

    async def start_epmd(self) -> None:
        """Start EPMD again, on the same port and without the names that it had. Raises
        `BeamError`."""
        await self.epmd.start()
        self._network.open()
