"""What all benchmarks print: a JSON line for each figure, and in the end one table."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, NamedTuple, TextIO

HEAD: Final = ("", "unit", "ours", "other", "ratio", "other is", "goal")
FIGURES: Final = range(2, 5)
"""The columns of numbers."""


class Row(NamedTuple):
    """One figure of ours beside that of another, if it has one, from the same run."""

    what: str
    unit: str
    ours: float
    other: float | None = None
    other_is: str = "BEAM"
    goal: str | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the other's figure ours is."""
        return self.ours / self.other if self.other else None


def show(*measures: Callable[[], AsyncIterator[Row]]) -> None:
    """Print on stdout a JSON line for each row, once it is measured, and on stderr their table."""
    print_table(asyncio.run(_print_lines(measures)), sys.stderr)


async def _print_lines(measures: Iterable[Callable[[], AsyncIterator[Row]]]) -> list[Row]:
    rows = []
    for measure in measures:
        async for row in measure():
            print(_line(row), flush=True)
            rows.append(row)
    return rows


def _line(row: Row) -> str:
    figures = {"ours": row.ours, "other": row.other, "ratio": row.ratio}
    fields: dict[str, str | float | None] = {"what": row.what, "unit": row.unit}
    fields |= {name: value and float(f"{value:.4g}") for name, value in figures.items()}
    fields |= {"other_is": row.other_is if row.other else None, "goal": row.goal}
    return json.dumps(fields)


def print_table(rows: Iterable[Row], file: TextIO) -> None:
    """Print a line for each row, in the columns of a Markdown table."""
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * (w - 1) + ":" if i in FIGURES else "-" * w for i, w in enumerate(widths)]
    for line in (lines[0], rules, *lines[1:]):
        cells = [
            cell.rjust(width) if index in FIGURES else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print(f"| {' | '.join(cells)} |", file=file)


def _cells(row: Row) -> tuple[str, ...]:
    start, goal = (row.what, row.unit, _figure(row.ours)), row.goal or ""
    if row.other is None or row.ratio is None:
        return (*start, "", "", "", goal)
    return (*start, _figure(row.other), f"{row.ratio:.2f}", row.other_is, goal)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
