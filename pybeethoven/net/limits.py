"""How much a node bears: of each peer, and of strangers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from pybeethoven.distribution.framing import MAX_MESSAGE_SIZE, MAX_UNFINISHED_SIZE
from pybeethoven.errors import ConfigError
from pybeethoven.etf.decoder import MAX_DEPTH, MAX_TERMS

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a node; give what is to be other than the default. Sizes are in bytes.

    `handshake_time` (seconds): a handshake, the look-up before it included (OTP's net_setuptime).
    `handshakes`: connections of others whose handshake is under way. With one more the oldest of
    those from the address that has the most is closed, so that who says nothing keeps nobody out.
    `dials`: attempts of this node to connect. One more fails at once with `NoConnection`; what was
    to be sent is dropped, as for any node that can't be reached.

    `peers`: nodes that are connected. One more is refused, and not dialled; those whose handshake
    is under way by then still get in. Each may hold `message_size` and `unfinished_size`, 192 MiB
    with the defaults, so that the three bound the memory.

    What a peer sends beyond these closes its connection:
    `message_size`: a message, fragmented or not. `unfinished_size`: what a peer has sent of all its
    unfinished fragmented messages. `term_depth`: containers open inside each other. `terms`: the
    terms of a message, control message and payload each. Beside its bytes, which are there up to
    three times, a message takes at most 80 times these for its terms, with the defaults 2 GB.

    `processes`: with so many processes on the node, other nodes can start no more; their rpc and
    spawns fail with `system_limit`, as on a BEAM with that many (its `+P`).

    `unsent_size`: what waits to be sent to one peer, or to all that are being dialled. A message is
    taken as long as less than this waits before it, whatever its own size; those over 64 KiB and
    the others are counted apart, since the others need not wait for them. Then `call`, `rpc`,
    `send_wait` and `drain` wait, `send` and `cast` raise `Busy`. Replies and what the node itself
    says (links, monitors, exits, spawns) are still taken; if they come to as much again, or if the
    peer takes nothing at all for net_ticktime, it is disconnected: its processes are seen to end
    with `noconnection`.

    Two limits need no setting. Atoms: none is kept for a peer, only a cache of 4,096, which is
    emptied when full. Decompression: nothing on a connection is ever decompressed, a compressed
    term is an error there; for `etf.decode` see its `max_size`.

    Raises `ConfigError` for a limit that is not more than 0.
    """

    handshake_time: float = 7.0
    handshakes: int = 256
    dials: int = 256
    peers: int = 4096
    message_size: int = MAX_MESSAGE_SIZE
    unfinished_size: int = MAX_UNFINISHED_SIZE
    term_depth: int = MAX_DEPTH
    terms: int = MAX_TERMS
    processes: int = 65_536
    unsent_size: int = 64 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"the limit {field.name} is {value!r}; it must be more than 0")
