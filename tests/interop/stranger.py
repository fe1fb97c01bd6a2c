"""What harms a node, or tries to: `python -m tests.interop.stranger PORT WHAT COUNT`.

It runs as a process of its own, so that what it holds is not counted as the node's. The cookie is
in PYBEETHOVEN_COOKIE: every user can see a command line. When it is done it prints a line;
`half_open` then keeps its connections until its stdin is closed.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from fuzz import corpus
from fuzz.mutation import mutations
from pybeethoven.distribution import control
from pybeethoven.distribution.flags import OFFERED
from pybeethoven.distribution.framing import encode_message
from pybeethoven.distribution.handshake import Handshake, Identity, State
from pybeethoven.etf import Atom, Pid

SEED: Final = 4
TARGET: Final = "py@127.0.0.1"
PATIENCE: Final = 10.0
"""Seconds that the node may take for anything."""

numbers = count(1)


class Stranger:
    """Who knows where the node listens and, for some of it, the cookie."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port = port
        self._cookie = cookie

    def handshakes(self, number: int) -> None:
        """Mutations of handshakes, each on a connection of its own."""
        seeds = [data[1:] for data in corpus.read("handshake").values()]
        for data in mutations(seeds, number, SEED):
            with self._connected() as sock:
                say_and_leave(sock, data)

    def frames(self, number: int) -> None:
        """Mutations of frames, from a peer that knows the cookie."""
        seeds = [data[3:] for name, data in corpus.read("framing").items() if is_header(name)]
        self._say_all(framed(data) for data in mutations(seeds, number, SEED))

    def terms(self, number: int) -> None:
        """Mutations of terms, as the payload of messages that are right."""
        from_ = Pid(Atom("stranger@127.0.0.1"), 1, 0, 1)
        head = encode_message(OFFERED, *control.reg_send(from_, Atom("sink"), []))[4:-1]
        seeds = [data[1:] for data in corpus.read("decoder").values()]
        self._say_all(framed(head + data) for data in mutations(seeds, number, SEED))

    def flood(self, number: int) -> None:
        """Messages as fast as the node takes them, half of them for nobody."""
        from_ = Pid(Atom("stranger@127.0.0.1"), 1, 0, 1)
        frames = [
            encode_message(
                OFFERED, *control.reg_send(from_, Atom(name), (Atom("flood"), bytes(50)))
            )
            for name in ("sink", "nobody")
        ]
        with self._peer() as sock:
            for _ in range(number // 1000):
                sock.sendall(b"".join(frames) * 500)
            say_and_leave(sock, b"")

    def half_open(self, number: int) -> None:
        """Connections that say nothing, or the half of a name message, and stay."""
        half = corpus.read("handshake")["acceptor_header"][1:15]
        socks = [self._connected() for _ in range(number)]
        for sock in socks[::2]:
            sock.sendall(half)
        print("open", flush=True)
        sys.stdin.read()
        closed = sum(is_closed(sock) for sock in socks)
        print(closed, flush=True)

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE)

    def _peer(self) -> socket.socket:
        """A connection whose handshake is done, each from another node."""
        own = Identity(f"stranger{next(numbers)}@127.0.0.1", OFFERED, 1)
        handshake = Handshake.initiator(own, TARGET, self._cookie, 1)
        sock = self._connected()
        while handshake.state is not State.DONE:
            sock.sendall(handshake.data_to_send())
            handshake.receive_data(sock.recv(4096) or handshake.receive_eof())
        return sock

    def _say_all(self, frames: Iterator[bytes]) -> None:
        """Say each on a connection that is up, a new one when the node has closed the last."""
        sock = self._peer()
        for frame in frames:
            if is_closed(sock):
                sock.close()
                sock = self._peer()
            try:
                sock.sendall(frame)
            except OSError:
                continue
        say_and_leave(sock, b"")
        sock.close()


def is_header(name: str) -> bool:
    """Whether a seed of `framing` is one frame with a header, behind its 3 bytes."""
    return name.startswith("header_") and not name.endswith("stream")


def framed(content: bytes) -> bytes:
    """A frame."""
    return len(content).to_bytes(4) + content


def is_closed(sock: socket.socket) -> bool:
    """Whether the node has closed a connection; what it says is dropped."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    try:
        while poll.poll(0):
            if not sock.recv(65_536):
                return True
    except OSError:
        return True
    return False


def say_and_leave(sock: socket.socket, data: bytes) -> None:
    """Say all, and wait until the node has closed the connection, too."""
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass
    except TimeoutError:
        raise
    except OSError:
        return  # it was closed with something unread, maybe before all was said


def main(port: str, what: str, number: str) -> None:
    """Do `what` so often."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stranger = Stranger(int(port), os.environ["PYBEETHOVEN_COOKIE"])
    deeds: dict[str, Callable[[int], None]] = {
        "handshakes": stranger.handshakes,
        "frames": stranger.frames,
        "terms": stranger.terms,
        "flood": stranger.flood,
        "half_open": stranger.half_open,
    }
    deeds[what](int(number))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
