"""Feeds a target with atheris: `python -m fuzz.run TARGET DIRECTORY [LIBFUZZER_FLAG ...]`.

It starts from the checked-in corpus and what DIRECTORY has; inputs that reach new code are added
there. A finding is written there, too, as `crash-...`, and ends the run with an error: and so each
run after it, until it is mended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

from fuzz import corpus

LIMITS = ("-rss_limit_mb=1024", "-malloc_limit_mb=512", "-timeout=10", "-max_len=8192")


def main(arguments: list[str]) -> None:
    """Run until the arguments say that it is enough; does not return."""
    name, directory, *flags = arguments
    Path(directory).mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["pybeethoven.distribution", "pybeethoven.etf"]):
        from fuzz import targets
    target: Callable[[bytes], None] = targets.TARGETS[name]
    findings = f"-artifact_prefix={directory}/"
    places = (directory, str(corpus.ROOT / name))
    atheris.Setup([sys.argv[0], *LIMITS, findings, *flags, *places], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
