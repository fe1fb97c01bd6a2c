"""Real BEAM nodes for tests: start, drive, stop, kill and freeze them."""

from pybeethoven.testing.beam import BeamNode
from pybeethoven.testing.common import BeamDownError, BeamError, EvalError
from pybeethoven.testing.compiler import compile_elixir, find_elixir_lib
from pybeethoven.testing.epmd import Epmd, find_epmd, free_port
from pybeethoven.testing.peers import Peers, compile_peer

__all__ = [
    "BeamDownError",
    "BeamError",
    "BeamNode",
    "Epmd",
    "EvalError",
    "Peers",
    "compile_elixir",
    "compile_peer",
    "find_elixir_lib",
    "find_epmd",
    "free_port",
]
