"""SANS-IO: the External Term Format."""

from pybeethoven.etf.decoder import decode, decode_term
from pybeethoven.etf.encoder import encode, encode_into
from pybeethoven.etf.terms import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    NativeRecord,
    Pid,
    Port,
    Reference,
    Term,
)

__all__ = [
    "Atom",
    "BitString",
    "Export",
    "Fun",
    "ImproperList",
    "Map",
    "NativeRecord",
    "Pid",
    "Port",
    "Reference",
    "Term",
    "decode",
    "decode_term",
    "encode",
    "encode_into",
]
