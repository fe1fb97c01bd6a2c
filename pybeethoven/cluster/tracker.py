"""Rows of the tracker, the Mnesia table `CoreTracker`: `{CoreTracker, node, status, last_change}`.

Source: the types of the module Beethoven.CoreServer of Beethoven 0.3.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self, TypeAlias

from pybeethoven.cluster.clock import MAX_AHEAD
from pybeethoven.etf import Atom, Term
from pybeethoven.mnesia import Row

NodeStatus: TypeAlias = Atom
"""`online` or `offline`."""
ServerStatus: TypeAlias = Atom
"""`standalone` or `clustered`."""

CORE_TRACKER: Final = Atom("Elixir.CoreTracker")
ONLINE: Final[NodeStatus] = Atom("online")
OFFLINE: Final[NodeStatus] = Atom("offline")
STANDALONE: Final[ServerStatus] = Atom("standalone")
CLUSTERED: Final[ServerStatus] = Atom("clustered")

_EPOCH: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrackerRow:
    """A node of the cluster. `status`: `online` or `offline`, since `last_change`, an aware UTC
    time by the clock of the BEAM peer that wrote it. What this node has written itself, with no
    peer left, goes on from the latest time that a peer has written."""

    node: Atom
    status: NodeStatus
    last_change: datetime

    def to_record(self) -> Row:
        """The tuple that a BEAM has: `{CoreTracker, node, status, last_change}`."""
        return record(self.node, self.status, self.last_change)


@dataclass(frozen=True, slots=True)
class TrackerEvent:
    """A change of the tracker. `operation`: `write` or `delete`; `row`: the new one, None for a
    delete; `activity`: the `{tid, _, _}` or `{dirty, pid}` that Mnesia did it in."""

    operation: Atom
    row: TrackerRow | None
    old_rows: list[TrackerRow]
    activity: Term

    @classmethod
    def parse(cls, message: Term) -> Self | None:
        """What a detailed table event of the tracker says; None for any other message.

        Rows that are not of the tracker's shape are left out.
        """
        match message:
            case ("mnesia_table_event", (op, "Elixir.CoreTracker", tuple(row), list(old), by)):
                return cls(op, next(iter(tracker_rows([row])), None), tracker_rows(old), by)
        return None


NodeUpdate = TrackerRow
"""A node that has come or gone: its row as it is now."""


def is_tracker_row(row: Term) -> bool:
    """Whether a row has the shape of the tracker's; anybody can write others into the table."""
    return type(row) is tuple and len(row) == 4 and type(row[1]) is Atom and type(row[2]) is Atom


def tracker_rows(rows: Iterable[Row]) -> list[TrackerRow]:
    """Those of the rows that are the tracker's, with names."""
    return [TrackerRow(r[1], r[2], to_datetime(r[3])) for r in rows if is_tracker_row(r)]


def record(node: str, status: Atom, last_change: datetime) -> Row:
    """A row as Mnesia has it."""
    return (CORE_TRACKER, Atom(node), status, from_datetime(last_change))


def last_change(row: Row) -> datetime:
    """The sort key that puts rows in the order in which they changed; see `MAX_AHEAD`."""
    time = to_datetime(row[3]) if is_tracker_row(row) else _EPOCH
    return time if time - datetime.now(UTC) < MAX_AHEAD else _EPOCH


def is_newer(row: Row, than: Row) -> bool:
    """Which of two rows of a node counts, where no Mnesia decides: the one that was written later.
    A row does not tell who wrote it; of two that were written in the same microsecond it is the
    one that says `online`, since only the node itself is sure of that."""
    return (last_change(row), row[2]) > (last_change(than), than[2])


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
