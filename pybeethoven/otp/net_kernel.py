"""The process that `Node.ping`, `net_adm:ping/1` and others ask whether this node is alive."""

from __future__ import annotations

from typing import Final

from pybeethoven.etf import Atom, Term
from pybeethoven.otp.gen_server import From
from pybeethoven.otp.system_server import SystemServer

NAME: Final = Atom("net_kernel")


class NetKernel(SystemServer):
    """Answers `{is_auth, Node}` with `yes`, and anything else with `{error, notsup}`."""

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Source: OTP's net_kernel, `handle_call({is_auth, _Node}, ...)`."""
        match request:
            case (Atom("is_auth"), _):
                return Atom("yes")
            case _:
                return (Atom("error"), Atom("notsup"))

    async def handle_cast(self, message: Term) -> None:
        """Ignore it, as a BEAM's does."""

    async def handle_info(self, message: Term) -> None:
        """Ignore it, as a BEAM's does."""
