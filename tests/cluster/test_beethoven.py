"""The settings of a member."""

from __future__ import annotations

from typing import Any

import pytest

from pybeethoven import Beethoven, ConfigError


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "py"}, "it must look like py@127"),
        ({"cluster_net": "10.0.0.0/8"}, "over 65536 hosts"),
        ({"listener_port": 65536}, "from 1 to 65535"),
    ],
)
def test_unusable_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    """The constructor raises, before any socket is opened."""
    with pytest.raises(ConfigError, match=text):
        Beethoven(**{"name": "py@127.0.0.1", "cookie": "c"} | settings)
