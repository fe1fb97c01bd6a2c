"""All benchmarks, in one table: `make bench`. Nothing is asserted."""

from __future__ import annotations

import asyncio

from benchmarks import codec, messages, mirror
from benchmarks.table import print_table

print_table([*codec.measure(), *asyncio.run(messages.measure()), *asyncio.run(mirror.measure())])
