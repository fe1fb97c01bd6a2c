"""Supervisor: a process that starts others, its children, and starts them again when they end.

Sources: https://www.erlang.org/doc/apps/stdlib/supervisor.html and
https://www.erlang.org/doc/system/sup_princ.html; names and defaults are those of
https://hexdocs.pm/elixir/Supervisor.html.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from pybeethoven.errors import ConfigError, ProcessExit, SupervisorError, brief
from pybeethoven.etf import Atom, Pid, Term
from pybeethoven.etf.terms import MAX_ATOM_CHARACTERS
from pybeethoven.otp.gen_server import From, GenServer
from pybeethoven.otp.process import (
    KILL,
    KILLED,
    SHUTDOWN,
    Own,
    Process,
    exit_reason_of,
    first_word,
    is_normal,
)
from pybeethoven.otp.sys import ERROR, NOTSUP, OK

logger = logging.getLogger(__name__)

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
ChildType: TypeAlias = Literal["worker", "supervisor"]

KILL_TIME: Final = 1.0
"""Seconds that a killed child has to end; then it is left behind, and logged."""

TRY_AGAIN: Final = Atom("try_again_restart")
UNDEFINED: Final = Atom("undefined")
RESTARTING: Final = Atom("restarting")
NOT_FOUND: Final = Atom("not_found")


@dataclass(frozen=True)
class ChildSpec:
    """How a supervisor has a child.

    `id`: its name within the supervisor, an atom for others. `start`: gives the process to run, a
    new one or the same each time. `name`: what it is registered as. `restart`: `permanent` children
    are started again however they end, `transient` ones unless they end with `normal`, `shutdown`
    or `(shutdown, ...)`, `temporary` ones never. `shutdown`: the seconds a child has to end, its
    `terminate` included, before it is killed; `infinity` (best for supervisors) or `brutal_kill`.

    Raises `ConfigError` for what can't be used.
    """

    id: str
    start: Callable[[], Process]
    name: str | None = None
    restart: Restart = "permanent"
    shutdown: float | Literal["brutal_kill", "infinity"] = 5.0
    type: ChildType = "worker"

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or len(self.id) > MAX_ATOM_CHARACTERS:
            raise ConfigError(f"a child's id has up to 255 characters, unlike {brief(self.id)}")
        for what, kinds in (("restart", Restart), ("type", ChildType)):
            if getattr(self, what) not in get_args(kinds):
                raise ConfigError(f"child {self.id!r}: {what} has to be one of {get_args(kinds)}")
        if not (self.shutdown in ("brutal_kill", "infinity") or _is_amount(self.shutdown)):
            raise ConfigError(
                f"child {self.id!r}: shutdown={self.shutdown!r} is neither seconds, like 5.0, nor "
                "'brutal_kill' or 'infinity'"
            )


@dataclass(eq=False)
class _Child:
    spec: ChildSpec
    process: Process | None = None
    """What was started last; it may have ended."""
    pid: Pid | None = None
    """Its pid, until the supervisor knows that it ended."""
    restarting: bool = False

    @property
    def state(self) -> Term:
        return RESTARTING if self.restarting else self.pid or UNDEFINED


@dataclass(frozen=True)
class _Request:
    """A call from this node: what it raises is raised at the caller."""

    method: Callable[..., Awaitable[Any]]
    argument: Any


class Supervisor(GenServer):
    """Starts `children` in order, each when the `init` of the one before has returned, restarts
    those that end, and stops them in reverse order when it ends.

    `strategy`: what is restarted with a child that ended: nothing (`one_for_one`), all others
    (`one_for_all`) or those started after it (`rest_for_one`). With more than `max_restarts`
    restarts in `max_seconds` it gives up and exits with `shutdown`.

    When a child can't be started, neither can the supervisor: `Node.start` raises the same error.
    Raises `ConfigError` for two children with the same id and what else can't be used.
    """

    trap_exit = True

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
    ) -> None:
        self.strategy = strategy
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._specs = list(children)
        if strategy not in get_args(Strategy):
            raise ConfigError(f"strategy={strategy!r}; use one of {get_args(Strategy)}")
        if not _is_amount(max_restarts) or not _is_amount(max_seconds):
            raise ConfigError(
                f"max_restarts={max_restarts!r} in max_seconds={max_seconds!r}: use numbers from 0 "
                "up, like 3 in 5.0"
            )
        for spec in self._specs:
            if not isinstance(spec, ChildSpec):
                raise ConfigError(f"{brief(spec)} is no ChildSpec; give ChildSpec(id, start)")
        if len({spec.id for spec in self._specs}) < len(self._specs):
            raise ConfigError(f"two children have the same id: {[s.id for s in self._specs]}")

    # For everybody. As in OTP none of them has a time-out: a child may take long to start or stop.

    async def start_child(self, spec: ChildSpec) -> Pid:
        """Add a child and start it. Raises what its start raises, and then it is not added;
        `SupervisorError` if there is one with its id. When cancelled, it is done all the same."""
        pid: Pid = await self._ask(self._start_child, spec)
        return pid

    async def terminate_child(self, id: str) -> None:
        """Stop a child, whatever its state; a temporary one is deleted, too. Raises
        `SupervisorError` if there is none. When cancelled, it is done all the same."""
        await self._ask(self._terminate_child, id)

    async def restart_child(self, id: str) -> Pid:
        """Start a child that has been stopped or ended. Raises what its start raises;
        `SupervisorError` if it is in another state. When cancelled, it is done all the same."""
        pid: Pid = await self._ask(self._restart_child, id)
        return pid

    async def delete_child(self, id: str) -> None:
        """Forget a child that has been stopped or ended. Raises `SupervisorError` if it is in
        another state. When cancelled, it is done all the same."""
        await self._ask(self._delete_child, id)

    async def which_children(self) -> list[tuple[Atom, Term, Atom, Term]]:
        """Of each child `(id, pid or "undefined" or "restarting", type, "dynamic")`, the last
        started first."""
        children: list[tuple[Atom, Term, Atom, Term]]
        children = await self.node.call(self, Atom("which_children"), timeout=None)
        return children

    async def count_children(self) -> dict[str, int]:
        """How many there are: `specs`, `active`, `supervisors`, `workers`."""
        return dict(await self.node.call(self, Atom("count_children"), timeout=None))

    async def _ask(self, method: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        result = await self.node.call(self, _Request(method, argument), timeout=None)
        if isinstance(result, Exception):
            raise result
        return result

    # For the node

    async def init(self) -> None:
        """Start the children; when one can't be, stop those that were."""
        self._children = {spec.id: _Child(spec) for spec in self._specs}
        self._restarts: list[float] = []
        try:
            for child in self._children.values():
                await self._start(child)
        except Exception as error:
            error.add_note(f"child {child.spec.id!r} of a supervisor did not start")
            await self._stop_all()
            raise

    async def handle_call(self, request: Term, from_: From) -> Term:
        """Answer as OTP's does, but `{error, notsup}` to `start_child` from another node."""
        match request:
            case _Request(method, argument):
                try:
                    return await method(argument)
                except Exception as error:
                    return error
            case "which_children":
                return self._which_children()
            case "count_children":
                return self._count_children()
            case tuple(("terminate_child", id)):
                return await self._reply(self._terminate_child, id)
            case tuple(("restart_child", id)):
                return await self._reply(self._restart_child, id)
            case tuple(("delete_child", id)):
                return await self._reply(self._delete_child, id)
        return (ERROR, NOTSUP)

    async def handle_cast(self, message: Term) -> None:
        """Try again to restart a child; ignore anything else."""
        match message:
            case tuple(("try_again_restart", str() as id)):
                child = self._children.get(id)
                if child is not None and child.restarting:
                    await self._restart(child)
            case _:
                logger.warning("a supervisor got an unknown cast")

    async def handle_info(self, message: Term) -> None:
        """Take the end of a child; ignore anything else."""
        match message:
            case Own(("EXIT", Pid() as pid, reason)):
                for child in self._children.values():
                    if child.pid == pid:
                        await self._process_end(child, reason)
                        return
                logger.warning("a supervisor ignores that %s, no child of it, ended", pid)
            case _:
                logger.warning("a supervisor got an unexpected message")

    async def terminate(self, reason: Term) -> None:
        """Stop the children. When it was killed they have ended with it, as links have it."""
        if self.node.process(self.pid) is self:
            await self._stop_all()

    # What it is asked

    async def _reply(self, method: Callable[[Any], Awaitable[Any]], id: Term) -> Term:
        try:
            result = await method(id)
        except SupervisorError as error:
            return (ERROR, error.reason)
        except Exception as error:
            return (ERROR, exit_reason_of(error, self))
        return OK if result is None else (OK, result)

    async def _start_child(self, spec: ChildSpec) -> Pid:
        child = self._children.get(spec.id)
        if child is not None:
            present = Atom("already_present")
            reason = (Atom("already_started"), child.pid) if child.pid is not None else present
            raise SupervisorError(spec.id, reason)
        child = _Child(spec)
        pid = await self._start(child)
        self._children[spec.id] = child
        return pid

    async def _terminate_child(self, id: Term) -> None:
        await self._stop(self._child(id))

    async def _restart_child(self, id: Term) -> Pid:
        return await self._start(self._stopped_child(id))

    async def _delete_child(self, id: Term) -> None:
        del self._children[self._stopped_child(id).spec.id]

    def _child(self, id: Term) -> _Child:
        child = self._children.get(id) if isinstance(id, str) else None
        if child is None:
            raise SupervisorError(id, NOT_FOUND)
        return child

    def _stopped_child(self, id: Term) -> _Child:
        child = self._child(id)
        if child.state != UNDEFINED:
            raise SupervisorError(id, RESTARTING if child.restarting else Atom("running"))
        return child

    def _which_children(self) -> Term:
        return [
            (Atom(id), child.state, Atom(child.spec.type), Atom("dynamic"))
            for id, child in reversed(self._children.items())
        ]

    def _count_children(self) -> Term:
        children = self._children.values()
        supervisors = sum(child.spec.type == "supervisor" for child in children)
        return [
            (Atom("specs"), len(children)),
            (Atom("active"), sum(self.node.process(child.pid) is not None for child in children)),
            (Atom("supervisors"), supervisors),
            (Atom("workers"), len(children) - supervisors),
        ]

    # Starting, stopping, restarting

    async def _start(self, child: _Child) -> Pid:
        process = child.spec.start()
        if not isinstance(process, Process):
            raise ConfigError(f"child {child.spec.id!r}: start gave {brief(process)}, no Process")
        if process._task is not None and self.node.process(process.pid) is None:
            await self._end(process, child.spec)
        child.process = process
        if isinstance(process, GenServer):
            await self.node.start(process, child.spec.name, link=True)
        else:
            self.node.spawn(process, name=child.spec.name, link=True)
        child.pid = process.pid
        return process.pid

    async def _stop(self, child: _Child) -> None:
        """Have a child stopped, with nothing of it running any more; forget a temporary one."""
        process, pid = child.process, child.pid
        child.pid, child.restarting = None, False
        if child.spec.restart == "temporary":
            self._children.pop(child.spec.id, None)
        if process is None:
            return
        await self._end(process, child.spec)
        if pid is None:
            return
        self.unlink(pid, flush=True)
        killed = child.spec.shutdown == "brutal_kill" and process.exit_reason == KILLED
        if not killed and not is_normal(process.exit_reason):
            self._report(child, "ended when it was to be stopped", process.exit_reason)

    async def _end(self, process: Process, spec: ChildSpec) -> None:
        """Wait until `process` has ended, `terminate` included; in time, or it is killed."""
        if spec.shutdown != "brutal_kill":
            self.node.exit(process, SHUTDOWN)
            limit = None if spec.shutdown == "infinity" else spec.shutdown
            if await process.wait_end(limit):
                return
            logger.error("child %r did not end in %s seconds and is killed", spec.id, limit)
        self.node.exit(process, KILL)
        await asyncio.sleep(0)
        if process._task is not None:  # the signal does nothing to one that is in its `terminate`
            process._task.cancel()
        if not await process.wait_end(KILL_TIME):
            logger.error("child %r was killed and still runs; it is left behind", spec.id)

    async def _stop_all(self) -> None:
        for child in reversed(list(self._children.values())):
            await self._stop(child)

    async def _process_end(self, child: _Child, reason: Term) -> None:
        child.pid = None
        abnormal = not is_normal(reason)
        if abnormal or child.spec.restart == "permanent":
            self._report(child, "ended", reason)
        if child.spec.restart == "temporary":
            del self._children[child.spec.id]
        elif abnormal or child.spec.restart == "permanent":
            if child.process is not None:
                await self._end(child.process, child.spec)
            await self._restart(child)

    async def _restart(self, child: _Child) -> None:
        """Restart a child and those that its strategy restarts with it. If one can't be started it
        is tried again, after what is in the mailbox."""
        self._count_restart(child)
        for other in reversed(group := self._group(child)):
            await self._stop(other)
        for one in group:
            if one.spec.id not in self._children:
                continue
            try:
                await self._start(one)
            except Exception as error:
                self._report(one, "did not start", exit_reason_of(error, self))
                one.restarting = True
                self.node.cast(self, (TRY_AGAIN, one.spec.id))
                return

    def _group(self, child: _Child) -> list[_Child]:
        children = list(self._children.values())
        match self.strategy:
            case "one_for_one":
                return [child]
            case "rest_for_one":
                return children[children.index(child) :]
            case "one_for_all":
                return children

    def _count_restart(self, child: _Child) -> None:
        now = asyncio.get_running_loop().time()
        self._restarts = [time for time in self._restarts if now - time <= self.max_seconds]
        self._restarts.append(now)
        if len(self._restarts) > self.max_restarts:
            logger.error(
                "child %r is not restarted again: over %s restarts in %s seconds",
                *(child.spec.id, self.max_restarts, self.max_seconds),
            )
            raise ProcessExit(SHUTDOWN)

    def _report(self, child: _Child, what: str, reason: Term) -> None:
        level = logging.WARNING if is_normal(reason) else logging.ERROR
        logger.log(level, "child %r %s: %s", child.spec.id, what, first_word(reason))


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1e9
