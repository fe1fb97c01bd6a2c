"""What a BEAM's process sees of Python processes is what it would see of another BEAM's.

`erlang_interop/transcript.erl` is run against a Python node and against a BEAM node that have the
same processes; the two transcripts must be the same.

Not compared is what differs on purpose: the reason of a Python exception, which has no Erlang stack
(test_rpc.py); what of `sys` a Python process refuses (test_sys.py); `terminate`, which is called
after exit signals, too; functions of OTP's own modules, as none is there unless it was exported;
a node that is not hidden (test_node.py), as `global` meddles with the connections of those.
"""

from __future__ import annotations

import difflib
from pprint import pformat

import pytest

import erlang_interop.oracle
from pybeethoven import Node, Term
from pybeethoven.testing import BeamNode, Peers
from tests.helpers import LIMIT, atoms
from tests.interop import transcript_peer
from tests.interop.members import PY

CLIENT = "client@127.0.0.1"
TWIN = "twin@127.0.0.1"
SOURCES = erlang_interop.oracle.SOURCE.parent

GROUPS = [
    *("links", "signals", "monitors", "aliases", "calls", "requests", "system", "order", "spawns"),
    "nodes",
]

LOAD = """
{:ok, module, binary} = :compile.file(to_charlist("PATH"), [:binary, :return_errors])
for node <- [node() | NODES], do:
  {:module, ^module} = :rpc.call(node, :code, :load_binary, [module, ~c"PATH", binary])
"""


@pytest.fixture
async def client(cluster: Peers) -> BeamNode:
    """The BEAM that watches, connected to another BEAM with the processes it watches."""
    client = await cluster.start_bare(CLIENT)
    await cluster.start_bare(TWIN, flags=["-hidden"])
    for name, nodes in (("transcript", "[]"), ("transcript_peer", f'[:"{TWIN}"]')):
        path = str(SOURCES / f"{name}.erl")
        await client.eval(LOAD.replace("PATH", path).replace("NODES", nodes))
    return client


async def play(client: BeamNode, group: str, target: str) -> dict[str, Term]:
    """The transcripts of a group's scenarios, by name."""
    source = f':transcript.play(:{group}, :"{target}")'
    return {repr(name): seen for name, seen in await client.eval(source, timeout=6 * LIMIT)}


def difference(name: str, ours: Term, theirs: Term) -> str:
    """How the two transcripts of a scenario differ; empty if they don't."""
    before, after = (pformat(each, width=90).splitlines() for each in (theirs, ours))
    lines = difflib.unified_diff(before, after, f"{name} BEAM", f"{name} Python", lineterm="")
    return "\n".join(lines)


async def test_no_group_is_forgotten(client: BeamNode) -> None:
    """What is played here is all there is."""
    assert await client.eval(":transcript.groups()") == list(atoms(*GROUPS))


@pytest.mark.parametrize("group", GROUPS)
async def test_transcripts(client: BeamNode, node: Node, group: str) -> None:
    """Each scenario sees something, leaves nothing behind, and sees the same on both nodes."""
    transcript_peer.export(node)
    theirs = await play(client, group, TWIN)
    ours = await play(client, group, PY)
    assert list(ours) == list(theirs)
    for name, seen in theirs.items():
        assert isinstance(seen, list), f"{name} on the BEAM: {seen}"
        assert len(seen) > 1, f"{name} saw nothing"
    differences = [difference(name, ours[name], theirs[name]) for name in theirs]
    assert not any(differences), "\n".join(filter(None, differences))
