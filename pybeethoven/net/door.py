"""How other nodes come in: a socket that listens, and its registration with EPMD."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable

from pybeethoven.distribution.epmd_server import MIN_CREATION
from pybeethoven.errors import ConfigError
from pybeethoven.net.acceptor import ProtocolServer
from pybeethoven.net.listening import is_address, listen_address, open_listener, port_range
from pybeethoven.net.names import split_name
from pybeethoven.net.registrar import EpmdSetting, Registrar
from pybeethoven.net.sockets import MORE_DESCRIPTORS, NO_DESCRIPTORS


class Door:
    """The door of the node `name`, `alive@host`; its settings are those of `Network`."""

    def __init__(
        self,
        name: str,
        *,
        hidden: bool,
        epmd: EpmdSetting,
        listen_port: int | tuple[int, int],
        use_interface: str | None,
    ) -> None:
        self._name = name
        alive_name, self._host = split_name(name)
        if use_interface is not None and not is_address(use_interface):
            raise ConfigError(
                f"use_interface is {use_interface!r}; it must be an address of this machine, "
                f"like 10.0.0.7, or 0.0.0.0 for all"
            )
        if epmd not in (True, False, "embedded"):
            raise ConfigError(f"epmd is {epmd!r}; it must be True, False or 'embedded'")
        self._ports = port_range(listen_port)
        self._use_interface = use_interface
        self._registrar = (
            Registrar(alive_name, hidden=hidden, embedded=epmd == "embedded") if epmd else None
        )
        self._server: ProtocolServer | None = None

    async def open(self, accept: Callable[[], asyncio.BaseProtocol]) -> int:
        """Listen, and register; give the node's creation. Nobody gets in before `serve`.

        `accept`: makes the protocol of a connection. Raises `EpmdError` (`NameTaken`,
        `EpmdUnreachable`) or `ConfigError`; then, or when cancelled, `close` is still due.
        """
        address = self._use_interface or await listen_address(self._host)
        self._server = ProtocolServer(self._listen(address), accept, self._name)
        if self._registrar is None:
            return max(secrets.randbits(32), MIN_CREATION)
        return await self._registrar.start(address, self._server.port)

    def serve(self) -> None:
        """Let others in, after `open`."""
        if self._server is not None:
            self._server.start()

    async def close(self) -> None:
        """Let nobody in any more, and give the name back."""
        if self._server is not None:
            self._server.close()
        if self._registrar is not None:
            await self._registrar.stop()

    def _listen(self, address: str) -> socket.socket:
        try:
            return open_listener(address, self._ports)
        except OSError as error:
            first, last = self._ports[0], self._ports[-1]
            if error.errno == errno.EADDRINUSE:
                which = f"the port {first}" if first == last else f"each port of {first} to {last}"
                text = f"cannot listen at {address}: {which} is taken; give a free listen_port"
            elif error.errno in NO_DESCRIPTORS:
                text = f"cannot listen at {address}: {error}; {MORE_DESCRIPTORS}"
            elif self._use_interface is not None:
                text = f"cannot listen at use_interface={address!r}, port {first}: {error}"
            else:
                text = (
                    f"cannot listen on the host of {self._name!r}, port {first}: {error}; "
                    f"the host part must be an address of this machine, or use_interface given"
                )
            raise ConfigError(text) from error
