"""The Locator in large networks whose hosts do not even refuse: nothing comes back from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.silent_network import NODE
from tests.timing import UNIT

ROOT = Path(__file__).parents[2]
ISOLATED = ["unshare", "--map-root-user", "--net", "--"]
"""Runs a command in a network of its own, where it may make interfaces; this needs no root."""


def isolated(*command: str, timeout: float = 110 * UNIT) -> str:
    """What a command prints that runs in a network of its own.

    Where the kernel allows none, the test fails: skipped, it would never be missed.
    """
    try:
        done = subprocess.run(
            [*ISOLATED, *command], cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
    except FileNotFoundError:
        pytest.fail("no `unshare` here: install util-linux", pytrace=False)
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(ISOLATED)} {' '.join(command)} failed: {done.stderr}\nIt needs user and "
            f"network namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces"
            f"; in a container --privileged, or a seccomp profile that allows unshare) and "
            f"/dev/net/tun",
            pytrace=False,
        )
    return done.stdout


def seek(prefix: int, descriptors: int) -> Any:
    """What came of looking for a beacon that is the last host of a network."""
    module = "tests.cluster.silent_network"
    result = json.loads(isolated(sys.executable, "-m", module, str(prefix), str(descriptors)))
    print(f"/{prefix}, {descriptors} file descriptors: {result}")
    return result


@pytest.mark.timeout(120 * UNIT)
@pytest.mark.parametrize(
    ("prefix", "descriptors", "seconds", "sockets", "asked"),
    [
        (24, 1024, 1.0, 254, 0),
        (24, 100, 3.0, 50, 250),
        (16, 1024, 60.0, 512, 65024),
    ],
)
def test_last_host(prefix: int, descriptors: int, seconds: float, sockets: int, asked: int) -> None:
    """A beacon on the last host is found in time, with no more sockets than are to spare."""
    result = seek(prefix, descriptors)
    assert result["found"] == NODE
    assert result["seconds"] < seconds * UNIT
    assert 0 < result["sockets"] <= sockets
    assert result["asked"] == asked
