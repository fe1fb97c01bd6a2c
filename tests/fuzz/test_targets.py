"""The fuzz targets: their corpus, mutations of it, and a short run of atheris."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import corpus, targets
from fuzz.mutation import mutations

TREE = Path(corpus.__file__).parent.parent
SEEDS = [(target, name) for target in targets.TARGETS for name in corpus.read(target)]
RUNS = {"decoder": 10_000, "framing": 5_000, "handshake": 5_000, "epmd": 5_000}

each_target = pytest.mark.parametrize("target", targets.TARGETS)


@pytest.mark.parametrize(("target", "name"), SEEDS)
def test_seed_has_no_finding(target: str, name: str) -> None:
    """The checked-in corpus passes."""
    targets.TARGETS[target](corpus.read(target)[name])


@each_target
def test_mutations_have_no_finding(target: str) -> None:
    """2,000 mutations of the corpus, the same in each run, pass."""
    for data in mutations(list(corpus.read(target).values()), 2_000, seed=4):
        targets.TARGETS[target](data)


@pytest.mark.slow
@each_target
def test_short_run_has_no_finding(target: str, tmp_path: Path) -> None:
    """As many inputs as `RUNS` says, chosen by coverage, pass."""
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "fuzz.run", target, str(tmp_path), "-seed=4"]
    done = subprocess.run(
        [*command, f"-runs={RUNS[target]}", "-verbosity=1"],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"Done {RUNS[target]} runs" in done.stdout


@each_target
def test_other_exception_is_a_finding(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not documented comes out of a target."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise KeyError

    for name in ("decode", "MessageReader", "_new_handshake", "pieces"):
        monkeypatch.setattr(targets, name, fail)
    with pytest.raises(KeyError):
        targets.TARGETS[target](b"\0\0")
