"""Join a Python process to a Beethoven cluster, as a distributed Erlang node."""

from pybeethoven.cluster.beethoven import Beethoven
from pybeethoven.cluster.core_server import CoreServer, Updates
from pybeethoven.cluster.tracker import NodeUpdate, TrackerRow
from pybeethoven.errors import BeethovenError, ConfigError, JoinError
from pybeethoven.etf import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Reference,
    Term,
)
from pybeethoven.otp import NO_REPLY, From, GenServer, Node, Process

__all__ = [
    "NO_REPLY",
    "Atom",
    "Beethoven",
    "BeethovenError",
    "BitString",
    "ConfigError",
    "CoreServer",
    "Export",
    "From",
    "Fun",
    "GenServer",
    "ImproperList",
    "JoinError",
    "Map",
    "Node",
    "NodeUpdate",
    "Pid",
    "Port",
    "Process",
    "Reference",
    "Term",
    "TrackerRow",
    "Updates",
]
