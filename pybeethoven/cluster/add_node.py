"""Has a BEAM peer's CoreServer add a node to the cluster, whichever peer is able to.

Source: the call `{:add_node, node}` of the module Beethoven.CoreServer of Beethoven 0.3.9.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.errors import BeethovenError, MirrorError, brief
from pybeethoven.etf import Atom
from pybeethoven.otp import Node

logger = logging.getLogger(__name__)

ADD_NODE: Final = Atom("add_node")

ADD_NODE_ROUNDS: Final = 3
ADD_NODE_PAUSE: Final = 0.1
ADD_NODE_ASK_TIME: Final = 1.0
"""Peers that can are asked so many times to add a node, with so many seconds between two rounds:
0.3.9's CoreServer crashes now and then, and is back in some milliseconds. A peer has the last, in
seconds, to say whether it can."""


async def add_node(node: Node, peers: Callable[[], Sequence[str]], name: Atom) -> None:
    """Have one of `peers()` add the node `name`; the first that can, does.

    If none does, raises what the last of them did: `CallTimeout`, `ProcessExit`, `NoConnection`,
    `RpcError` or `MirrorError`. When cancelled, it may be done or not.
    """
    failure: BeethovenError = MirrorError(f"{name} was not added: no peer runs Mnesia")
    for attempt in range(1, ADD_NODE_ROUNDS + 1):
        for peer in peers():
            try:
                if await _runs_mnesia(node, peer):
                    return await _add_at(node, peer, name)
            except BeethovenError as error:
                logger.info("%s did not add %s: %s", peer, name, error)
                failure = error
        if attempt < ADD_NODE_ROUNDS:
            await asyncio.sleep(ADD_NODE_PAUSE)
    raise failure


async def _runs_mnesia(node: Node, peer: str) -> bool:
    """Whether a peer can add nodes; one that is no BEAM would only ask another."""
    asked = [Atom("is_running")]
    answer = await node.rpc(peer, "mnesia", "system_info", asked, ADD_NODE_ASK_TIME)
    return bool(answer == "yes")


async def _add_at(node: Node, peer: str, name: Atom) -> None:
    answer = await node.call((CORE_SERVER, peer), (ADD_NODE, name))
    if answer != "ok":
        raise MirrorError(f"{peer} did not add {name}: it answered {brief(answer)}")
