"""No process of a test cluster or a demo shows the cookie to the other users of the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from erlang_interop import python_demo
from erlang_interop.python_demo import World
from erlang_interop.story import Story
from pybeethoven.testing import Peers
from tests.command_line import options


def command_lines() -> str:
    """The command line of each process of this machine."""
    texts = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            texts.append(file.read_text(errors="replace"))
    return "\n".join(texts)


async def test_cookie_of_a_beam_is_in_no_command_line(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The BEAM reads it from a file that only its user can read, also where there is no HOME."""
    monkeypatch.delenv("HOME")
    a = await peers.start_bare("a@127.0.0.1")
    assert "a@127.0.0.1" in command_lines()
    assert peers.cookie not in command_lines()
    assert str(await a.eval("Node.get_cookie()")) == peers.cookie
    home = bytes(await a.eval("System.user_home!()")).decode()
    files = (home, f"{home}/.erlang.cookie")
    assert [os.stat(file).st_mode & 0o777 for file in files] == [0o700, 0o400]
    await a.__aexit__(None, None, None)
    with pytest.raises(FileNotFoundError):
        os.stat(home)


def test_cookie_of_a_command_is_in_a_variable(peers: Peers) -> None:
    """The tests start their commands without it."""
    assert peers.cookie not in " ".join(options(peers))


def test_cookie_of_the_demo_is_long_and_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's nodes get it in their environment, and what it tells doesn't have it."""
    worlds: list[World] = []

    async def show(story: Story, world: World) -> None:
        worlds.append(world)

    monkeypatch.setattr(python_demo, "show", show)
    python_demo.main()
    [world] = worlds
    assert len(world.env["PYBEETHOVEN_COOKIE"]) == 64
    assert world.env["PYBEETHOVEN_COOKIE"] not in world.options
