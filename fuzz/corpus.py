"""The seeds: one file each in `corpus/TARGET`, real bytes as `seeds` recorded them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent / "corpus"


def read(target: str) -> dict[str, bytes]:
    """The seeds of a target, by name."""
    return {path.name: path.read_bytes() for path in sorted((ROOT / target).iterdir())}
