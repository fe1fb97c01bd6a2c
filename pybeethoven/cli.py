"""The command line: `pybeethoven join`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

import click

from pybeethoven.cluster.beethoven import Beethoven
from pybeethoven.cluster.readers import Modes, Updates
from pybeethoven.cluster.tracker import ONLINE, TrackerRow
from pybeethoven.errors import BeethovenError, ConfigError
from pybeethoven.net.network import NET_TICKTIME
from pybeethoven.net.tls import TlsOptions
from pybeethoven.otp.cookie import read_cookie

Print = Callable[[dict[str, Any]], None]
"""Prints one event."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pybeethoven")
def main() -> None:
    """Bring a Python process into a Beethoven (Elixir) cluster."""


@main.command(context_settings={"auto_envvar_prefix": "PYBEETHOVEN"})
@click.option("--name", required=True, help="This node's name, e.g. py@127.0.0.1.")
@click.option("--cookie", help="The cluster's cookie. Others on this machine can see it here.")
@click.option(
    "--cookie-file",
    type=click.Path(),
    help="A file that holds the cookie and that only you may read.  [default: ~/.erlang.cookie]",
)
@click.option("--net", default="127.0.0.0/29", show_default=True, help="Where to seek a beacon.")
@click.option("--port", default=33000, show_default=True, help="The port of the beacons.")
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
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="PYBEETHOVEN_JSON",
    help="Print one JSON object a line.",
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0),
    envvar="PYBEETHOVEN_FOR",
    help="End after so many seconds, joined or not.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to standard error.")
@click.pass_context
def join(
    context: click.Context,
    /,
    name: str,
    cookie: str | None,
    cookie_file: str | None,
    net: str,
    port: int,
    listen_port: str | None,
    interface: str | None,
    net_ticktime: float,
    as_json: bool,
    seconds: float | None,
    verbose: bool,
    **tls_files: str | None,
) -> None:
    """Join a cluster and report each node that comes or goes, until SIGINT or SIGTERM.

    Every option can also be given as a variable, e.g. PYBEETHOVEN_NAME, PYBEETHOVEN_COOKIE.
    """
    _log(verbose)
    try:
        if cookie_file is not None and _from_variable(context, "cookie"):
            cookie = None
        secret = read_cookie(cookie_file) if cookie is None else cookie
        beethoven = Beethoven(
            name,
            cookie=secret,
            cluster_net=net,
            listener_port=port,
            listen_port=_ports(listen_port),
            use_interface=interface,
            net_ticktime=net_ticktime,
            tls=_tls_options(**tls_files),
        )
        asyncio.run(_join(beethoven, _print_json if as_json else _print_text, seconds))
    except BeethovenError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has gone; Python would report that again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _tls_options(
    certfile: str | None, keyfile: str | None, cacertfile: str | None
) -> TlsOptions | None:
    if certfile is None and keyfile is None and cacertfile is None:
        return None
    if certfile is None or cacertfile is None:
        raise ConfigError("TLS needs both --certfile and --cacertfile")
    return TlsOptions(certfile=certfile, keyfile=keyfile, cacertfile=cacertfile)


def _from_variable(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is click.core.ParameterSource.ENVIRONMENT


async def _join(beethoven: Beethoven, print_event: Print, seconds: float | None) -> None:
    """Run until the time is over or a signal comes; then leave."""
    report = asyncio.create_task(_report(beethoven, print_event))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, report.cancel)
    if seconds is not None:
        loop.call_later(seconds, report.cancel)
    with suppress(asyncio.CancelledError):
        await report


async def _report(beethoven: Beethoven, print_event: Print) -> None:
    async with beethoven:
        mode = await beethoven.core_server.get_mode()
        nodes = [_fields(row) for row in await beethoven.core_server.fetch_all()]
        updates, modes = beethoven.core_server.updates(), beethoven.modes()
        if beethoven.via is None:
            print_event({"event": "standalone"})
        else:
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
            click.echo("no beacon found: standalone")
        case {"event": "joined", "via": via, "mode": mode, "nodes": nodes}:
            lines = [f"joined through {via}: {mode}", *(f"  {_status_text(n)}" for n in nodes)]
            click.echo("\n".join(lines))
        case {"event": "mode", "mode": mode}:
            click.echo(f"now {mode}")
        case _:
            click.echo(_status_text(event))


def _status_text(event: dict[str, Any]) -> str:
    status = click.style(event["status"], fg="green" if event["status"] == ONLINE else "red")
    return f"{event['node']} {status} {event['last_change']}"


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not verbose:
        logging.getLogger("pybeethoven.cluster").setLevel(logging.WARNING)


def _fail(message: str) -> NoReturn:
    click.echo(f"pybeethoven: {message}", err=True)
    sys.exit(2)
