"""Nodes that are to meet, as in the tests of the network."""

from tests.net.conftest import start_node

__all__ = ["start_node"]
