"""THE MIRROR: a Mnesia table of the BEAM peers, kept in this process."""

from pybeethoven.mnesia.events import DELETE, EVENT, WRITE, Change
from pybeethoven.mnesia.match_spec import Context, MatchSpec
from pybeethoven.mnesia.mirror import DETAILED, SIMPLE, SUBSCRIBER, Mirror
from pybeethoven.mnesia.operations import Delete, DeleteObject, Operation, Write
from pybeethoven.mnesia.served import TableServer
from pybeethoven.mnesia.table import Row, Table

__all__ = [
    "DELETE",
    "DETAILED",
    "EVENT",
    "SIMPLE",
    "SUBSCRIBER",
    "WRITE",
    "Change",
    "Context",
    "Delete",
    "DeleteObject",
    "MatchSpec",
    "Mirror",
    "Operation",
    "Row",
    "Table",
    "TableServer",
    "Write",
]
