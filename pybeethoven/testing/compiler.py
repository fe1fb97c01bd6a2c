"""Elixir for BEAM nodes: where it is, and how sources are compiled with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pybeethoven.testing.common import BeamError, absolute, text

_COMPILE = """
{ok, _} = application:ensure_all_started(elixir),
[Out | Sources] = [unicode:characters_to_binary(A) || A <- init:get_plain_arguments()],
Result = 'Elixir.Kernel.ParallelCompiler':compile_to_path(Sources, Out),
halt(case element(1, Result) of ok -> 0; error -> 1 end).
"""


def find_elixir_lib() -> Path:
    """Return the directory of Elixir's applications, from the `elixir` on PATH.

    Raises `BeamError` when there is none.
    """
    elixir = shutil.which("elixir")
    if elixir is None:
        raise BeamError("no elixir on PATH: install Elixir, or say where its lib directory is")
    return Path(elixir).resolve().parent.parent / "lib"


def elixir_code_paths(elixir_lib: Path | str) -> list[Path]:
    """Return the code paths that a BEAM needs to run Elixir."""
    return [Path(elixir_lib) / app / "ebin" for app in ("elixir", "logger")]


def compile_elixir(
    sources: Iterable[Path], out: Path, *, erl: str = "erl", elixir_lib: Path | str
) -> None:
    """Compile Elixir sources into `out`, with the Erlang and the Elixir given; this blocks.

    Raises `BeamError` with the compiler's output when that fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = map(os.path.abspath, elixir_code_paths(elixir_lib))
    files = map(os.path.abspath, (out, *sources))
    # `erl` loads code from its current directory, and in the caller's others may have put some.
    with tempfile.TemporaryDirectory(prefix="pybeethoven-") as directory:
        done = subprocess.run(
            [absolute(erl), "-noinput", "-pa", *paths, "-eval", _COMPILE, "-extra", *files],
            env={**os.environ, "ERL_CRASH_DUMP_SECONDS": "0"},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise BeamError(f"Elixir sources did not compile:\n{text(done.stdout)}")
