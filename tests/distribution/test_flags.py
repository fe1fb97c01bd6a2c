"""Tests of `distribution.flags`."""

from __future__ import annotations

import pytest

from pybeethoven.distribution.flags import OFFERED, REQUIRED, Flag, expand_digest, missing_flags


def test_offered_flags_are_those_recommended() -> None:
    """OFFERED has the value that was tried with OTP 25 to 29: hidden, no atom cache."""
    assert OFFERED == 0x4D07CF4FBC
    assert not OFFERED & (Flag.PUBLISHED | Flag.DIST_HDR_ATOM_CACHE | Flag.NAME_ME)


def test_required_flags_are_those_of_otp_25() -> None:
    """REQUIRED has the value of DFLAG_DIST_MANDATORY_25, and we offer all of it."""
    assert REQUIRED == 0x1070F94
    assert REQUIRED & OFFERED == REQUIRED


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        (Flag.FRAGMENTS, 0x800000),
        (Flag.UNLINK_ID, 1 << 25),
        (Flag.MANDATORY_25_DIGEST, 1 << 26),
        (Flag.SPAWN, 1 << 32),
        (Flag.NAME_ME, 1 << 33),
        (Flag.V4_NC, 1 << 34),
        (Flag.ALIAS, 1 << 35),
        (Flag.ALTACT_SIG, 1 << 37),
        (Flag.NATIVE_RECORDS, 1 << 38),
    ],
)
def test_flag_has_its_bit(flag: Flag, value: int) -> None:
    """Flags beyond the oldest ones have the bit that the sources of OTP give them."""
    assert flag == value


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (REQUIRED, []),
        (REQUIRED & ~Flag.MAP_TAG, ["MAP_TAG"]),
        (REQUIRED & ~Flag.FUN_TAGS & ~Flag.HANDSHAKE_23, ["FUN_TAGS", "HANDSHAKE_23"]),
        (Flag(REQUIRED | 1 << 60), []),
    ],
)
def test_missing_flags_are_named(flags: Flag, missing: list[str]) -> None:
    """Those that lack are named, lowest bit first; bits unknown here do no harm."""
    assert missing_flags(flags) == missing


def test_digest_stands_for_the_required_flags() -> None:
    """MANDATORY_25_DIGEST brings the required flags; without it nothing is added."""
    assert expand_digest(Flag.MANDATORY_25_DIGEST) == Flag.MANDATORY_25_DIGEST | REQUIRED
    assert expand_digest(Flag.SPAWN) == Flag.SPAWN
