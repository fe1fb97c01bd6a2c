"""Each function and type of Elixir's Beethoven.CoreServer has a counterpart in `pybeethoven`."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

import pybeethoven

ROOT = Path(__file__).parents[2]

FUNCTIONS = {
    *("__using__/1", "add_node_to_mnesia/1", "alert_me/0", "alert_me/1", "child_spec/1"),
    *("dirty_select/1", "entry_point/1", "fetch/1", "fetch_all/0", "get_mode/0"),
    *("get_table_name/0", "handle_cast/2", "new_node/1", "start_link/1", "subscribe/1"),
    *("table_exists?/0", "until_exists/3"),
}
TYPES = {"nodeStatus", "serverStatus", "trackerEvent", "trackerRow"}
"""The functions and types that the documentation of Beethoven 0.3.9 lists."""


def table() -> dict[str, str]:
    """The table under the README's heading CoreServer: each Elixir name, and ours."""
    section = (ROOT / "README.md").read_text().split("\n## CoreServer\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)
    return dict(rows)


def test_table_is_complete() -> None:
    """The table has each function and type, and nothing else."""
    listed = set(table())
    assert {name for name in listed if "/" in name} == FUNCTIONS
    assert {name for name in listed if "/" not in name} == TYPES


@pytest.mark.parametrize("name", sorted(FUNCTIONS | TYPES))
def test_counterpart_can_be_imported(name: str) -> None:
    """What the table gives for a name can be imported from `pybeethoven`."""
    ours = table()[name].split("(")[0]
    found = attrgetter(ours)(pybeethoven)
    assert found.__doc__ or name in TYPES
