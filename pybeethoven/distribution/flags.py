"""Capability flags: what a node understands, told to its peer in the handshake.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#distribution-flags
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class Flag(IntFlag):
    """The flags, without their `DFLAG_` prefix. Bits that have no name here are kept."""

    PUBLISHED = 1 << 0
    ATOM_CACHE = 1 << 1
    EXTENDED_REFERENCES = 1 << 2
    DIST_MONITOR = 1 << 3
    FUN_TAGS = 1 << 4
    DIST_MONITOR_NAME = 1 << 5
    HIDDEN_ATOM_CACHE = 1 << 6
    NEW_FUN_TAGS = 1 << 7
    EXTENDED_PIDS_PORTS = 1 << 8
    EXPORT_PTR_TAG = 1 << 9
    BIT_BINARIES = 1 << 10
    NEW_FLOATS = 1 << 11
    UNICODE_IO = 1 << 12
    DIST_HDR_ATOM_CACHE = 1 << 13
    SMALL_ATOM_TAGS = 1 << 14
    UTF8_ATOMS = 1 << 16
    MAP_TAG = 1 << 17
    BIG_CREATION = 1 << 18
    SEND_SENDER = 1 << 19
    BIG_SEQTRACE_LABELS = 1 << 20
    EXIT_PAYLOAD = 1 << 22
    FRAGMENTS = 1 << 23
    HANDSHAKE_23 = 1 << 24
    UNLINK_ID = 1 << 25
    # The documentation of OTP 25 has bit 36; the sources, and what peers accept, have this one.
    MANDATORY_25_DIGEST = 1 << 26
    SPAWN = 1 << 32
    NAME_ME = 1 << 33
    V4_NC = 1 << 34
    ALIAS = 1 << 35
    ALTACT_SIG = 1 << 37
    NATIVE_RECORDS = 1 << 38


REQUIRED: Final = (
    Flag.EXTENDED_REFERENCES
    | Flag.FUN_TAGS
    | Flag.NEW_FUN_TAGS
    | Flag.EXTENDED_PIDS_PORTS
    | Flag.EXPORT_PTR_TAG
    | Flag.BIT_BINARIES
    | Flag.NEW_FLOATS
    | Flag.UTF8_ATOMS
    | Flag.MAP_TAG
    | Flag.BIG_CREATION
    | Flag.HANDSHAKE_23
)
"""What a peer must have, or the handshake fails: the terms we send, and the version 6 handshake.

These are what OTP 25 calls mandatory.
"""

OFFERED: Final = (
    REQUIRED
    | Flag.DIST_MONITOR
    | Flag.DIST_MONITOR_NAME
    | Flag.SMALL_ATOM_TAGS
    | Flag.SEND_SENDER
    | Flag.EXIT_PAYLOAD
    | Flag.FRAGMENTS
    | Flag.UNLINK_ID
    | Flag.MANDATORY_25_DIGEST
    | Flag.SPAWN
    | Flag.V4_NC
    | Flag.ALIAS
    | Flag.NATIVE_RECORDS
)
"""What this node offers, hidden (no PUBLISHED) and without an atom cache."""


def expand_digest(flags: Flag) -> Flag:
    """`flags` with those that MANDATORY_25_DIGEST stands for, when it is among them."""
    return flags | REQUIRED if flags & Flag.MANDATORY_25_DIGEST else flags


def missing_flags(flags: Flag, required: Flag = REQUIRED) -> list[str]:
    """The names of those `required` flags that `flags` lacks, lowest bit first."""
    return [flag.name or hex(flag) for flag in Flag(required & ~flags)]
