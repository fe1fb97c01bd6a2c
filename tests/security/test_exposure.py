"""What a peer with the cookie gets to see of a process, and what its calls leave in the log."""

from __future__ import annotations

import logging

import pytest

from pybeethoven import Atom, GenServer, Node, Term
from pybeethoven.mnesia import TableServer
from pybeethoven.otp.gen_server import SYSTEM
from pybeethoven.otp.spawned import EXECUTE_CAST, Spawned
from pybeethoven.testing import Epmd
from tests.helpers import Recorder, atoms, soon

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


@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        (*atoms("m", "add"), [1]),
        (*atoms("m", "add"), [1, 2, 3]),
        (*atoms("mnesia", "table_info"), [1]),
        (*atoms("mnesia", "dirty_read"), []),
    ],
)
async def test_a_wrong_number_of_arguments_is_undef(
    epmd: Epmd,
    module: Atom,
    function: Atom,
    arguments: list[Term],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is logged, as it is no fault of this node."""
    async with Node(PY, "cookie") as py:
        await py.start(TableServer([]))
        py.export("m", lambda x, y: x + y, name="add")
        for process in (
            Spawned((module, function), arguments),
            Spawned(EXECUTE_CAST, [module, function, arguments]),
        ):
            py.spawn(process)
            assert await soon(process.wait_end())
            assert process.exit_reason[0] == "undef"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
