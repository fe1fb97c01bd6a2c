"""Options and fixtures for every test: which BEAM to use, and clusters of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from erlang_interop.peers import Peers, compile_peer
from pybeethoven.testing.beam import BeamError, Epmd, find_elixir_lib


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


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line(
        "markers", "stand_in: needs the stand-in; skipped when --beethoven-ebin is given"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what Beethoven itself does not do; watch the loop in each coroutine test."""
    for item in items:
        if config.getoption("--beethoven-ebin") and item.get_closest_marker("stand_in"):
            item.add_marker(pytest.mark.skip(reason="Beethoven 0.3.9 does not do this"))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "quiet_loop")


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """Fail a test during which the loop's exception handler was called."""
    calls: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: calls.append(context))
    yield
    gc.collect()
    assert not calls, f"unhandled in the event loop: {calls}"


@pytest.fixture
async def epmd(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Epmd]:
    """An EPMD of the test's own, which the nodes of this process use."""
    async with Epmd() as epmd:
        for name, value in epmd.env.items():
            monkeypatch.setenv(name, value)
        yield epmd


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
def peer_ebin(erl: str, elixir_lib: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in and control shell, each in a directory of its own."""
    out = tmp_path_factory.mktemp("peer_ebin")
    compile_peer(erl, elixir_lib, out)
    return out


@pytest.fixture
async def peers(
    erl: str, elixir_lib: Path, peer_ebin: Path, pytestconfig: pytest.Config
) -> AsyncIterator[Peers]:
    """An empty cluster, with an EPMD, a beacon port and a cookie of its own."""
    async with Peers(
        erl=erl,
        elixir_lib=elixir_lib,
        ebin=peer_ebin,
        beethoven_ebin=pytestconfig.getoption("--beethoven-ebin"),
    ) as peers:
        yield peers
