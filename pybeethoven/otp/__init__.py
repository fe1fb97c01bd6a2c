"""PROCESSES: nodes, processes, signals between them, GenServers."""

from pybeethoven.otp.gen_server import NO_REPLY, From, GenServer
from pybeethoven.otp.node import Node
from pybeethoven.otp.process import Process

__all__ = ["NO_REPLY", "From", "GenServer", "Node", "Process"]
