"""THE MIRROR: a Mnesia table of the BEAM peers, kept in this process."""

from pybeethoven.mnesia.events import WRITE, Change
from pybeethoven.mnesia.match_spec import Context, MatchSpec
from pybeethoven.mnesia.mirror import Mirror
from pybeethoven.mnesia.table import Row, Table

__all__ = ["WRITE", "Change", "Context", "MatchSpec", "Mirror", "Row", "Table"]
