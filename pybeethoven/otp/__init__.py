"""PROCESSES: nodes, processes, signals between them, GenServers, supervisors."""

from pybeethoven.otp.aliases import AliasKind
from pybeethoven.otp.gen_server import NO_REPLY, From, GenServer
from pybeethoven.otp.node import Node
from pybeethoven.otp.process import Own, Process
from pybeethoven.otp.supervisor import ChildSpec, Supervisor

__all__ = [
    "NO_REPLY",
    "AliasKind",
    "ChildSpec",
    "From",
    "GenServer",
    "Node",
    "Own",
    "Process",
    "Supervisor",
]
