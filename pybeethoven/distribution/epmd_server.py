"""An EPMD without I/O: who has which name, and what each request is answered.

    request, after its length:16          answer
      ALIVE2_REQ        120 node          ALIVE2_X_RESP 118, or 121 for distribution version 5
      PORT_PLEASE2_REQ  122 name          PORT2_RESP 119
      NAMES_REQ         110               port:32, then a line of text for each name
      KILL_REQ          107               "NO"

One connection makes one request. After its answer, or at once if it was none of these, it is
closed; a registration alone keeps it, and ends with it. The messages are in `distribution.epmd`.

What differs from OTP's `epmd`: a name is refused if it is empty, or has a space or what can't be
printed, for such a name could pass for a line of another in the list of names; a connection whose
registration was refused is closed; it can't be ended by KILL_REQ, which is answered as if nodes
were registered; DUMP_REQ, which would show file descriptors, is not answered.

Source: `do_read`, `do_request`, `node_reg2` in
https://github.com/erlang/otp/blob/OTP-25.2.3/erts/epmd/src/epmd_srv.c
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

MAX_NAME_SIZE: Final = 255 * 4
"""Bytes of the longest name, and of the longest `extra`."""
MAX_REQUEST_SIZE: Final = 3 * MAX_NAME_SIZE - 3
"""Bytes of the longest request; a longer one closes its connection."""
MAX_NAMES: Final = 512
"""So many names may be registered at once."""
MAX_REMEMBERED: Final = 1000
"""Of so many names that were given back the creation is remembered."""
MIN_CREATION: Final = 4
"""Lower creations are those of distribution version 5."""

_REFUSED_CREATION: Final = 99
_NODE: Final = Struct(">HBBHHH")
_SIZE: Final = Struct(">H")
_ALIVE2: Final = Struct(">BBH")
_ALIVE2_X: Final = Struct(">BBI")
_NAMES: Final = Struct(">I")


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered node: what it said of itself, and its creation."""

    name: str
    port: int
    node_type: int
    protocol: int
    highest_version: int
    lowest_version: int
    extra: bytes
    creation: int = 0

    @property
    def shown_creation(self) -> int:
        """The creation as this version of the distribution knows it: 32 bits, or 1 to 3."""
        return self.creation if self.highest_version >= 6 else self.creation % 3 + 1


class Registry:
    """The names of one EPMD.

    `port`: where it listens, which it tells those that ask for the names. `draw`: gives 32 random
    bits, for the first creation of a name; each further one is the next number. `max_names`: so
    many there may be, if fewer than `MAX_NAMES`.
    """

    def __init__(self, port: int, draw: Callable[[], int], max_names: int = MAX_NAMES) -> None:
        self.port = port
        self._max_names = max_names
        self._draw = draw
        self._entries: dict[str, Entry] = {}
        self._creations: dict[str, int] = {}

    def register(self, entry: Entry) -> Entry | None:
        """Let `entry` have its name, and a creation that this name did not have before.

        None if the name is taken or can't be used, or there are as many as may be.
        """
        name, most = entry.name, min(self._max_names, MAX_NAMES)
        if name in self._entries or not _is_usable(name) or len(self._entries) >= most:
            return None
        last = self._creations.pop(name, None)
        creation = (self._draw() if last is None else last + 1) & 0xFFFFFFFF
        held = replace(entry, creation=max(creation, MIN_CREATION))
        self._entries[name] = held
        return held

    def unregister(self, entry: Entry) -> None:
        """Take the name back."""
        del self._entries[entry.name]
        self._creations[entry.name] = entry.creation
        if len(self._creations) > MAX_REMEMBERED:
            del self._creations[next(iter(self._creations))]

    def find(self, name: str) -> Entry | None:
        """Who has this name."""
        return self._entries.get(name)

    def entries(self) -> list[Entry]:
        """All that are registered, the newest first, as OTP lists them."""
        return list(reversed(self._entries.values()))


class Session:
    """One connection to an EPMD.

    `local`: whether it comes from this host; only then may it register.
    """

    def __init__(self, registry: Registry, *, local: bool) -> None:
        self._registry = registry
        self._local = local
        self._received = b""
        self._entry: Entry | None = None
        self.closing = False
        """Whether the connection is to be closed, once what there was to say is said."""

    @property
    def entry(self) -> Entry | None:
        """What is registered over this connection."""
        return self._entry

    def receive_data(self, data: bytes) -> bytes:
        """Take received bytes, cut anyhow; return the answer, if there is one now.

        Look at `closing` after it. What comes then is ignored.
        """
        if self.closing:
            return b""
        if self._entry is not None:  # a registered node has nothing to say
            self.close()
            return b""
        self._received += data
        if len(self._received) < _SIZE.size:
            return b""
        (size,) = _SIZE.unpack_from(self._received)
        request = self._received[_SIZE.size :]
        if not 1 <= size <= MAX_REQUEST_SIZE or len(request) > size:
            self.close()
        elif len(request) == size:
            return self._answer(request)
        return b""

    def close(self) -> None:
        """The connection ends: give back what it had registered."""
        self.closing = True
        self._received = b""
        if self._entry is not None:
            self._registry.unregister(self._entry)
            self._entry = None

    def _answer(self, request: bytes) -> bytes:
        match request[:1]:
            case b"x":
                answer = self._register(request)
            case b"z":
                answer = self._look_up(request)
            case b"n":
                answer = self._names()
            case b"k" if self._local:
                answer = b"NO"
            case _:
                answer = b""
        self._received = b""
        self.closing = self._entry is None
        return answer

    def _register(self, request: bytes) -> bytes:
        if not self._local or (entry := _parse_alive2_request(request)) is None:
            return b""
        self._entry = self._registry.register(entry)
        result = 0 if self._entry is not None else 1
        creation = _REFUSED_CREATION if self._entry is None else self._entry.shown_creation
        if entry.highest_version >= 6:
            return _ALIVE2_X.pack(118, result, creation)
        return _ALIVE2.pack(121, result, creation)

    def _look_up(self, request: bytes) -> bytes:
        name = _decoded(request[1:].removesuffix(b"\0"))
        if not name or "\0" in name or len(name) > 255:
            return b""
        entry = self._registry.find(name)
        return b"w\1" if entry is None else b"w\0" + _node(entry)

    def _names(self) -> bytes:
        lines = (f"name {e.name} at port {e.port}\n" for e in self._registry.entries())
        return _NAMES.pack(self._registry.port) + "".join(lines).encode()


def _is_usable(name: str) -> bool:
    return 0 < len(name) <= 255 and name.isprintable() and " " not in name


def _parse_alive2_request(request: bytes) -> Entry | None:
    """The node that wants to register; one whose name is no text has the name "".

    What is behind `extra` is ignored.
    """
    name_start = 1 + _NODE.size
    if len(request) <= name_start + _SIZE.size:
        return None
    port, node_type, protocol, highest, lowest, name_size = _NODE.unpack_from(request, 1)
    extra_start = name_start + name_size + _SIZE.size
    if len(request) < extra_start:
        return None
    (extra_size,) = _SIZE.unpack_from(request, name_start + name_size)
    raw_name = request[name_start : name_start + name_size]
    if len(request) < extra_start + extra_size or b"\0" in raw_name:
        return None
    extra = request[extra_start : extra_start + extra_size]
    name = _decoded(raw_name) if extra_size <= MAX_NAME_SIZE else ""
    return Entry(name, port, node_type, protocol, highest, lowest, extra)


def _node(entry: Entry) -> bytes:
    name = entry.name.encode()
    head = _NODE.pack(
        entry.port,
        entry.node_type,
        entry.protocol,
        entry.highest_version,
        entry.lowest_version,
        len(name),
    )
    return head + name + _SIZE.pack(len(entry.extra)) + entry.extra


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return ""
