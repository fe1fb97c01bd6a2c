"""Children that are forked from the process of a node, as pool workers are."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from pybeethoven.net.sockets import release_in_child
from tests.helpers import atoms, soon, until_unregistered
from tests.net.conftest import StartNode
from tests.net.peers import A, B, watcher

pytestmark = pytest.mark.filterwarnings("ignore:This process .* multi-threaded:DeprecationWarning")


@contextmanager
def forked_child() -> Iterator[None]:
    """A child that lives until the end of the block."""
    child = get_context("fork").Process(target=signal.pause)
    child.start()
    try:
        yield
    finally:
        child.kill()
        child.join()


def run_in_child(function: Callable[[], object]) -> None:
    """Run a function in a child, where it must raise nothing."""
    if (pid := os.fork()) == 0:  # a Process of multiprocessing would open files first
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


async def test_node_ends_although_a_child_lives(start_node: StartNode) -> None:
    """The peer sees the end of the node, and another one can have its name."""
    a, b = await start_node(A), await start_node(B)
    seen = watcher(a)
    assert await soon(b.ping(A))
    assert await seen.next() == atoms("nodeup", B)
    with forked_child():
        await b.stop()
        assert await seen.next() == atoms("nodedown", B)
        await until_unregistered("b")
        again = await start_node(B)
        assert await soon(again.ping(A))


def test_child_keeps_the_number_of_a_released_socket() -> None:
    """A socket object that the child closes later closes nothing that the child has opened."""
    with socket.socket() as sock:
        release_in_child(sock)

        def use() -> None:
            with Path(os.devnull).open("w") as file:
                sock.close()
                os.fstat(file.fileno())

        run_in_child(use)


def test_child_keeps_what_has_the_number_of_a_closed_socket() -> None:
    """The number of a socket that is closed may have been used again for something else."""
    with socket.socket() as sock:
        release_in_child(sock)
        number = sock.fileno()
    with Path(os.devnull).open("w") as file:
        assert file.fileno() == number

        def use() -> None:
            assert Path(f"/proc/self/fd/{number}").samefile(os.devnull)

        run_in_child(use)
