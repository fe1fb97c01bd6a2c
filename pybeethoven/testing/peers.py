"""Clusters of Beethoven nodes on real BEAMs.

    async with Peers() as peers:
        a = await peers.start("a@127.0.0.1")     # alone
        b = await peers.start("b@127.0.0.1")     # joins through a's beacon
        assert await peers.tracker(a) == {a.name: "online", b.name: "online"}
        await b.kill()
        await peers.await_tracker(a, {b.name: "offline"})

The nodes run the stand-in in `testing/elixir/beethoven`, or, with `beethoven_ebin`, a compiled
Beethoven. Both are the application `:beethoven`, and their modules have the same names.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pybeethoven.etf import Term
from pybeethoven.testing.beam import BeamNode
from pybeethoven.testing.common import TIMEOUT, BeamError, EvalError
from pybeethoven.testing.compiler import compile_elixir, elixir_code_paths, find_elixir_lib
from pybeethoven.testing.epmd import Epmd, find_epmd
from pybeethoven.testing.ports import free_port

SOURCES = Path(__file__).parent / "elixir"
RESTARTS = 3
SHELL, BEETHOVEN = "shell", "beethoven"
"""The directories of what every node has, and of what is left out for a compiled Beethoven."""
COMPILED = Path(BEETHOVEN) / "beethoven.app"
"""The last file that `compile_peer` writes."""

_READY = """
ControlShell.until(fn ->
  Process.whereis(Beethoven.RootSupervisor) || raise "the node could not join and gave up"
  # Answered once all children run; a substrate that fails to start is started again.
  try do
    Supervisor.count_children(Beethoven.Substrate)
  catch
    :exit, _reason -> nil
  end
end)
TrackerWatch.await(%{node() => :online})
:ok
"""


class Peers:
    """A cluster's BEAM nodes, with an EPMD, a beacon port and a cookie of their own.

    `ebin` is what `compile_peer` made; without it the sources are compiled on entry.
    `random_backoff` is the pause between two rounds of seeking, in milliseconds. `roles` is Elixir
    source, a list of `{name, module, args, instances}`; nodes started after it is set have it, but
    only the first to run makes the table of it. `env` is what any other node that is to meet these
    needs in its environment.
    """

    def __init__(
        self,
        *,
        listener_port: int | None = None,
        cookie: str | None = None,
        erl: str = "erl",
        elixir_lib: Path | str | None = None,
        ebin: Path | None = None,
        beethoven_ebin: Path | str | None = None,
        cluster_net: str = "127.0.0.0/29",
        random_backoff: tuple[int, int] = (150, 300),
        roles: str = "[]",
        flags: Sequence[str] = (),
        epmd: str | None = None,
    ) -> None:
        self.listener_port = free_port("0.0.0.0") if listener_port is None else listener_port
        self.cookie = secrets.token_hex(16) if cookie is None else cookie
        self.cluster_net = cluster_net
        self.roles = roles
        self.epmd = Epmd(epmd=epmd or find_epmd(erl))
        self._erl = erl
        self._elixir_lib = elixir_lib
        self._ebin = ebin
        self._beethoven_ebin = beethoven_ebin
        self._backoff = "{}..{}".format(*random_backoff)
        self._flags = flags
        self.nodes: dict[str, BeamNode] = {}
        """Every node that was started, the last of its name."""
        self._starts: dict[str, Callable[[], Awaitable[BeamNode]]] = {}
        self._stack = AsyncExitStack()
        self._code_paths: list[Path] = []

    @property
    def env(self) -> dict[str, str]:
        return self.epmd.env

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            elixir_lib = self._elixir_lib or find_elixir_lib()
            ebin = self._ebin or await self._compile(stack, elixir_lib)
            beethoven = self._beethoven_ebin or ebin / BEETHOVEN
            self._code_paths = [*elixir_code_paths(elixir_lib), ebin / SHELL, Path(beethoven)]
            await stack.enter_async_context(self.epmd)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            self._stack.push_async_exit(node)
        await self._stack.__aexit__(kind, error, traceback)

    async def start(
        self,
        name: str,
        *,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        code_paths: Sequence[Path | str] = (),
    ) -> BeamNode:
        """Start a node and return it once it is in the cluster, with its beacon up or not needed.

        The parameters are those of `start_bare`. A name may be used again when its node is down.
        Raises `BeamError` when the node cannot start or is not let in.
        """
        self._starts[name] = partial(self.start, name, flags=flags, env=env, code_paths=code_paths)
        node = await self._launch(name, flags, env, code_paths)
        await self._boot(node)
        return node

    async def start_bare(
        self,
        name: str,
        *,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        code_paths: Sequence[Path | str] = (),
    ) -> BeamNode:
        """Start a plain BEAM with the cluster's cookie and EPMD, but without Beethoven.

        `flags`: more for `erl`; `env`: more for the environment; `code_paths`: where more compiled
        modules are, those of an application of yours, which `eval` can start. Raises `BeamError`.
        When cancelled, no process is left.
        """
        self._starts[name] = partial(
            self.start_bare, name, flags=flags, env=env, code_paths=code_paths
        )
        return await self._launch(name, flags, env, code_paths)

    async def restart(self, name: str) -> BeamNode:
        """Start the node of a name again as it was, after killing it if it runs.

        Others that have not noticed yet that it was gone may not let it in; then it is started
        `RESTARTS` times in all. Raises as `start`.
        """
        for _ in range(RESTARTS - 1):
            await self.nodes[name].kill()
            with suppress(BeamError):
                return await self._starts[name]()
        await self.nodes[name].kill()
        return await self._starts[name]()

    async def tracker(self, node: BeamNode) -> dict[str, str]:
        """Return what `node`'s own CoreTracker says: the status of every node."""
        return _statuses(await node.eval("TrackerWatch.statuses()"))

    async def await_tracker(
        self, node: BeamNode, expected: Mapping[str, str], *, timeout: float = TIMEOUT
    ) -> dict[str, str]:
        """Return `node`'s tracker as soon as it has the statuses `expected`, maybe among others."""
        pairs = ", ".join(f"{atom(name)} => {atom(status)}" for name, status in expected.items())
        return _statuses(await node.eval(f"TrackerWatch.await(%{{{pairs}}})", timeout=timeout))

    async def until(self, node: BeamNode, condition: str, *, timeout: float = TIMEOUT) -> Term:
        """Return the value of an Elixir expression once it is neither `nil` nor `false`.

        The node itself asks, each 5 ms: for what no event tells of.
        """
        return await node.eval(f"ControlShell.until(fn -> {condition} end)", timeout=timeout)

    async def _launch(
        self,
        name: str,
        flags: Sequence[str],
        env: Mapping[str, str] | None,
        code_paths: Sequence[Path | str],
    ) -> BeamNode:
        node = BeamNode(
            name,
            code_paths=[*self._code_paths, *code_paths],
            cookie=self.cookie,
            erl=self._erl,
            flags=[*self._flags, *flags],
            env={**self.env, **(env or {})},
        )
        if (former := self.nodes.get(name)) is not None and not former.running:
            await former.__aexit__(None, None, None)
        self.nodes[name] = await node.__aenter__()
        return node

    async def _compile(self, stack: AsyncExitStack, elixir_lib: Path | str) -> Path:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pybeethoven-")))
        await asyncio.to_thread(compile_peer, self._erl, elixir_lib, out)
        return out

    def listener_port_of(self, name: str) -> int:
        """Where the node of a name seeks a beacon, and has its own."""
        return self.listener_port

    async def _boot(self, node: BeamNode) -> None:
        try:
            await node.eval(self._boot_source(node.name))
            await node.eval(_READY)
        except EvalError as error:
            raise EvalError(f"{error}\n--- {node.name} ---\n{node.output}") from None

    def _boot_source(self, name: str) -> str:
        network = ipaddress.IPv4Network(self.cluster_net)
        settings = f"""[
          use_az_net: false,
          cluster_net: "{network.network_address}",
          cluster_net_mask: "{network.prefixlen}",
          listener_port: {self.listener_port_of(name)},
          common_random_backoff: {self._backoff},
          roles: {self.roles}
        ]"""
        return f"""
        for {{key, value}} <- {settings}, do: Application.put_env(:beethoven, key, value)
        {{:ok, _apps}} = Application.ensure_all_started(:beethoven)
        :ok
        """


def compile_peer(erl: str, elixir_lib: Path | str, out: Path) -> None:
    """Compile the control shell and the stand-in, each into a directory of `out`; this blocks.

    Raises `BeamError` when they do not compile.
    """
    for sources, directory in ((SOURCES, SHELL), (SOURCES / BEETHOVEN, BEETHOVEN)):
        found = sorted(sources.glob("*.ex"))
        if not found:
            raise BeamError(f"no Elixir sources in {sources}")
        compile_elixir(found, out / directory, erl=erl, elixir_lib=elixir_lib)
    shutil.copy(SOURCES / COMPILED, out / COMPILED)


def atom(name: str) -> str:
    """Return the Elixir source of an atom."""
    if re.fullmatch(r"[a-z_][A-Za-z0-9_]*", name):
        return f":{name}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("#{", "\\#{")
    return f':"{escaped}"'


def _statuses(rows: dict[Term, Term]) -> dict[str, str]:
    return {str(node): str(status) for node, status in rows.items()}
