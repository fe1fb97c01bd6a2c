"""Where the cookie is kept.

Source: https://www.erlang.org/doc/system/distributed.html#security
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pybeethoven.errors import ConfigError

_MAKE_COOKIE = "python3 -c 'import secrets; print(secrets.token_hex())'"


def read_cookie(path: str | os.PathLike[str] | None = None) -> str:
    """The cookie in the file `path`, by default `~/.erlang.cookie`.

    Raises `ConfigError` when there is none, or when others than its owner may read it.
    """
    try:
        file = Path("~/.erlang.cookie").expanduser() if path is None else Path(path)
    except RuntimeError as error:
        raise ConfigError(
            "no cookie: this user has no home directory with an .erlang.cookie; "
            "give the cluster's cookie"
        ) from error
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="latin-1").rstrip("\r\n")
    except OSError as error:
        text = f"no cookie: {file} cannot be read ({error.strerror}); give the cluster's cookie"
        if isinstance(error, FileNotFoundError) and os.access(file.parent, os.W_OK):
            new = f"(umask 077; {_MAKE_COOKIE} > {shlex.quote(str(file))})"
            text += f", or keep it there; a new one: {new}"
        raise ConfigError(text) from error
    if mode & 0o077:
        raise ConfigError(f"others may read the cookie file {file}; run: chmod 400 {file}")
    return check_cookie(text, f"the cookie file {file}")


def check_cookie(cookie: str, source: str = "the cookie") -> str:
    """Give `cookie` back if it can be one, else raise `ConfigError`, which never shows it."""
    if not isinstance(cookie, str):
        raise ConfigError(f"{source} must be a str, not {type(cookie).__name__}")
    if not cookie or len(cookie) > 255 or any(c < " " for c in cookie):
        raise ConfigError(f"{source} must hold 1 to 255 printable characters, on one line")
    return cookie
