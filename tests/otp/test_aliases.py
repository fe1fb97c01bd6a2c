"""Aliases of processes, and the link protocol as a peer sees it."""

from __future__ import annotations

import time

import pytest

from pybeethoven import Atom, Node, Pid, Reference, Term
from pybeethoven.distribution.control import Control, Op
from pybeethoven.distribution.flags import OFFERED, Flag
from pybeethoven.errors import ConfigError, NoConnection, ProtocolError
from pybeethoven.etf import ImproperList
from pybeethoven.otp.signals import Signals
from tests.helpers import Recorder
from tests.otp.processes import BOOM, KILL, NOPROC, NORMAL, down, exited, spawn_recorder
from tests.timing import UNIT

PEER = Pid(Atom("peer@127.0.0.1"), 1, 0, 1)


async def test_alias(node: Node) -> None:
    """Messages by it arrive until it is taken back."""
    process, other = spawn_recorder(node), spawn_recorder(node)
    alias = process.alias()
    node.send(alias, 1)
    node.send(alias, (Atom("a"), "pair"))
    assert not other.unalias(alias)
    assert process.unalias(alias)
    assert not process.unalias(alias)
    node.send(alias, 2)
    node.send(process, 3)
    assert [await process.next() for _ in range(3)] == [1, (Atom("a"), "pair"), 3]
    assert process.messages.empty()


async def test_alias_for_one_reply(node: Node) -> None:
    """Only the first message by it arrives."""
    process = spawn_recorder(node)
    alias = process.alias(reply=True)
    for number in range(3):
        node.send(alias, number)
    assert await process.next() == 0
    assert process.messages.empty()
    assert not process.unalias(alias)


async def test_alias_ends_with_the_process(node: Node) -> None:
    """Nothing is kept for it then, nor made for a process that has ended."""
    process = spawn_recorder(node)
    aliases = [process.alias() for _ in range(3)]
    node.exit(process, KILL)
    for alias in (*aliases, process.alias()):
        node.send(alias, 1)
        assert not process.unalias(alias)
    assert process.messages.empty()
    assert node.aliases._aliases == {}


@pytest.mark.parametrize(
    ("kind", "after_message", "after_demonitor"),
    [
        ("explicit_unalias", [1, 2, 3, 4], [1, 2]),
        ("demonitor", [1, 2, 3], []),
        ("reply_demonitor", [1], []),
    ],
)
async def test_alias_of_a_monitor(
    node: Node, kind: str, after_message: list[int], after_demonitor: list[int]
) -> None:
    """It ends by DOWN, a reply, or `demonitor`, as its kind has it."""
    process, target = spawn_recorder(node), spawn_recorder(node)
    reference = process.monitor(target, alias=kind)  # type: ignore[arg-type]
    for number in (1, 2, 3):
        node.send(reference, number)
    node.exit(target, BOOM)
    node.send(reference, 4)
    told = down(reference, target.pid, BOOM)
    expected = [told] if kind != "reply_demonitor" else []
    got = [await process.next() for _ in range(len(after_message) + len(expected))]
    assert [m for m in got if m != told] == after_message
    assert [m for m in got if m == told] == expected
    reference = process.monitor(spawn_recorder(node), alias=kind)  # type: ignore[arg-type]
    process.demonitor(reference)
    for number in (1, 2):
        node.send(reference, number)
    assert [await process.next() for _ in after_demonitor] == after_demonitor
    assert process.messages.empty()


async def test_alias_of_a_monitor_of_nobody(node: Node) -> None:
    """DOWN comes at once, and with it the end of the alias."""
    process = spawn_recorder(node)
    reference = process.monitor("nobody", alias="demonitor")
    assert await process.next_down(reference) == NOPROC
    node.send(reference, 1)
    assert process.messages.empty()


async def test_alias_send_from_a_peer(node: Node) -> None:
    """ALIAS_SEND reaches the process; by a made-up alias it reaches nobody."""
    process = spawn_recorder(node)
    alias = process.alias()
    signals = Signals(node)
    signals.message_received(PEER.node, (Op.ALIAS_SEND, PEER, alias), b"hello")
    made_up = Reference(node.name, alias.creation, (1, 2, 3))
    signals.message_received(PEER.node, (Op.ALIAS_SEND, PEER, made_up), b"lost")
    assert await process.next() == b"hello"
    assert process.messages.empty()


async def test_reply_to_a_call_is_no_message(node: Node) -> None:
    """What comes by the alias of a call that is over is dropped."""
    process = spawn_recorder(node)
    late = ImproperList([Atom("alias")], node.make_reference())
    node.deliver(process.pid, (late, 1))
    node.deliver_to_alias(node.make_reference(), (late, 1))
    assert process.messages.empty()


# Links with another node


class Wire:
    """A node whose network only records what is sent, and a process on it."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Control] = []
        self.flags = OFFERED
        monkeypatch.setattr(node.network, "send", self._send)
        monkeypatch.setattr(node.network, "is_connected", lambda peer: True)
        monkeypatch.setattr(node.network, "flags_of", lambda peer: self.flags)
        self.process = spawn_recorder(node, trap_exit=True)
        self._signals = Signals(node)

    def _send(self, peer: str, control: Control, *args: Term, **options: Term) -> None:
        self.sent.append(control)

    def receive(self, op: Op, *elements: Term, message: Term = None) -> None:
        """A control message from the peer."""
        self._signals.message_received(PEER.node, (op, *elements), message)

    def take(self) -> list[Control]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
async def wire(node: Node, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """A process on a wire."""
    return Wire(node, monkeypatch)


async def test_unlink_is_acknowledged_first(wire: Wire) -> None:
    """UNLINK_ID is answered with its id before anything else, also when there is no link."""
    pid = wire.process.pid
    wire.receive(Op.LINK, PEER, pid)
    wire.receive(Op.UNLINK_ID, 7, PEER, pid)
    wire.receive(Op.UNLINK_ID, 8, PEER, pid)
    assert wire.take() == [(Op.UNLINK_ID_ACK, 7, pid, PEER), (Op.UNLINK_ID_ACK, 8, pid, PEER)]
    assert wire.process.links == set()


async def test_unlinks_that_cross(wire: Wire) -> None:
    """Both sides unlink at once: each acknowledges, and nothing is left."""
    pid = wire.process.pid
    wire.process.link(PEER)
    wire.process.unlink(PEER)
    wire.receive(Op.UNLINK_ID, 9, PEER, pid)
    link, unlink, ack = wire.take()
    assert (link, ack) == ((Op.LINK, pid, PEER), (Op.UNLINK_ID_ACK, 9, pid, PEER))
    assert wire.process.unlinking == {PEER: unlink[1]}
    wire.receive(Op.UNLINK_ID_ACK, unlink[1], PEER, pid)
    assert (wire.process.links, wire.process.unlinking) == (set(), {})


async def test_link_that_crosses_an_unlink(wire: Wire) -> None:
    """Until our unlink is acknowledged the peer's LINK does not count; after it, it does."""
    pid = wire.process.pid
    wire.process.link(PEER)
    wire.process.unlink(PEER)
    unlink = wire.take()[1]
    wire.receive(Op.LINK, PEER, pid)
    assert wire.process.links == set()
    wire.receive(Op.UNLINK_ID_ACK, unlink[1] + 1, PEER, pid)
    wire.receive(Op.LINK, PEER, pid)
    assert wire.process.links == set()
    wire.receive(Op.UNLINK_ID_ACK, unlink[1], PEER, pid)
    wire.receive(Op.LINK, PEER, pid)
    assert wire.process.links == {PEER}


async def test_linked_again_before_the_acknowledgement(wire: Wire) -> None:
    """A new link stands, whatever the acknowledgement of the old unlink; signals go out only for
    what changes."""
    pid = wire.process.pid
    wire.process.link(PEER)
    wire.process.link(PEER)
    wire.process.unlink(PEER)
    wire.process.unlink(PEER)
    wire.process.link(PEER)
    sent = wire.take()
    assert [control[0] for control in sent] == [Op.LINK, Op.UNLINK_ID, Op.LINK]
    wire.receive(Op.UNLINK_ID_ACK, sent[1][1], PEER, pid)
    assert wire.process.links == {PEER}


async def test_exit_after_unlink(wire: Wire) -> None:
    """The exit of one that was unlinked from is not heard; as it never acknowledges, nothing waits
    for that."""
    pid = wire.process.pid
    wire.process.link(PEER)
    wire.process.unlink(PEER)
    wire.receive(Op.PAYLOAD_EXIT, PEER, pid, message=BOOM)
    assert wire.process.unlinking == {}
    assert wire.process.messages.empty()
    wire.process.link(PEER)
    wire.receive(Op.PAYLOAD_EXIT, PEER, pid, message=BOOM)
    assert await wire.process.next() == (Atom("EXIT"), PEER, BOOM)
    assert wire.process.links == set()


async def test_unlink_of_a_dead_process(wire: Wire, node: Node) -> None:
    """It is acknowledged, too; a LINK to it is answered with an exit."""
    pid = wire.process.pid
    node.exit(wire.process, KILL)
    wire.receive(Op.UNLINK_ID, 1, PEER, pid)
    wire.receive(Op.LINK, PEER, pid)
    assert wire.take() == [(Op.UNLINK_ID_ACK, 1, pid, PEER), (Op.PAYLOAD_EXIT, pid, PEER)]


async def test_demonitors_of_what_is_not_monitored(wire: Wire, node: Node) -> None:
    """They take no longer where there are many processes; what is known of names is forgotten."""
    others = [spawn_recorder(node) for _ in range(10_000)]
    reference = Reference(PEER.node, 1, (1, 2, 3))
    start = time.monotonic()
    for _ in range(2000):
        wire.receive(Op.DEMONITOR_P, PEER, Atom("name"), reference)
    assert time.monotonic() - start < 0.5 * UNIT
    for number, other in enumerate(others[:3]):
        node.register("name", other)
        each = Reference(PEER.node, 1, (number, 2, 3))
        wire.receive(Op.MONITOR_P, PEER, Atom("name"), each)
        node.unregister("name")
        assert list(node.ties.watched_by_name) == [each]
        match number:
            case 0:
                wire.receive(Op.DEMONITOR_P, PEER, Atom("name"), each)
            case 1:
                node.end_process(other, NORMAL)
            case 2:
                node.node_down(PEER.node, NoConnection("lost"), was_up=True)
        assert node.ties.watched_by_name == {}
        assert other.watchers == {} or not other.alive


async def test_demonitor_of_a_name_that_moved(wire: Wire, node: Node) -> None:
    """DEMONITOR_P finds the process that had the name when it was monitored."""
    node.register("name", wire.process)
    reference = Reference(PEER.node, 1, (1, 2, 3))
    wire.receive(Op.MONITOR_P, PEER, Atom("name"), reference)
    node.unregister("name")
    heir = Recorder()
    node.spawn(heir, name="name")
    wire.receive(Op.DEMONITOR_P, PEER, Atom("name"), reference)
    wire.receive(Op.DEMONITOR_P, PEER, Atom("name"), reference)
    assert wire.process.watchers == heir.watchers == {}


async def test_peer_without_aliases_or_unlink_ids(wire: Wire, node: Node) -> None:
    """It is sent nothing that it does not know: no ALIAS_SEND, and the old UNLINK."""
    wire.process.link(PEER)
    wire.take()
    wire.flags = OFFERED & ~Flag.ALIAS & ~Flag.UNLINK_ID
    node.send(Reference(PEER.node, 1, (1, 2, 3)), b"lost")
    wire.process.unlink(PEER)
    assert wire.take() == [(Op.UNLINK, wire.process.pid, PEER)]
    assert wire.process.unlinking == {}


async def test_group_leader_is_ignored(wire: Wire) -> None:
    """A process here has none."""
    wire.receive(Op.GROUP_LEADER, PEER, wire.process.pid)
    assert wire.take() == []


async def test_what_was_not_negotiated(wire: Wire) -> None:
    """ALTACT_SIG_SEND, which no BEAM sends us, ends the connection."""
    with pytest.raises(ProtocolError, match="ALTACT_SIG_SEND"):
        wire.receive(Op.ALTACT_SIG_SEND, 0, PEER, wire.process.pid, message=1)


async def test_local_links_still_tell(node: Node) -> None:
    """An exit between processes of one node is told once, after unlinking and linking again."""
    one, other = spawn_recorder(node, trap_exit=True), spawn_recorder(node)
    one.link(other.pid)
    one.unlink(other.pid)
    one.link(other.pid)
    node.exit(other, BOOM)
    assert await one.next() == exited(other, BOOM)
    assert one.messages.empty()


async def test_alias_cannot_be_monitored(node: Node) -> None:
    """An alias stands for a process only to those that send."""
    recorder = spawn_recorder(node)
    with pytest.raises(ConfigError, match="is an alias; only a process can be monitored"):
        recorder.monitor(recorder.alias())
