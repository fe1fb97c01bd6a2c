"""Which row counts where no Mnesia decides; what nodes do with it is in tests/interop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pybeethoven.cluster.tracker import OFFLINE, ONLINE, is_newer, record
from pybeethoven.mnesia import Row, Table

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

ROWS = st.builds(
    record,
    st.sampled_from(["a@h", "b@h"]),
    st.sampled_from([ONLINE, OFFLINE]),
    st.integers(0, 3).map(lambda passed: BEGIN + timedelta(microseconds=passed)),
)


def merged(rows: list[Row]) -> list[Row]:
    """What a node has that gets these rows one after the other."""
    table = Table("Elixir.CoreTracker", type="ordered_set")
    for row in rows:
        if not (ours := table.read(row[1])) or is_newer(row, ours[0]):
            table.write(row)
    return table.rows()


@given(rows=st.lists(ROWS).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_any_order(rows: tuple[list[Row], list[Row]]) -> None:
    """In whatever order rows come, and however often, all nodes end with the same table."""
    there, here = rows
    assert merged(there) == merged(here) == merged([*here, *there])


def test_later_counts() -> None:
    """Of two rows the later one counts, whatever it says."""
    for first, then in ((ONLINE, OFFLINE), (OFFLINE, ONLINE)):
        later = BEGIN + timedelta(microseconds=1)
        assert is_newer(record("a@h", then, later), record("a@h", first, BEGIN))
        assert not is_newer(record("a@h", first, BEGIN), record("a@h", then, later))


def test_same_moment() -> None:
    """At the same moment, `online` counts: the node itself has written it."""
    assert is_newer(record("a@h", ONLINE, BEGIN), record("a@h", OFFLINE, BEGIN))
    assert not is_newer(record("a@h", OFFLINE, BEGIN), record("a@h", ONLINE, BEGIN))
    assert not is_newer(record("a@h", ONLINE, BEGIN), record("a@h", ONLINE, BEGIN))
