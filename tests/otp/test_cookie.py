"""The cookie: read from a file that only its owner can, and never shown."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pybeethoven import ConfigError, Node
from pybeethoven.otp.cookie import check_cookie, read_cookie

SECRET = "VERYSECRETCOOKIE"


def cookie_file(path: Path, content: bytes = SECRET.encode(), mode: int = 0o400) -> Path:
    """A cookie file with that content and mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "cookie"),
    [
        (SECRET.encode(), SECRET),
        (SECRET.encode() + b"\n", SECRET),
        (SECRET.encode() + b"\r\n", SECRET),
        (b" with spaces ", " with spaces "),
        (b"\xe9\xff", "éÿ"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_read(content: bytes, cookie: str, tmp_path: Path) -> None:
    """The file's first line is the cookie, in Latin-1, without the end of line."""
    assert read_cookie(cookie_file(tmp_path / "cookie", content)) == cookie


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path it is `~/.erlang.cookie`, which a node without a cookie reads, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"\.erlang\.cookie cannot be read \(No such file"):
        Node("py@127.0.0.1")
    cookie_file(tmp_path / ".erlang.cookie")
    assert read_cookie() == SECRET
    Node("py@127.0.0.1")


def test_user_without_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with neither `HOME` nor an entry in the user database has to give the cookie."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(ConfigError, match=r"^no cookie: this user has no home directory .* give"):
        read_cookie()


def test_new_cookie_is_proposed_only_where_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a home directory, or with one that is read-only, no command to make one is shown."""
    with pytest.raises(ConfigError, match="keep it there; a new one"):
        read_cookie(tmp_path / "cookie")
    with pytest.raises(ConfigError, match=r"give the cluster's cookie$"):
        read_cookie(tmp_path / "missing" / "cookie")
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    with pytest.raises(ConfigError, match=r"give the cluster's cookie$"):
        read_cookie(tmp_path / "cookie")


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_mode(mode: int, tmp_path: Path) -> None:
    """What its owner may do with the file is no matter."""
    assert read_cookie(str(cookie_file(tmp_path / "cookie", mode=mode))) == SECRET


@pytest.mark.parametrize("mode", [0o404, 0o440, 0o420, 0o402, 0o644, 0o777])
def test_others_may_read(mode: int, tmp_path: Path) -> None:
    """A file that others have any right to is refused, with the remedy and without the cookie."""
    file = cookie_file(tmp_path / "cookie", mode=mode)
    with pytest.raises(ConfigError, match=f"run: chmod 400 {file}") as caught:
        read_cookie(file)
    assert SECRET not in str(caught.value)


def test_missing_and_directory(tmp_path: Path) -> None:
    """What can't be read is an error that names it and its cause."""
    (tmp_path / "directory").mkdir(mode=0o700)
    for path, cause in (("none", "No such file"), ("directory", "Is a directory")):
        with pytest.raises(ConfigError, match=rf"{path} cannot be read .{cause}"):
            read_cookie(os.fspath(tmp_path / path))


@pytest.mark.parametrize("cookie", ["", "\n", f"{SECRET}\nmore", f"{SECRET}\t", f"{SECRET}\0"])
def test_bad_cookie(cookie: str, tmp_path: Path) -> None:
    """An empty cookie, or one with control characters, is refused and not shown."""
    with pytest.raises(ConfigError, match="must hold 1 to 255 printable characters") as caught:
        read_cookie(cookie_file(tmp_path / "cookie", cookie.encode()))
    assert str(tmp_path / "cookie") in str(caught.value)
    assert SECRET not in str(caught.value)


def test_length() -> None:
    """A cookie has up to 255 characters, as an atom has."""
    assert check_cookie("x" * 255) == "x" * 255
    for cookie in ("", "x" * 256):
        with pytest.raises(ConfigError, match=r"^the cookie must hold"):
            check_cookie(cookie)


def test_cookie_of_another_type_is_refused() -> None:
    """The error shows the type, and not the cookie."""
    with pytest.raises(ConfigError, match=r"^the cookie must be a str, not bytes$"):
        Node("py@127.0.0.1", SECRET.encode())  # type: ignore[arg-type]
