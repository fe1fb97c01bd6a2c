"""The Locator in large networks whose hosts do not even refuse a connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.silent_network import NODE
from tests.timing import UNIT

ROOT = Path(__file__).parents[2]


def isolation() -> list[str] | None:
    """The command that runs another in a network namespace of its own, or None.

    Without root it takes a user namespace, which root may not get, as in a chroot.
    """
    ways = [["unshare", "--net", "--"], ["unshare", "--map-root-user", "--net", "--"]]
    for way in ways if os.geteuid() == 0 else ways[1:]:
        probe = [*way, "test", "-w", "/dev/net/tun"]
        with suppress(FileNotFoundError):
            if subprocess.run(probe, capture_output=True).returncode == 0:
                return way
    return None


ISOLATED = isolation()


def isolated(*command: str, timeout: float = 110 * UNIT) -> str:
    """What a command prints that runs in a network of its own."""
    if ISOLATED is None:
        pytest.skip("no network of our own: `unshare --net` or /dev/net/tun is not to be had here")
    run = [*ISOLATED, *command]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
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
        pytest.param(16, 1024, 60.0, 512, 65024, marks=pytest.mark.slow),
    ],
)
def test_beacon_on_the_last_host_is_found(
    prefix: int, descriptors: int, seconds: float, sockets: int, asked: int
) -> None:
    """The beacon is found in time, with no more sockets than are to spare."""
    result = seek(prefix, descriptors)
    assert result["found"] == NODE
    assert result["seconds"] < seconds * UNIT
    assert 0 < result["sockets"] <= sockets + 1  # the beacon's end is in the same process
    assert result["asked"] == asked
