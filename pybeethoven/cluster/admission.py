"""Who adds a node to the cluster, and when.

A BEAM leads as soon as it has the tracker, and adds each further node, so that the Mnesia of
another BEAM is merged with its own. Two that had begun each for itself could never be merged. So in
a cluster of Python nodes alone the first of them lets in one BEAM, when it knows that there is no
other cluster, and the next ones have to wait until that one leads.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from pybeethoven.cluster.add_node import ADD_NODE, add_node
from pybeethoven.cluster.distr_server import CORE_SERVER
from pybeethoven.errors import (
    BeethovenError,
    CallTimeout,
    MirrorError,
    NoConnection,
    ProcessExit,
    RpcError,
    brief,
)
from pybeethoven.etf import Atom
from pybeethoven.mnesia import Mirror
from pybeethoven.otp import Node

logger = logging.getLogger(__name__)

ADMISSION_TIME: Final = 60.0
"""Seconds that a node has to be added; a BEAM may have to wait until another one leads."""
ASK_TIME: Final = 5.0
"""Seconds that a node has to say whether it runs Mnesia."""
PAUSE: Final = 0.1
"""Seconds before a node is asked again that could not be, or not yet, and how many times."""
MERGE_LOOKS: Final = 10


class Cluster(Protocol):
    """What is known of the cluster (see `Standing`)."""

    mirror: Mirror

    @property
    def node(self) -> Node:
        """Our node."""

    def peers(self) -> list[str]:
        """The nodes that may be the mirror's source, the preferred one first."""

    def beams(self) -> set[str]:
        """The connected online nodes that lead, or are about to."""

    def first(self) -> str:
        """The node that lets BEAMs in where none leads."""

    def has_looked(self) -> bool:
        """Whether there is no other cluster in the network."""

    def add_here(self, name: str) -> None:
        """Have the node online in our tracker."""


class Admission:
    """Adds nodes to the cluster that we are in."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._change = asyncio.Event()

    def changed(self) -> None:
        """What is known of the cluster has changed."""
        self._change.set()
        self._change = asyncio.Event()

    async def add(self, name: Atom) -> None:
        """Add a node; see `CoreServer.new_node`."""
        try:
            async with asyncio.timeout(ADMISSION_TIME) as limit:
                while not await self._try(name):
                    pass
        except TimeoutError as error:
            if not limit.expired():  # it is the node that did not answer
                raise
            raise CallTimeout(
                f"{name} was not added within {ADMISSION_TIME:g} seconds: {self._obstacle(name)}"
            ) from error

    async def _try(self, name: Atom) -> bool:
        cluster, change = self._cluster, self._change
        if cluster.mirror.source is not None:
            return await self._add_by_beam(name)
        leads = name != cluster.node.name and await self._runs_mnesia(name)
        if cluster.mirror.source is not None:
            return False
        if not leads:
            cluster.add_here(name)
            return True
        if cluster.first() != cluster.node.name:
            return await self._add_by_first(cluster.first(), name)
        if cluster.beams() - {name} or not cluster.has_looked():
            logger.debug("%s waits to be added: %s", name, self._obstacle(name))
            await change.wait()
            return False
        cluster.add_here(name)
        return True

    async def _runs_mnesia(self, name: Atom) -> bool:
        """Whether a node is a BEAM that is going to lead, or to share Mnesia with who leads."""
        args = [Atom("is_running")]
        try:
            answer = await self._cluster.node.rpc(name, "mnesia", "system_info", args, ASK_TIME)
        except RpcError:
            return False
        return answer in ("yes", "starting")

    async def _add_by_beam(self, name: Atom) -> bool:
        cluster = self._cluster
        try:
            await add_node(cluster.node, cluster.peers, name)
            await cluster.mirror.catch_up()
            await self._check_merged(name)
        except BeethovenError:
            if cluster.mirror.source is not None:
                raise
            return False
        return True

    async def _check_merged(self, name: Atom) -> None:
        try:
            runs = await self._runs_mnesia(name)
        except (NoConnection, CallTimeout):
            return
        if not runs:
            return
        args = [Atom("running_db_nodes")]
        for _ in range(MERGE_LOOKS):
            source = self._cluster.mirror.source or ""
            if name in await self._cluster.node.rpc(source, "mnesia", "system_info", args):
                return
            await asyncio.sleep(PAUSE)
        raise MirrorError(
            f"the Mnesia of {name} and that of {source} were not merged; has {name} had tables of "
            "its own already? Then restart it"
        )

    async def _add_by_first(self, first: str, name: Atom) -> bool:
        try:
            answer = await self._cluster.node.call((CORE_SERVER, first), (ADD_NODE, name), None)
        except (NoConnection, ProcessExit):
            await asyncio.sleep(PAUSE)
            return False
        if answer != "ok":
            raise MirrorError(f"{first} did not add {name}: it answered {brief(answer)}")
        return True

    def _obstacle(self, name: Atom) -> str:
        if others := sorted(self._cluster.beams() - {name}):
            return f"{others[0]} is to lead the cluster, but does not offer the tracker"
        if not self._cluster.has_looked():
            return "still looking for other clusters"
        return f"{self._cluster.mirror.source or self._cluster.first()} did not answer"
