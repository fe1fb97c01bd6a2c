"""Real BEAM nodes for tests: start, drive, stop, kill and freeze them, and cut them off.

`pybeethoven.testing.plugin` has them as fixtures for pytest.
"""

from pybeethoven.testing.beam import BeamNode
from pybeethoven.testing.cluster import Cluster, Settings
from pybeethoven.testing.common import BeamDownError, BeamError, EvalError
from pybeethoven.testing.compiler import compile_elixir, find_elixir_lib
from pybeethoven.testing.epmd import Epmd, find_epmd
from pybeethoven.testing.peers import Peers, compile_peer
from pybeethoven.testing.ports import free_port

__all__ = [
    "BeamDownError",
    "BeamError",
    "BeamNode",
    "Cluster",
    "Epmd",
    "EvalError",
    "Peers",
    "Settings",
    "compile_elixir",
    "compile_peer",
    "find_elixir_lib",
    "find_epmd",
    "free_port",
]
