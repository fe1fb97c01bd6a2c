"""All benchmarks: `make bench`. JSON lines on stdout, the table on stderr; nothing is asserted."""

from __future__ import annotations

from benchmarks import codec, commits, hostile, memory, messages, mirror
from benchmarks.table import show

show(
    *(codec.measure, messages.measure, commits.measure, memory.measure, mirror.measure),
    hostile.measure,
)
