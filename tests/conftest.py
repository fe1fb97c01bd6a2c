"""Fixtures for every test: clusters of real BEAM nodes, and a loop that is watched."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from pybeethoven.testing import Epmd, Peers
from tests.timing import UNIT

pytest_plugins = ["pybeethoven.testing.plugin"]

settings.register_profile("no deadline", deadline=None)  # on a busy machine examples are slow
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("no deadline")

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]

RANDOM_BACKOFF = (5, 10)
"""Milliseconds between two rounds in which a peer looks for a beacon, in place of 150 to 300."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the person say how tasks start, how long the model check runs, or what it plays."""
    parser.addoption("--eager-tasks", action="store_true", help="start tasks as they are created")
    group = parser.getgroup("model", "model check of pybeethoven, tests/model")
    group.addoption("--model-seconds", type=float, default=20.0, help="how long it runs (20)")
    group.addoption("--model-seed", type=int, help="play the sequence of this seed alone")
    group.addoption("--model-steps", help="play this sequence alone: 'kill a, wait 1; start a'")


ON_EACH_LOOP = ("test_interrupted_join", "test_join", "test_rejoin", "test_tls")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    """Run the coroutine tests of what has most to do with the event loop on each of them."""
    if config.getoption("--eager-tasks"):
        return {"asyncio": _eager_loop}
    if item.path.parent.name in ("net", "otp") or item.path.stem in ON_EACH_LOOP:
        return LOOPS
    return {"asyncio": asyncio.new_event_loop}


def _eager_loop() -> asyncio.AbstractEventLoop:
    if sys.version_info < (3, 12):
        raise pytest.UsageError("--eager-tasks needs Python 3.12")
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, choose the seed of this run, and don't pass on ignored signals."""
    for line in (
        "stand_in: needs the stand-in; skipped when --beethoven-ebin is given",
        "beam: needs Erlang; set automatically where a fixture does; left out by `make quick`",
        "slow: takes long by nature; left out by `make quick` and `make test`",
    ):
        config.addinivalue_line("markers", line)
    # The workers of pytest-xdist inherit it: all of a run use the same one.
    os.environ.setdefault("PYBEETHOVEN_SEED", str(secrets.randbits(32)))
    _ignore_without_passing_on(signal.SIGINT, signal.SIGHUP, everywhere=_is_worker(config))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _ignore_without_passing_on(*numbers: signal.Signals, everywhere: bool) -> None:
    """Handle the signals that are ignored, as under `nohup`, by a function that does nothing.

    A process inherits what its parent ignores, but not what its parent handles. A worker ignores
    them `everywhere`: it ends with the process that started it.
    """
    for number in numbers:
        if everywhere or signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what Beethoven itself does not do; watch the loop in each coroutine test."""
    needs_erlang = {"erl"} if shutil.which("epmd") else {"erl", "epmd"}
    for item in items:
        if UNIT != 1 and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(float(config.getini("timeout")) * UNIT))
        if config.getoption("--beethoven-ebin") and item.get_closest_marker("stand_in"):
            item.add_marker(pytest.mark.skip(reason="Beethoven 0.3.9 does not do this"))
        if isinstance(item, pytest.Function):
            if not needs_erlang.isdisjoint(item.fixturenames):
                item.add_marker("beam")
            if inspect.iscoroutinefunction(item.obj):
                item.fixturenames.insert(0, "quiet_loop")


def pytest_collection_finish() -> None:
    """Freeze the collected tests, so that the garbage collections of `quiet_loop` are short."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what has no UTF-8 form, since pytest-xdist can't send it from a worker."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded with `record_property`, and the seed to repeat the run."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")
    seed = os.environ["PYBEETHOVEN_SEED"]
    terminalreporter.write_line(f"random terms and match specs: PYBEETHOVEN_SEED={seed}")


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
        random_backoff=RANDOM_BACKOFF,
    ) as peers:
        yield peers
