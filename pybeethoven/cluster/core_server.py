"""The CoreServer: watches the tracker and tells its followers which nodes come and go.

Source: the module Beethoven.CoreServer of Beethoven 0.3.9, as it is documented: followers get the
cast `{:node_update, {node, status}}`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeAlias
from weakref import WeakSet, WeakValueDictionary

from pybeethoven.cluster.clock import ClusterClock
from pybeethoven.cluster.distr_server import CORE_SERVER, DistrConfig, DistrServer
from pybeethoven.cluster.follower import ALERT_ME
from pybeethoven.cluster.readers import Modes, Updates
from pybeethoven.cluster.rejoin import Backoff, Seek
from pybeethoven.cluster.standing import Standing, Word
from pybeethoven.cluster.tracker import (
    CLUSTERED,
    CORE_TRACKER,
    OFFLINE,
    ONLINE,
    STANDALONE,
    NodeUpdate,
    ServerStatus,
    TrackerEvent,
    TrackerRow,
    last_change,
    record,
    tracker_rows,
)
from pybeethoven.errors import (
    BeethovenError,
    ConfigError,
    MirrorError,
    NoProcess,
    brief,
)
from pybeethoven.etf import Atom, Pid, Reference, Term
from pybeethoven.mnesia import WRITE, Mirror, Row, Table
from pybeethoven.mnesia.mirror import SUBSCRIBER
from pybeethoven.mnesia.served import TableServer
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.net.names import split_name
from pybeethoven.otp import NO_REPLY, ChildSpec, From, Own, Process
from pybeethoven.otp.gen_server import GEN_CAST
from pybeethoven.otp.process import NOPROC, NORMAL, SHUTDOWN, SYSTEM_LIMIT

logger = logging.getLogger(__name__)

_Follower: TypeAlias = Pid | tuple[Atom, Atom]

NAME: Final = CORE_SERVER
NODE_UPDATE: Final = Atom("node_update")
GET_MODE: Final = Atom("get_mode")
MAX_CALLERS: Final = 64
"""Maximum number of callers that wait for the same node to be added."""
MAX_FOLLOWERS: Final = 1000
"""Maximum number of followers on each other node: a change of the tracker is told to all."""
_FULL: Final = (Atom("error"), SYSTEM_LIMIT)
_ALERTS: Final = ((ONLINE, None), (ONLINE, OFFLINE), (OFFLINE, ONLINE))


def mnesia_notify(event: TrackerEvent, own_node: str) -> tuple[Atom, Atom] | None:
    """The alert that a change of the tracker gives: (node, status), or None.

    A status that is not new, a delete and the own node give none. Source: `mnesia_notify/1`.
    """
    if event.operation == WRITE and event.row is not None and event.row.node != own_node:
        old_status = event.old_rows[0].status if event.old_rows else None
        if (event.row.status, old_status) in _ALERTS:
            return event.row.node, event.row.status
    return None


def _node_of(follower: _Follower) -> Atom:
    return follower.node if isinstance(follower, Pid) else follower[1]


class _Adding(Process):
    """Adds the node `name` for `callers`, who wait for it."""

    def __init__(self, core_server: CoreServer, name: Atom) -> None:
        self._core_server, self._name = core_server, name
        self.callers: list[From] = []

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it: no message is read here."""

    async def run(self) -> None:
        """Add it, and answer."""
        answer: Term = Atom("ok")
        try:
            await self._core_server.new_node(self._name)
        except BeethovenError as error:
            names = brief(self._name), brief(self.callers[0][0].node)
            self._core_server._warn("%s was not added for %s: %s", *names, error)
            answer = (Atom("error"), str(error))
        for from_ in self.callers:
            self.node.reply(from_, answer)


class CoreServer(DistrServer, subscribe=True):
    """The CoreServer of a node, with the tracker in `mirror.table`.

    `mode`: what it is taken for at first. `seek`, `backoff`: how it looks for a beacon when it is
    in no cluster; without `seek`, not.
    It may be run again when it has ended, as a supervisor does: its followers and those who read
    `updates()` are still alerted then, of what has changed in between, too.
    """

    _creates = False  # a BEAM has a tracker anyway
    _brings = True

    def __init__(
        self,
        mode: ServerStatus = STANDALONE,
        *,
        seek: Seek | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if mode not in (STANDALONE, CLUSTERED):
            raise ConfigError(f"the mode is {mode!r}; give 'standalone' or 'clustered'")
        super().__init__(Atom(mode))
        self._mode = Atom(mode)
        self._attached = mode == CLUSTERED
        """Whether a BEAM shows us the tracker, as of the changes handled so far."""
        self._online: set[Atom] = set()
        """The other nodes that are online, as of these."""
        self.dependents: list[Mirror] = []
        """They ask the peers again as soon as there is one that shows us the tracker."""
        self._clock = ClusterClock(lambda: datetime.now(UTC), time.monotonic)
        self.standing = Standing(self.mirror, self._clock, self.deliver, seek, backoff or Backoff())
        self._server = TableServer([self.mirror])
        self._followers: dict[_Follower, Reference] = {}
        self._followers_on: Counter[Atom] = Counter()
        """How many of them are on a node."""
        self._updates: WeakSet[Updates] = WeakSet()
        self._modes: WeakSet[Modes] = WeakSet()
        self._adding: WeakValueDictionary[Atom, _Adding] = WeakValueDictionary()
        self._log_limit = LogLimit()
        self._ended = False
        self._supervised = False

    # For everybody

    @classmethod
    async def start_link(
        cls, init_arg: ServerStatus = STANDALONE, *, name: str | None = NAME, node: Any = None
    ) -> Self:
        """Run one as the CoreServer of a node; see `DistrServer.start_link`."""
        return await super().start_link(init_arg, name=name, node=node)

    @classmethod
    def child_spec(
        cls,
        init_arg: ServerStatus = STANDALONE,
        *,
        name: str | None = NAME,
    ) -> ChildSpec:
        """How a supervisor runs one as the CoreServer of a node."""
        return cls(init_arg).as_child(name)

    def as_child(self, name: str | None = NAME) -> ChildSpec:
        """How a supervisor runs this server: the same object each time, so nothing is forgotten."""
        self._supervised = True
        return ChildSpec(id=NAME, start=lambda: self, name=name)

    async def alert_me(self, follower: Process | Pid | str | tuple[str, str]) -> None:
        """Have `(node_update, (node, status))` cast to `follower` whenever another node comes or
        goes.

        `follower`: a process, a pid, a name on this node or (name, node). Registering twice alerts
        once. A follower that ends is forgotten, one that is known by name, too: the process that
        takes its place asks again. What happens after this returns is not missed. On another node
        there may be `MAX_FOLLOWERS`; no more are taken, which is logged.
        Raises `ConfigError` for what is none of these, `NoProcess` when the CoreServer has ended.
        """
        if self._ended:
            raise NoProcess(NOPROC, NAME)
        self._follow(self.node.watchable(follower))

    async def get_mode(self) -> ServerStatus:
        """`clustered` or `standalone`: whether another node of the tracker is online.

        Raises `NoProcess` when the CoreServer has ended.
        """
        mode: ServerStatus = await self.node.call(self, GET_MODE)
        return mode

    async def new_node(self, name: str) -> None:
        """Track a node as online, and have its Mnesia merged if it runs one.

        A BEAM peer's CoreServer does so. Where there is none, it is done here; but of several BEAMs
        the next ones wait until the first one leads. The row is in our table then.
        Raises `ConfigError` for what is no node name, `NoConnection` when it can't be reached;
        nothing is changed then. Also `CallTimeout`, after 60 seconds, or 5 without a word from that
        node, `MirrorError`, and, if every peer fails, what the last of them did: `ProcessExit`,
        too. When cancelled, it may be done.
        """
        split_name(name)
        await self.standing.admission.add(Atom(name))

    async def add_node_to_mnesia(self, name: str) -> None:
        """Have the peers' Mnesia connect to the node, as `mnesia:change_config/2` does.

        Raises `ConfigError` for what is no node name, `MirrorError` when no BEAM peer is connected.
        """
        split_name(name)
        args = [Atom("extra_db_nodes"), [Atom(name)]]
        await self.node.rpc(self._source(name), "mnesia", "change_config", args)

    async def fetch(self, key: Term) -> list[TrackerRow]:
        """The node `key` of the tracker, in a list, which is empty if it was never there."""
        return tracker_rows(await super().fetch(Atom(key) if isinstance(key, str) else key))

    async def fetch_all(self) -> list[TrackerRow]:
        """Every node of the tracker, this one too, online or not, in the order of their names."""
        return tracker_rows(self.table().rows())

    def table(self) -> Table:
        """The tracker. Raises `NoProcess` when the CoreServer has ended for good."""
        if self._ended:
            raise NoProcess(NOPROC, NAME)
        return super().table()

    async def table_exists(self) -> bool:
        """Whether the cluster's Mnesia has the tracker; standalone, ours is the tracker."""
        return not self.peers() or await super().table_exists()

    def updates(self) -> Updates:
        """What differs from now on from what `fetch_all` gives now, to be read with `async for`."""
        updates = Updates(self.standing.rows())
        self._updates.add(updates)
        if self._ended:
            updates.end(self._end_reason())
        return updates

    @property
    def mode(self) -> ServerStatus:
        """What `get_mode` answers, without a call."""
        return self._mode

    def modes(self) -> Modes:
        """The changes of the mode from now on, to be read with `async for`."""
        modes = Modes()
        self._modes.add(modes)
        if self._ended:
            modes.end(self._end_reason())
        return modes

    def end_updates(self) -> None:
        """Let every `updates()` and `modes()` end: nothing comes any more."""
        self._ended = True
        readers: list[Updates | Modes] = [*self._updates, *self._modes]
        for reader in readers:
            reader.end(self._end_reason())

    def _end_reason(self) -> NoProcess | None:
        """Nothing to tell when the node leaves; but while it runs, there should be a CoreServer."""
        return NoProcess(NOPROC, NAME) if self.node.running else None

    # For the node

    def config(self) -> DistrConfig:
        """The tracker."""
        return DistrConfig(CORE_TRACKER, ("node", "status", "last_change"), (), "ordered_set")

    def order(self, row: Row) -> datetime:
        """Rows that have changed are told in the order in which they did."""
        return last_change(row)

    def peers(self) -> list[str]:
        """The nodes that may be the source; see `Standing.peers`."""
        return self.standing.peers()

    async def init(self) -> None:
        """Mirror the tracker and connect to each node that it calls online."""
        self._ended = False
        self.standing.begin()
        self.node.monitor_nodes(self)
        await super().init()
        await self._server.wait_end()
        await self.node.start(self._server, SUBSCRIBER, link=True)

    async def entry_point(self, init_arg: Term) -> None:
        """Alert those who followed an earlier run of this server; connect to the online nodes."""
        self._followers = {follower: self.monitor(follower) for follower in self._followers}
        if self.mirror.source is None:
            self.mirror.write_local(record(self.node.name, ONLINE, self._clock.now()))
        self._online.clear()
        for row in self.standing.rows():
            self._process_row(row)
        if not self.mirror.known:  # else the mirror tells what it finds
            self.standing.check()

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Take a message; a follower that is a bare name is on the node that the cast came from."""
        match message:
            case tuple(("$gen_cast", tuple(("alert_me", str() as name)))) if sender is not None:
                message = (GEN_CAST, (ALERT_ME, (Atom(name), sender.node)))
        super().deliver(message, sender)

    async def handle_call(self, request: Term, from_: From) -> Any:
        """Answer `get_mode` and `{add_node, node}`; `{error, notsup}` to anything else, so that no
        caller can end us."""
        match request:
            case "get_mode":
                return self._mode
            case tuple(("add_node", Atom() as name)) if self.node.running:
                return self._process_add_node(name, from_)
        self._warn("CoreServer got an unknown call from %s", brief(from_[0].node))
        return (Atom("error"), Atom("notsup"))

    async def handle_cast(self, message: Term) -> None:
        """Take `{alert_me, follower}`."""
        match message:
            case tuple(("alert_me", (Pid() | tuple((Atom(), Atom()))) as follower)):
                try:
                    self._follow(follower)
                except ConfigError:
                    self._warn("the follower %s is on no node", brief(follower))
            case _:
                self._warn("CoreServer got an unknown cast")

    async def handle_info(self, message: Term) -> None:
        """Take the tracker's events, and what the node monitor and the followers' monitors send."""
        match message:
            case Own(("mnesia_table_event", _)):
                if (event := TrackerEvent.parse(message)) is not None:
                    self._process_event(event)
            case ("DOWN", Reference() as ref, _, (Pid() | tuple((Atom(), Atom()))) as who, reason):
                self._forget(who, ref, reason)
            case _ if not self.node.running:
                logger.debug("%s leaves, and does nothing about it", self.node.name)
            case Own(("nodedown", Atom() as name)):
                self.standing.process_nodedown(name)
            case Own(("nodeup", Atom() as name)):
                self.standing.process_nodeup(name)
            case Word.ATTACHED:
                self._attached = True
                self._check_mode()
                self.standing.process_attached()
                for mirror in self.dependents:
                    mirror.retry()
            case Word.DETACHED:
                self._attached = False
                self._check_mode()
                self.standing.process_detached()
            case Word.LINKS | Word.PEERS:
                self.standing.process_told(message)
            case Word.LET_IN:
                self.standing.process_detached()

    async def terminate(self, reason: Term) -> None:
        """End every `updates()` and `modes()`, unless a supervisor is to run us again."""
        if not self._supervised or reason in (NORMAL, SHUTDOWN):
            self.end_updates()

    def keeps(self, message: Term) -> bool:
        """The tracker's events, and what followers have asked for."""
        match message:
            case tuple(("$gen_cast", tuple(("alert_me", _)))):
                return True
        return super().keeps(message)

    def format_state(self) -> Term:
        """What `:sys.get_state` shows, as an Elixir CoreServer has it: `{mode, followers}`."""
        return (self._mode, list(self._followers))

    def attached(self) -> None:
        """A BEAM peer shows us the tracker."""
        self.deliver(Word.ATTACHED)

    def detached(self) -> None:
        """No BEAM peer is left."""
        self.deliver(Word.DETACHED)

    def _process_event(self, event: TrackerEvent) -> None:
        self._online.difference_update(row.node for row in event.old_rows)
        if event.row is not None:
            self._process_row(event.row)
        self.standing.admission.changed()
        if any(r.node == self.node.name for r in (event.row, *event.old_rows) if r is not None):
            self.standing.check()
        elif (update := self._update_of(event)) is not None:
            self._alert_followers(update.node, update.status)
            for updates in self._updates:
                updates.put(update)
        self._check_mode()

    def _update_of(self, event: TrackerEvent) -> NodeUpdate | None:
        """What followers are told of an event."""
        if mnesia_notify(event, self.node.name) is not None:
            return event.row
        match event:
            case TrackerEvent(
                operation="delete",
                old_rows=[TrackerRow(node=node, status="online")],
                activity=(_, Pid(node=self.node.name)),
            ):  # no peer did it: the cluster that we are in now does not know the node
                return NodeUpdate(node, OFFLINE, self._clock.now())
        return None

    def _process_row(self, row: TrackerRow) -> None:
        ours = row.node == self.node.name and not self.mirror.known  # it begins by our own clock
        if not ours or row.last_change > self._clock.now():
            self._clock.hear(row.last_change)
        if row.status == ONLINE and row.node != self.node.name:
            self._online.add(row.node)
            self.standing.process_online(row.node)

    def _check_mode(self) -> None:
        mode = CLUSTERED if self._attached or self._online else STANDALONE
        if mode != self._mode:
            self._mode = mode
            for modes in self._modes:
                modes.put(mode)

    def _process_add_node(self, name: Atom, from_: From) -> Any:
        adding = self._adding.get(name)
        if adding is None or not adding.alive:
            if self.node.is_full:
                return _FULL
            adding = self._adding[name] = _Adding(self, name)
            self.node.spawn(adding)
        elif len(adding.callers) >= MAX_CALLERS:
            return _FULL
        adding.callers.append(from_)
        return NO_REPLY

    def _warn(self, text: str, *args: object) -> None:
        """Log a warning that peers can cause at will, once in `LOG_INTERVAL`."""
        logger.log(self._log_limit.level(logging.WARNING), text, *args)

    def _source(self, name: str) -> str:
        """The peer whose Mnesia is mirrored."""
        if self.mirror.source is None:
            raise MirrorError(f"{name} was not added: no BEAM peer is connected that could do it")
        return self.mirror.source

    def _follow(self, follower: _Follower) -> None:
        if isinstance(follower, tuple) and follower[1] == self.node.name:
            # Who registers by name and by pid is alerted once.
            follower = self.node.whereis(follower[0]) or follower
        node = _node_of(follower)
        if follower in self._followers:
            return
        if node != self.node.name and self._followers_on[node] >= MAX_FOLLOWERS:
            self._warn("%s has %d followers, no more are taken", brief(node), MAX_FOLLOWERS)
            return
        self._followers[follower] = self.monitor(follower)
        self._followers_on[node] += 1

    def _forget(self, follower: _Follower, reference: Reference, reason: Term) -> None:
        if self._followers.get(follower) != reference:
            return
        del self._followers[follower]
        node = _node_of(follower)
        self._followers_on[node] -= 1
        if not self._followers_on[node]:
            del self._followers_on[node]
        if reason == NOPROC:
            self._warn("the follower %s is not there", brief(follower))

    def _alert_followers(self, node: Atom, status: Atom) -> None:
        for follower in self._followers:
            self.node.cast(follower, (NODE_UPDATE, (node, status)), forced=True)
