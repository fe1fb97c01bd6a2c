"""Tests of `net.names`, beside those in `test_network` and `test_addresses`."""

from __future__ import annotations

from typing import Any

import pytest

from pybeethoven.errors import ConfigError
from pybeethoven.etf import Atom
from pybeethoven.net.names import check_host, split_name


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"py@h", "is b'py@h', no str"), (None, "is None, no str"), (Atom("py"), "'py' has no '@'")],
)
def test_bad_name_is_shown_as_it_was_given(name: Any, text: str) -> None:
    """The error shows a name of another type as that type, an atom as the text that it is."""
    with pytest.raises(ConfigError, match=f"the node name {text}"):
        split_name(name)


@pytest.mark.parametrize("host", ["h.example.org", "::1", "fe80::1%eth0"])
def test_host_may_be_a_name_or_an_address(host: str) -> None:
    """`check_host` gives it back unchanged."""
    assert check_host(host, "first_host") == host


@pytest.mark.parametrize("host", ["", "h\n", b"h", 7])
def test_bad_host_is_refused(host: Any) -> None:
    """The error says what the host is for."""
    with pytest.raises(ConfigError, match=r"^first_host is .*; it must be a host's name"):
        check_host(host, "first_host")
