"""DistrServer: a GenServer whose state is a Mnesia table of the cluster.

Source: the modules Beethoven.DistrServer and Beethoven.MnesiaTools of Beethoven 0.3.9.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

from pybeethoven.cluster.tracker import CORE_TRACKER
from pybeethoven.errors import (
    BeethovenError,
    CallTimeout,
    ConfigError,
    MirrorError,
    NoConnection,
    RpcError,
    TableTimeout,
    brief,
)
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.mnesia import (
    DETAILED,
    EVENT,
    SIMPLE,
    Change,
    Context,
    Delete,
    DeleteObject,
    Mirror,
    Operation,
    Row,
    Table,
    Write,
)
from pybeethoven.mnesia.events import table_event
from pybeethoven.mnesia.table import TableType
from pybeethoven.otp import ChildSpec, GenServer, Own, Process
from pybeethoven.otp.node import CALL_TIMEOUT
from pybeethoven.otp.process import current_process

logger = logging.getLogger(__name__)

CopyType: TypeAlias = Literal["multi", "local"]

CREATED_BY: Final = Atom("pybeethoven_created_by")
CORE_SERVER: Final = Atom("Elixir.Beethoven.CoreServer")
"""The name of the process that knows the cluster's nodes."""


class _Word(Enum):
    """What the server tells itself; no term from outside equals it."""

    LOST = "LOST"
    FOUND = "FOUND"


@dataclass(frozen=True, slots=True)
class DistrConfig:
    """The table of a DistrServer.

    `table_name`: as the BEAM has it; an Elixir alias starts with `Elixir.`. `columns`: their names,
    the key first. `indexes`: columns but the first that Mnesia is to index. `data_type`: `set`,
    `ordered_set` or `bag`. `copy_type`: where the table is made, on every Mnesia node of the
    cluster (`multi`) or on one (`local`).

    Raises `ConfigError` for what can't be a table.
    """

    table_name: str
    columns: Sequence[str]
    indexes: Sequence[str] = ()
    data_type: TableType = "set"
    copy_type: CopyType = "multi"

    def __post_init__(self) -> None:
        if not isinstance(self.table_name, str) or not self.table_name:
            raise ConfigError(f"the table's name is {self.table_name!r}; give a str")
        for what, names in (("columns", self.columns), ("indexes", self.indexes)):
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise ConfigError(f"{what}={names!r}; give a tuple of names")
        if len(set(self.columns)) != len(self.columns) or len(self.columns) < 2:
            raise ConfigError(f"columns={self.columns!r}; give the key and at least one more")
        if unknown := set(self.indexes) - set(self.columns[1:]):
            raise ConfigError(f"indexes={self.indexes!r}: {unknown} is no column behind the key")
        for what, kinds in (("data_type", TableType), ("copy_type", CopyType)):
            if getattr(self, what) not in get_args(kinds):
                raise ConfigError(f"{what}={getattr(self, what)!r}; use one of {get_args(kinds)}")

    def options(self, nodes: Sequence[str]) -> list[Term]:
        """The options of `mnesia:create_table/2` for a table with copies on `nodes`."""
        return [
            (Atom("attributes"), [Atom(column) for column in self.columns]),
            (Atom("index"), [Atom(column) for column in self.indexes]),
            (Atom("type"), Atom(self.data_type)),
            (Atom("ram_copies"), [Atom(node) for node in nodes]),
        ]


class DistrServer(GenServer):
    """Base class: override `config`, and of the others what is needed.

    `class Kv(DistrServer, subscribe=True)` gets every change of the table in `handle_info`, as
    `(mnesia_table_event, (operation, table, row, old_rows, activity))`, an `Own`.

    The table is mirrored in this process; reading it asks nobody. If the cluster does not have it,
    it is created on the cluster's Mnesia nodes, never on this one. All that changes it is done by
    a peer, and is in the mirror when the call returns.
    """

    _subscribed: ClassVar[bool] = False
    _creates: ClassVar[bool] = True
    """Whether it creates its table where that is missing."""
    _brings: ClassVar[bool] = False
    """Whether its rows are brought into the Mnesia that leads; see `Mirror`."""

    def __init_subclass__(cls, *, subscribe: bool | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if subscribe is not None:
            cls._subscribed = subscribe

    def __init__(self, init_arg: Term = None) -> None:
        self.init_arg = init_arg
        config = self.config()
        self.mirror = Mirror(
            Table(config.table_name, type=config.data_type),
            peers=self.peers,
            on_change=self._on_change,
            on_detached=self._lost,
            on_attached=self._found,
            order=self.order,
            required=self._creates,
            mnesia="yes",
            brings=self._brings,
            columns=config.columns,
        )
        self._telling = False
        self._token: bytes | None = None
        """Tells a table that we have created, until `create_action` is done."""
        self._cluster: Term = None
        """What tells the cluster that had the table from any other."""

    # To be overridden

    def config(self) -> DistrConfig:
        """The table; called by `__init__`, so what it needs must be there before.

        Source: the callback `config/0`.
        """
        raise NotImplementedError(f"{type(self).__name__} must override config()")

    async def create_action(self, config: DistrConfig) -> None:
        """Called once in the cluster, by the server that has created the table."""

    async def entry_point(self, init_arg: Term) -> None:
        """What `init` is for other GenServers: called when the table is there."""

    def peers(self) -> list[str]:
        """The nodes that may have the table: those of the cluster, as CoreServer knows them, or, on
        a node without one, those that are connected."""
        core = self.node.process(CORE_SERVER)
        return core.peers() if isinstance(core, DistrServer) else list(self.node.nodes())

    def order(self, row: Row) -> Any:
        """A sort key of rows: the order in which changes are told that were missed."""
        return 0

    def detached(self) -> None:
        """Called when no peer has the table any more. Its rows stay. Must not block."""

    def attached(self) -> None:
        """Called when a peer has the table, at first or again, and differences were told. Must not
        block."""

    # For everybody

    @classmethod
    async def start_link(
        cls, init_arg: Term = None, *, name: str | None = None, node: Any = None
    ) -> Self:
        """Run one, registered as `name` if one is given, and link it to the process that calls.

        `node`: the `Node` to run it on, by default that of the process that calls. Raises what
        `Node.start` does, and `ConfigError` outside of a process when there is no `node`.
        """
        process = current_process.get()
        if node is None and process is None:
            raise ConfigError("start_link was not called by a process; give it a node")
        server = cls(init_arg)
        await (node or process.node).start(server, name, link=process is not None)  # type: ignore[union-attr]
        return server

    @classmethod
    def child_spec(cls, init_arg: Term = None, *, name: str | None = None) -> ChildSpec:
        """How a supervisor runs one, registered as `name` if one is given."""
        server = cls(init_arg)
        return ChildSpec(id=name or cls.__name__, start=lambda: server, name=name)

    def get_table_name(self) -> Atom:
        """The table's name."""
        return self.mirror.table.name

    async def fetch(self, key: Term) -> list[Any]:
        """The rows with that key, from the mirror: tuples of the table's name, the key, and the
        other columns. A `str` is a binary; for an atom give an `Atom`."""
        return self.table().read(key)

    async def fetch_all(self) -> list[Any]:
        """All rows, from the mirror; of an ordered_set in the order of their keys."""
        return self.table().rows()

    def table(self) -> Table:
        """The mirrored table. Raises `MirrorError` when the server was never started."""
        self.mirror.check_started()
        return self.mirror.table

    async def dirty_select(self, match_spec: Term) -> list[Term]:
        """What a match specification selects in the mirror, as `mnesia:dirty_select/2` gives it.

        Atoms and variables are `Atom`s; a plain `str` is a binary. Raises `MatchSpecError` for one
        that ETS would refuse.
        """
        table = self.table()
        return table.select(match_spec, Context(self.node.name, self.node.caller().pid))

    async def subscribe(self, kind: str = SIMPLE, process: Process | None = None) -> None:
        """Send each change from now on to `process`, by default the one that calls, as Mnesia does.

        `kind` `simple`: `(mnesia_table_event, (write, row, activity))`, `(delete, (table, key),
        activity)` or `(delete_object, row, activity)`. `detailed`: `(mnesia_table_event,
        (operation, table, row or (table, key), old_rows, activity))`. Raises `ConfigError` for
        another kind, or outside of a process when none is given.
        """
        if kind not in (SIMPLE, DETAILED):
            raise ConfigError(f"{kind!r} is no kind of table events; give 'simple' or 'detailed'")
        process = process or current_process.get()
        if not isinstance(process, Process):
            raise ConfigError("subscribe was not called by a process; give it one, no pid or name")
        self.mirror.subscribe(process, Atom(kind))

    async def table_exists(self) -> bool:
        """Whether the cluster's Mnesia has the table, as a peer says; False without a peer."""
        for peer in self.peers():
            try:
                return self.get_table_name() in await self._tables(peer)
            except BeethovenError as error:
                logger.info("%s did not tell its tables: %s", peer, error)
        return False

    async def until_exists(self, interval: float = 0.015, timeout: float = 1.0) -> None:
        """Wait until the table exists, asking each `interval` seconds.

        Raises `TableTimeout` after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await self.table_exists():
                    await asyncio.sleep(interval)
        except TimeoutError as error:
            raise TableTimeout(
                f"the table {self.get_table_name()} was not there within {timeout:g} seconds"
            ) from error

    async def transaction(
        self, *operations: Operation, timeout: float | None = CALL_TIMEOUT
    ) -> None:
        """Have a peer change the table, by all of `operations` (`Write(row)`, `Delete(key)`,
        `DeleteObject(row)`) in one transaction, or by none.

        The table has the changes when this returns. Waits up to `timeout` seconds (None: for ever).
        Raises `Aborted` if Mnesia refuses, `ConfigError` for what is no row of the table,
        `MirrorError` when no peer with the table is connected: then nothing is changed. After
        `CallTimeout` or `NoConnection`, or when cancelled, it may have been done or not.
        """
        await self.mirror.transaction(*operations, timeout=timeout)

    async def dirty_write(self, row: Row, timeout: float | None = CALL_TIMEOUT) -> None:
        """Put a row in, without a transaction; else as `transaction`. As Mnesia's dirty functions
        do, it waits for one peer only: where that one dies at once, the others may not have it."""
        await self.mirror.dirty(Write(row), timeout)

    async def dirty_delete(self, key: Term, timeout: float | None = CALL_TIMEOUT) -> None:
        """Take every row with that key out, without a transaction; else as `transaction`."""
        await self.mirror.dirty(Delete(key), timeout)

    async def dirty_delete_object(self, row: Row, timeout: float | None = CALL_TIMEOUT) -> None:
        """Take this one row out, without a transaction; else as `transaction`."""
        await self.mirror.dirty(DeleteObject(row), timeout)

    async def dirty_update_counter(
        self, key: Term, increment: int, timeout: float | None = CALL_TIMEOUT
    ) -> int:
        """Add to the counter `(table, key, number)` and give the sum; else as `transaction`. One
        that is not there, or no number, is 0 before; no counter gets below 0."""
        return await self.mirror.dirty_update_counter(key, increment, timeout)

    # For the node

    def attach(self, node: Any, pid: Pid) -> None:
        """Make it a process of `node`; run again, it first gets what it had not handled yet of that
        which nobody will tell it again."""
        left = [message for message in self.unhandled() if self.keeps(message)]
        super().attach(node, pid)
        for message in left:
            self.deliver(message)

    def keeps(self, message: Term) -> bool:
        """Whether a message is still to be handled after the end of the process that got it."""
        return isinstance(message, tuple) and message[:1] == (EVENT,)

    async def init(self) -> None:
        """Create the table if it is missing, mirror it, and call `entry_point`.

        Raises `MirrorError` when no peer can create or offer it, unless it was mirrored before, or
        when the cluster has another table of that name.
        """
        await self._create_missing()
        self._telling = self._token is None
        await self.mirror.wait_end()
        await self.node.start(self.mirror, link=True)
        await self._process_created()
        self._telling = True
        await self.entry_point(self.init_arg)

    async def _dispatch(self, message: Any) -> None:
        match message:
            case _Word.LOST:
                await self._create_again()
            case _Word.FOUND:
                await self._process_created()
                if self.mirror.source is not None:
                    self._cluster = await self._cluster_of(self.mirror.source)
            case _:
                await super()._dispatch(message)

    def _lost(self) -> None:
        if self._creates:
            self.deliver(_Word.LOST)
        self.detached()

    def _found(self) -> None:
        if self._creates:
            self.deliver(_Word.FOUND)
        self.attached()

    async def _process_created(self) -> None:
        if self._token is not None and self.mirror.source is not None:
            await self.create_action(self.config())
            self._token = None

    async def _create_again(self) -> None:
        """Create the table anew where the cluster has begun anew, as all its peers were restarted.
        One that was deleted while the cluster lived stays so."""
        for peer in self.peers():
            try:
                cluster = await self._cluster_of(peer)
                if cluster in (None, self._cluster):
                    continue
                if self.get_table_name() not in await self._tables(peer):
                    await self._create(peer)
                    await self._check_table(peer)
                    await self._check_token(peer)
                self.mirror.retry()
                return
            except BeethovenError as error:
                logger.info("%s did not create %s: %s", peer, self.get_table_name(), error)

    async def _cluster_of(self, peer: str) -> Term:
        """What Mnesia gave the tracker when it was created; None where there is none."""
        try:
            args = [CORE_TRACKER, Atom("cookie")]
            return await self.node.rpc(peer, "mnesia", "table_info", args)
        except BeethovenError:
            return None

    def format_state(self) -> Term:
        """What `:sys.get_state` shows: the table, the peer that it is mirrored from, its size."""
        source = None if self.mirror.source is None else Atom(self.mirror.source)
        state = {"table": self.get_table_name(), "source": source, "rows": len(self.mirror.table)}
        return {Atom(name): value for name, value in state.items()}

    def _on_change(self, change: Change) -> None:
        if self._subscribed and self._telling:
            self.deliver(Own(table_event(change, self.get_table_name(), True, self.pid)))

    async def _tables(self, peer: str) -> list[Atom]:
        tables: list[Atom]
        tables = await self.node.rpc(peer, "mnesia", "system_info", [Atom("tables")])
        return tables

    async def _create_missing(self) -> None:
        """Have the table created unless it is there. A peer has loaded it then; if it is for us to
        call `create_action`, there is a token."""
        if not self._creates or (self.mirror.known and self._token is None):
            return None
        for peer in self.peers():
            try:
                tables = await self._tables(peer)
                # A table made on a node whose Mnesia is not the cluster's yet would keep it out.
                if CORE_TRACKER not in tables and self.node.process(CORE_SERVER) is not None:
                    continue
                if self.get_table_name() not in tables:
                    await self._create(peer)
            except (NoConnection, CallTimeout, RpcError) as error:
                logger.info("%s did not create %s: %s", peer, self.get_table_name(), error)
                continue
            await self._check_table(peer)
            return await self._check_token(peer)
        raise MirrorError(f"no peer is connected to have the table {self.get_table_name()}")

    async def _check_token(self, peer: str) -> None:
        """Drop our token if the table is not of our making; it may be, even if we have not heard
        that it was made."""
        properties = await self._info(peer, "user_properties")
        if (CREATED_BY, self._token) not in properties:
            self._token = None

    async def _info(self, peer: str, item: str) -> Term:
        args = [self.get_table_name(), Atom(item)]
        return await self.node.rpc(peer, "mnesia", "table_info", args)

    async def _check_table(self, peer: str) -> None:
        config = self.config()
        loading = [[self.get_table_name()], int(CALL_TIMEOUT * 1000)]
        if await self.node.rpc(peer, "mnesia", "wait_for_tables", loading, None) != "ok":
            raise MirrorError(f"{peer} does not get the table {config.table_name} loaded")
        for item, wanted in (("type", config.data_type), ("attributes", list(config.columns))):
            if (there := await self._info(peer, item)) != wanted:
                raise MirrorError(
                    f"the cluster's table {config.table_name} has {item} {brief(there)}, "
                    f"but config() has {brief(wanted)}"
                )

    async def _create(self, peer: str) -> None:
        config = self.config()
        nodes = [peer]
        if config.copy_type == "multi":
            nodes = await self.node.rpc(peer, "mnesia", "system_info", [Atom("running_db_nodes")])
        self._token = self._token or secrets.token_bytes(8)
        options = [*config.options(nodes), (Atom("user_properties"), [(CREATED_BY, self._token)])]
        # However long it takes: a node that does not answer is down at last.
        match await self.node.rpc(
            peer, "mnesia", "create_table", [self.get_table_name(), options], None
        ):
            case ("atomic", "ok") | ("aborted", ("already_exists", _)):
                return
            case answer:
                raise MirrorError(
                    f"{peer} could not create the table {self.get_table_name()}: {brief(answer)}"
                )
