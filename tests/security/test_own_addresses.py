"""Which addresses are this machine's: a beacon lets in nodes of its own machine."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.test_large_network import isolated

ADDRESSES = {
    "127.0.0.5": "loopback",
    "10.9.0.1": "first of its subnet",
    "10.9.0.7": "second of its subnet",
    "10.9.0.8": "another host",
    "10.8.0.1": "nowhere",
    "0.0.0.0": "any",
    "224.0.0.1": "multicast",
}
SCRIPT = """
from pathlib import Path
from pybeethoven.net.listening import is_own_address
from tests.cluster.silent_network import configure, make_network

make_network(24)
configure("tun0:1", "10.9.0.7", "255.255.255.0")
Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text({nonlocal_bind!r})
print(*filter(is_own_address, {addresses!r}))
"""


@pytest.mark.parametrize(("nonlocal_bind", "missed"), [("0", None), ("1", "second of its subnet")])
def test_own_addresses(nonlocal_bind: str, missed: str | None) -> None:
    """All are known, but where a socket can be bound to any address: there only one of a subnet."""
    script = SCRIPT.format(nonlocal_bind=nonlocal_bind, addresses=tuple(ADDRESSES))
    own = [ADDRESSES[address] for address in isolated(sys.executable, "-c", script).split()]
    known = ["loopback", "first of its subnet", "second of its subnet"]
    assert own == [each for each in known if each != missed]
