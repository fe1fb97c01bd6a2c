"""What comes in from other nodes: each control message, and what it does here.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#control-messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pybeethoven.distribution import control
from pybeethoven.distribution.control import Control, Op
from pybeethoven.errors import BeethovenError, ProtocolError
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.otp import rpc, spawned
from pybeethoven.otp.process import NOPROC

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node

_ENDS: Final = {
    **dict.fromkeys((Op.LINK, Op.UNLINK, Op.EXIT, Op.EXIT2, Op.MONITOR_P, Op.DEMONITOR_P), (1, 2)),
    **dict.fromkeys((Op.PAYLOAD_EXIT, Op.PAYLOAD_EXIT2), (1, 2)),
    **dict.fromkeys((Op.MONITOR_P_EXIT, Op.PAYLOAD_MONITOR_P_EXIT), (1, 2)),
    **dict.fromkeys((Op.UNLINK_ID, Op.UNLINK_ID_ACK), (2, 3)),
    **dict.fromkeys((Op.SEND_SENDER, Op.ALIAS_SEND), (1, 0)),
    Op.SPAWN_REQUEST: (2, 0),
    Op.SPAWN_REPLY: (4, 2),
}
"""Where in a control message the processes stand that it is from and to; 0 where it is to none."""


class Signals:
    """Hands the signals of other nodes to `node`: one method for each control message."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handlers = {
            Op.LINK: self._process_link,
            Op.SEND: self._process_send,
            Op.EXIT: self._process_exit,
            Op.UNLINK: self._process_unlink,
            Op.REG_SEND: self._process_reg_send,
            Op.GROUP_LEADER: self._process_group_leader,
            Op.EXIT2: self._process_exit2,
            Op.MONITOR_P: self._process_monitor_p,
            Op.DEMONITOR_P: self._process_demonitor_p,
            Op.MONITOR_P_EXIT: self._process_monitor_p_exit,
            Op.SEND_SENDER: self._process_send_sender,
            Op.PAYLOAD_EXIT: self._process_payload_exit,
            Op.PAYLOAD_EXIT2: self._process_payload_exit2,
            Op.PAYLOAD_MONITOR_P_EXIT: self._process_payload_monitor_p_exit,
            Op.SPAWN_REQUEST: self._process_spawn_request,
            Op.SPAWN_REPLY: self._process_spawn_reply,
            Op.ALIAS_SEND: self._process_alias_send,
            Op.UNLINK_ID: self._process_unlink_id,
            Op.UNLINK_ID_ACK: self._process_unlink_id_ack,
            Op.ALTACT_SIG_SEND: self._process_altact_sig_send,
        }

    def node_named(self, name: str) -> None:
        """A peer gave the node its name."""
        self._node.node_named(Atom(name))

    def name_lost(self) -> None:
        """The peer that did so is down."""
        self._node.name_lost()

    def node_up(self, peer: str) -> None:
        """A connection is up."""
        self._node.node_up(Atom(peer))

    def node_down(self, peer: str, reason: BeethovenError, *, was_up: bool) -> None:
        """A connection ended, or could not be made."""
        self._node.node_down(Atom(peer), reason, was_up=was_up)

    def peer_silent(self, peer: str) -> None:
        """Nothing has come from a peer for a while."""
        self._node.peer_silent(Atom(peer))

    def message_received(self, peer: str, received: Control, message: Term) -> None:
        """Do what a control message says.

        Raises `ProtocolError` for a signal between processes that are not the peer's and ours.
        """
        op = received[0]
        if (ends := _ENDS.get(op)) is not None:
            self._check_ends(peer, op, received[ends[0]], received[ends[1]])
        self._handlers[op](peer, received, message)

    def _check_ends(self, peer: str, op: Op, sender: Term, to: Term) -> None:
        if (type(sender) is Pid and sender.node != peer) or (
            type(to) is Pid and to.node != self._node.name
        ):
            name = Op(op).name
            raise ProtocolError(f"{peer} sent {name} for processes that are not its and ours")

    def _check_maker(self, peer: str, op: Op, reference: Reference) -> None:
        if reference.node != peer:
            raise ProtocolError(f"{peer} sent {Op(op).name} with a reference of {reference.node}")

    def _process_send(self, peer: str, received: Control, message: Term) -> None:
        self._node.deliver(received[2], message)

    def _process_send_sender(self, peer: str, received: Control, message: Term) -> None:
        self._node.deliver(received[2], message, received[1])

    def _process_reg_send(self, peer: str, received: Control, message: Term) -> None:
        self._node.deliver(received[3], message, received[1])

    def _process_alias_send(self, peer: str, received: Control, message: Term) -> None:
        self._node.deliver_to_alias(received[2], message, received[1])

    def _process_altact_sig_send(self, peer: str, received: Control, message: Term) -> None:
        raise ProtocolError(f"{peer} sent ALTACT_SIG_SEND, which was not negotiated")

    def _process_group_leader(self, peer: str, received: Control, message: Term) -> None:
        """Nothing: a process here does its input and output itself."""

    def _process_link(self, peer: str, received: Control, message: Term) -> None:
        _, sender, to = received
        process = self._node.process(to)
        if process is None:
            self._node.ties.send_exit(to, sender, NOPROC)
        elif sender not in process.unlinking:
            process.links.add(sender)
            self._node.ties.tie(process, sender.node)

    def _process_unlink(self, peer: str, received: Control, message: Term) -> None:
        _, sender, to = received
        if (process := self._node.process(to)) is not None and sender in process.links:
            process.links.discard(sender)
            process.unlinked(sender)

    def _process_unlink_id(self, peer: str, received: Control, message: Term) -> None:
        _, number, sender, to = received
        self._process_unlink(peer, (Op.UNLINK, sender, to), message)
        self._node.network.send(peer, *control.unlink_id_ack(number, to, sender))

    def _process_unlink_id_ack(self, peer: str, received: Control, message: Term) -> None:
        _, number, sender, to = received
        process = self._node.process(to)
        if process is not None and process.unlinking.get(sender) == number:
            del process.unlinking[sender]

    def _process_exit(self, peer: str, received: Control, message: Term) -> None:
        _, sender, to, reason = received
        self._node.ties.send_exit(sender, to, reason)

    def _process_payload_exit(self, peer: str, received: Control, message: Term) -> None:
        self._process_exit(peer, (*received, message), message)

    def _process_exit2(self, peer: str, received: Control, message: Term) -> None:
        _, sender, to, reason = received
        self._node.ties.exit_from(sender, to, reason)

    def _process_payload_exit2(self, peer: str, received: Control, message: Term) -> None:
        self._process_exit2(peer, (*received, message), message)

    def _process_monitor_p(self, peer: str, received: Control, message: Term) -> None:
        op, watcher, target, reference = received
        self._check_maker(peer, op, reference)
        if (process := self._node.process(target)) is not None:
            process.watchers[reference] = (watcher, target)
            self._node.ties.tie(process, watcher.node)
            if type(target) is not Pid:
                self._node.ties.watched_by_name[reference] = process
        else:
            self._node.ties.send_down(target, watcher, reference, NOPROC)

    def _process_demonitor_p(self, peer: str, received: Control, message: Term) -> None:
        op, _, target, reference = received
        self._check_maker(peer, op, reference)
        process = self._node.ties.watched_by_name.pop(reference, None)
        if process is None:  # else the name may be another's by now
            process = self._node.process(target)
        if process is not None:
            process.watchers.pop(reference, None)

    def _process_monitor_p_exit(self, peer: str, received: Control, message: Term) -> None:
        _, _, _, reference, reason = received
        if (monitor := self._node.ties.monitor_on(peer, reference)) is not None:
            self._node.ties.take_monitor(reference)
            monitor.on_down(reason)

    def _process_payload_monitor_p_exit(self, peer: str, received: Control, message: Term) -> None:
        self._process_monitor_p_exit(peer, (*received, message), message)

    def _process_spawn_request(self, peer: str, received: Control, message: Term) -> None:
        _, request, sender, _, mfa, options = received
        spawned.process_spawn_request(self._node, peer, request, sender, mfa, options, message)

    def _process_spawn_reply(self, peer: str, received: Control, message: Term) -> None:
        _, request, caller, _, result = received
        rpc.process_spawn_reply(self._node, peer, request, caller, result)
