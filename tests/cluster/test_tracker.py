"""Rows of the tracker and Elixir's DateTime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybeethoven import Atom, Map, Term, TrackerRow
from pybeethoven.cluster.tracker import (
    CORE_TRACKER,
    ONLINE,
    from_datetime,
    last_change,
    record,
    to_datetime,
    tracker_rows,
)
from pybeethoven.etf import decode, encode

NOW = datetime(2024, 2, 29, 23, 59, 58, 120, tzinfo=UTC)
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)

ELIXIR_NOW: Term = {
    Atom("__struct__"): Atom("Elixir.DateTime"),
    Atom("calendar"): Atom("Elixir.Calendar.ISO"),
    Atom("year"): 2024,
    Atom("month"): 2,
    Atom("day"): 29,
    Atom("hour"): 23,
    Atom("minute"): 59,
    Atom("second"): 58,
    Atom("microsecond"): (120, 6),
    Atom("std_offset"): 0,
    Atom("utc_offset"): 0,
    Atom("time_zone"): b"Etc/UTC",
    Atom("zone_abbr"): b"UTC",
}
"""`~U[2024-02-29 23:59:58.000120Z]`"""

TIMES = st.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 1, 1),
    timezones=st.integers(-23 * 60, 23 * 60).map(
        lambda minutes: timezone(timedelta(minutes=minutes))
    ),
)


def test_time_is_encoded_as_elixir_does() -> None:
    """A time is the struct that Elixir has for it, to the byte, and back."""
    assert encode(from_datetime(NOW)) == encode(from_datetime(to_datetime(ELIXIR_NOW)))
    assert from_datetime(NOW) == ELIXIR_NOW
    assert to_datetime(ELIXIR_NOW) == NOW


@given(TIMES)
def test_time_survives_the_wire(time: datetime) -> None:
    """A time of any zone comes back as UTC."""
    back = to_datetime(decode(encode(from_datetime(time))))
    assert back == time
    assert back.tzinfo is UTC


@pytest.mark.parametrize(
    "term",
    [
        ELIXIR_NOW | {Atom("year"): 0},
        ELIXIR_NOW | {Atom("year"): 10_000},
        ELIXIR_NOW | {Atom("year"): 1 << 80},
        ELIXIR_NOW | {Atom("month"): 13},
        ELIXIR_NOW | {Atom("day"): 30},
        ELIXIR_NOW | {Atom("hour"): -1},
        ELIXIR_NOW | {Atom("minute"): 60},
        ELIXIR_NOW | {Atom("second"): -1},
        ELIXIR_NOW | {Atom("second"): 5.5},
        ELIXIR_NOW | {Atom("microsecond"): (1_000_000, 6)},
        ELIXIR_NOW | {Atom("microsecond"): (1 << 80, 6)},
        ELIXIR_NOW | {Atom("microsecond"): 120},
        ELIXIR_NOW | {Atom("year"): b"2024"},
        {key: value for key, value in ELIXIR_NOW.items() if key != "day"},
        Map([([], 1)]),
        {},
        (2024, 2, 29),
        Atom("undefined"),
        None,
        17,
    ],
)
def test_malformed_time_is_the_earliest(term: Term) -> None:
    """A malformed time counts as the earliest, so that it sorts before all others."""
    assert to_datetime(term) == EARLIEST


def test_leap_second_becomes_second_59() -> None:
    """Elixir has second 60, Python does not."""
    assert to_datetime(ELIXIR_NOW | {Atom("second"): 60}) == NOW.replace(second=59)


def test_rows_of_the_tracker() -> None:
    """A record has the table's name in front, and its columns by name when read."""
    row = record("a@127.0.0.1", ONLINE, NOW)
    assert row == (CORE_TRACKER, Atom("a@127.0.0.1"), Atom("online"), ELIXIR_NOW)
    strange: list[Term] = [row, (1, 2), 3]
    assert tracker_rows(strange) == [TrackerRow(Atom("a@127.0.0.1"), ONLINE, NOW)]
    assert tracker_rows([row])[0].to_record() == row
    assert last_change(row) == NOW
