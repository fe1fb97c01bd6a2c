"""Fixtures for every test: clusters of real BEAM nodes, and a loop that is watched."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pybeethoven.testing import Epmd, Peers

pytest_plugins = ["pybeethoven.testing.plugin"]

settings.register_profile("no deadline", deadline=None)  # on a busy machine examples are slow
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the person say how long the model check runs, or what it plays."""
    group = parser.getgroup("model", "model check of pybeethoven, tests/model")
    group.addoption("--model-seconds", type=float, default=20.0, help="how long it runs (20)")
    group.addoption("--model-seed", type=int, help="play the sequence of this seed alone")
    group.addoption("--model-steps", help="play this sequence alone: 'kill a, wait 1; start a'")


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what has no UTF-8 form, since pytest-xdist can't send it from a worker."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


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
