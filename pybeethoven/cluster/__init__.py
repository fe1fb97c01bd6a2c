"""BEETHOVEN: finding a cluster, joining it, and its CoreServer. One file per Elixir module."""
