"""The cookie: which file is trusted with it, and where it is never seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pybeethoven import ConfigError, Node
from pybeethoven.net import epmd
from pybeethoven.net.tls import TlsOptions
from pybeethoven.otp.cookie import read_cookie
from tests.command_line import run
from tests.helpers import soon

SECRET = "VERYSECRETCOOKIE"
USER, OTHER_USER, ROOT = 1000, 1001, 0

Stat = Callable[..., os.stat_result]


def cookie_file(path: Path, cookie: str = SECRET, mode: int = 0o400) -> Path:
    """A cookie file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cookie)
    path.chmod(mode)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("owner", "mode", "fits"),
    [
        (USER, 0o400, "always"),
        (ROOT, 0o400, "always"),
        (ROOT, 0o440, "if given"),
        (USER, 0o440, "never"),
        (ROOT, 0o444, "never"),
        (ROOT, 0o460, "never"),
        (OTHER_USER, 0o400, "never"),
    ],
)
def test_cookie_file_is_the_users_or_roots(
    owner: int, mode: int, fits: str, given: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read if nobody else may read it; root's, if it was named, may be read by its group."""
    file = cookie_file(home / ".erlang.cookie", mode=mode)
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        return os.stat_result([*fstat(descriptor)[:4], owner, *fstat(descriptor)[5:10]])

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    path = file if given else None
    if fits == "always" or (fits == "if given" and given):
        assert read_cookie(path) == SECRET
        return
    with pytest.raises(ConfigError, match=r"others may read|must belong to this user") as caught:
        read_cookie(path)
    assert SECRET not in str(caught.value)


def test_checked_file_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes the place of the checked one is not read."""
    file = cookie_file(tmp_path / "cookie")
    fakes = iter([cookie_file(tmp_path / "fake", "FAKE", mode=0o644)])

    def then_swap(stat: Stat) -> Stat:
        def swap(*args: Any, **options: Any) -> os.stat_result:
            checked = stat(*args, **options)
            for fake in fakes:
                os.replace(fake, file)
            return checked

        return swap

    for name in ("stat", "fstat"):
        monkeypatch.setattr(os, name, then_swap(getattr(os, name)))
    assert read_cookie(file) == SECRET


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    """A FIFO, which would block, and a device are refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, mode=0o400)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"{path} must be a regular file"):
            read_cookie(path)


def test_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """A file of a terabyte costs as little as any other, and is refused."""
    file = cookie_file(tmp_path / "cookie", mode=0o600)
    os.truncate(file, 1 << 40)
    with pytest.raises(ConfigError, match="must hold 1 to 255 printable characters"):
        read_cookie(file)


@pytest.mark.parametrize("config", [None, "", "elsewhere"])
def test_second_place_of_otp_is_known(
    config: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is where `filename:basedir(user_config, "erlang")` says, and `~` comes before it."""
    if config is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", config and str(home / config))
    cookie_file(home / (config or ".config") / "erlang" / ".erlang.cookie")
    assert read_cookie() == SECRET
    cookie_file(home / ".erlang.cookie", "FIRST")
    assert read_cookie() == "FIRST"


@pytest.mark.parametrize(
    ("host", "length", "warned"),
    [
        ("192.0.2.1", 15, True),
        ("host.example", 15, True),
        ("192.0.2.1", 16, False),
        ("127.0.0.9", 1, False),
        ("::1", 1, False),
    ],
)
def test_short_cookie_is_warned_of(
    host: str, length: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that other hosts can reach says once that its cookie can be guessed."""
    cookie = "z" * length
    Node(f"py@{host}", cookie)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
    assert "zz" not in caplog.text


async def test_command_warns_of_a_short_cookie() -> None:
    """The command shows the warning without --verbose, too."""
    args = ("join", "--name", "py@192.0.2.1", "--cookie", "short", "--for", "0")
    _, _, err = await run(*args, env={"ERL_EPMD_PORT": "0"})
    assert err.startswith("WARNING pybeethoven.otp.cookie: the cookie of py@192.0.2.1 has fewer")


def test_secrets_are_not_in_a_repr() -> None:
    """The key's password is not shown with the other options."""
    options = TlsOptions(certfile="c", cacertfile="ca", password=SECRET)
    assert SECRET not in repr(options)
    assert options.password == SECRET


async def test_epmd_is_started_without_the_cookie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon, which outlives the node, has the environment, but not the cookie."""
    script = tmp_path / "epmd"
    script.write_text(f"#!/bin/sh\nexport -p > {tmp_path}/seen\n")
    script.chmod(0o700)
    for name, value in (("PATH", str(tmp_path)), ("KEPT", "1"), ("PYBEETHOVEN_COOKIE", SECRET)):
        monkeypatch.setenv(name, value)
    await soon(epmd.start_daemon())
    seen = (tmp_path / "seen").read_text()
    assert "KEPT" in seen
    assert "COOKIE" not in seen
    assert SECRET not in seen
