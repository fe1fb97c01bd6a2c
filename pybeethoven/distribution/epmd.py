"""EPMD's messages: the requests that a node makes, and the answers to them.

    request           length:16, then one of
      ALIVE2_REQ        120 node
      PORT_PLEASE2_REQ  122 name
    answers, without a length
      ALIVE2_X_RESP     118 result:8 creation:32
      ALIVE2_RESP       121 result:8 creation:16      from an EPMD older than OTP 23
      PORT2_RESP        119 result:8, and if that is 0:
                        node
    node              port:16 type:8 protocol:8 highest:16 lowest:16 nlen:16 name elen:16 extra

Names are "alive names": the part of a node's name before the `@`. Each parser returns None when it
needs more bytes, and raises `EpmdError` for an answer out of form.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#epmd-protocol
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final, Literal

from pybeethoven.errors import EpmdError

HIDDEN: Final = 72
NORMAL: Final = 77
DISTRIBUTION_VERSION: Final = 6
"""The only version that we, like OTP 25 and later, speak: the highest and the lowest at once."""

_TCP_IPV4: Final = 0
_NODE: Final = Struct(">HBBHHH")
_SIZE: Final = Struct(">H")
_ALIVE2_RESPONSES: Final = {118: Struct(">xBI"), 121: Struct(">xBH")}
_PORT2_RESPONSE: Final = 119


@dataclass(frozen=True, slots=True)
class Alive2Response:
    """The answer to `alive2_request`. `result` is 0, or an error: most likely the name is taken."""

    result: int
    creation: int


@dataclass(frozen=True, slots=True)
class Port2Response:
    """A registered node: its listening port, its type (`HIDDEN`, `NORMAL`) and its versions."""

    port: int
    node_type: int
    highest_version: int
    lowest_version: int
    name: str
    extra: bytes


class NotRegistered(Enum):
    """The type of `NOT_REGISTERED`."""

    NOT_REGISTERED = "NOT_REGISTERED"


NOT_REGISTERED: Final = NotRegistered.NOT_REGISTERED
"""EPMD has no such name."""


def alive2_request(alive_name: str, port: int, *, hidden: bool) -> bytes:
    """Register a name, with the port that the node listens on, while the connection is open."""
    name = alive_name.encode()
    version = DISTRIBUTION_VERSION
    node_type = HIDDEN if hidden else NORMAL
    head = _NODE.pack(port, node_type, _TCP_IPV4, version, version, len(name))
    return _request(b"x" + head + name + _SIZE.pack(0))


def port_please2_request(alive_name: str) -> bytes:
    """Ask for the node with this name."""
    return _request(b"z" + alive_name.encode())


def parse_alive2_response(data: bytes) -> Alive2Response | None:
    """The answer to `alive2_request`, in either form."""
    if not data:
        return None
    response = _ALIVE2_RESPONSES.get(data[0])
    if response is None:
        raise EpmdError(f"EPMD answered a registration with the message {data[0]}")
    if len(data) < response.size:
        return None
    _check_end(data, response.size)
    return Alive2Response(*response.unpack(data))


def parse_port2_response(
    data: bytes,
) -> Port2Response | Literal[NotRegistered.NOT_REGISTERED] | None:
    """The answer to `port_please2_request`."""
    if data and data[0] != _PORT2_RESPONSE:
        raise EpmdError(f"EPMD answered a look-up with the message {data[0]}")
    if len(data) < 2:
        return None
    if data[1] != 0:
        _check_end(data, 2)
        return NOT_REGISTERED
    return _parse_node(data, 2)


def _request(message: bytes) -> bytes:
    return _SIZE.pack(len(message)) + message


def _check_end(data: bytes, end: int) -> None:
    if len(data) > end:
        raise EpmdError(f"EPMD sent {len(data) - end} bytes more than its answer has")


def _parse_node(data: bytes, start: int) -> Port2Response | None:
    name_start = start + _NODE.size
    if len(data) < name_start:
        return None
    port, node_type, _, highest, lowest, name_size = _NODE.unpack_from(data, start)
    extra_start = name_start + name_size + _SIZE.size
    if len(data) < extra_start:
        return None
    (extra_size,) = _SIZE.unpack_from(data, name_start + name_size)
    if len(data) < extra_start + extra_size:
        return None
    _check_end(data, extra_start + extra_size)
    name = _name(data[name_start : name_start + name_size])
    return Port2Response(port, node_type, highest, lowest, name, data[extra_start:])


def _name(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise EpmdError(f"EPMD gave a name that is not UTF-8: {error}") from None
