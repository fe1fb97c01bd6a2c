"""Ports that no two processes are given."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from pybeethoven.testing import BeamError, free_port
from pybeethoven.testing.ports import BLOCKS, SIZE, Ports

ASK = """
import sys
from pathlib import Path
from pybeethoven.testing.ports import Ports
ports = Ports(Path(sys.argv[1]))
print(*(ports.next("127.0.0.1") for _ in range(500)), flush=True)
sys.stdin.read()
"""


def test_processes_do_not_share(tmp_path: Path) -> None:
    """Several that run at the same time get different ones, each its own many times."""
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    with ExitStack() as stack:
        given = []
        for _ in range(4):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)
            assert process.stdout is not None
            given.append(set(process.stdout.readline().split()))
            assert 0 < len(given[-1]) <= SIZE
            assert process.stdin is not None
            stack.callback(process.stdin.close)
    assert len(set.union(*given)) == sum(map(len, given))


def test_taken_port(tmp_path: Path) -> None:
    """One that somebody listens on is not given."""
    ports = Ports(tmp_path)
    first = ports.next("127.0.0.1")
    with socket.create_server(("127.0.0.1", first)):
        assert first not in {ports.next("127.0.0.1") for _ in range(SIZE)}


def test_none_left(tmp_path: Path) -> None:
    """The error says that others have them."""
    others = [Ports(tmp_path) for _ in range(BLOCKS)]
    assert len({ports.next("127.0.0.1") for ports in others}) == BLOCKS
    with pytest.raises(BeamError, match="no ports are left"):
        Ports(tmp_path).next("127.0.0.1")


def test_no_port_twice() -> None:
    """A port is not given again soon, whether somebody listens on it by then or not."""
    assert len({free_port() for _ in range(SIZE // 2)}) == SIZE // 2
