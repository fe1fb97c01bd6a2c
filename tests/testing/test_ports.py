"""Ports that no two processes are given."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from pybeethoven.testing import BeamError, free_port
from pybeethoven.testing.ports import Ports

BLOCKS, SIZE = 4, 20

ASK = """
import sys
from pybeethoven.testing.ports import Ports
ports = Ports(*map(int, sys.argv[1:]))
print(*(ports.next("127.0.0.1") for _ in range(50)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def first() -> int:
    """The first port of a block that no other test has, behind its lock."""
    ports = Ports()
    place = ports.next("127.0.0.1") - ports.first
    return ports.first + place - place % ports.size + 1


def test_processes_do_not_share(first: int) -> None:
    """Several that run at the same time get different ports, each its own many times."""
    command = [sys.executable, "-c", ASK, *map(str, (first, SIZE, BLOCKS))]
    with ExitStack() as stack:
        given = []
        for _ in range(BLOCKS):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)
            assert process.stdout is not None
            given.append(set(process.stdout.readline().split()))
            assert 0 < len(given[-1]) < SIZE
            assert process.stdin is not None
            stack.callback(process.stdin.close)
    assert len(set.union(*given)) == sum(map(len, given))


def test_port_in_use_is_not_given(first: int) -> None:
    """A port with a listener is left out."""
    ports = Ports(first, SIZE, BLOCKS)
    taken = ports.next("127.0.0.1")
    with socket.create_server(("127.0.0.1", taken)):
        assert taken not in {ports.next("127.0.0.1") for _ in range(SIZE)}


def test_block_is_taken_though_a_connection_of_it_has_just_ended(first: int) -> None:
    """The first port of the block is in TIME_WAIT then."""
    with (
        socket.create_server(("127.0.0.1", first)) as server,
        socket.create_connection(("127.0.0.1", first)) as client,
    ):
        server.accept()[0].close()
        assert client.recv(1) == b""
    assert Ports(first, SIZE, blocks=1).next("127.0.0.1") > first


def test_ports_run_out(first: int) -> None:
    """The error says that other processes have them, and which to end."""
    script = """if True:
        from pybeethoven.testing.ports import Ports
        import sys
        first, size, blocks = map(int, sys.argv[1:])
        given = {Ports(first, size, blocks).next("127.0.0.1") for _ in range(blocks)}
        assert len(given) == blocks, given
        Ports(first, size, blocks).next("127.0.0.1")
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, (first, SIZE, BLOCKS))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        f"{BeamError.__name__}: no ports are left: other processes have 4 times 20; end those that "
        f"listen at 127.0.0.1, port {first} and each 20 on" in done.stderr
    )


def test_no_port_twice() -> None:
    """A port is not given again soon, whether it is in use by then or not."""
    assert len({free_port() for _ in range(50)}) == 50
