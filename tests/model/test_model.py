"""Whatever fails, and in whatever order: afterwards every node of Python knows what the cluster
knows, and its followers have heard of each change.

Random sequences of faults, each from a seed. A hypothesis state machine would shrink them, for
which it would run each tens of times, at seconds apiece, and what is not the same each time it
calls flaky. `--model-seed` plays one sequence again, `--model-steps` a part of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pybeethoven.testing import Cluster
from tests.model.check import Check
from tests.model.steps import State, from_text, random_rounds, to_text
from tests.model.world import View, outsiders_of

ROUNDS = 8
"""Rounds of a sequence, unless the time is over before."""


def test_text() -> None:
    """A sequence can be given as the text that was printed of it, and a seed is always the same
    one."""
    rounds = random_rounds(1, ROUNDS)
    assert from_text(to_text(rounds)) == rounds == random_rounds(1, ROUNDS)
    assert rounds != random_rounds(2, ROUNDS)


def test_all_kinds() -> None:
    """Each kind of fault is chosen now and then, and nothing that can't be."""
    kinds = {step[0] for seed in range(50) for steps in random_rounds(seed, 8) for step in steps}
    assert kinds == {*State().possible(), "thaw", "heal", "start", "join", "wait"}
    assert {"kill", "freeze", "leave"}.isdisjoint(State(up=set(), joined=set()).possible())
    assert {"start", "join"}.isdisjoint(State(up=set(), joined=set(), cut=True).possible())


def test_outsiders() -> None:
    """The majority stays; of those that see different things, the first."""
    both, alone, other = View(("a", "b"), 1), View(("c",), 1), View(("a", "b"), 2)
    assert outsiders_of({"a": both, "b": both}) == []
    assert outsiders_of({"a": alone, "b": both, "c": both}) == ["a"]
    assert outsiders_of({"a": both, "b": other, "c": None}) == ["b", "c"]
    assert outsiders_of({"a": None, "b": None}) == ["a", "b"]
    assert outsiders_of({}) == []


@pytest.mark.slow
@pytest.mark.stand_in
async def test_model(
    erl: str,
    elixir_lib: Path,
    peer_ebin: Path,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Random sequences for `--model-seconds`, or the one that is given."""

    def make_cluster() -> Cluster:
        cluster = Cluster(erl=erl, elixir_lib=elixir_lib, ebin=peer_ebin)
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        return cluster

    check = Check(make_cluster)
    try:
        await play(check, pytestconfig)
    finally:
        record_property("model check", str(check))


async def play(check: Check, config: pytest.Config) -> None:
    """Play what the options of pytest say."""
    until = time.monotonic() + config.getoption("--model-seconds")
    first = config.getoption("--model-seed")
    if text := config.getoption("--model-steps"):
        await check.run(0, from_text(text), float("inf"))
    elif first is not None:
        await check.run(first, random_rounds(first, ROUNDS), float("inf"))
    else:
        while time.monotonic() < until:
            seed = secrets.randbits(32)
            await check.run(seed, random_rounds(seed, ROUNDS), until)
