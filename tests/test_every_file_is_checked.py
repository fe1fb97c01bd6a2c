"""Every Python file that git holds is tested, linted and typed: no tool skips one by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mypy.main import process_options

ROOT = Path(__file__).parents[1]


def output_of(*command: str) -> list[str]:
    """The lines that a command prints in the root of the repository."""
    env = {**os.environ, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def python_files() -> set[str]:
    """The Python files that git holds or would add."""
    files = output_of("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py")
    return {file for file in files if (ROOT / file).exists()}


def relative(paths: list[str]) -> set[str]:
    """Paths from the root of the repository."""
    return {(ROOT / path).relative_to(ROOT).as_posix() for path in paths}


def test_pytest_collects_every_test_file() -> None:
    """A plain run of pytest collects each file called `test_*.py`."""
    collected = output_of(sys.executable, "-m", "pytest", "--collect-only", "-q")
    files = {line.partition("::")[0] for line in collected if "::" in line}
    assert files == {file for file in python_files() if Path(file).name.startswith("test_")}


def test_ruff_checks_every_file() -> None:
    """ruff looks at each Python file."""
    shown = output_of(sys.executable, "-m", "ruff", "check", "--show-files")
    assert {file for file in relative(shown) if file.endswith(".py")} == python_files()


def test_mypy_reads_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy looks at each Python file."""
    monkeypatch.chdir(ROOT)
    sources, _ = process_options([])
    assert relative([source.path or "" for source in sources]) == python_files()
