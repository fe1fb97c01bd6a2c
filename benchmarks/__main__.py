"""All benchmarks: `make bench`. JSON lines on stdout, the table on stderr; nothing is asserted."""

from __future__ import annotations

from benchmarks import codec, memory, messages, mirror
from benchmarks.table import show

show(codec.measure, messages.measure, memory.measure, mirror.measure)
