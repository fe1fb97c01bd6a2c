"""Links and monitors of the processes of one node, among themselves and with other nodes.

Sources: https://www.erlang.org/doc/system/ref_man_processes.html and, for links to other nodes,
https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#link-protocol
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pybeethoven.distribution import control
from pybeethoven.distribution.flags import Flag
from pybeethoven.etf import Atom, Pid, Reference, Term, encode
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.otp.process import (
    EXIT,
    KILL,
    KILLED,
    NOCONNECTION,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    SYSTEM_LIMIT,
    Own,
    Process,
    is_normal,
    label,
)

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node


logger = logging.getLogger(__name__)

MAX_REASONS_SIZE: Final = 1024 * 1024
"""Maximum bytes of all the exit reasons of one process but the first."""


@dataclass(slots=True)
class Monitor:
    """A monitor that somebody on this node holds. `target`: a pid or (name, node); (None, node) as
    long as that node has not told which process it has spawned."""

    watcher: Pid
    target: Pid | tuple[Atom | None, Atom]
    on_down: Callable[[Term], None]

    @property
    def peer(self) -> Atom:
        """The node of the target."""
        return self.target.node if isinstance(self.target, Pid) else self.target[1]

    @property
    def process(self) -> Pid | Atom | None:
        """The target as that node knows it: its pid or name, or None."""
        return self.target if isinstance(self.target, Pid) else self.target[0]


class Ties:
    """What ties the processes of `node` to others: made, cut, and torn by exits and lost nodes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._monitors: dict[Reference, Monitor] = {}
        self._monitors_on: dict[Atom, dict[Reference, None]] = {}
        """Their references, by the node of the target."""
        self._tied: dict[Atom, dict[Process, None]] = {}
        """The processes that may have links to those of another node, or be watched by them."""
        self._last_unlink = 0
        self._log_limit = LogLimit()
        self.watched_by_name: dict[Reference, Process] = {}
        """The processes that other nodes monitor by a name, which may be another's later."""

    def tie(self, process: Process, peer: Atom) -> None:
        """Note that a process may have a link or a watcher on another node."""
        self._tied.setdefault(peer, {})[process] = None
        process._tied_to.add(peer)

    def link(self, process: Process, pid: Pid) -> None:
        """See `Process.link`."""
        if pid == process.pid or pid in process.links:
            return
        if pid.node != self._node.name:
            process.links.add(pid)
            self.tie(process, pid.node)
            process.unlinking.pop(pid, None)
            self._node.network.send(pid.node, *control.link(process.pid, pid))
        elif (other := self._node.process(pid)) is not None:
            process.links.add(pid)
            other.links.add(process.pid)
        else:
            self.receive_exit(process, pid, NOPROC)

    def unlink(self, process: Process, pid: Pid) -> None:
        """See `Process.unlink`."""
        if pid not in process.links:
            return
        process.links.discard(pid)
        if pid.node != self._node.name:
            self._node.network.send(pid.node, *self._unlink_signal(process, pid))
        elif (other := self._node.process(pid)) is not None:
            other.links.discard(process.pid)

    def _unlink_signal(self, process: Process, pid: Pid) -> control.Signal:
        if not self._node.network.flags_of(pid.node) & Flag.UNLINK_ID:
            return control.unlink(process.pid, pid)
        self._last_unlink += 1
        process.unlinking[pid] = self._last_unlink
        return control.unlink_id(self._last_unlink, process.pid, pid)

    def watch(self, reference: Reference, monitor: Monitor) -> None:
        """Hold a monitor: its `on_down(reason)` is called once, when the target is down."""
        target = monitor.process
        assert target is not None
        if monitor.peer != self._node.name:
            signal = control.monitor_p(monitor.watcher, target, reference)
            self._node.network.send(monitor.peer, *signal)
        elif (process := self._node.process(target)) is not None:
            process.watchers[reference] = (monitor.watcher, target)
            monitor.target = process.pid
        else:
            monitor.on_down(NOPROC)
            return
        self.add_monitor(reference, monitor)

    def add_monitor(self, reference: Reference, monitor: Monitor) -> None:
        """Keep a monitor that the other side knows of already."""
        self._monitors[reference] = monitor
        self._monitors_on.setdefault(monitor.peer, {})[reference] = None
        if (watcher := self._node.process(monitor.watcher)) is not None:
            watcher.monitors.add(reference)

    def spawned(self, reference: Reference, watcher: Pid, pid: Pid) -> None:
        """`pid` is the process that another node has spawned, for a monitor that was kept with
        `add_monitor` and may have been taken back since."""
        if (monitor := self.monitor_on(pid.node, reference)) is not None:
            monitor.target = pid
        else:
            self._node.network.send(pid.node, *control.demonitor_p(watcher, pid, reference))

    def monitor_on(self, peer: str, reference: Reference) -> Monitor | None:
        """The monitor with that reference, if its target is on `peer`: what any other node says of
        it does not count."""
        monitor = self._monitors.get(reference)
        return monitor if monitor is not None and monitor.peer == peer else None

    def take_monitor(self, reference: Reference) -> Monitor | None:
        """Forget a monitor on this side and give it, if it is there."""
        if (monitor := self._monitors.pop(reference, None)) is None:
            return None
        left = self._monitors_on[monitor.peer]
        del left[reference]
        if not left:
            del self._monitors_on[monitor.peer]
        if (watcher := self._node.process(monitor.watcher)) is not None:
            watcher.monitors.discard(reference)
        return monitor

    def demonitor(self, reference: Reference) -> None:
        """See `Process.demonitor`."""
        monitor = self.take_monitor(reference)
        if monitor is None or (target := monitor.process) is None:
            return
        if self._node.network.is_connected(monitor.peer):
            signal = control.demonitor_p(monitor.watcher, target, reference)
            self._node.network.send(monitor.peer, *signal)
        elif (process := self._node.process(target)) is not None:
            process.watchers.pop(reference, None)

    def exit_from(self, sender: Pid, to: Pid, reason: Term) -> None:
        """Send an exit signal in the name of `sender`."""
        if to.node != self._node.name:
            flags = self._node.network.flags_of(to.node)
            self._node.network.send(to.node, *control.exit2(flags, sender, to, reason))
        elif (process := self._node.process(to)) is not None:
            killed = reason == KILL
            if killed and sender.node != self._node.name:
                self._log_kill(process, sender)
            self.receive_exit(process, sender, KILLED if killed else reason, untrappable=killed)

    def _log_kill(self, process: Process, sender: Pid) -> None:
        outcome = "ignores a kill" if self._node.is_system(process) else "was killed"
        logger.log(
            self._log_limit.level(logging.WARNING),
            "%s of %s %s by a process of %s",
            *(label(process), self._node.name, outcome, sender.node),
        )

    def receive_exit(
        self, process: Process, sender: Pid, reason: Term, *, untrappable: bool = False
    ) -> None:
        """Let an exit signal have its effect on a process of this node."""
        if process.trap_exit and not untrappable:
            process.deliver(Own((EXIT, sender, reason)), sender)
        elif self._node.is_system(process):
            return
        elif reason != NORMAL or sender == process.pid:
            self._node.end_process(process, reason)

    def send_exit(self, sender: Pid, to: Pid, reason: Term) -> None:
        """Let the exit of `sender` reach `to` if the two are linked."""
        if to.node != self._node.name:
            if self._node.network.is_connected(to.node):
                flags = self._node.network.flags_of(to.node)
                self._node.network.send(to.node, *control.exit_(flags, sender, to, reason))
        elif (process := self._node.process(to)) is not None:
            # One that we have unlinked from may not live to acknowledge that.
            process.unlinking.pop(sender, None)
            if sender in process.links:
                process.links.discard(sender)
                self.receive_exit(process, sender, reason)

    def send_down(
        self,
        known_as: Term,
        watcher: Pid,
        reference: Reference,
        reason: Term,
        sender: Pid | None = None,
    ) -> None:
        """Tell a watcher that what it monitors, `known_as`, has ended or is not there. `sender`:
        the process that has ended, whose last messages come before this."""
        if watcher.node == self._node.name:
            if (monitor := self.take_monitor(reference)) is not None:
                monitor.on_down(reason)
        elif self._node.network.is_connected(watcher.node):
            flags = self._node.network.flags_of(watcher.node)
            down = control.monitor_p_exit(flags, known_as, watcher, reference, reason)
            self._node.network.send(watcher.node, *down, sender=sender)

    def end(self, process: Process) -> None:
        """A process has ended: tell those linked to it or monitoring it."""
        for peer in process._tied_to:
            self._tied.get(peer, {}).pop(process, None)
        for reference in list(process.monitors):
            self.demonitor(reference)
        reason = self._reason_to_tell(process)
        for pid in process.links:
            self.send_exit(process.pid, pid, reason)
        for reference, (watcher, known_as) in process.watchers.items():
            self.watched_by_name.pop(reference, None)
            self.send_down(known_as, watcher, reference, reason, process.pid)

    def _reason_to_tell(self, process: Process) -> Term:
        """Why it has ended, or in short whether as it should, if so many of other nodes are told
        that it takes long to encode that for each."""
        told = [*process.links, *(watcher for watcher, _ in process.watchers.values())]
        others = sum(pid.node != self._node.name for pid in told) - 1
        reason = process.exit_reason
        if others < 1 or reason == NORMAL or others * len(encode(reason)) <= MAX_REASONS_SIZE:
            return reason
        return SHUTDOWN if is_normal(reason) else SYSTEM_LIMIT

    def lose(self, peer: Atom) -> None:
        """The connection to `peer` is lost: so is every tie to its processes."""
        for process in self._tied.pop(peer, {}):
            process._tied_to.discard(peer)
            self._sever(process, peer)
        for reference in list(self._monitors_on.get(peer, ())):
            if (monitor := self.take_monitor(reference)) is not None:
                monitor.on_down(NOCONNECTION)

    def _sever(self, process: Process, peer: Atom) -> None:
        for reference, (watcher, _) in list(process.watchers.items()):
            if watcher.node == peer:
                del process.watchers[reference]
                self.watched_by_name.pop(reference, None)
        for pid in [pid for pid in process.unlinking if pid.node == peer]:
            del process.unlinking[pid]
        for pid in [pid for pid in process.links if pid.node == peer]:
            process.links.discard(pid)
            self.receive_exit(process, pid, NOCONNECTION)
