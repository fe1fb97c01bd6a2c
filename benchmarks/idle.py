"""Holds connections that say nothing: `python -m benchmarks.idle NAME PORT NUMBER`.

The cookie is in PYBEETHOVEN_COOKIE: every user can see a command line. It prints a line when the
connections are up, and ends when its stdin is closed.
"""

from __future__ import annotations

import os
import socket
import sys

from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.handshake import Handshake, Identity, State


def connect(own: str, name: str, port: int, cookie: str) -> socket.socket:
    """Connect as the node `own`."""
    handshake = Handshake.initiator(Identity(own, OFFERED, 1), name, cookie, 1)
    sock = socket.create_connection((name.partition("@")[2], port))
    while handshake.state is not State.DONE:
        sock.sendall(handshake.data_to_send())
        handshake.receive_data(sock.recv(4096) or handshake.receive_eof())
    return sock


def main(name: str, port: str, number: str) -> None:
    """Connect so often, each from another node."""
    cookie = os.environ["PYBEETHOVEN_COOKIE"]
    names = [f"idle{n}@127.0.0.1" for n in range(int(number))]
    socks = [connect(own, name, int(port), cookie) for own in names]
    print(len(socks), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
