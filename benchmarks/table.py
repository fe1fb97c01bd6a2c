"""The table that all benchmarks are printed in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """One figure of ours beside that of another, from the same run; 0 if it has none."""

    what: str
    unit: str
    ours: float
    other: float
    other_name: str = "BEAM"


def print_table(rows: Iterable[Row]) -> None:
    """Print a line for each row, in columns."""
    head = ("", "unit", "ours", "other", "ratio", "other is")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        words = [
            cell.rjust(width) if index in (2, 3, 4) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(words).rstrip(), flush=True)


def _cells(row: Row) -> tuple[str, ...]:
    if not row.other:
        return (row.what, row.unit, _figure(row.ours), "", "", "")
    figures = (_figure(row.ours), _figure(row.other), f"{row.ours / row.other:.2f}")
    return (row.what, row.unit, *figures, row.other_name)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
