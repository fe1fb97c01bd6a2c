"""Real BEAM nodes for tests: start, drive, stop, kill and freeze them."""

from pybeethoven.testing.beam import (
    BeamDownError,
    BeamError,
    BeamNode,
    Epmd,
    EvalError,
    compile_elixir,
    find_elixir_lib,
    find_epmd,
    free_port,
)

__all__ = [
    "BeamDownError",
    "BeamError",
    "BeamNode",
    "Epmd",
    "EvalError",
    "compile_elixir",
    "find_elixir_lib",
    "find_epmd",
    "free_port",
]
