"""BEAM nodes as child processes, driven over stdin and stdout.

    async with Epmd() as epmd:
        async with BeamNode("a@127.0.0.1", code_paths=paths, cookie="secret", env=epmd.env) as node:
            assert await node.eval("1 + 1") == 2
            await node.eval("ControlShell.collect(:seen, name: :seen)")
            await node.eval("send(:seen, :hello)")
            assert await node.next_event("seen") == (Atom("seen"), Atom("hello"))
            await node.kill()

`code_paths` must hold Elixir (`find_elixir_lib`) and the compiled `ControlShell`; its documentation
has the protocol. Whatever is left of a node when its block is left, is killed. All listen on
127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pybeethoven.errors import BeethovenError
from pybeethoven.etf import Term, decode

TIMEOUT = 15.0
"""Seconds that anything here waits for a BEAM, unless it is told otherwise."""

_LONGEST_LINE = 1 << 28
_TAIL = 8192
_LOOPBACK = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")
_LOOPBACK6 = (
    *("-kernel", "inet_dist_use_interface", "{0,0,0,0,0,0,0,1}"),
    *("-proto_dist", "inet6_tcp"),
)
_LOG_TO_STDERR = (
    *("-kernel", "logger", "[{handler,default,logger_std_h,#{config=>#{type=>standard_error}}}]"),
    *("-logger", "console", "[{device,standard_error}]"),
    *("-logger", "default_handler", "[{config,#{type=>standard_error}}]"),
)
# So that a command without an eye on its stdin does not outlive us either.
_WHILE_STDIN_IS_OPEN = '"$@" & exec 2>&-; read -r _; kill -KILL $!; wait'
_COMPILE = """
{ok, _} = application:ensure_all_started(elixir),
[Out | Sources] = [unicode:characters_to_binary(A) || A <- init:get_plain_arguments()],
Result = 'Elixir.Kernel.ParallelCompiler':compile_to_path(Sources, Out),
halt(case element(1, Result) of ok -> 0; error -> 1 end).
"""


class BeamError(BeethovenError):
    """A BEAM could not be started, or did not do what it was asked to."""


class BeamDownError(BeamError):
    """The BEAM ended, or had ended before it was asked."""


class EvalError(BeamError):
    """What was evaluated raised; the message is Elixir's own account of it."""


class Epmd:
    """An EPMD of its own on 127.0.0.1, so that no test meets the machine's.

    `port` is where it listens; `env` is what nodes that are to use it need in their environment.
    Raises `BeamError` on entry when it cannot run.
    """

    def __init__(self, port: int | None = None, *, epmd: str = "epmd") -> None:
        self.port = free_port() if port is None else port
        self._command = epmd
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {"ERL_EPMD_PORT": str(self.port)}

    async def __aenter__(self) -> Self:
        epmd = (self._command, "-d", "-d", "-address", "127.0.0.1", "-port", str(self.port))
        spawning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WHILE_STDIN_IS_OPEN, "sh", *epmd),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )
        try:
            self._process = await asyncio.shield(spawning)
            await self._listening(self._process)
        except BaseException:
            await self._end(await spawning)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self._end(self._process)

    async def _listening(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        said = b""
        async with asyncio.timeout(TIMEOUT):
            while b"entering the main select() loop" not in said:
                more = await process.stderr.read(_TAIL)
                if not more:
                    raise BeamError(f"epmd did not start on port {self.port}: {_text(said)}")
                said += more
        self._drain = asyncio.create_task(_drain(process.stderr))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        if self._drain is not None:
            await self._drain


class BeamNode:
    """A BEAM as a child process: `async with` starts it, and kills it at the end.

    A `name` whose host has no dot is a short one; with a host like `::1` the BEAM speaks IPv6.
    `flags` go to `erl` as they are. `env` is added to the environment. Signals reach the whole
    process group, so `erl` may be a wrapper script as long as it does not daemonize.
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
        self._command = [erl, *_node_flags(name, cookie, code_paths), *flags]
        self._env = {**os.environ, "ERL_CRASH_DUMP_SECONDS": "0", **(env or {})}
        self._stderr: IO[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None
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
        return _text(self._output + self._stderr_tail())

    async def __aenter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the node
        try:
            await self._start()
        except BaseException:
            await self.kill()
            self._stderr.close()
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
        if self._stderr is not None:
            self._stderr.close()

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
        self._signal(signal.SIGSTOP)
        while self._process is not None and self.running and not _stopped(self._process.pid):
            time.sleep(0.0005)

    def thaw(self) -> None:
        """Let a frozen BEAM go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=self._env,
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
        if self._reader is not None:
            await asyncio.wait([self._reader])

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
            self._output = (self._output + line)[-_TAIL:]

    def _process_answer(self, number: int, outcome: bytes, data: bytes) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if outcome == b"ok":
            answer.set_result(decode(data))
        else:
            answer.set_exception(EvalError(f"{self.name}: {_text(data)}"))

    def _stderr_tail(self) -> bytes:
        if self._stderr is None or self._stderr.closed:
            return b""
        descriptor = self._stderr.fileno()
        return os.pread(descriptor, _TAIL, max(0, os.fstat(descriptor).st_size - _TAIL))

    def _died(self) -> BeamDownError:
        return BeamDownError(f"{self.name} is down; its last output:\n{self.output}")

    def _timed_out(self, what: str, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"{self.name} took longer than {timeout} s {what}")


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on, outside the range the kernel hands out itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


def find_elixir_lib() -> Path:
    """Return the directory of Elixir's applications, from the `elixir` on PATH.

    Raises `BeamError` when there is none.
    """
    elixir = shutil.which("elixir")
    if elixir is None:
        raise BeamError("no elixir on PATH: install Elixir, or say where its lib directory is")
    return Path(elixir).resolve().parent.parent / "lib"


def _stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped: the signal takes them a moment."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)


def find_epmd(erl: str = "erl") -> str:
    """Return the `epmd` that lies beside `erl`, or the one on PATH.

    Raises `BeamError` when there is none.
    """
    epmd = Path(shutil.which(erl) or erl).with_name("epmd")
    found = shutil.which(epmd) or shutil.which("epmd")
    if found is None:
        raise BeamError(f"no epmd beside {erl} or on PATH")
    return found


def elixir_code_paths(elixir_lib: Path | str) -> list[Path]:
    """Return the code paths that a BEAM needs to run Elixir."""
    return [Path(elixir_lib) / app / "ebin" for app in ("elixir", "logger")]


def compile_elixir(
    sources: Iterable[Path], out: Path, *, erl: str = "erl", elixir_lib: Path | str
) -> None:
    """Compile Elixir sources into `out`, with the Erlang and the Elixir given; this blocks.

    Raises `BeamError` with the compiler's output when that fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [str(path) for path in elixir_code_paths(elixir_lib)]
    done = subprocess.run(
        [erl, "-noinput", "-pa", *paths, "-eval", _COMPILE, "-extra", out, *sources],
        env={**os.environ, "ERL_CRASH_DUMP_SECONDS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        raise BeamError(f"Elixir sources did not compile:\n{_text(done.stdout)}")


def _node_flags(name: str, cookie: str, code_paths: Iterable[Path | str]) -> list[str]:
    host = name.rpartition("@")[2]
    return [
        *("-noinput", "-boot", "no_dot_erlang", "-start_epmd", "false"),
        *("-name" if "." in host or ":" in host else "-sname", name, "-setcookie", cookie),
        *(_LOOPBACK6 if ":" in host else _LOOPBACK),
        *_LOG_TO_STDERR,
        *("-pa", *map(str, code_paths)),
        *("-s", "Elixir.ControlShell"),
    ]


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(_TAIL):
        pass


def _is_tagged(event: Term, tag: str) -> bool:
    return isinstance(event, tuple) and len(event) > 0 and bool(event[0] == tag)


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
