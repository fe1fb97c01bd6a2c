"""Join a Python process to a Beethoven cluster, as a distributed Erlang node."""

from pybeethoven.cluster.beethoven import Beethoven
from pybeethoven.cluster.core_server import CoreServer, Follower, Updates
from pybeethoven.cluster.distr_server import DistrConfig, DistrServer
from pybeethoven.cluster.substrate import Role
from pybeethoven.cluster.tracker import (
    NodeStatus,
    NodeUpdate,
    ServerStatus,
    TrackerEvent,
    TrackerRow,
)
from pybeethoven.errors import (
    Aborted,
    BeethovenError,
    ConfigError,
    JoinError,
    MatchSpecError,
    MirrorError,
    NotReady,
    TableTimeout,
)
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
from pybeethoven.mnesia import Delete, DeleteObject, Write
from pybeethoven.otp import NO_REPLY, ChildSpec, From, GenServer, Node, Process, Supervisor

__all__ = [
    "NO_REPLY",
    "Aborted",
    "Atom",
    "Beethoven",
    "BeethovenError",
    "BitString",
    "ChildSpec",
    "ConfigError",
    "CoreServer",
    "Delete",
    "DeleteObject",
    "DistrConfig",
    "DistrServer",
    "Export",
    "Follower",
    "From",
    "Fun",
    "GenServer",
    "ImproperList",
    "JoinError",
    "Map",
    "MatchSpecError",
    "MirrorError",
    "Node",
    "NodeStatus",
    "NodeUpdate",
    "NotReady",
    "Pid",
    "Port",
    "Process",
    "Reference",
    "Role",
    "ServerStatus",
    "Supervisor",
    "TableTimeout",
    "Term",
    "TrackerEvent",
    "TrackerRow",
    "Updates",
    "Write",
]
