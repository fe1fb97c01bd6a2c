"""Odd users and machines make no difference, or give one clear error."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pybeethoven import Node
from pybeethoven.errors import BeethovenError
from pybeethoven.testing import free_port
from tests.leftovers import Leftovers

NO_HOME = "import pwd; del os.environ['HOME']; pwd.getpwuid = {}.__getitem__"
MISSING_HOME = "os.environ['HOME'] = '/missing'"
OTHER_USER = "os.environ['HOME'] = '/root'; os.setgroups([]); os.setgid(4242); os.setuid(4242)"
NO_DIRECTORY = "os.rmdir(os.getcwd())"
UNREADABLE_DIRECTORY = "os.chmod('.', 0)"
NO_STDERR = "os.close(2); sys.stderr = None"
DESCRIPTORS = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))"
NO_DESCRIPTORS = f"{DESCRIPTORS.format(32)}; [os.dup(0) for _ in range(26)]"

other_user = pytest.param(
    OTHER_USER,
    marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user"),
)


class Machine:
    """A machine without Erlang, whose only node is the one that a command runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._env = {
            "HOME": str(home),
            "PATH": str(home),
            "ERL_EPMD_PORT": str(free_port()),
            "PYBEETHOVEN_NAME": "py@127.0.0.1",
            "PYBEETHOVEN_PORT": str(free_port()),
            "COVERAGE_PROCESS_CONFIG": "",  # another user could not write what coverage measures
        }

    def run(self, prepare: str, *args: str) -> tuple[int, str, str]:
        """Run a command after the statements in `prepare`, and end it once it has printed a line.

        Return its exit status, output and errors.
        """
        source = f"import os, sys\nfrom pybeethoven.cli import main\n{prepare}\nmain()"
        with subprocess.Popen(
            [sys.executable, "-c", source, *args],
            cwd=tempfile.mkdtemp(dir=self._home),
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            if line := process.stdout.readline():
                process.terminate()
            out, err = process.communicate()
            return process.returncode, line + out, err


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose home directory is empty."""
    return Machine(tmp_path)


@pytest.mark.parametrize(
    "prepare",
    [
        *(NO_HOME, MISSING_HOME, other_user, NO_DIRECTORY, UNREADABLE_DIRECTORY, NO_STDERR),
        *(DESCRIPTORS.format(count) for count in (32, 64)),
    ],
)
def test_commands_work_without_what_they_do_not_need(machine: Machine, prepare: str) -> None:
    """A node runs, and `look` looks, as on any other machine."""
    alone = "no other node found: standalone until one comes\n"
    assert machine.run(prepare, "join", "--cookie", "secret") == (0, alone, "")
    status, out, err = machine.run(prepare, "look")
    assert (status, out) == (1, "")
    assert prepare == NO_STDERR or err.startswith("pybeethoven: no beacon answers at port")


@pytest.mark.parametrize(
    ("prepare", "args", "message"),
    [
        (NO_HOME, "join", "no cookie: this user has no home directory with an .erlang.cookie"),
        (MISSING_HOME, "join", "no cookie: /missing/.erlang.cookie cannot be read (No such file"),
        (NO_DIRECTORY, "join --cookie-file x", "no cookie: x cannot be read (No such file"),
        (DESCRIPTORS.format(31), "join --cookie c", "only 31 file descriptors are allowed; allow"),
        (DESCRIPTORS.format(31), "look", "only 31 file descriptors are allowed; allow more"),
        (NO_DESCRIPTORS, "look", "too few file descriptors to seek: [Errno 24] Too many open"),
    ],
)
def test_what_a_command_lacks_is_told(
    machine: Machine, prepare: str, args: str, message: str
) -> None:
    """One line says what is missing; the exit status is 2."""
    status, out, err = machine.run(prepare, *args.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"pybeethoven: {message}")


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only `count` more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_node_without_descriptors_leaves_nothing(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that can't open what it needs raises an error, and closes what it has opened."""
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
    leftovers = Leftovers()
    with descriptors_left(count), pytest.raises(BeethovenError, match=r"Too many open.*allow more"):
        await Node("py@127.0.0.1", "cookie", epmd="embedded").start_node()
    await leftovers.gone()
