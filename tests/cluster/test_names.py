"""Every function and type that the page of Beethoven.CoreServer lists has its place here."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest

import pybeethoven

ROOT = Path(__file__).parents[2]
PAGE = ROOT.parent / "shared" / "seed-beethoven-core-server.txt"
"""The page itself is not ours to copy; where it lies beside the checkout, it is read."""

FUNCTIONS = {
    *("__using__/1", "add_node_to_mnesia/1", "alert_me/0", "alert_me/1", "child_spec/1"),
    *("dirty_select/1", "entry_point/1", "fetch/1", "fetch_all/0", "get_mode/0"),
    *("get_table_name/0", "handle_cast/2", "new_node/1", "start_link/1", "subscribe/1"),
    *("table_exists?/0", "until_exists/3"),
}
TYPES = {"nodeStatus", "serverStatus", "trackerEvent", "trackerRow"}


def table() -> dict[str, str]:
    """The table under the README's heading CoreServer: each Elixir name, and ours."""
    section = (ROOT / "README.md").read_text().split("\n## CoreServer\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)
    return dict(rows)


def names_of_the_page(text: str) -> set[str]:
    """The functions under the page's last heading, with the most arguments that each takes."""
    listing = text.split("\nFunctions\n")[-1]
    heads = re.findall(r"^(\w+\??)\(([^)\n]*)\)$", listing, re.MULTILINE)
    return {f"{name}/{len([a for a in args.split(',') if a])}" for name, args in heads}


def test_table_is_complete() -> None:
    """The table has each function and type of the page, and nothing that is not there."""
    listed = set(table())
    assert {name for name in listed if "/" in name} == FUNCTIONS
    assert {name for name in listed if "/" not in name} == TYPES


@pytest.mark.parametrize("name", sorted(FUNCTIONS | TYPES))
def test_name_is_there(name: str) -> None:
    """What the table gives for a name can be imported from `pybeethoven`."""
    ours = table()[name].split("(")[0]
    found = attrgetter(ours)(pybeethoven)
    assert found.__doc__ or name in TYPES


@pytest.mark.skipif(not PAGE.exists(), reason="the page does not lie beside this checkout")
def test_page() -> None:
    """The list above is that of the page."""
    text = PAGE.read_text()
    assert names_of_the_page(text) == FUNCTIONS - {"alert_me/0"}
    assert "alert_me/0" in text
    assert set(re.findall(r"@type (\w+)\(\)", text)) == TYPES
