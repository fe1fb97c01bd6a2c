"""The command line: `pybeethoven join` and `pybeethoven look`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn

import click

from pybeethoven.cluster.beethoven import Beethoven
from pybeethoven.cluster.locator import Locator, check_port, hosts_of
from pybeethoven.cluster.readers import Modes, Updates
from pybeethoven.cluster.tracker import ONLINE, STANDALONE, TrackerRow
from pybeethoven.errors import BeethovenError, ConfigError
from pybeethoven.net.names import check_host
from pybeethoven.net.network import NET_TICKTIME
from pybeethoven.net.tls import TlsOptions
from pybeethoven.otp.cookie import read_cookie

Print = Callable[[dict[str, Any]], None]
"""Prints one event."""

PROGRESS_AFTER = 1.0
"""Seconds that looking takes before it is shown."""

MIN_DESCRIPTORS = 32
"""Minimum number of file descriptors: a node opens about 13, and looks for others with up to half
of what it may open."""

SETTINGS = {"auto_envvar_prefix": "PYBEETHOVEN"}

net_option = click.option(
    "--net", default="127.0.0.0/29", show_default=True, help="Where to look for beacons."
)
port_option = click.option(
    "--port", default=33000, show_default=True, help="The port of the beacons."
)
first_host_option = click.option(
    "--first-host", metavar="HOST", help="Ask this host before all others, also outside of --net."
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="PYBEETHOVEN_JSON",
    help="Print one JSON object a line.",
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Log what happens to standard error."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pybeethoven")
def main() -> None:
    """Form a Beethoven cluster of Python processes and Elixir nodes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < MIN_DESCRIPTORS:
        _fail(f"only {limit} file descriptors are allowed; allow more: ulimit -n 1024")


@main.command(context_settings=SETTINGS)
@click.option("--name", required=True, help="This node's name, e.g. py@127.0.0.1.")
@click.option("--cookie", help="The cluster's cookie. Others on this machine can see it here.")
@click.option(
    "--cookie-file",
    type=click.Path(),
    help="A file that holds the cookie and that only you may read.  [default: ~/.erlang.cookie]",
)
@net_option
@port_option
@first_host_option
@click.option(
    "--beacon/--no-beacon",
    default=True,
    show_default=True,
    help="Let others find the cluster through this node, at --port.",
)
@click.option(
    "--proof",
    is_flag=True,
    help="Let in, and be let in by, only nodes that prove that they have the cookie; Elixir nodes "
    "do not.",
)
@click.option(
    "--beacon-net",
    "beacon_nets",
    metavar="NET",
    multiple=True,
    envvar="PYBEETHOVEN_BEACON_NET",
    help="Let nodes in from this network, too, behind NAT, under any address in it or in --net.",
)
@click.option(
    "--listen-port",
    metavar="PORT[-PORT]",
    help="Where other nodes connect to, or a range to take one of.  [default: any]",
)
@click.option("--interface", help="The address to listen on.  [default: that of the name's host]")
@click.option(
    "--net-ticktime",
    metavar="SECONDS",
    default=NET_TICKTIME,
    help="Silence after which a node is down, the same on all nodes.  [default: 60]",
)
@click.option("--certfile", type=click.Path(), help="Speak TLS: this node's certificate, in PEM.")
@click.option("--keyfile", type=click.Path(), help="Its key.  [default: what --certfile holds]")
@click.option("--cacertfile", type=click.Path(), help="The CAs of the other nodes' certificates.")
@click.option("--crlfile", type=click.Path(), help="The CRLs of those CAs: revoked certificates.")
@click.option(
    "--check-client-host",
    is_flag=True,
    help="Let a node in only if its certificate is for the host in its name.",
)
@json_option
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0),
    envvar="PYBEETHOVEN_FOR",
    help="End after so many seconds, joined or not.",
)
@verbose_option
@click.pass_context
def join(
    context: click.Context,
    /,
    name: str,
    cookie: str | None,
    cookie_file: str | None,
    net: str,
    port: int,
    first_host: str | None,
    beacon: bool,
    proof: bool,
    beacon_nets: tuple[str, ...],
    listen_port: str | None,
    interface: str | None,
    net_ticktime: float,
    as_json: bool,
    seconds: float | None,
    verbose: bool,
    **tls: Any,
) -> None:
    """Join a cluster, or begin one, and report each node that comes or goes.

    It ends by SIGINT, SIGTERM or SIGHUP.
    Every option can also be given as a variable, e.g. PYBEETHOVEN_NAME, PYBEETHOVEN_COOKIE.
    """
    _log(verbose)
    with _failures():
        if cookie_file is not None and _from_variable(context, "cookie"):
            cookie = None
        secret = read_cookie(cookie_file) if cookie is None else cookie
        progress = Progress(not as_json)
        if proof and not beacon:
            raise ConfigError("--proof has a beacon ask for proofs; leave out --no-beacon")
        beethoven = Beethoven(
            name,
            cookie=secret,
            cluster_net=net,
            listener_port=port,
            first_host=first_host,
            on_progress=progress,
            beacon="proof" if proof else beacon,
            beacon_nets=beacon_nets,
            listen_port=_ports(listen_port),
            use_interface=interface,
            net_ticktime=net_ticktime,
            tls=_tls_options(**tls),
        )
        print_event = _print_json if as_json else _print_text
        asyncio.run(_until_over(_report(beethoven, progress, print_event), seconds))


@main.command(context_settings=SETTINGS)
@net_option
@port_option
@first_host_option
@json_option
@verbose_option
def look(net: str, port: int, first_host: str | None, as_json: bool, verbose: bool) -> None:
    """Tell which beacons answer and which nodes they see, without joining.

    The exit status is 1 when none answers.
    """
    _log(verbose)
    with _failures():
        progress = Progress(not as_json)
        locator = Locator(
            f"pybeethoven-look@{socket.gethostname()}",
            hosts_of(net),
            check_port(port),
            backoff=lambda: 0.0,
            first=None if first_host is None else check_host(first_host, "first_host"),
            on_progress=progress,
        )
        found = asyncio.run(_look(locator, progress))
        for node, nodes in sorted(found.items()):
            (_print_json if as_json else _print_text)(
                {"event": "beacon", "node": node, "nodes": sorted(nodes)}
            )
        if not found:
            _fail(f"no beacon answers at port {port} of {net}", 1)


async def _look(locator: Locator, progress: Progress) -> dict[str, list[str]]:
    with progress:
        return await locator.look()


class Progress:
    """Shows how many hosts were asked, if that takes a while, on standard error if it is a terminal
    and if it is `wanted`.

    `with progress` is around what takes a while; it is told how far that is.
    """

    def __init__(self, wanted: bool) -> None:
        # Python has no sys.stderr when it is closed.
        self._wanted = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._text = "looking for other nodes"
        self._begin: asyncio.TimerHandle | None = None
        self._visible = False

    def __enter__(self) -> None:
        if self._wanted:
            self._begin = asyncio.get_running_loop().call_later(PROGRESS_AFTER, self._show)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._begin is not None:
            self._begin.cancel()
        if self._visible:
            self._visible = False
            self._write("")

    def __call__(self, asked: int, of: int) -> None:
        """So many hosts were asked of so many."""
        self._text = f"looking for other nodes: {asked:,} of {of:,} hosts asked"
        if self._visible:
            self._write(self._text)

    def _show(self) -> None:
        self._visible = True
        self._write(self._text)

    def _write(self, text: str) -> None:
        # The cursor is at the beginning of the line, so that what is logged is written over it.
        click.echo(f"\x1b[K{text}\r", nl=False, err=True)


@contextmanager
def _failures() -> Iterator[None]:
    """End the process with the reason for what can't be done."""
    try:
        yield
    except BeethovenError as error:
        _fail(str(error))
    except OSError as error:
        # Python would report again that our output can't be written when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else whoever read it has gone
            _fail(str(error))


def _ports(text: str | None) -> int | tuple[int, int]:
    if text is None:
        return 0
    first, dash, last = text.partition("-")
    try:
        return (int(first), int(last)) if dash else int(first)
    except ValueError:
        raise ConfigError(
            f"--listen-port is {text!r}; it must be a port like 9100, or two like 9100-9105"
        ) from None


def _tls_options(certfile: str | None, cacertfile: str | None, **others: Any) -> TlsOptions | None:
    if all(value in (None, False) for value in (certfile, cacertfile, *others.values())):
        return None
    if certfile is None or cacertfile is None:
        raise ConfigError("TLS needs both --certfile and --cacertfile")
    return TlsOptions(certfile=certfile, cacertfile=cacertfile, **others)


def _from_variable(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is click.core.ParameterSource.ENVIRONMENT


async def _until_over(work: Coroutine[Any, Any, None], seconds: float | None) -> None:
    """Run it until the time is over or a signal comes."""
    report = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            loop.add_signal_handler(number, report.cancel)
    if seconds is not None:
        loop.call_later(seconds, report.cancel)
    with suppress(asyncio.CancelledError):
        await report


async def _report(beethoven: Beethoven, progress: Progress, print_event: Print) -> None:
    async with AsyncExitStack() as stack:
        with progress:
            await stack.enter_async_context(beethoven)
        nodes = [_fields(row) for row in await beethoven.core_server.fetch_all()]
        updates, modes = beethoven.core_server.updates(), beethoven.modes()
        mode = beethoven.core_server.mode
        if mode == STANDALONE:
            print_event({"event": "standalone"})
        else:  # through a beacon, or others through ours while we were looking
            joined = {"event": "joined", "via": beethoven.via, "mode": mode, "nodes": nodes}
            print_event(joined)
        await _first_end(_print_updates(updates, print_event), _print_modes(modes, print_event))


async def _print_updates(updates: Updates, print_event: Print) -> None:
    async for update in updates:
        print_event({"event": "node_update", **_fields(update)})


async def _print_modes(modes: Modes, print_event: Print) -> None:
    async for mode in modes:
        print_event({"event": "mode", "mode": mode})


async def _first_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, and raise what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fields(row: TrackerRow) -> dict[str, str]:
    last_change = row.last_change.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"node": row.node, "status": row.status, "last_change": last_change}


def _print_json(event: dict[str, Any]) -> None:
    click.echo(json.dumps(event, separators=(",", ":")))


def _print_text(event: dict[str, Any]) -> None:
    match event:
        case {"event": "standalone"}:
            click.echo("no other node found: standalone until one comes")
        case {"event": "joined", "via": via, "mode": mode, "nodes": nodes}:
            first = f"joined through {via}: {mode}" if via else f"others have joined: {mode}"
            click.echo("\n".join([first, *(f"  {_status_text(n)}" for n in nodes)]))
        case {"event": "mode", "mode": mode}:
            click.echo(f"now {mode}")
        case {"event": "beacon", "node": node, "nodes": nodes}:
            seen = ", ".join(map(_plain, nodes)) or "no other node"
            click.echo(f"{_plain(node)} sees {seen}")
        case _:
            click.echo(_status_text(event))


def _status_text(event: dict[str, Any]) -> str:
    color = "green" if event["status"] == ONLINE else "red"
    status = click.style(_plain(event["status"]), fg=color)
    return f"{_plain(event['node'])} {status} {event['last_change']}"


def _plain(name: str) -> str:
    """A name that somebody has sent, without what would control the terminal."""
    return name if name.isprintable() else ascii(name)


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not verbose:
        for name in ("pybeethoven.cluster", "pybeethoven.otp.cookie"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Nodes of one machine have one beacon, whose port is taken for all others.
        logging.getLogger("pybeethoven.cluster.beacon_server").setLevel(logging.ERROR)


def _fail(message: str, status: int = 2) -> NoReturn:
    click.echo(f"pybeethoven: {message}", err=True)
    sys.exit(status)
