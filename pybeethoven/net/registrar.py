"""Keeps a node's name registered with EPMD, and is that EPMD where there is no other.

Who has EPMD: one that runs is used. If none does, an installed `epmd` is started, once, as `erl`
does. If there is none either, or the embedded one was asked for, this process becomes the EPMD of
its host, for as long as the node runs. Of two that try, one gets the port, and the other uses it.
When EPMD goes, every node that it had registers anew, so that the embedded one passes from node to
node as they stop.

A node keeps the creation of its first registration: its pids have it. Source:
`handle_info(reconnect, ...)` in
https://github.com/erlang/otp/blob/OTP-25.2.3/lib/kernel/src/erl_epmd.erl
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import shutil
from typing import Literal, TypeAlias

from pybeethoven.errors import BeethovenError, EpmdError, EpmdUnreachable, NameTaken
from pybeethoven.net import epmd
from pybeethoven.net.epmd_server import LOOPBACK_NET, EpmdServer

logger = logging.getLogger(__name__)

EpmdSetting: TypeAlias = bool | Literal["embedded"]
"""Whether to register with EPMD; `embedded`: be it if none runs, even if `epmd` is installed."""

FIRST_INTERVAL = 0.25
LAST_INTERVAL = 10.0
"""Seconds between two attempts to register anew: each time twice as many, from first to last. They
begin with the first again once a registration has lasted as long as the last."""


class Registrar:
    """The registration of the node `alive_name`.

    `hidden`: as what EPMD has the node. `embedded`: be the EPMD if none runs, even if `epmd` is
    installed.
    """

    def __init__(self, alive_name: str, *, hidden: bool, embedded: bool) -> None:
        self._alive_name = alive_name
        self._hidden = hidden
        self._embedded = embedded
        self._address = ""
        self._port = 0
        self._registration: epmd.Registration | None = None
        self._server: EpmdServer | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._interval = FIRST_INTERVAL

    async def start(self, address: str, port: int) -> int:
        """Register the node that listens there; give its creation.

        Raises `EpmdUnreachable`, `NameTaken`, `EpmdError` or `ConfigError`; then, or when
        cancelled, `stop` is still due.
        """
        self._address, self._port = address, port
        self._registration = await self._register(may_run_epmd=True)
        self._keeper = asyncio.create_task(
            self._keep(), name=f"keep {self._alive_name}", context=contextvars.Context()
        )
        return self._registration.creation

    async def stop(self) -> None:
        """Give the name back, and be EPMD no more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._registration is not None:
            await self._registration.close()
        if self._server is not None:
            await self._server.stop()
        self._keeper = self._registration = self._server = None

    async def _register(self, *, may_run_epmd: bool) -> epmd.Registration:
        ipv6 = ":" in self._address and self._address != "::"
        try:
            return await epmd.register(
                self._alive_name,
                self._port,
                hidden=self._hidden,
                ipv6=ipv6,
                start=self._start_epmd if may_run_epmd else self._serve,
            )
        except NameTaken:
            if await epmd.look_up(self._alive_name, epmd.local_epmd_host(ipv6=ipv6)) is not None:
                raise
            raise EpmdError(
                f"EPMD refuses the name {self._alive_name!r}, which no node has: it may be full"
            ) from None

    async def _start_epmd(self) -> None:
        if self._embedded or shutil.which("epmd") is None:
            await self._serve()
        else:
            await epmd.start_daemon()

    async def _serve(self) -> None:
        if not self._embedded and shutil.which("epmd") is not None:
            raise EpmdUnreachable("epmd is installed, and whoever stopped it may start it again")
        ours = LOOPBACK_NET if self._address.startswith("127.") else self._address
        server = EpmdServer(epmd.epmd_port(), epmd.epmd_addresses() or [ours], self._address)
        if await server.start():
            self._server = server

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            assert self._registration is not None
            since = clock()
            await self._registration.lost()
            await self._registration.close()
            if clock() - since >= LAST_INTERVAL:
                self._interval = FIRST_INTERVAL
            logger.warning(
                "EPMD has gone or dropped %r: connections stay, but no other node finds this one "
                "until it is registered anew",
                self._alive_name,
            )
            self._registration = await self._register_anew()
            logger.info("%r is registered with EPMD again", self._alive_name)

    async def _register_anew(self) -> epmd.Registration:
        said = ""
        while True:
            await asyncio.sleep(self._interval)
            self._interval = min(2 * self._interval, LAST_INTERVAL)
            try:
                return await self._register(may_run_epmd=False)
            except BeethovenError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("%r is not registered, trying on: %s", self._alive_name, said)
