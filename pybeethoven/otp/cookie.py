"""Where the cookie is kept.

Source: https://www.erlang.org/doc/system/distributed.html#security, and `read_cookie` in
https://github.com/erlang/otp/blob/OTP-25.2.3/lib/kernel/src/auth.erl
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import stat
from pathlib import Path
from typing import Final

from pybeethoven.errors import ConfigError

logger = logging.getLogger(__name__)

MIN_LENGTH: Final = 16
"""Minimum number of characters of a cookie that is not warned of."""
_MAX_LENGTH: Final = 255
_MAX_SIZE: Final = _MAX_LENGTH + len("\r\n") + 1
"""Maximum number of bytes that are read: one more than a cookie file has."""
_ROOT: Final = 0
_MAKE_COOKIE: Final = "python3 -c 'import secrets; print(secrets.token_hex())'"


def read_cookie(path: str | os.PathLike[str] | None = None) -> str:
    """The cookie in the file `path`, by default where OTP keeps it.

    That is `~/.erlang.cookie`, or, if there is no such file,
    `$XDG_CONFIG_HOME/erlang/.erlang.cookie`. The file must belong to this user or root, and no
    other user may read it; if `path` is given and the file is root's, its group may.
    Raises `ConfigError`.
    """
    file = _default_file() if path is None else Path(path)
    try:
        with open(file, "rb", buffering=0, opener=_open_at_once) as stream:
            _check_file(file, os.fstat(stream.fileno()), given=path is not None)
            text = stream.read(_MAX_SIZE).decode("latin-1").rstrip("\r\n")
    except OSError as error:
        text = f"no cookie: {file} cannot be read ({error.strerror}); give the cluster's cookie"
        if isinstance(error, FileNotFoundError) and os.access(file.parent, os.W_OK):
            new = f"(umask 077; {_MAKE_COOKIE} > {shlex.quote(str(file))})"
            text += f", or keep it there; a new one: {new}"
        raise ConfigError(text) from error
    return check_cookie(text, f"the cookie file {file}")


def _default_file() -> Path:
    try:
        home = Path("~").expanduser()
    except RuntimeError as error:
        raise ConfigError(
            "no cookie: this user has no home directory with an .erlang.cookie; "
            "give the cluster's cookie"
        ) from error
    first = home / ".erlang.cookie"
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    second = config / "erlang" / ".erlang.cookie"
    return second if os.path.exists(second) and not os.path.exists(first) else first


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO would block until written


def _check_file(file: Path, info: os.stat_result, *, given: bool) -> None:
    """Raise `ConfigError` unless an open file is fit to hold the cookie."""
    user = os.geteuid()
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"the cookie file {file} must be a regular file")
    if info.st_uid not in (user, _ROOT):
        raise ConfigError(f"the cookie file {file} must belong to this user or root")
    # A secret that is mounted into a container is root's, and its user can't change its mode.
    is_mounted = given and info.st_uid != user
    if info.st_mode & (0o037 if is_mounted else 0o077):
        raise ConfigError(f"others may read the cookie file {file}; run: chmod 400 {file}")


def check_cookie(cookie: str, source: str = "the cookie") -> str:
    """Give `cookie` back if it can be one, else raise `ConfigError`, which never shows it."""
    if not isinstance(cookie, str):
        raise ConfigError(f"{source} must be a str, not {type(cookie).__name__}")
    if not cookie or len(cookie) > _MAX_LENGTH or any(c < " " for c in cookie):
        raise ConfigError(f"{source} must hold 1 to 255 printable characters, on one line")
    return cookie


def warn_of_short_cookie(cookie: str, name: str) -> None:
    """Log a warning if `cookie` can be guessed and node `name` can be reached by other hosts."""
    if len(cookie) < MIN_LENGTH and not _is_loopback(name.partition("@")[2]):
        logger.warning(
            "the cookie of %s has fewer than %d characters, so that it can be guessed; "
            "a new one: %s",
            *(name, MIN_LENGTH, _MAKE_COOKIE),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
