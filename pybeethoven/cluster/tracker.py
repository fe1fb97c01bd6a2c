"""Rows of the tracker, the Mnesia table `CoreTracker`: `{CoreTracker, node, status, last_change}`.

Source: the types of the module Beethoven.CoreServer of Beethoven 0.3.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pybeethoven.etf import Atom, Term
from pybeethoven.mnesia import Row

CORE_TRACKER: Final = Atom("Elixir.CoreTracker")
ONLINE: Final = Atom("online")
OFFLINE: Final = Atom("offline")

_EPOCH: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrackerRow:
    """A node of the cluster. `status`: `online` or `offline`, since `last_change`, an aware UTC
    time by the clock of the BEAM peer that wrote it."""

    node: Atom
    status: Atom
    last_change: datetime


NodeUpdate = TrackerRow
"""A node that has come or gone: its row as it is now."""


def is_tracker_row(row: Row) -> bool:
    """Whether a row has the shape of the tracker's; anybody can write others into the table."""
    return len(row) == 4 and type(row[1]) is Atom and type(row[2]) is Atom


def tracker_row(row: Row) -> TrackerRow:
    """A row of the mirrored table with names. It must be one."""
    return TrackerRow(row[1], row[2], to_datetime(row[3]))


def record(node: str, status: Atom, last_change: datetime) -> Row:
    """A row as Mnesia has it."""
    return (CORE_TRACKER, Atom(node), status, from_datetime(last_change))


def last_change(row: Row) -> datetime:
    """The sort key that puts rows in the order in which they changed."""
    return to_datetime(row[3]) if is_tracker_row(row) else _EPOCH


def to_datetime(term: Term) -> datetime:
    """An Elixir `DateTime` in UTC as an aware `datetime`; the earliest one if it is none."""
    match term:
        case {"year": int(y), "month": int(mo), "day": int(d), "hour": int(h), "minute": int(mi),
              "second": int(s), "microsecond": (int(us), int())}:  # fmt: skip
            try:
                return datetime(y, mo, d, h, mi, min(s, 59), us, tzinfo=UTC)
            except (ValueError, OverflowError):
                return _EPOCH
    return _EPOCH


def from_datetime(time: datetime) -> Term:
    """An aware `datetime` as an Elixir `DateTime` in UTC."""
    utc = time.astimezone(UTC)
    fields = {name: getattr(utc, name) for name in ("year", "month", "day")}
    fields |= {name: getattr(utc, name) for name in ("hour", "minute", "second")}
    fields |= {"microsecond": (utc.microsecond, 6), "std_offset": 0, "utc_offset": 0}
    fields |= {"time_zone": b"Etc/UTC", "zone_abbr": b"UTC"}
    fields |= {"__struct__": Atom("Elixir.DateTime"), "calendar": Atom("Elixir.Calendar.ISO")}
    return {Atom(name): value for name, value in fields.items()}
