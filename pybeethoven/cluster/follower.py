"""What `use Beethoven.CoreServer` gives an Elixir module: a GenServer that hears of nodes.

Source: `__using__/1` of the module Beethoven.CoreServer of Beethoven 0.3.9.
"""

from __future__ import annotations

from typing import Final

from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.cluster.tracker import NodeStatus
from pybeethoven.etf import Atom, Term
from pybeethoven.otp import GenServer
from pybeethoven.otp.gen_server import GEN_CAST

ALERT_ME: Final = Atom("alert_me")


class Follower(GenServer):
    """Base class of a GenServer that can ask to be alerted: what `use Beethoven.CoreServer` gives.

    class Billing(Follower):
        async def init(self):
            await self.alert_me()

        async def node_update(self, node, status):
            ...
    """

    async def alert_me(self) -> None:
        """Have the CoreServer of this node alert this process; see `CoreServer.alert_me`.

        Raises `NoProcess` when the node has no CoreServer.
        """
        self.node.send(CORE_SERVER, (GEN_CAST, (ALERT_ME, self.pid)))

    async def node_update(self, node: Atom, status: NodeStatus) -> None:
        """Called when another node has come or gone. Unless overridden, nothing is done."""

    async def handle_cast(self, message: Term) -> None:
        """Hand an alert to `node_update`; whoever overrides this calls it for the rest."""
        match message:
            case tuple(("node_update", tuple((Atom() as node, Atom() as status)))):
                await self.node_update(node, status)
            case _:
                await super().handle_cast(message)
