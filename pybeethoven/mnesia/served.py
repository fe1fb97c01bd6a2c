"""The tables of this node's mirrors, for other nodes: who is told of their changes.

What they may call is in `answers`. The shape of what they get is a BEAM's:
https://www.erlang.org/doc/apps/mnesia/mnesia_chap5.html#mnesia-event-handling
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final
from weakref import WeakSet

from pybeethoven.distribution import control
from pybeethoven.etf import Atom, Pid, Reference, Term, encode
from pybeethoven.etf.encoder import Encoded
from pybeethoven.mnesia.answers import Answers
from pybeethoven.mnesia.events import Change, table_event
from pybeethoven.mnesia.mirror import DETAILED, SIMPLE, SUBSCRIBER, Mirror
from pybeethoven.otp import NO_REPLY, From, GenServer
from pybeethoven.otp.exports import BADARG, ERROR
from pybeethoven.otp.node import Node
from pybeethoven.otp.process import SYSTEM_LIMIT

OK: Final = Atom("ok")
NO_EXISTS: Final = Atom("no_exists")

MAX_SUBSCRIBERS: Final = 8
"""Maximum number of processes of one node that are told of the changes of one table."""


class TableServer(GenServer):
    """Serves the tables of `mirrors` to other nodes while it runs, as `SUBSCRIBER`:
    `await node.start(TableServer([mirror]), SUBSCRIBER, link=True)`.

    `mirrors` are looked at for each call, so it may be a list that grows. The table of one that
    does not run is not there. Subscribers are linked to, and unlinked from when their table is not
    there any more, or this ends.
    """

    trap_exit = True

    def __init__(self, mirrors: Collection[Mirror]) -> None:
        self._mirrors = mirrors
        self._subscriptions: dict[Pid, dict[Atom, Atom]] = {}
        """What kind of events a subscriber gets of which table; of those that are linked."""
        self._monitors: dict[Reference, Mirror] = {}

    # For the functions that others call

    def names(self) -> list[Atom]:
        """The tables."""
        return [mirror.table.name for mirror in self._mirrors if mirror.ready]

    def mirror(self, name: Term) -> Mirror | None:
        """The mirror of a table."""
        found = (each for each in self._mirrors if each.table.name == name and each.ready)
        return next(found, None)

    def subscribe(self, pid: Term, what: Term) -> Term:
        """What `mnesia_subscr:subscribe/2` does, for processes of the node that calls; those of
        this one have `Mirror.subscribe`."""
        match what:
            case ("table", name):
                kind = SIMPLE
            case ("table", name, "simple" | "detailed" as kind):
                pass
            case _:
                return (ERROR, (BADARG, what))
        if not self._is_callers(pid) or not self.node.network.is_connected(pid.node):
            return (ERROR, BADARG)
        if (mirror := self.mirror(name)) is None:
            return (ERROR, (NO_EXISTS, name))
        if pid in self.links and name in self._subscriptions.get(pid, ()):
            return (ERROR, (Atom("already_exists"), what))
        of_node = [of for each, of in self._subscriptions.items() if each.node == pid.node]
        if sum(name in of for of in of_node) >= MAX_SUBSCRIBERS:
            return (ERROR, SYSTEM_LIMIT)
        if mirror not in self._monitors.values():
            self._monitors[self.monitor(mirror)] = mirror
        mirror.listeners.add(self._tell)
        self._subscriptions.setdefault(pid, {})[name] = kind
        self.link(pid)
        return (OK, self.node.name)

    def unsubscribe(self, pid: Term, what: Term) -> Term:
        """What `mnesia_subscr:unsubscribe/2` does."""
        match what:
            case ("table", name) | ("table", name, "simple" | "detailed"):
                if not self._is_callers(pid) or self.mirror(name) is None:
                    return (ERROR, BADARG)
                self._drop(pid, name)
                return (OK, self.node.name)
        return (ERROR, (BADARG, what))

    def _is_callers(self, pid: Term) -> bool:
        """Whether a pid is of the node that waits for the answer, and not another's."""
        watchers = self.node.caller().watchers.values()
        return isinstance(pid, Pid) and any(pid.node == watcher.node for watcher, _ in watchers)

    def send(self, to: Pid, message: Term) -> None:
        """Send a message to a process of a connected node, behind the events of all changes so far.

        A subscriber that does not read is disconnected in the end (see `Limits.unsent_size`): it
        would not know that it had lost an event.
        """
        if self.node.network.is_connected(to.node):
            flags = self.node.network.flags_of(to.node)
            signal, payload = control.send_sender(flags, self.pid, to, message)
            self.node.network.send(to.node, signal, payload)

    # For the node

    async def init(self) -> None:
        """Let others call."""
        self._subscriptions.clear()
        self._monitors.clear()
        if self.node not in _exporting:
            Answers(self.node, partial(_running, self.node)).export()
            _exporting.add(self.node)

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Ignore it: Mnesia's own processes alone call its `mnesia_subscr`."""
        return NO_REPLY

    async def handle_cast(self, message: Term) -> None:
        """Ignore it."""

    async def handle_info(self, message: Term) -> None:
        """Forget a subscriber that has ended, or the subscribers of a mirror that has."""
        match message:
            case ("EXIT", Pid() as pid, _) if pid not in self.links:
                self._subscriptions.pop(pid, None)
            case ("DOWN", Reference() as reference, *_) if reference in self._monitors:
                mirror = self._monitors.pop(reference)
                for pid in list(self._subscriptions):
                    self._drop(pid, mirror.table.name)

    def unlinked(self, pid: Pid) -> None:
        """Forget a subscriber that wants no more events."""
        self._subscriptions.pop(pid, None)

    async def terminate(self, reason: Term) -> None:
        """End every subscription, as a BEAM does whose Mnesia stops."""
        for mirror in self._mirrors:
            mirror.listeners.discard(self._tell)
        for pid in self._subscriptions:
            self.unlink(pid)
        self._subscriptions.clear()

    def _drop(self, pid: Pid, name: Atom) -> None:
        of_pid = self._subscriptions.get(pid, {})
        if of_pid.pop(name, None) is not None and not of_pid:
            del self._subscriptions[pid]
            self.unlink(pid)

    def _tell(self, mirror: Mirror, change: Change) -> None:
        name = mirror.table.name
        both = {kind: table_event(change, name, kind == DETAILED, mirror.pid) for kind in _KINDS}
        events = {kind: Encoded(encode(event)[1:]) for kind, event in both.items()}
        for pid, kinds in self._subscriptions.items():
            if name in kinds and pid in self.links:
                self.send(pid, events[kinds[name]])


_KINDS: Final = (SIMPLE, DETAILED)
_exporting: Final[WeakSet[Node]] = WeakSet()
"""The nodes that have exported what others may call; nothing ends that."""


def _running(node: Node) -> TableServer | None:
    process = node.process(SUBSCRIBER)
    return process if isinstance(process, TableServer) else None
