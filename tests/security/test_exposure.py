"""What a peer with the cookie gets to see of a process."""

from __future__ import annotations

import pytest

from pybeethoven import GenServer, Node, Term
from pybeethoven.otp.gen_server import SYSTEM
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms

PY, B = "py@127.0.0.1", "b@127.0.0.1"


class Vault(GenServer):
    """A service with a secret, like the password of a database."""

    def __init__(self) -> None:
        self.password = b"hunter2"


@pytest.mark.parametrize("request_", atoms("get_state", "get_status"))
async def test_attributes_are_not_shown(epmd: Epmd, request_: Term) -> None:
    """`sys` tells the name of the class, unless that defines `format_state`."""
    async with Node(PY, "cookie") as py, Node(B, "cookie") as b:
        await py.start(Vault(), name="vault")
        asker = Recorder()
        b.spawn(asker)
        b.send(("vault", PY), (SYSTEM, (asker.pid, 1), request_))
        shown = repr(await asker.next())
        assert "Vault" in shown
        assert "hunter2" not in shown
