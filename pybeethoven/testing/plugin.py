"""Fixtures for tests against real BEAM nodes, for pytest with pytest-asyncio.

In the `conftest.py` at the top of the tests:

    pytest_plugins = ["pybeethoven.testing.plugin"]

It is named there, not found by itself: who has pybeethoven installed and tests something else
pays nothing for it. This is the only module of pybeethoven that imports pytest.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pybeethoven.testing.cluster import Cluster
from pybeethoven.testing.common import BeamError
from pybeethoven.testing.compiler import find_elixir_lib
from pybeethoven.testing.peers import COMPILED, compile_peer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the person choose another BEAM, or a real Beethoven in place of the stand-in."""
    group = parser.getgroup("beam", "real BEAM nodes")
    group.addoption("--erl", metavar="PATH", default="erl", help="the Erlang to run peers with")
    group.addoption(
        "--elixir-lib",
        metavar="DIR",
        help="where that Erlang finds Elixir's applications (default: from PATH's elixir)",
    )
    group.addoption(
        "--beethoven-ebin",
        metavar="DIR",
        help="a compiled Beethoven to run on the peers in place of the stand-in",
    )


@pytest.fixture(scope="session")
def erl(pytestconfig: pytest.Config) -> str:
    """The path of the Erlang that peers run on."""
    wanted: str = pytestconfig.getoption("--erl")
    found = shutil.which(wanted)
    if found is None:
        pytest.fail(f"no Erlang at {wanted!r}: install it, or give --erl PATH", pytrace=False)
    return found


@pytest.fixture(scope="session")
def elixir_lib(pytestconfig: pytest.Config) -> Path:
    """The directory of Elixir's applications."""
    wanted: str | None = pytestconfig.getoption("--elixir-lib")
    try:
        return Path(wanted) if wanted else find_elixir_lib()
    except BeamError as error:
        pytest.fail(f"{error} (--elixir-lib DIR)", pytrace=False)


@pytest.fixture(scope="session")
def peer_ebin(
    erl: str,
    elixir_lib: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Path:
    """The compiled stand-in and control shell, each in a directory of its own.

    The workers of pytest-xdist share them: the first one compiles.
    """
    shared = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        shared = shared.parent
    out = shared / "peer_ebin"
    with (shared / "peer_ebin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / COMPILED).exists():
            compile_peer(erl, elixir_lib, out)
    return out


@pytest.fixture
def beam_settings() -> dict[str, Any]:
    """The parameters of the test's `Cluster`; override it for your own, such as `net_ticktime`,
    `roles` or `flags`."""
    return {}


@pytest_asyncio.fixture(loop_scope="function")
async def beam_cluster(
    erl: str,
    elixir_lib: Path,
    peer_ebin: Path,
    beam_settings: dict[str, Any],
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Cluster]:
    """A `Cluster` without nodes, whose EPMD is that of this process, too."""
    given = {
        "erl": erl,
        "elixir_lib": elixir_lib,
        "ebin": peer_ebin,
        "beethoven_ebin": pytestconfig.getoption("--beethoven-ebin"),
    }
    async with Cluster(**{**given, **beam_settings}) as cluster:
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        yield cluster
