"""The calls that Mnesia answers to a `Mirror`, answered from the mirrors of this node.

No Mnesia is here, and this says so: `mnesia:system_info(is_running)` is `no`. Reads are done in the
mirror. A write is done by the mirror's source; without one here alone, where it is told all the
same. Nothing is run but the functions of this module, whatever funs others send.

The shape of each answer is a BEAM's: https://www.erlang.org/doc/apps/mnesia/mnesia.html
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeAlias

from pybeethoven.errors import (
    Aborted,
    CallTimeout,
    EncodeError,
    ErlangError,
    ErlangExit,
    MatchSpecError,
    MirrorError,
    NoConnection,
)
from pybeethoven.etf import Atom, Export, Fun, ImproperList, Pid, Term
from pybeethoven.etf.order import exact_key
from pybeethoven.etf.terms import ATOM_TYPES
from pybeethoven.mnesia.budget import MAX_WEIGHT, Budget, OverBudget, weight
from pybeethoven.mnesia.events import apply_event, event_of
from pybeethoven.mnesia.match_spec import Context, MatchSpec
from pybeethoven.mnesia.mirror import SUBSCRIBER, Mirror
from pybeethoven.mnesia.operations import Call, Delete, DeleteObject, Operation, Write
from pybeethoven.mnesia.patterns import is_ground, is_open
from pybeethoven.mnesia.table import Table
from pybeethoven.otp import Process
from pybeethoven.otp.exports import BADARG, ERROR, UNDEF
from pybeethoven.otp.node import Node
from pybeethoven.otp.process import NOCONNECTION

MNESIA: Final = Atom("mnesia")
OK: Final = Atom("ok")
ATOMIC: Final = Atom("atomic")
ABORTED: Final = Atom("aborted")
NO_EXISTS: Final = Atom("no_exists")
BAD_TYPE: Final = Atom("bad_type")
DIRTY: Final = Atom("dirty")
TID: Final = Atom("tid")
_WILD: Final = Atom("_")
_LOCKS: Final = ("read", "write", "sticky_write")

FORWARD_TIME: Final = 60.0
"""Seconds that a source has to do what another node has asked of us."""


class Server(Protocol):
    """A `TableServer`."""

    def names(self) -> list[Atom]:
        """The tables."""

    def mirror(self, name: Term) -> Mirror | None:
        """The mirror of a table."""

    def subscribe(self, pid: Term, what: Term) -> Term:
        """What `mnesia_subscr:subscribe/2` does."""

    def unsubscribe(self, pid: Term, what: Term) -> Term:
        """What `mnesia_subscr:unsubscribe/2` does."""

    def send(self, to: Pid, message: Term) -> None:
        """Send a message behind the events of all changes so far."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Something that was found to be in order. `run(table, change, budget)` does it in the mirror's
    table, with `change(operation)`. Only one that `reads` can fail: if it takes more than is in the
    budget."""

    mirror: Mirror
    run: Callable[[Table, _Change, Budget], Term]
    writes: bool = False
    reads: bool = True


_Change: TypeAlias = Callable[[Operation], None]
_Plan: TypeAlias = Callable[..., _Step]


class Answers:
    """What other nodes may call. `running` gives the node's `TableServer`; while there is none, the
    answers are those of a BEAM whose Mnesia is stopped."""

    def __init__(self, node: Node, running: Callable[[], Server | None]) -> None:
        self._node = node
        self._running = running
        self._tids = itertools.count(1)
        both: dict[str, _Plan] = {
            "all_keys/1": self._all_keys,
            "delete/1": self._delete,
            "delete_object/1": self._delete_object,
            "match_object/1": self._match_row,
            "read/1": self._read_oid,
            "read/2": self._read,
            "select/2": self._select,
            "write/1": self._write,
        }
        more: dict[str, _Plan] = {"match_object/3": self._match, "select/3": self._select}
        self._in_transaction = {name: partial(plan, False) for name, plan in (both | more).items()}
        self._dirty: dict[str, _Plan] = {
            **{f"dirty_{name}": partial(plan, True) for name, plan in both.items()},
            "dirty_match_object/2": partial(self._match, True),
            "dirty_update_counter/2": self._count_oid,
            "dirty_update_counter/3": self._count,
        }

    def export(self) -> None:
        """Let other nodes call all this."""
        export = self._node.export
        names = {name.partition("/")[0] for name in self._dirty}
        for name in sorted(names | {"transaction", "table_info", "system_info", "wait_for_tables"}):
            export(MNESIA, partial(self._apply_with, MNESIA, Atom(name)), name=name)
        export(SUBSCRIBER, self.subscribe)
        export(SUBSCRIBER, self.unsubscribe)
        export("lists", self.zipwith)

    def subscribe(self, pid: Term, what: Term) -> Term:
        """`mnesia_subscr:subscribe/2`."""
        server = self._server
        return (ERROR, self._not_running) if server is None else server.subscribe(pid, what)

    def unsubscribe(self, pid: Term, what: Term) -> Term:
        """`mnesia_subscr:unsubscribe/2`."""
        server = self._server
        return (ERROR, self._not_running) if server is None else server.unsubscribe(pid, what)

    async def zipwith(self, combine: Term, functions: Term, arguments: Term) -> Term:
        """`lists:zipwith(fun erlang:apply/2, functions, arguments)`: calls one after the other."""
        if not _is_zip(combine, functions, arguments):
            args = [combine, functions, arguments]
            raise ErlangError(_FUNCTION_CLAUSE, [(Atom("lists"), Atom("zipwith"), args, [])])
        results, budget = [], Budget(of_rows=False)
        for function, args in zip(functions, arguments, strict=True):
            if (fault := _fault(function, args)) is not None:
                raise ErlangError(fault)
            results.append(await self._apply(function.module, function.function, args))
            try:
                budget.spend_on(results[-1])
            except OverBudget:
                raise _abort(_TOO_MUCH) from None
            await asyncio.sleep(0)  # many calls must not hold up everything else
        return results

    async def _apply_with(self, module: Atom, function: Atom, *args: Term) -> Term:
        return await self._apply(module, function, list(args))

    async def _apply(self, module: Term, function: Term, args: list[Term]) -> Term:
        match module, function, args:
            case "mnesia", "transaction", [called]:
                return await self._transaction(called, [])
            case "mnesia", "transaction", [called, with_args]:
                return await self._transaction(called, with_args)
            case "mnesia", "table_info", [name, item]:
                return self._table_info(name, item)
            case "mnesia", "system_info", [item]:
                return self._system_info(item)
            case "mnesia", "wait_for_tables", [list(names), _]:
                return self._wait_for_tables(names)
            case "mnesia", str(), _ if plan := self._dirty.get(f"{function}/{len(args)}"):
                return await self._run_dirty(plan(*args), (_export(function, args), args))
            case "erlang", "send", [Pid() as to, message]:
                self._send(to, message)
                return message
        raise ErlangError(UNDEF, [(module, function, args, [])])

    def _send(self, to: Pid, message: Term) -> None:
        if (server := self._server) is not None:
            server.send(to, message)

    # What there is

    @property
    def _server(self) -> Server | None:
        return self._running()

    @property
    def _caller(self) -> Process:
        return self._node.caller()

    @property
    def _not_running(self) -> Term:
        return (Atom("node_not_running"), self._node.name)

    def _table_info(self, name: Term, item: Term) -> Term:
        mirror = self._mirror(name, (BAD_TYPE, name), None)
        node = self._node.name
        match item:
            case "size":
                return 0 if mirror is None else len(mirror.table)
            case "type" if mirror is not None:
                return Atom(mirror.table.type)
            case "where_to_read" if mirror is not None:
                return node
            case "active_replicas" if mirror is not None:
                return [node]
            case "user_properties" if mirror is not None:
                return []
            case "attributes" if mirror is not None and mirror.columns:
                return [Atom(column) for column in mirror.columns]
            case "arity" if mirror is not None and mirror.columns:
                return 1 + len(mirror.columns)
            case "wild_pattern" if mirror is not None and mirror.columns:
                return (name, *[_WILD for _ in mirror.columns])
        raise _abort((NO_EXISTS, name, item))

    def _system_info(self, item: Term) -> Term:
        match item:
            case "is_running":
                return Atom("no")
            case "running_db_nodes" | "db_nodes":
                return []
            case "tables":
                if (server := self._server) is None:
                    raise _abort(self._not_running)
                return server.names()
        raise _abort((BADARG, item))

    def _wait_for_tables(self, names: list[Term]) -> Term:
        """It waits for none: a table that is not there does not come by waiting."""
        if (server := self._server) is None:
            return (ERROR, self._not_running)
        missing = [name for name in names if server.mirror(name) is None]
        return (Atom("timeout"), missing) if missing else OK

    # Reading and writing

    async def _transaction(self, function: Term, args: Term) -> Term:
        if self._server is None:
            return (ABORTED, self._not_running)
        if type(args) is int or args == "infinity":  # how often to try again
            args = []
        if not isinstance(function, Export | Fun) or type(args) is not list:
            return (ABORTED, (BADARG, function, args, Atom("infinity"), MNESIA))
        many = function == _ZIPWITH and len(args) == 3
        try:
            steps = self._zip_steps(args) if many else [self._step(function, args)]
            call = (_export("transaction", [function, args]), [function, args])
            activity = (TID, next(self._tids), self._caller.pid)
            result = await self._run(steps, call, activity)
        except ErlangExit as error:
            match error.reason:
                case ("aborted", _):
                    return error.reason
            raise
        if isinstance(result, _Results):
            return (ATOMIC, list(result) if many else result[0])
        return result

    async def _run_dirty(self, step: _Step, call: Call) -> Term:
        result = await self._run([step], call, (DIRTY, self._caller.pid))
        return result[0] if isinstance(result, _Results) else result

    async def _run(self, steps: list[_Step], call: Call, activity: Term) -> Term:
        """What the steps give, or what a source answers to `call`, which they make up."""
        mirrors = list(dict.fromkeys(step.mirror for step in steps if step.writes))
        while any(mirror.unsettled for mirror in mirrors):
            for mirror in mirrors:
                await mirror.settle()
        for mirror in mirrors:
            if not mirror.ready:
                raise _abort((NO_EXISTS, mirror.table.name))
        if led := [mirror for mirror in mirrors if mirror.source is not None]:
            return await self._forward(led, call)
        if any(step.writes for step in steps) and any(step.reads for step in steps):
            self._rehearse(steps)
        used = {step.mirror for step in steps}
        return _results(
            steps, {m: (m.table, partial(m.change_local, activity=activity)) for m in used}
        )

    def _rehearse(self, steps: list[_Step]) -> None:
        """Do it all in copies of the tables, so that nothing is done if it is too much work."""
        tables = {step.mirror: step.mirror.table for step in steps}
        copies = {m: Table(table.name, table.rows(), table.type) for m, table in tables.items()}
        _results(steps, {m: (table, partial(_do, table)) for m, table in copies.items()})

    async def _forward(self, mirrors: list[Mirror], call: Call) -> Term:
        """Have the source make the call. It may be done when that is lost, or takes too long: the
        caller is to hear what he hears when the connection is."""
        try:
            result = await mirrors[0].forward(call, FORWARD_TIME)
            for mirror in mirrors[1:]:
                await mirror.catch_up(FORWARD_TIME)
            return result
        except Aborted as error:
            raise _abort(error.reason) from None
        except (MirrorError, NoConnection, CallTimeout):
            self._node.exit(self._caller, NOCONNECTION)
            raise asyncio.CancelledError from None

    def _zip_steps(self, args: list[Term]) -> list[_Step]:
        if not _is_zip(*args):
            frame: Term = (Atom("lists"), Atom("zipwith"), args, [])
            raise _abort((_FUNCTION_CLAUSE, [frame]))
        return [self._step(function, each) for function, each in zip(args[1], args[2], strict=True)]

    def _step(self, function: Term, args: Term) -> _Step:
        if (fault := _fault(function, args)) is not None:
            raise _abort((fault, []))
        plan = self._in_transaction.get(f"{function.function}/{function.arity}")
        if plan is None or function.module != MNESIA:
            raise _abort((UNDEF, [(function.module, function.function, args, [])]))
        return plan(*args)

    def _mirror(self, name: Term, bad: Term, missing: Term) -> Mirror | None:
        """The mirror of a table, None when it is not there and `missing` is None. Aborts with
        `missing`, or with `bad` for what is no table's name."""
        if not isinstance(name, ATOM_TYPES):
            raise _abort(bad)
        server = self._server
        mirror = None if server is None else server.mirror(name)
        if mirror is None and missing is not None:
            raise _abort(missing)
        return mirror

    def _found(self, name: Term, bad: Term, missing: Term) -> Mirror:
        mirror = self._mirror(name, bad, missing)
        assert mirror is not None
        return mirror

    def _read_oid(self, dirty: bool, oid: Term) -> _Step:
        return self._read(dirty, *_oid(oid))

    def _read(self, dirty: bool, name: Term, key: Term) -> _Step:
        missing = (NO_EXISTS, [name, key] if dirty else name)
        mirror = self._found(name, (BAD_TYPE, name), missing)
        _check(mirror, key)
        return _Step(mirror, lambda table, *_: table.read(key))

    def _all_keys(self, dirty: bool, name: Term) -> _Step:
        missing = (NO_EXISTS, name if dirty else (name, Atom("wild_pattern")))
        mirror = self._found(name, (BAD_TYPE, name), missing)

        def keys(table: Table, *_: object) -> Term:
            return list({exact_key(row[1]): row[1] for row in table.rows()}.values())

        return _Step(mirror, keys)

    def _select(self, dirty: bool, name: Term, spec: Term, lock: Term = _LOCKS[0]) -> _Step:
        bad = (BAD_TYPE if dirty else BADARG, name, spec)
        if type(spec) is not list:
            raise _abort(bad)
        mirror = self._found(name, bad, (NO_EXISTS, [name, spec] if dirty else name))
        return self._query(mirror, spec, lock, (BADARG, [name, spec]))

    def _match_row(self, dirty: bool, pattern: Term) -> _Step:
        name = _record(pattern)[0]
        return self._match(dirty, name, pattern, bad=(BAD_TYPE, pattern))

    def _match(
        self,
        dirty: bool,
        name: Term,
        pattern: Term,
        lock: Term = _LOCKS[0],
        *,
        bad: Term = None,
    ) -> _Step:
        bad = bad or (BAD_TYPE, name, pattern)
        if type(pattern) is not tuple or len(pattern) < 3:
            raise _abort(bad)
        mirror = self._found(name, bad, (NO_EXISTS, [name, pattern] if dirty else name))
        spec: Term = [(pattern, [], [Atom("$_")])]
        return self._query(mirror, spec, lock, (BADARG, [name, pattern]))

    def _query(self, mirror: Mirror, spec: Term, lock: Term, bad: Term) -> _Step:
        if lock not in _LOCKS:
            raise _abort((BAD_TYPE, mirror.table.name, lock))
        if weight(spec, MAX_WEIGHT) > MAX_WEIGHT:
            raise _abort(_TOO_MUCH)
        try:
            compiled = MatchSpec(spec, metered=True)
        except MatchSpecError:
            raise _abort(bad) from None
        name, pid = self._node.name, self._caller.pid

        def query(table: Table, _: _Change, budget: Budget) -> Term:
            return table.select(compiled, Context(name, pid, budget))

        return _Step(mirror, query)

    def _write(self, dirty: bool, row: Term) -> _Step:
        name = _record(row)[0]
        bad = (BAD_TYPE, name, row) if dirty else (BAD_TYPE, name, row, Atom("write"))
        mirror = self._found(name, bad, (NO_EXISTS, name))
        if mirror.columns and len(row) != 1 + len(mirror.columns):
            raise _abort((BAD_TYPE, row))
        return _change(mirror, Write(row))

    def _delete(self, dirty: bool, oid: Term) -> _Step:
        name, key = _oid(oid)
        mirror = self._found(name, (BAD_TYPE, name), self._uncommittable(dirty, name))
        return _change(mirror, Delete(key))

    def _delete_object(self, dirty: bool, row: Term) -> _Step:
        name = _record(row)[0]
        if _has_variable(row):
            raise _abort((BAD_TYPE, name, row))
        bad = (BAD_TYPE, name, row) if dirty else (BAD_TYPE, name)
        mirror = self._found(name, bad, self._uncommittable(dirty, name))
        return _change(mirror, DeleteObject(row), reads=not is_ground(row[1]))

    def _uncommittable(self, dirty: bool, name: Term) -> Term:
        """What a delete aborts with whose table is not there."""
        if not dirty:
            return (NO_EXISTS, name)
        if self._server is None:
            return self._not_running
        return (NO_EXISTS, (name, Atom("where_to_commit")))

    def _count_oid(self, oid: Term, increment: Term) -> _Step:
        return self._count(*_oid(oid), increment)

    def _count(self, name: Term, key: Term, increment: Term) -> _Step:
        if type(increment) is not int:
            raise _abort((BAD_TYPE, name, increment))
        mirror = self._found(name, (BAD_TYPE, name, increment), (NO_EXISTS, name))
        if mirror.table.type == "bag" or len(mirror.columns) not in (0, 2):
            raise _abort((Atom("combine_error"), name, Atom("update_counter")))
        _check(mirror, key)

        def count(table: Table, change: _Change, _: Budget) -> Term:
            old = [row[2] for row in table.read(key) if type(row[2]) is int]
            total = max(0, sum(old) + increment)
            change(Write((table.name, key, total)))
            return total

        return _Step(mirror, count, writes=True, reads=False)


class _Results(tuple[Term, ...]):
    """What steps have given here; what a source answers is none."""


_ZIPWITH: Final = Export(Atom("lists"), Atom("zipwith"), 3)
_APPLY: Final = Export(Atom("erlang"), Atom("apply"), 2)
_TOO_MUCH: Final = (Atom("system_limit"), Atom("too_much_work_for_one_call"))
_FUNCTION_CLAUSE: Final = Atom("function_clause")


def _abort(reason: Term) -> ErlangExit:
    """How `mnesia:abort/1` ends what calls it."""
    return ErlangExit((ABORTED, reason))


def _export(function: str, args: list[Term]) -> Export:
    return Export(MNESIA, Atom(function), len(args))


def _is_zip(combine: Term, functions: Term, arguments: Term) -> bool:
    lists = type(functions) is list and type(arguments) is list
    return combine == _APPLY and lists and len(functions) == len(arguments)


def _fault(function: Term, args: Term) -> Term | None:
    """Why a function can't be applied to arguments, if that is so."""
    if type(args) is not list:
        return BADARG
    if not isinstance(function, Export):
        return (Atom("badfun"), function)
    return None if function.arity == len(args) else (Atom("badarity"), (function, args))


def _oid(oid: Term) -> tuple[Term, Term]:
    """A table and a key."""
    if type(oid) is not tuple or len(oid) != 2:
        raise _abort((BAD_TYPE, oid))
    return oid


def _record(row: Term) -> tuple[Term, ...]:
    """A row, or a pattern of one: a table, a key, and at least one more."""
    if type(row) is not tuple or len(row) < 3:
        raise _abort((BAD_TYPE, row))
    return row


def _has_variable(row: Term) -> bool:
    """Whether there is a variable or `_` in a row, maps apart."""
    rest = [row]
    while rest:
        term = rest.pop()
        if is_open(term):
            return True
        if isinstance(term, tuple | list):
            rest += term
        elif isinstance(term, ImproperList):
            rest += (*term.elements, term.tail)
    return False


def _change(mirror: Mirror, operation: Operation, *, reads: bool = False) -> _Step:
    """`reads`: it goes through all rows, for it has a map in the key."""
    _check(mirror, operation.key if isinstance(operation, Delete) else operation.row)

    def run(table: Table, change: _Change, budget: Budget) -> Term:
        if reads:
            for row in table.rows():
                budget.look_at(row)
        change(operation)
        return OK

    return _Step(mirror, run, writes=True, reads=reads)


def _check(mirror: Mirror, term: Term) -> None:
    """Abort for a key or a row that has no place in the order, before anything is done."""
    try:
        exact_key(term)
    except EncodeError:
        raise _abort((BAD_TYPE, mirror.table.name, term)) from None


def _do(table: Table, operation: Operation) -> None:
    apply_event(table, event_of(table.name, operation))


def _results(steps: list[_Step], places: Mapping[Mirror, tuple[Table, _Change]]) -> _Results:
    """Run the steps, one after the other. Aborts if they are too much work."""
    budget, results = Budget(of_rows=len(steps) == 1), []
    try:
        for step in steps:
            results.append(step.run(*places[step.mirror], budget))
            if step.reads and len(steps) > 1:
                budget.spend_on(results[-1])
    except OverBudget:
        raise _abort(_TOO_MUCH) from None
    return _Results(results)
