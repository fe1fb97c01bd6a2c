"""A GenServer that the node itself needs: nothing that a peer sends ends or suspends it."""

from __future__ import annotations

import logging

from pybeethoven.errors import brief
from pybeethoven.etf import Term
from pybeethoven.otp import sys
from pybeethoven.otp.gen_server import From, GenServer

logger = logging.getLogger(__name__)


class SystemServer(GenServer):
    """Base class of `net_kernel` and `rex`. It ends with its node alone: exit signals have no
    effect on it, a message that it fails at is dropped and logged, and `sys` can't stop it."""

    async def _run_next(self) -> None:
        try:
            await super()._run_next()
        except Exception as error:
            name = type(self).__name__
            logger.warning("%s of %s dropped a message: %s", name, self.node.name, brief(error))

    def _process_system(self, from_: From, request: Term) -> None:
        match request:
            case "suspend" | tuple(("terminate", _)):
                self.node.reply(from_, (sys.ERROR, sys.NOTSUP))
            case _:
                super()._process_system(from_, request)
