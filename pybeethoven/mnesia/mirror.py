"""The mirror: a process that keeps a table as the BEAM peers' Mnesia has it.

It subscribes to the table on one peer, its source, takes a snapshot, and applies the events, those
that came before the snapshot too, in order on top of it. All that came until then is told as one
difference. Then another peer becomes the source when the peer's `mnesia_subscr` ends, which is
monitored, or when it unlinks itself from the subscriber: so it does when Mnesia stops, and when the
table is deleted or has no copy on that peer any more.

Each subscription has a process of its own, so that nothing of a source that was given up comes
through, and the same peer can be asked again.

Writes are done by the source. Mnesia sends the events from the process that writes; the same
process sends a mark behind them, and a write returns when the mirror has read that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from pybeethoven.errors import (
    Aborted,
    BeethovenError,
    CallTimeout,
    EncodeError,
    MirrorError,
    NoConnection,
    RpcError,
    brief,
)
from pybeethoven.etf import Atom, Export, Pid, Reference, Term
from pybeethoven.etf.order import exact_key
from pybeethoven.mnesia import operations
from pybeethoven.mnesia.events import (
    Change,
    apply_event,
    apply_snapshot,
    delete_all,
    event_of,
    is_vague,
    table_event,
)
from pybeethoven.mnesia.operations import Call, Operation, Write
from pybeethoven.mnesia.table import Row, Table
from pybeethoven.net.log_limit import LogLimit
from pybeethoven.otp import NO_REPLY, From, GenServer, Process
from pybeethoven.otp.node import CALL_TIMEOUT
from pybeethoven.otp.process import SHUTDOWN

RETRY_INTERVALS = (0.05, 1.0)
"""Seconds after which the peers are asked again when none of them was able to be the source: at
first, and at last; each pause is twice the one before."""

ANSWER_TIME = 5.0
"""Seconds that a peer has to answer each request before another is asked, and that all of them
together have to let us connect."""

logger = logging.getLogger(__name__)

SUBSCRIBER: Final = Atom("mnesia_subscr")
SIMPLE: Final = Atom("simple")
DETAILED: Final = Atom("detailed")
READ: Final = Atom("read")
WRITTEN: Final = Atom("pybeethoven_written")
"""The mark behind a write: `{pybeethoven_written, Reference}`."""
WILDCARD: Final[Term] = [(Atom("_"), [], [Atom("$_")])]
"""The match specification that selects every row."""


class _Word(Enum):
    """What the mirror tells itself; no term from outside equals it."""

    RETRY = "RETRY"
    ENDED = "ENDED"
    EVENT = "EVENT"


class _Subscriber(Process):
    """Receives the events of one subscription, and keeps them until the snapshot is there. What
    any node but the source sends does not count."""

    def __init__(self, mirror: Mirror, source: str) -> None:
        self._mirror = mirror
        self._source = source
        self.early: list[Term] | None = []

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Keep an event or hand it on."""
        if sender is None or sender.node != self._source:
            return
        if self.early is None:
            self._mirror.deliver((_Word.EVENT, message))
        else:
            self.early.append(message)

    def unlinked(self, pid: Pid) -> None:
        """The peer has ended the subscription."""
        if pid.node in (self._source, self.pid.node):
            self._mirror.deliver((_Word.ENDED, self.pid))

    async def run(self) -> None:
        """Live until ended."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.unlinked(self.pid)


class Mirror(GenServer):
    """Mirrors a Mnesia table in `table`, which bears its name.

    `peers()` gives the nodes that may be the source, the preferred one first. `on_change` is called
    with each change after it is in `table`; `on_detached` when no peer offers the table any more
    (its rows stay, and the peers are asked again, see `RETRY_INTERVALS`); `on_attached` when one
    does, after the differences were told. `order` is a sort key: the order in which differences are
    told after a change of source. None of them may block.
    `required`: not to find the table at the start is an error. `columns`: their names, the key
    first, for those whom we serve the table; () if unknown.
    `mnesia`: what a source says to `mnesia:system_info(is_running)`: a BEAM `yes`, a Python node
    that serves its table `no`; None: either may be the source.
    `brings`: the source is given the rows that it lacks, of those that were written here in between
    (see `write_local`), and of all where it is of another cluster than the source before.

    It may be run again when it has ended; what has changed in between is told then.
    """

    def __init__(
        self,
        table: Table,
        *,
        peers: Callable[[], Sequence[str]],
        on_change: Callable[[Change], None] = lambda change: None,
        on_detached: Callable[[], None] = lambda: None,
        on_attached: Callable[[], None] = lambda: None,
        order: Callable[[Row], Any] | None = None,
        required: bool = True,
        mnesia: str | None = None,
        brings: bool = False,
        columns: Sequence[str] = (),
    ) -> None:
        self.table = table
        self.columns = columns
        self.listeners: set[Callable[[Mirror, Change], None]] = set()
        """Called with each change after it is in `table`, like `on_change`."""
        self.source: str | None = None
        self.known = False
        """Whether there was ever a source."""
        self.attached = asyncio.Event()
        """Set while there is a source."""
        self._peers = peers
        self._on_change = on_change
        self._on_detached = on_detached
        self._on_attached = on_attached
        self._order = order
        self._required = required
        self._mnesia = mnesia
        self._brings = brings
        self._cluster: Term = None
        """What Mnesia gave the table of the last source when it was created."""
        self._local = Table(table.name, type=table.type)
        """What was written here alone since the last source, if it is to be brought."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled = asyncio.Event()
        """Not set while the source is being changed."""
        self._subscriber: _Subscriber | None = None
        self._monitor: Reference | None = None
        self._followers: dict[tuple[Pid, Atom], Reference] = {}
        self._marks: dict[Reference, asyncio.Future[str | None]] = {}
        """Writes under way; each is settled with None, or with what went wrong."""
        self._retry: asyncio.TimerHandle | None = None
        self._retry_pause = RETRY_INTERVALS[0]
        self._log_limit = LogLimit()

    # For other processes

    def subscribe(self, process: Process, kind: Atom) -> None:
        """Send `process` each change as a table event, `simple` or `detailed`, until it ends."""
        key = (process.pid, kind)
        if key not in self._followers:
            self._followers[key] = self.monitor(process)

    async def transaction(self, *changes: Operation, timeout: float | None = CALL_TIMEOUT) -> None:
        """Have the source do all of `changes` in one transaction, or none.

        Then they are in `table`. Waits up to `timeout` seconds (None: for ever). Raises `Aborted`,
        with nothing changed; `ConfigError` for what is no row of the table; `MirrorError` without a
        peer. After `CallTimeout`, `NoConnection`, or when cancelled, they may be done or not.
        """
        if changes:
            match await self._run([operations.transaction(self.table.name, changes)], timeout):
                case [("aborted", reason), _]:
                    raise Aborted(self.table.name, reason)

    async def dirty(self, change: Operation, timeout: float | None = CALL_TIMEOUT) -> None:
        """Have the source do `change` without a transaction; else as `transaction`."""
        await self._run([operations.dirty(self.table.name, change)], timeout)

    async def dirty_update_counter(
        self, key: Term, increment: int, timeout: float | None = CALL_TIMEOUT
    ) -> int:
        """Have the source add to the counter `(table, key, number)` and give the sum; else as
        `dirty`. One that is not there, or no number, is 0 before; no counter gets below 0."""
        call = operations.update_counter(self.table.name, key, increment)
        total: int = (await self._run([call], timeout))[0]
        return total

    async def catch_up(self, timeout: float | None = CALL_TIMEOUT) -> None:
        """Wait until all that the source has said so far is in `table`; errors as `dirty`."""
        await self._run([], timeout)

    async def forward(self, call: Call, timeout: float) -> Term:
        """What the source answers, once `table` shows what the call did; errors as `dirty`."""
        return (await self._run([call], timeout))[0]

    def write_local(self, row: Row) -> None:
        """Write a row here alone; the next source's rows replace it, unless it is brought there."""
        self.change_local(Write(row))

    def change_local(self, change: Operation, activity: Term = None) -> None:
        """Do `change` here alone, as part of a Mnesia `activity`; else as `write_local`."""
        event = event_of(self.table.name, change, activity)
        if self._brings:
            apply_event(self._local, event)
        for done in apply_event(self.table, event):
            self._tell(done)

    async def settle(self) -> None:
        """Wait until there is a source, or none was found."""
        await self._settled.wait()

    @property
    def ready(self) -> bool:
        """Whether it runs and has done its `init`: the first changes are not told."""
        return getattr(self, "alive", False) and self.started.done()

    @property
    def unsettled(self) -> bool:
        """Whether another source is being looked for just now."""
        return not self._settled.is_set()

    def retry(self) -> None:
        """Ask the peers now, if it runs and has no source, and then often for a while."""
        if getattr(self, "alive", False):
            self._retry_pause = RETRY_INTERVALS[0]
            self.deliver(_Word.RETRY)

    async def _run(self, calls: list[Call], timeout: float | None) -> list[Term]:
        """What the source answers to each of `calls`, once `table` shows what they did."""
        self.check_started()
        if not self.alive:
            raise MirrorError(f"{self.table.name} was not changed: its server does not run")
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
                return await self._run_on_source(calls)
        except TimeoutError as error:
            raise CallTimeout(
                f"no answer within {timeout:g} seconds to a change of {self.table.name}; "
                "it may have been done"
            ) from error
        except NoConnection as error:
            raise NoConnection(
                f"{error}, which was asked to change {self.table.name}; it may have been done"
            ) from error
        except RpcError as error:
            match error.reason:
                case ("aborted", reason):
                    raise Aborted(self.table.name, reason) from error
            raise

    def check_started(self) -> None:
        """Raise `MirrorError` unless the mirror was started."""
        if not hasattr(self, "node"):
            raise MirrorError(f"the mirror of {self.table.name} was not started; start its server")

    async def _run_on_source(self, calls: list[Call]) -> list[Term]:
        if self.source is None or self._subscriber is None:
            raise MirrorError(
                f"{self.table.name} was not changed: no peer with a copy of it is connected"
            )
        mark = self.node.make_reference()
        seen = self._marks[mark] = asyncio.get_running_loop().create_future()
        marked = [*calls, operations.send(self._subscriber.pid, (WRITTEN, mark))]
        args = operations.one_after_another(marked)
        try:
            results: list[Term] = await self.node.rpc(self.source, "lists", "zipwith", args, None)
            failure = await seen
        finally:
            del self._marks[mark]
        if failure is not None:
            raise MirrorError(failure)
        return results

    # For the node

    def attach(self, node: Any, pid: Pid) -> None:
        """Make it a process of `node`, maybe in another event loop than before."""
        super().attach(node, pid)
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):  # events belong to the loop in which they were awaited
            self.attached, self._settled = asyncio.Event(), asyncio.Event()
        self._loop = loop

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Take a message; from the end of the source on, writes wait for another."""
        if self._is_end(message):
            self._settled.clear()
        super().deliver(message, sender)

    async def init(self) -> None:
        """Take the first peer that offers the table, if there are peers at all.

        Raises `MirrorError` when none of them does and the table is required. When run again, it
        looks for a peer after this.
        """
        self._followers = {key: self.monitor(key[0]) for key in self._followers}
        self.source = None
        self._settled.clear()
        if self.known:  # run again: the rows are there, and others wait for us
            self.retry()
        elif not self._peers():
            self._lose_source(None)
            self._retry_later()
        else:
            await self._attach_first()

    async def _attach_first(self) -> None:
        try:
            await self._attach()
            self._on_attached()
        except MirrorError:
            if self._required:
                self._lose_source(None)
                raise
            self._detach()
        except BaseException:
            self._give_up()
            self._lose_source(None)
            raise

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Ignore it."""
        return NO_REPLY

    async def handle_cast(self, message: Term) -> None:
        """Ignore it."""

    async def handle_info(self, message: Term) -> None:
        """Apply an event, or change the source when it has ended; ignore anything else."""
        match message:
            case _ if self._is_end(message):
                logger.info("%s: the source %s ended", self.table.name, self.source)
                await self._change_source()
            case ("DOWN", reference, *_):
                self._followers = {k: r for k, r in self._followers.items() if r != reference}
            case _Word.RETRY:
                if self.source is None:
                    await self._change_source()
            case (_Word.EVENT, ("pybeethoven_written", Reference() as mark)):
                self._settle(mark, None)
            case (_Word.EVENT, event) if is_vague(self.table, event):
                self._settled.clear()
                await self._change_source()
            case (_Word.EVENT, event):
                self._apply(event)

    def _apply(self, event: Term) -> None:
        try:
            changes = apply_event(self.table, event)
        except Exception as error:  # such as a key that has no place in the order
            self._warn("an event of %s was dropped: %s", self.source, error)
            return
        for change in changes:
            self._tell(change)

    def _warn(self, text: str, source: str | None, error: Exception) -> None:
        level = self._log_limit.level(logging.WARNING)
        logger.log(level, f"%s: {text}", self.table.name, source, brief(error))

    def _is_end(self, message: Term) -> bool:
        """Whether a message tells of the end of the subscription."""
        match message:
            case ("DOWN", reference, *_):
                return bool(reference == self._monitor)
            case (_Word.ENDED, Pid() as pid):
                return self._subscriber is not None and pid == self._subscriber.pid
        return False

    async def terminate(self, reason: Term) -> None:
        """Let the peer drop the subscription."""
        self._give_up()
        self._lose_source(f"the mirror of {self.table.name} ended; what was asked may be done")

    def _tell(self, change: Change) -> None:
        self._on_change(change)
        for listener in self.listeners:
            listener(self, change)
        for pid, kind in self._followers:
            event = table_event(change, self.table.name, kind == DETAILED, self.pid)
            self.node.deliver(pid, event, self.pid)

    async def _change_source(self) -> None:
        try:
            changes = await self._attach()
        except MirrorError as error:
            logger.debug("%s", error)
            self._detach()
            return
        for change in changes:
            self._tell(change)
        self._on_attached()

    def _detach(self) -> None:
        self._lose_source(f"the peer that changed {self.table.name} has gone; no other has a copy")
        self._on_detached()
        self._retry_later()

    def _retry_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(self._retry_pause, self.deliver, _Word.RETRY)
        self._retry_pause = min(2 * self._retry_pause, RETRY_INTERVALS[1])

    def _lose_source(self, failure: str | None) -> None:
        self.source = None
        self.attached.clear()
        self._settled.set()
        if self._retry is not None:
            self._retry.cancel()
        for mark in self._marks:
            self._settle(mark, failure)

    def _settle(self, mark: Reference, failure: str | None) -> None:
        if (future := self._marks.get(mark)) is not None and not future.done():
            future.set_result(failure)

    async def _attach(self) -> list[Change]:
        deadline = asyncio.get_running_loop().time() + ANSWER_TIME
        peers = self._peers()
        for peer in peers:  # all at once: after a split each would take its time
            self.node.network.connect_soon(peer)
        for peer in peers:
            self._give_up()
            try:
                async with asyncio.timeout_at(deadline):
                    await self.node.connect(peer)
                return await self._follow(peer)
            except (BeethovenError, TimeoutError) as error:
                logger.info("%s cannot be the source of %s: %s", peer, self.table.name, error)
            except Exception as error:  # its answers are such that Python can't handle them
                self._warn("%s cannot be the source: %s", peer, error)
        self._give_up()
        raise MirrorError(f"no connected peer offers the table {self.table.name}")

    def _give_up(self) -> None:
        if self._monitor is not None:
            self.demonitor(self._monitor)
        if self._subscriber is not None:
            self.node.end_process(self._subscriber, SHUTDOWN)
        self._monitor = self._subscriber = None

    async def _follow(self, peer: str) -> list[Change]:
        if self._mnesia is not None:
            args = [Atom("is_running")]
            running = await self.node.rpc(peer, "mnesia", "system_info", args, ANSWER_TIME)
            if running != self._mnesia:
                raise MirrorError(f"Mnesia is running there: {brief(running)}")
        subscriber = _Subscriber(self, peer)
        self.node.spawn(subscriber)  # raises when the node stops
        self._subscriber = subscriber
        self._monitor = self.monitor((SUBSCRIBER, peer))
        what = (Atom("table"), self.table.name, DETAILED)
        subscribe = [subscriber.pid, what]
        answer = await self.node.rpc(peer, SUBSCRIBER, "subscribe", subscribe, ANSWER_TIME)
        if answer != (Atom("ok"), peer):
            raise MirrorError(f"{peer} refused the subscription: {brief(answer)}")
        kind = await self._info(peer, "type")
        fresh = Table(self.table.name, self._keyed(peer, await self._snapshot(peer)), kind)
        if await self._info(peer, "where_to_read") != peer:
            raise MirrorError(f"{peer} has no copy any more")
        cluster = await self._info(peer, "cookie") if self._brings else None
        await self._bring_missing(peer, subscriber, fresh, cluster)
        table = self.table if kind == self.table.type else Table(self.table.name, type=kind)
        changes = apply_snapshot(table, fresh.rows(), self._order)
        if table is not self.table:
            changes = delete_all(self.table) + changes
            self.table = table
        subscriber.early = None
        self._cluster = cluster
        self._local.clear()
        self.source = peer
        self.known = True
        self.attached.set()
        self._settled.set()
        # What the source before has done is in the snapshot, or lost with it.
        for mark in self._marks:
            self._settle(mark, None)
        return changes

    async def _bring_missing(
        self, peer: str, subscriber: _Subscriber, fresh: Table, cluster: Term
    ) -> None:
        """Apply what the subscriber has kept to `fresh`, and write what is missing there to the
        peer, until nothing is."""
        while True:
            for event in subscriber.early or []:
                apply_event(fresh, event)
            subscriber.early = []
            if not self._brings:
                return
            ours = self._local if cluster == self._cluster else self.table
            missing = [row for row in ours.rows() if not fresh.read(row[1])]
            if not missing:
                return
            write = operations.transaction(self.table.name, [Write(row) for row in missing])
            args = operations.one_after_another([write])
            match await self.node.rpc(peer, "lists", "zipwith", args, ANSWER_TIME):
                case [("aborted", reason)]:
                    raise MirrorError(f"{peer} does not take our rows: {brief(reason)}")
            for row in missing:  # the events of these writes, and of later ones, have come
                fresh.write(row)

    async def _info(self, peer: str, item: str) -> Term:
        args = [self.table.name, Atom(item)]
        return await self.node.rpc(peer, "mnesia", "table_info", args, ANSWER_TIME)

    def _keyed(self, peer: str, rows: list[Row]) -> list[Row]:
        """The rows whose keys have a place in the order."""
        keyed = []
        for row in rows:
            try:
                exact_key(row[1])
            except EncodeError as error:
                self._warn("a row of %s was left out: %s", peer, error)
            else:
                keyed.append(row)
        return keyed

    async def _snapshot(self, peer: str) -> list[Row]:
        """All rows, read in a transaction.

        A dirty read may miss a write whose event was sent just before we subscribed: Mnesia tells
        of a write before it does it, but holds the lock until after. Where another node that does
        not answer holds a lock, a dirty read is better than none.
        """
        select = [self.table.name, WILDCARD, READ]
        read = [Export(Atom("mnesia"), Atom("select"), 3), select]
        try:
            answer = await self.node.rpc(peer, "mnesia", "transaction", read, ANSWER_TIME)
        except CallTimeout:
            rows = await self.node.rpc(peer, "mnesia", "dirty_select", select[:2], ANSWER_TIME)
            answer = (Atom("atomic"), rows)
        match answer:
            case ("atomic", list(rows)) if all(type(row) is tuple and len(row) > 1 for row in rows):
                return rows
        raise MirrorError(f"{peer} could not read the table: {brief(answer)}")
