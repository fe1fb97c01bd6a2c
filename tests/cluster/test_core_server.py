"""Which changes of the tracker alert followers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pybeethoven import Atom, Term, TrackerEvent
from pybeethoven.cluster.core_server import mnesia_notify
from pybeethoven.cluster.tracker import CORE_TRACKER, OFFLINE, ONLINE
from pybeethoven.mnesia import EVENT

PEER, OWN = Atom("a@127.0.0.1"), Atom("py@127.0.0.1")
NOW = datetime.now(UTC)


def event(operation: str, row: Term, old_status: Atom | None) -> TrackerEvent:
    """What a table event of the tracker says."""
    old = [] if old_status is None else [(CORE_TRACKER, row[1], old_status, None)]
    parsed = TrackerEvent.parse((EVENT, (Atom(operation), CORE_TRACKER, row, old, None)))
    assert parsed is not None
    return parsed


def write(status: Atom, old_status: Atom | None, node: Atom = PEER) -> TrackerEvent:
    """The event of a write."""
    return event("write", (CORE_TRACKER, node, status, None), old_status)


def delete(old_status: Atom | None, node: Atom = PEER) -> TrackerEvent:
    """The event of a delete."""
    return event("delete", (CORE_TRACKER, node), old_status)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (write(ONLINE, None), ONLINE),
        (write(ONLINE, OFFLINE), ONLINE),
        (write(OFFLINE, ONLINE), OFFLINE),
        (write(ONLINE, ONLINE), None),
        (write(OFFLINE, OFFLINE), None),
        (write(OFFLINE, None), None),
        (write(Atom("strange"), ONLINE), None),
        (write(ONLINE, Atom("strange")), None),
        (delete(ONLINE), None),
        (delete(OFFLINE), None),
        (delete(None), None),
    ],
    ids=repr,
)
def test_changed_status_of_a_peer_alerts(event: TrackerEvent, status: Atom | None) -> None:
    """A peer's change to online, or from online to offline, alerts followers; nothing else does."""
    assert mnesia_notify(event, OWN) == (None if status is None else (PEER, status))


@pytest.mark.parametrize("status", [ONLINE, OFFLINE])
@pytest.mark.parametrize("old_status", [None, ONLINE, OFFLINE])
def test_own_node_never_alerts(status: Atom, old_status: Atom | None) -> None:
    """No change of the node's own row alerts followers."""
    assert mnesia_notify(write(status, old_status, OWN), OWN) is None
    assert mnesia_notify(delete(old_status, OWN), OWN) is None
