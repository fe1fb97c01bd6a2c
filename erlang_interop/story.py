"""Tells what happens in a demo."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Story:
    """Tells what happens, with the seconds since the start."""

    began: float = field(default_factory=time.perf_counter)

    def tell(self, text: str) -> None:
        """Print a line."""
        print(f"{time.perf_counter() - self.began:6.2f} s  {text}", flush=True)
