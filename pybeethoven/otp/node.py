"""A distributed Erlang node: processes, names, signals, and what other nodes see of them.

Signals and their order: https://www.erlang.org/doc/system/ref_man_processes.html#signals. What
comes in from other nodes is taken apart in `signals.py`; both directions end in the methods here.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, overload

from pybeethoven.distribution import control
from pybeethoven.distribution.flags import Flag
from pybeethoven.errors import (
    BeethovenError,
    Busy,
    CallTimeout,
    ConfigError,
    EncodeError,
    NoConnection,
    NoProcess,
    ProcessExit,
    brief,
)
from pybeethoven.etf import Atom, ImproperList, Pid, Reference, Term, encode
from pybeethoven.net.finder import Address, Resolve
from pybeethoven.net.limits import Limits
from pybeethoven.net.names import NO_NAME, split_name
from pybeethoven.net.network import IN_CHILD, NET_TICKTIME, Network
from pybeethoven.net.observe import ConnectionEvents, NodeInfo
from pybeethoven.net.registrar import EpmdSetting
from pybeethoven.net.tasks import create_task
from pybeethoven.net.tls import TlsOptions
from pybeethoven.otp import net_kernel, rex, rpc
from pybeethoven.otp.aliases import MONITOR_ALIASES, Aliases, AliasKind
from pybeethoven.otp.cookie import check_cookie, read_cookie, warn_of_short_cookie
from pybeethoven.otp.exports import Exports, F, check_name
from pybeethoven.otp.gen_server import ALIAS, GEN_CALL, GEN_CAST, From, GenServer, reply_address
from pybeethoven.otp.process import (
    DOWN,
    KILLED,
    NOCONNECTION,
    NOPROC,
    NORMAL,
    PROCESS,
    SHUTDOWN,
    Own,
    Process,
    current_process,
    exit_reason_of,
    first_word,
    is_normal,
    label,
)
from pybeethoven.otp.signals import Signals
from pybeethoven.otp.system_server import SystemServer
from pybeethoven.otp.ties import Monitor, Ties

logger = logging.getLogger(__name__)

Target: TypeAlias = Process | Pid | Reference | str | tuple[str, str]
"""Whom to send to: a process, a pid, an alias, a name on this node, or (name, node)."""

CALL_TIMEOUT: Final = 5.0
"""Seconds that `call` and `rpc` wait for an answer, as gen_server does."""
ROOM_TIME: Final = 1.0
"""Seconds that who has answered a slow peer waits for it before it goes on."""
STOP_TIME: Final = 0.5
"""Seconds that processes have to end when the node stops, one after the other; then all are ended
at once, and have as long again before they are left behind, and logged."""

_ALIAS: Final = int(Flag.ALIAS)  # an enum's operators are slow

NODEUP: Final = Atom("nodeup")
NODEDOWN: Final = Atom("nodedown")


class _Outside(Process):
    """Stands for all code that is not a process: what is sent to it, replies apart, is dropped."""

    def deliver(self, message: Term, sender: Pid | None = None) -> None:
        """Drop it."""


class _FunctionProcess(Process):
    def __init__(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        self._function, self._args = function, args

    async def run(self) -> None:
        await self._function(self, *self._args)


class Node:
    """A node of an Erlang cluster. `async with Node(...)` starts and stops it.

    `name`: like `py@127.0.0.1`. `cookie`: the cluster's secret; without one `~/.erlang.cookie` is
    read. `hidden`: connected nodes don't list it in `nodes()`, and `global` leaves it alone; only a
    hidden node is safe in a cluster that creates Mnesia tables on `[node() | nodes()]`, or that
    calls `global:sync()`, which waits for ever for one that is not hidden (no `global` runs here).
    `net_ticktime` (seconds): silence after which a peer is down. It should be the same on all
    nodes, for one and the same to be said of a peer by all; see `set_net_ticktime`.
    `limits`: how much it bears of peers and strangers; by default `Limits()`. `tls`: speak TLS with
    all peers, as a BEAM does with `-proto_dist inet_tls`.

    `epmd`: whether to register with EPMD. One that runs is used, else an installed one is started,
    else (`embedded`: in any case) this process becomes the EPMD of its host until the node stops.
    `listen_port`: where to listen: a port, the first and last of several like `(9100, 9110)`, or 0
    for any. `use_interface`: the address to listen at, by default the name's host if that is an
    address, else all. `resolve(peer)`: the (host, port) of a node, or None to ask its EPMD; it
    is called, not awaited. EPMD's port is 4369, or ERL_EPMD_PORT as with BEAMs.

    Without a name (None) the first node that it connects to gives it one, which it loses when that
    node is down; no node can connect to it. It has no processes as long as it has no name:
    `connect` or `ping` get it one, `rpc` and the like find no connection until then.

    Raises `ConfigError` for a name, cookie or other setting that can't be used.
    """

    def __init__(
        self,
        name: str | None,
        cookie: str | None = None,
        *,
        hidden: bool = True,
        net_ticktime: float = NET_TICKTIME,
        epmd: EpmdSetting = True,
        listen_port: int | tuple[int, int] = 0,
        use_interface: str | None = None,
        resolve: Resolve | None = None,
        limits: Limits | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        self.name = Atom(NO_NAME if name is None else name)
        self.ties = Ties(self)
        self.exports = Exports()
        self.aliases = Aliases(self)
        self._signals = Signals(self)
        cookie = read_cookie() if cookie is None else check_cookie(cookie)
        self.network = Network(
            name,
            cookie,
            self._signals,
            hidden=hidden,
            net_ticktime=net_ticktime,
            epmd=epmd,
            listen_port=listen_port,
            use_interface=use_interface,
            resolve=resolve,
            limits=limits,
            tls=tls,
        )
        if name is not None:
            warn_of_short_cookie(cookie, name)
        self._max_processes = (limits or Limits()).processes
        self._outside = _Outside()
        self._starting: asyncio.Future[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._processes: dict[Pid, Process] = {}
        self._names: dict[Atom, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: dict[Reference, asyncio.Future[Term]] = {}
        self._node_monitors: dict[Pid, Process] = {}
        self._ending: deque[Process] = deque()
        self.loss: str | None = None
        """While what a lost connection tied is torn: why it was lost."""
        self._last_pid = 0

    @property
    def running(self) -> bool:
        """Whether the node was started and is not about to stop."""
        return self.network.running and self._stopping is None

    @property
    def is_full(self) -> bool:
        """Whether it has so many processes that other nodes may start no more. Those that have
        ended count as long as something of them runs."""
        return max(len(self._processes), len(self._tasks)) >= self._max_processes

    async def __aenter__(self) -> Self:
        await self.start_node()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start_node(self) -> None:
        """Listen, register with EPMD, and answer pings.

        Raises `NameTaken`, `EpmdUnreachable`, `EpmdError` or `ConfigError`, the last also when it
        runs already, when `stop` is called meanwhile, or has not returned yet; then, or when
        cancelled, nothing is left open that was not before.
        """
        if self.network.in_child:
            raise ConfigError(IN_CHILD.format(self.name))
        if self._stopping is not None and not self._stopping.done():
            raise ConfigError(f"the node {self.name} is being stopped; await stop() first")
        if self._starting is not None or self.network.running:
            raise ConfigError(f"the node {self.name} was started already")
        self._stopping = None
        self._starting = asyncio.get_running_loop().create_future()
        try:
            await self._start()
        except BaseException:
            self._end_start()
            await self.stop()
            raise
        self._end_start()

    async def _start(self) -> None:
        await self.network.start()
        if self._stopping is not None:
            raise ConfigError(f"the node {self.name} was stopped while it was starting")
        if self.name == NO_NAME:
            return
        self._adopt(self._outside)
        await self.start(net_kernel.NetKernel(), name=net_kernel.NAME)
        await self.start(rex.Rex(), name=rex.NAME)

    def _end_start(self) -> None:
        assert self._starting is not None
        self._starting.set_result(None)
        self._starting = None

    async def stop(self) -> None:
        """End every process with reason `shutdown`, disconnect, and give the name back to EPMD.

        First of all GenServers without a parent end, the last started before the others, and a
        supervisor's children before it: what was there when one started still is when it ends.
        When cancelled, it goes on doing so. May be called twice, by a process of the node, and
        while the node starts, which then fails. In a forked child it does nothing.
        """
        if self.network.in_child:
            return
        if self._stopping is None:
            self._stopping = create_task(self._stop(), f"stop {self.name}", contextvars.Context())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._starting is not None:
            await self._starting
        await self._stop_in_order()
        for process in [p for p in self._processes.values() if p is not self._outside]:
            self.end_process(process, SHUTDOWN)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=STOP_TIME)
            for task in left:
                logger.error("%s did not end within %g seconds", task.get_name(), STOP_TIME)
        await self.network.stop()
        # Last the outside, whose calls still wait for what the above ends.
        for process in list(self._processes.values()):
            self.end_process(process, SHUTDOWN)

    async def _stop_in_order(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIME
        for process in reversed(list(self._processes.values())):
            if isinstance(process, GenServer) and process.parent_pid is None:
                await process.shut_down(max(0.0, deadline - loop.time()))

    # Processes and names

    def spawn(
        self,
        what: Process | Callable[..., Awaitable[object]],
        *args: Any,
        name: str | None = None,
        link: bool = False,
    ) -> Process:
        """Run a process, or `what(process, *args)` as one, registered as `name` if one is given.

        `link`: link it to the process that calls this, its parent, before it runs. Raises
        `ConfigError` when the name is taken, the process runs already or there is no parent.
        """
        if not callable(what) and not isinstance(what, Process):
            raise ConfigError(f"{brief(what)} can't be run; give a process or an async function")
        process = what if isinstance(what, Process) else _FunctionProcess(what, args)
        self._run(process, name, link)
        return process

    async def start(self, server: GenServer, name: str | None = None, *, link: bool = False) -> Pid:
        """Run a GenServer and wait until its `init` has returned.

        `link`: as in `spawn`; it ends when its parent does, even if it traps exits. Raises what
        `init` raised, `ConfigError` as `spawn` does. When cancelled, the server is killed.
        Source: `start_link` in https://www.erlang.org/doc/apps/stdlib/gen_server.html
        """
        task = self._run(server, name, link)
        try:
            await asyncio.wait({server.started, task}, return_when=asyncio.FIRST_COMPLETED)
            if not server.started.done():
                raise ProcessExit(server.exit_reason)
            server.started.result()
        except asyncio.CancelledError:
            if link:
                self.caller().unlink(server.pid, flush=True)
            self.end_process(server, KILLED)
            raise
        except Exception:
            if link:  # who traps exits has heard of this one by what is raised
                self.caller().unlink(server.pid, flush=True)
            raise
        return server.pid

    def register(self, name: str, process: Process) -> None:
        """Let `process` be known as `name`.

        Raises `ConfigError` if the name is taken or `undefined`, `NoProcess` if it has ended.
        """
        if name in self._names or name == "undefined":
            raise ConfigError(f"the name {brief(name)} is taken on {self.name}; choose another")
        if process.pid not in self._processes:
            raise NoProcess(NOPROC, type(process).__name__)
        self._names[Atom(name)] = process

    def unregister(self, name: str) -> None:
        """Forget a name. Raises `NoProcess` when nothing is registered under it."""
        if self._names.pop(Atom(name), None) is None:
            raise NoProcess(NOPROC, brief(name))

    def whereis(self, name: str) -> Pid | None:
        """The pid registered as `name`, if there is one."""
        process = self._names.get(Atom(name))
        return None if process is None else process.pid

    def make_pid(self) -> Pid:
        """A pid that no other process of this incarnation of the node has or had."""
        self._last_pid += 1
        number, serial = self._last_pid & 0xFFFFFFF, self._last_pid >> 28
        return Pid(self.name, number, serial, self.network.creation)

    def _adopt(self, process: Process) -> None:
        process.attach(self, self.make_pid())
        self._processes[process.pid] = process

    def _run(self, process: Process, name: str | None, link: bool) -> asyncio.Task[None]:
        if not isinstance(process, Process):
            raise ConfigError(f"{brief(process)} is no process; give an instance of one")
        if not self.running:
            raise ConfigError(f"the node {self.name} does not run; start it first")
        if process._task is not None and not process._task.done():
            raise ConfigError(f"{type(process).__name__} runs already, as {process.pid}")
        parent = self._parent() if link else None
        self._adopt(process)
        if name is not None:
            try:
                self.register(name, process)
            except ConfigError:
                del self._processes[process.pid]
                raise
        if parent is not None:
            process.parent_pid = parent.pid
            parent.link(process.pid)
        who = f"{type(process).__name__} {name or process.pid.id}"
        task = process._task = create_task(self._run_to_end(process), who)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget_task(process, done))
        return task

    def _parent(self) -> Process:
        parent = self.caller()
        if parent is self._outside or parent.pid not in self._processes:
            raise ConfigError("link=True links to the live process that calls; there is none here")
        return parent

    def _forget_task(self, process: Process, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and process._task is task:  # before it ran at all
            self.end_process(process, KILLED)

    async def _run_to_end(self, process: Process) -> None:
        current_process.set(process)
        reason: Term = NORMAL
        try:
            await process.run()
        except BaseException as error:
            reason = exit_reason_of(error, process)
            self._report(process, error, reason)
        finally:
            self.end_process(process, reason)

    def _report(self, process: Process, error: BaseException, reason: Term) -> None:
        """Log what has ended a process by itself, unless its starter is told."""
        if isinstance(process, GenServer) and process.failed_to_start:
            return
        who = label(process)
        if not isinstance(error, ProcessExit | asyncio.CancelledError):
            logger.exception("%s of %s crashed", who, self.name)
        elif (
            isinstance(process, GenServer)
            and isinstance(error, ProcessExit)
            and not is_normal(reason)
        ):
            logger.error("%s of %s exited: %s", who, self.name, first_word(reason))

    def is_system(self, process: Process) -> bool:
        """Whether a process is one that the node can't do without, which no exit signal ends."""
        return process is self._outside or isinstance(process, SystemServer)

    def end_process(self, process: Process, reason: Term) -> None:
        """Let `process` be dead from here on: unregister it, tell those linked to it or monitoring
        it, cancel what it runs."""
        if self._processes.pop(process.pid, None) is None:
            return
        process.alive = False
        process.exit_reason = _encodable(reason)
        self._ending.append(process)
        if len(self._ending) > 1:
            return  # a linked process has ended this one; the outermost call goes on with it
        while self._ending:
            try:
                self._bury(self._ending[0])
            except Exception:  # in a `deliver` or `unlinked` that was overridden
                logger.exception("telling of the end of a process of %s failed", self.name)
            finally:
                self._ending.popleft()

    def _bury(self, process: Process) -> None:
        if process._task is not None:
            process._task.cancel()
        for name in [n for n, p in self._names.items() if p is process]:
            del self._names[name]
        self._node_monitors.pop(process.pid, None)
        self.aliases.end(process)
        self.ties.end(process)

    # Messages

    def send(self, to: Target, message: Term, *, forced: bool = False) -> None:
        """Send a message. It is dropped if nobody is there, except for a name on this node.

        Connects to another node if need be; never blocks. Raises `EncodeError` for a message
        without external form, `NoProcess` for a name on this node that is not registered, `Busy`
        when `Limits.unsent_size` waits for the other node already; not if it is `forced`, as `cast`
        has it.
        """
        self._send(self._sendable(to), message, not forced)

    async def send_wait(self, to: Target, message: Term) -> None:
        """Send a message as `send` does, but where that raises `Busy` wait with `drain` and go on.

        Raises `NoConnection` if the node goes down in that time. When cancelled, nothing was sent.
        """
        await self._send_when_taken(self._sendable(to), message)

    async def _send_when_taken(
        self, address: Pid | Reference | Atom | tuple[Atom, Atom], message: Term
    ) -> None:
        while True:
            try:
                return self._send(address, message, True)
            except Busy:
                await self.network.drain(self._node_of(address))

    def cast(self, to: Target, message: Term, *, forced: bool = False) -> None:
        """Send a cast to a gen_server, wherever it is. Nothing tells whether it arrives.

        Raises `EncodeError` and `Busy` as `send` does; `forced`: not `Busy`, it is taken as a reply
        is (see `Limits.unsent_size`).
        """
        self._send(self._address(to), (GEN_CAST, message), not forced)

    async def call(self, to: Target, request: Term, timeout: float | None = CALL_TIMEOUT) -> Term:
        """Call a gen_server, wherever it is, and give its reply.

        Waits up to `timeout` seconds (None: for ever), first for its node if that is busy. Raises
        `CallTimeout`; `NoProcess`, `NoConnection` or `ProcessExit` if the server is not there or
        ends first. After a time-out or when cancelled, the reply is dropped if it still comes.
        """
        future: asyncio.Future[Term] = asyncio.get_running_loop().create_future()

        def on_down(reason: Term) -> None:
            if not future.done():
                future.set_exception(_exit_error(reason, to, self.loss))

        address, reference, sent = self.watchable(to), self.make_reference(), False
        try:
            async with asyncio.timeout(timeout):
                peer = address.node if isinstance(address, Pid) else address[1]
                if self.network.is_busy(peer):
                    await self.network.drain(peer, large=False)
                self.ties.watch(reference, Monitor(self.caller().pid, address, on_down))
                self._calls[reference] = future
                if not future.done():
                    tag = ImproperList([ALIAS], reference)
                    message = (GEN_CALL, (self.caller().pid, tag), request)
                    try:
                        self._send(address, message, True)
                    except Busy:
                        await self._send_when_taken(address, message)
                sent = True
                return await future
        except TimeoutError as error:
            what = "did not answer" if sent else "could not be called, as its node takes no more,"
            raise CallTimeout(f"{_text(to)} {what} within {timeout:g} seconds") from error
        finally:
            self._calls.pop(reference, None)
            self.ties.demonitor(reference)
            if future.done() and not future.cancelled():
                future.exception()  # the node may have gone down while this waited to send

    def reply(self, from_: From, reply: Term) -> None:
        """Answer a call, at any time after `handle_call` got `from_`."""
        self.send_back(reply_address(from_), (from_[1], reply))

    def send_back(self, to: Pid | Reference, message: Term) -> None:
        """Send a message to who is said to have asked for it, unless that is on a node that is not
        connected: a peer may have made it up."""
        if to.node == self.name or self.network.is_connected(to.node):
            self._send(to, message)

    async def make_room(self, peer: str) -> None:
        """Give a connected peer up to `ROOM_TIME` seconds to take what was answered: who answers
        faster than it reads would lose it."""
        if self.network.has_no_room(peer):
            with suppress(NoConnection, TimeoutError):
                async with asyncio.timeout(ROOM_TIME):
                    await self.drain(peer)

    async def rpc(
        self,
        peer: str,
        module: str,
        function: str,
        args: Iterable[Term],
        timeout: float | None = CALL_TIMEOUT,
    ) -> Term:
        """Run `module:function(args...)` on the node `peer` and give what it returns.

        As everywhere, a `str` among `args` is sent as a binary; an atom is an `Atom`:
        `node.rpc("a@host", "mnesia", "system_info", [Atom("tables")])`.

        Waits up to `timeout` seconds (None: for ever). Raises `ErlangThrow`, `ErlangExit` or
        `ErlangError` for what the function raised, `RpcRefused` when it was not run (all four are
        `RpcError`), `NoConnection`, `CallTimeout`; `ConfigError` for a `peer` that is no name of a
        node. After a time-out, or when cancelled, the function goes on running there; its result is
        dropped. Source: https://www.erlang.org/doc/apps/kernel/erpc.html#call/5
        """
        return await rpc.call(self, peer, module, function, args, timeout)

    @overload
    def export(self, module: str, function: F, *, name: str | None = None) -> F: ...

    @overload
    def export(self, module: str, *, name: str | None = None) -> Callable[[F], F]: ...

    def export(self, module: str, function: F | None = None, *, name: str | None = None) -> Any:
        """Let other nodes run a function as `module:name`, by `rpc`, `erpc` or `spawn`.

            @node.export("Elixir.Billing")
            async def charge(account: bytes, cents: int) -> Term: ...

            node.export("Elixir.Billing", ledger.balance, name="balance")

        Elixir calls the first as `:erpc.call(node, Billing, :charge, ["me", 5])`. `name` is by
        default the function's own. Of a class its public static and class methods are exported.
        What is not exported, or not for so many arguments, is `undef` to callers; functions under
        one name may differ in how many they take.

        Each call runs as a process of its own (`node.caller()`), which exit signals end; an `async`
        function is cancelled then. One that is not `async` holds up the whole node while it runs.
        What the function returns is sent back. `ErlangThrow`, `ErlangExit` (or `ProcessExit`) and
        `ErlangError` raised in it arrive as that, any other exception as an error
        `{python_error, Class, Text}` with a stack trace, and so does a result that is no term.

        Raises `ConfigError` for a name that is taken or can't be one, and for a function that can't
        be called with a number of arguments alone.
        """
        if function is None:
            check_name(module)
            return functools.partial(self.export, module, name=name)
        self.exports.add(module, function, name)
        return function

    def caller(self) -> Process:
        """The process that runs this code, or the one that stands for code outside of any."""
        process = current_process.get()
        if process is not None and process.node is self:
            return process
        self.network.check_named()
        return self._outside

    def process(self, to: Term) -> Process | None:
        """The live process of this node with that pid or name."""
        return self._processes.get(to) if isinstance(to, Pid) else self._names.get(to)

    def deliver(self, to: Term, message: Term, sender: Pid | None = None) -> None:
        """Give a message to a process of this node, by pid or name, or to a waiting call."""
        if type(message) is tuple and len(message) == 2 and self._answer(message[0], message[1]):
            return
        if (process := self.process(to)) is not None:
            process.deliver(message, sender)

    def deliver_to_alias(self, alias: Reference, message: Term, sender: Pid | None = None) -> None:
        """Give a message to the process with that alias, or a reply to the call that waits for it;
        late ones are dropped."""
        if alias not in self._calls:
            self.aliases.deliver(alias, message, sender)
        elif type(message) is tuple and len(message) == 2:
            self._answer(ImproperList([ALIAS], alias), message[1])

    def _answer(self, tag: Term, reply: Term) -> bool:
        if type(tag) is not ImproperList or tag.elements != [ALIAS]:
            return False
        future = self._calls.get(tag.tail) if type(tag.tail) is Reference else None
        if future is not None and not future.done():
            future.set_result(reply)
        return True

    def _address(self, to: Target) -> Pid | Reference | Atom | tuple[Atom, Atom]:
        match to:
            case Process():
                return to.pid
            case Pid() | Reference():
                return to
            case str():
                return Atom(to)
            case (str() as name, str() as node) if "@" in node:
                return Atom(name) if node == self.name else (Atom(name), Atom(node))
        raise ConfigError(
            f"cannot send to {brief(to)}: it must be a process, pid, name or (name, node), like "
            "('echo', 'a@127.0.0.1')"
        )

    def _sendable(self, to: Target) -> Pid | Reference | Atom | tuple[Atom, Atom]:
        address = self._address(to)
        if isinstance(address, str) and address not in self._names:
            raise NoProcess(NOPROC, brief(to))
        return address

    def _node_of(self, address: Pid | Reference | Atom | tuple[Atom, Atom]) -> Atom:
        """The node that an address is on."""
        match address:
            case Atom():
                return self.name
            case (_, node):
                return node
        return address.node

    def _send(
        self,
        to: Pid | Reference | Atom | tuple[Atom, Atom],
        message: Term,
        refusable: bool = False,
    ) -> None:
        sender = self.caller().pid
        match to:
            case Atom():
                self.deliver(to, message, sender)
            case (name, self.name):
                self.deliver(name, message, sender)
            case (name, node):
                signal, payload = control.reg_send(sender, name, message)
                self.network.send(node, signal, payload, None, refusable)
            case Pid(node=self.name):
                self.deliver(to, message, sender)
            case Pid(node=node):
                flags = self.network.flags_of(node)
                signal, payload = control.send_sender(flags, sender, to, message)
                self.network.send(node, signal, payload, None, refusable)
            case Reference(node=self.name):
                self.deliver_to_alias(to, message, sender)
            case Reference(node=node) if int(self.network.flags_of(node)) & _ALIAS:
                signal, payload = control.alias_send(sender, to, message)
                self.network.send(node, signal, payload, None, refusable)

    def exit(self, to: Process | Pid, reason: Term) -> None:
        """Send an exit signal, as `exit/2` does: `kill` ends any process, `normal` no other."""
        self.ties.exit_from(self.caller().pid, to.pid if isinstance(to, Process) else to, reason)

    def monitor(
        self, process: Process, target: Target, *, alias: AliasKind | None = None
    ) -> Reference:
        """See `Process.monitor`."""
        if alias not in (None, *MONITOR_ALIASES):
            raise ConfigError(f"alias is {alias!r}; it must be None or one of {MONITOR_ALIASES}")
        address = self.watchable(target)
        reference = self.make_reference()

        def on_down(reason: Term) -> None:
            self.aliases.monitor_ended(process, reference)
            process.deliver((DOWN, reference, PROCESS, address, reason))

        if alias is not None:
            self.aliases.add(reference, process, alias)

        self.ties.watch(reference, Monitor(process.pid, address, on_down))
        return reference

    def watchable(self, target: Target) -> Pid | tuple[Atom, Atom]:
        """What to send to and to monitor: `target` as a pid or (name, node).

        Raises `ConfigError` when it is neither, nor a process or a name on this node.
        """
        match self._address(target):
            case Reference():
                raise ConfigError(f"{brief(target)} is an alias; only a process can be monitored")
            case Atom() as name:
                return name, self.name
            case address:
                return address

    # Nodes

    def nodes(self) -> list[Atom]:
        """The connected nodes, hidden ones too."""
        return [Atom(name) for name in self.network.connected()]

    async def connect(self, peer: str, address: Address | None = None) -> None:
        """Connect to a node, now and later at `address`, (host, port), if that is given; otherwise
        `resolve` or its EPMD tells where it is.

        Raises `NoConnection`; `ConfigError` if the name or the address can't be used, or one of the
        nodes has a long name and the other a short one. When cancelled, the attempt goes on.
        """
        await self.network.connect(peer, address)

    async def ping(self, peer: str) -> bool:
        """Whether `peer` can be reached and answers, as `net_adm:ping/1` has it.

        Raises `ConfigError` for what is no node name.
        """
        split_name(peer)
        try:
            if self.name == NO_NAME:
                await self.connect(peer)
            await self.call((net_kernel.NAME, peer), (Atom("is_auth"), self.name))
        except (NoConnection, ProcessExit, CallTimeout):
            return False
        return True

    def disconnect(self, peer: str) -> bool:
        """Close the connection to `peer`; False when there is none."""
        return self.network.disconnect(peer)

    async def drain(self, peer: str) -> None:
        """Wait as long as `Limits.unsent_size` or more waits to be sent to `peer`.

        Raises `NoConnection` if it goes down in that time. When cancelled, nothing is lost.
        """
        await self.network.drain(peer)

    @property
    def net_ticktime(self) -> float:
        """Seconds of silence after which a peer is down, or will be once a change is over."""
        return self.network.ticktime.seconds

    def set_net_ticktime(self, seconds: float, transition_period: float = 60) -> Term:
        """Change `net_ticktime`; all nodes should be told to within `transition_period` (seconds).

        Until that is over, peers may be silent for the longer of the old and the new time, and
        ticks are sent as often as the shorter one asks for. Gives what Erlang's function does:
        `change_initiated`, `unchanged`, or `(ongoing_change_to, seconds)` when another change is
        not over. With `node.export("net_kernel", node.set_net_ticktime)` a BEAM can set it by rpc.

        A peer whose time differs is not taken for dead, nor takes us for it: one that is silent for
        half of `net_ticktime` is asked whether it lives, and one that sends is answered with ticks.

        Raises `ConfigError`.
        Source: https://www.erlang.org/doc/apps/kernel/net_kernel.html#set_net_ticktime/2
        """
        ticktime = self.network.ticktime
        if ticktime.changing:
            return (Atom("ongoing_change_to"), ticktime.seconds)
        if seconds == ticktime.seconds:
            return Atom("unchanged")
        self.network.set_ticktime(seconds, transition_period)
        return Atom("change_initiated")

    def info(self) -> NodeInfo:
        """Its name, and how its connections are: traffic, what waits, when heard of."""
        return self.network.info()

    def connection_events(self) -> ConnectionEvents:
        """The connections that come up, go down or are refused from now on, with the reason."""
        return self.network.events()

    def monitor_nodes(self, process: Process, on: bool = True) -> None:
        """Send `process` a message `(nodeup, node)` or `(nodedown, node)`, an `Own`, whenever that
        happens."""
        if on:
            self._node_monitors[process.pid] = process
        else:
            self._node_monitors.pop(process.pid, None)

    def node_named(self, name: Atom) -> None:
        """A peer has given this node its name (called by the network)."""
        self.name = name
        self._adopt(self._outside)
        self._run(net_kernel.NetKernel(), net_kernel.NAME, link=False)

    def name_lost(self) -> None:
        """That peer is down; who has the old name in his pid ends (called by the network)."""
        # Last the outside, whose calls wait for what the others end.
        for process in list(reversed(self._processes.values())):
            self.end_process(process, NOCONNECTION)
        self.name = Atom(NO_NAME)

    def node_up(self, peer: Atom) -> None:
        """A connection is up (called by the network)."""
        for process in list(self._node_monitors.values()):
            process.deliver(Own((NODEUP, peer)))

    def node_down(self, peer: Atom, reason: BeethovenError, *, was_up: bool) -> None:
        """A connection ended, or could not be made (called by the network)."""
        outer, self.loss = self.loss, str(reason)
        try:
            self.ties.lose(peer)
        finally:
            self.loss = outer
        if was_up:
            for process in list(self._node_monitors.values()):
                process.deliver(Own((NODEDOWN, peer)))

    def peer_silent(self, peer: Atom) -> None:
        """Ask a peer whether it lives; its answer is heard by the network, which calls this, and
        nobody else."""
        asker = self._outside.pid
        tag = ImproperList([ALIAS], self.make_reference())
        question = (GEN_CALL, (asker, tag), (Atom("is_auth"), self.name))
        self.network.send(peer, *control.reg_send(asker, net_kernel.NAME, question))

    def make_reference(self) -> Reference:
        """A reference that no other is equal to, and that no peer can guess."""
        number = secrets.randbits(82)
        words = (number & 0x3FFFF, number >> 18 & 0xFFFFFFFF, number >> 50)
        return Reference(self.name, self.network.creation, words)


def _exit_error(reason: Term, target: Target, loss: str | None) -> Exception:
    if reason == NOPROC:
        return NoProcess(reason, _text(target))
    if reason == NOCONNECTION:
        return NoConnection(loss or f"the node of {_text(target)} cannot be reached")
    return ProcessExit(reason, _text(target))


def _encodable(reason: Term) -> Term:
    try:
        encode(reason)
    except EncodeError as error:
        return (Atom("python_error"), b"EncodeError", str(error).encode(errors="replace"))
    return reason


def _text(target: Target) -> str:
    return type(target).__name__ if isinstance(target, Process) else brief(target)
