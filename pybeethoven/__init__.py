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
    Busy,
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
from pybeethoven.net.limits import Limits
from pybeethoven.net.observe import ConnectionEvent, ConnectionInfo, NodeInfo
from pybeethoven.otp import NO_REPLY, ChildSpec, From, GenServer, Node, Process, Supervisor

__all__ = [
    "NO_REPLY",
    "Aborted",
    "Atom",
    "Beethoven",
    "BeethovenError",
    "BitString",
    "Busy",
    "ChildSpec",
    "ConfigError",
    "ConnectionEvent",
    "ConnectionInfo",
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
    "Limits",
    "Map",
    "MatchSpecError",
    "MirrorError",
    "Node",
    "NodeInfo",
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
