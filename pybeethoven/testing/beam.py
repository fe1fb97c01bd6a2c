"""BEAM nodes as child processes, driven over stdin and stdout.

    async with Epmd() as epmd:
        async with BeamNode("a@127.0.0.1", code_paths=paths, cookie=cookie, env=epmd.env) as node:
            assert await node.eval("1 + 1") == 2
            await node.eval("ControlShell.collect(:seen, name: :seen)")
            await node.eval("send(:seen, :hello)")
            assert await node.next_event("seen") == (Atom("seen"), Atom("hello"))
            await node.kill()

`code_paths` must hold Elixir (`elixir_code_paths`) and the compiled `ControlShell`, whose
documentation has the protocol. Whatever is left of a node when its block is left, is killed. All
listen on the loopback only: at their own host if that is an address of it, else at 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pybeethoven.etf import Term, decode
from pybeethoven.testing.common import TAIL, TIMEOUT, BeamDownError, EvalError, absolute, text

_LONGEST_LINE = 1 << 28
_INTERFACE = ("-kernel", "inet_dist_use_interface")
_LOOPBACK6 = (*_INTERFACE, "{0,0,0,0,0,0,0,1}", "-proto_dist", "inet6_tcp")
_LOG_TO_STDERR = (
    *("-kernel", "logger", "[{handler,default,logger_std_h,#{config=>#{type=>standard_error}}}]"),
    *("-logger", "console", "[{device,standard_error}]"),
    *("-logger", "default_handler", "[{config,#{type=>standard_error}}]"),
)

# A stopped process does not see its stdin close: for as long as it is, this one looks instead.
_KILL_WHEN_STDIN_CLOSES = 'read -r _; kill -KILL "-$1"'


class BeamNode:
    """A BEAM as a child process: `async with` starts it, and kills it at the end.

    A `name` whose host has no dot is a short one; with a host like `::1` the BEAM speaks IPv6.
    `flags` go to `erl` as they are. `env` is added to the environment. Signals reach the whole
    process group, so `erl` may be a wrapper script as long as it does not daemonize. The BEAM has a
    temporary HOME, with a file that gives it the cookie: every user can see a command line. It runs
    there, too: it loads code from its current directory, and Mnesia writes to it. So paths in
    `flags` must be absolute.
    """

    def __init__(
        self,
        name: str,
        *,
        code_paths: Iterable[Path | str],
        cookie: str,
        erl: str = "erl",
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._cookie = cookie
        self._command = [absolute(erl), *_node_flags(name, code_paths), *flags]
        self._env = {**os.environ, "ERL_CRASH_DUMP_SECONDS": "0", **(env or {})}
        self._files = contextlib.ExitStack()
        self._stderr: IO[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Term]] = {}
        self._events: deque[Term] = deque()
        self._news = asyncio.Event()
        self._output = b""

    def __repr__(self) -> str:
        return f"<BeamNode {self.name} {'running' if self.running else 'down'}>"

    @property
    def running(self) -> bool:
        """Whether the BEAM is up, frozen or not."""
        return self._reader is not None and not self._reader.done()

    @property
    def output(self) -> str:
        """The end of what the BEAM wrote to stderr, its log, and of stray lines on stdout."""
        return text(self._output + self._stderr_tail())

    async def __aenter__(self) -> Self:
        try:
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the node
            self._stderr = self._files.enter_context(errors)
            await self._start(self._make_home())
        except BaseException:
            await self.kill()
            self._files.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.kill()
        if error is not None and (output := self.output):
            error.add_note(f"--- {self.name} ---\n{output}")
        self._files.close()

    async def eval(self, source: str, *, timeout: float = TIMEOUT) -> Term:
        """Evaluate Elixir on the node and return its value, decoded.

        Sources run one after the other in one process, which traps exits; bindings stay. Raises
        `EvalError`, `BeamDownError`, or `TimeoutError` after `timeout` seconds. A source whose call
        timed out or was cancelled goes on running, and those after it wait for its end.
        """
        number = next(self._ids)
        self._send(b"%d %s\n" % (number, base64.b64encode(source.encode())))
        return await self._answer(number, f"to evaluate {source!r}", timeout)

    async def next_event(self, tag: str | None = None, *, timeout: float | None = TIMEOUT) -> Term:
        """Return the next emitted term, or the next that is a tuple starting with the atom `tag`.

        Each event is returned once; those passed over stay. Raises `BeamDownError` when the node is
        down and there is none, `TimeoutError` after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for index, event in enumerate(self._events):
                        if tag is None or _is_tagged(event, tag):
                            del self._events[index]
                            return event
                    if not self.running:
                        raise self._died()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise self._timed_out(f"to emit {tag or 'anything'}", timeout) from None

    async def events(self) -> AsyncIterator[Term]:
        """Iterate over what the node emits, until it is down."""
        with contextlib.suppress(BeamDownError):
            while True:
                yield await self.next_event(timeout=None)

    def when_down(self, call: Callable[[], object]) -> None:
        """Have `call` called as soon as the BEAM is seen to have ended; it must be running."""
        assert self._reader is not None
        self._reader.add_done_callback(lambda _: call())

    async def kill(self) -> None:
        """Kill the BEAM (SIGKILL) and await its end. A node that is down already stays so."""
        self._signal(signal.SIGKILL)
        await self._ended()

    async def stop(self, *, timeout: float = TIMEOUT) -> None:
        """Let the BEAM end as `init:stop` does; one that takes longer than `timeout` is killed."""
        with contextlib.suppress(TimeoutError, BeamDownError):
            async with asyncio.timeout(timeout):
                await self.eval(":init.stop()", timeout=timeout)
                await self._ended()
        await self.kill()

    def freeze(self) -> None:
        """Stop the BEAM's time (SIGSTOP): connections stay open, nothing is answered."""
        self._guard_frozen()
        self._signal(signal.SIGSTOP)
        while self._process is not None and self.running and not _stopped(self._process.pid):
            time.sleep(0.0005)

    def thaw(self) -> None:
        """Let a frozen BEAM go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._dismiss_guard()

    def _make_home(self) -> str:
        """Make a home directory with a cookie file as OTP wants it."""
        home = self._files.enter_context(tempfile.TemporaryDirectory(prefix="pybeethoven-"))
        file = Path(home, ".erlang.cookie")
        file.write_text(self._cookie)
        file.chmod(0o400)
        return home

    async def _start(self, home: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**self._env, "HOME": home},
            cwd=home,
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout))
        await self._answer(0, "to start", TIMEOUT)

    async def _ended(self) -> None:
        if self._process is None:
            return
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._dismiss_guard()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def _guard_frozen(self) -> None:
        """See to it that a frozen BEAM does not outlive this process either."""
        if self._guard is None and self._process is not None and self.running:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _KILL_WHEN_STDIN_CLOSES, "sh", str(self._process.pid)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _send(self, line: bytes) -> None:
        if not self.running:
            raise self._died()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    async def _answer(self, number: int, what: str, timeout: float) -> Term:
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise self._timed_out(what, timeout) from None
        finally:
            self._answers.pop(number, None)

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        try:
            while line := await stdout.readline():
                self._process_line(line)
        finally:
            self._news.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(self._died())

    def _process_line(self, line: bytes) -> None:
        words = line.split()
        if line.startswith(b"@! "):
            self._events.append(decode(base64.b64decode(words[1])))
            self._news.set()
        elif line.startswith(b"@") and len(words) == 3:
            self._process_answer(int(words[0][1:]), words[1], base64.b64decode(words[2]))
        else:
            self._output = (self._output + line)[-TAIL:]

    def _process_answer(self, number: int, outcome: bytes, data: bytes) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if outcome == b"ok":
            answer.set_result(decode(data))
        else:
            answer.set_exception(EvalError(f"{self.name}: {text(data)}"))

    def _stderr_tail(self) -> bytes:
        if self._stderr is None or self._stderr.closed:
            return b""
        descriptor = self._stderr.fileno()
        return os.pread(descriptor, TAIL, max(0, os.fstat(descriptor).st_size - TAIL))

    def _died(self) -> BeamDownError:
        return BeamDownError(f"{self.name} is down; its last output:\n{self.output}")

    def _timed_out(self, what: str, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"{self.name} took longer than {timeout} s {what}")


def _stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped: the signal takes them a moment."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)


def _node_flags(name: str, code_paths: Iterable[Path | str]) -> list[str]:
    host = name.rpartition("@")[2]
    return [
        *("-noinput", "-boot", "no_dot_erlang", "-start_epmd", "false"),
        *("-name" if "." in host or ":" in host else "-sname", name),
        *(_LOOPBACK6 if ":" in host else (*_INTERFACE, _loopback(host))),
        *_LOG_TO_STDERR,
        *("-pa", *map(os.path.abspath, code_paths)),
        *("-s", "Elixir.ControlShell"),
    ]


def _loopback(host: str) -> str:
    """The loopback address of a host, as an Erlang term."""
    try:
        own = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        own = False
    return "{{{}}}".format((host if own else "127.0.0.1").replace(".", ","))


def _is_tagged(event: Term, tag: str) -> bool:
    return isinstance(event, tuple) and len(event) > 0 and bool(event[0] == tag)
