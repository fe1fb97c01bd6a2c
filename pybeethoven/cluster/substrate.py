"""The processes of a member of a cluster, under one supervisor, and the tables that it reads.

Source: the module Beethoven.Substrate of Beethoven 0.3.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pybeethoven.cluster.beacon_server import NAME as BEACON_SERVER
from pybeethoven.cluster.beacon_server import BeaconServer
from pybeethoven.cluster.core_server import CoreServer
from pybeethoven.cluster.dial_policy import DialPolicy
from pybeethoven.cluster.prover import Prover
from pybeethoven.cluster.rejoin import Backoff, Seek
from pybeethoven.cluster.tracker import STANDALONE
from pybeethoven.etf import Atom, Term
from pybeethoven.etf.order import order_key
from pybeethoven.mnesia import Mirror, Row, Table
from pybeethoven.otp import ChildSpec, Supervisor

NAME: Final = Atom("Elixir.Beethoven.Substrate")
ROLE_TRACKER: Final = Atom("Elixir.RoleTracker")
ALLOC_TRACKER: Final = Atom("Elixir.AllocTracker")


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the cluster: `count` instances are wanted, `assigned` of them have a node."""

    role: Term
    count: int
    assigned: int
    nodes: list[Atom]


def role_of(row: Row) -> Role:
    """A row of RoleTracker, `{RoleTracker, role, count, assigned, workers, last_change}`."""
    return Role(*row[1:5])


def by_score(rows: list[Row]) -> list[Row]:
    """Rows of AllocTracker, `{AllocTracker, node, score, last_change}`, the least busy first."""
    return sorted(rows, key=lambda row: order_key(row[2]))


class Substrate(Supervisor):
    """Runs the CoreServer, mirrors of the roles and of how busy the nodes are, and a beacon.

    `seek`, `backoff`: how it joins a cluster, see `rejoin`. `beacon_port`, `interface`,
    `dial_policy`, `prover`, `needs_proof`: where those who look for a cluster find us, and which of
    them are let in, see `BeaconServer`; without a port: nowhere.
    """

    def __init__(
        self,
        *,
        seek: Seek | None = None,
        backoff: Backoff | None = None,
        beacon_port: int | None = None,
        interface: str | None = None,
        dial_policy: DialPolicy | None = None,
        prover: Prover | None = None,
        needs_proof: bool = False,
    ) -> None:
        self.core_server = CoreServer(STANDALONE, seek=seek, backoff=backoff)
        self.roles = self._mirror(Table(ROLE_TRACKER, type="ordered_set"))
        self.allocations = self._mirror(Table(ALLOC_TRACKER))
        self.core_server.dependents = [self.roles, self.allocations]
        children = [
            self.core_server.as_child(),
            ChildSpec(ROLE_TRACKER, lambda: self.roles),
            ChildSpec(ALLOC_TRACKER, lambda: self.allocations),
        ]
        if beacon_port is not None:
            core = self.core_server
            beacon = BeaconServer(
                beacon_port,
                add_node=core.new_node,
                nodes=core.standing.others_online,
                interface=interface,
                dial_policy=dial_policy,
                prover=prover,
                needs_proof=needs_proof,
            )
            children.append(ChildSpec(BEACON_SERVER, lambda: beacon, name=BEACON_SERVER))
        super().__init__(children)

    def ready(self) -> bool:
        """Whether the CoreServer runs, and, if it was ever in a cluster, its tables are here."""
        core = self.core_server
        if core.node.process(core.pid) is None or not core.started.done():
            return False
        mirrors = (core.mirror, self.roles, self.allocations)
        return not core.mirror.known or all(mirror.source is not None for mirror in mirrors)

    async def terminate(self, reason: Term) -> None:
        """End the children, and with them every `updates()`; first of all the search for others,
        which would find our own beacon going."""
        self.core_server.standing.stop_looking()
        await super().terminate(reason)
        self.core_server.end_updates()

    def _mirror(self, table: Table) -> Mirror:
        return Mirror(table, peers=self.core_server.peers, required=False)
