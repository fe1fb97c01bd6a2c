"""Runs the tests on the Python, Erlang and Elixir of several Debian releases, as root.

    python -m erlang_interop.matrix [--roots DIR] [SUITE ...] [-- PYTEST_ARGUMENT ...]

Each release gets a root directory, made once by debootstrap, in which the tests run. All mounts are
made in a namespace of this process's own, so that they end with it.

What passed where is printed as a table; the exit status is 0 when nothing failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

SUITES: Final = ("bookworm", "trixie", "sid")
BEAM_PACKAGES: Final = Path(__file__).with_name("packages.txt").read_text().split()
PACKAGES: Final = (*BEAM_PACKAGES, "git", "iproute2", "make", "procps", "python3-venv")
NETWORK_FILES: Final = ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
"""What the tests need of this machine to resolve `localhost`, and pip to reach its index."""

TREE: Final = Path(__file__).resolve().parent.parent
_INSIDE: Final = "MATRIX_NAMESPACE"
_DONE: Final = "matrix-root-is-complete"
_OUTCOMES: Final = {"failure": "failed", "error": "failed", "skipped": "skipped"}
_OTP_VERSION: Final = (
    "Release = erlang:system_info(otp_release),"
    'Path = filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"]),'
    "{ok, Version} = file:read_file(Path),"
    "io:put_chars(Version), halt()."
)
_VENV: Final = "/opt/venv"

Counts: TypeAlias = dict[str, Counter[str]]
"""How many tests of each module passed, failed and were skipped."""


class MatrixError(Exception):
    """A root could not be made or used; the message says why."""


@dataclass(frozen=True)
class Column:
    """What one release gave."""

    suite: str
    version: str
    counts: Counts

    @property
    def failed(self) -> bool:
        return not self.counts or any(counts["failed"] for counts in self.counts.values())


def main(arguments: list[str]) -> int:
    """Run the matrix and print its table."""
    options = _parse(arguments)
    try:
        _check_machine()
    except MatrixError as error:
        print(f"interop-matrix: {error}", file=sys.stderr)
        return 2
    if not os.environ.get(_INSIDE):
        _enter_namespace(arguments)
    columns = [_run_suite(suite, options) for suite in options.suites]
    print(_table(columns))
    return int(any(column.failed for column in columns))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="erlang_interop.matrix")
    parser.add_argument("--roots", type=Path, default=TREE / ".cache" / "roots")
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    options.pytest = arguments[split + 1 :]
    return options


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise MatrixError("chroot and debootstrap need root; run it as root")
    for command in ("debootstrap", "unshare", "apt-get"):
        if shutil.which(command) is None:
            raise MatrixError(f"there is no {command} (apt-get install debootstrap util-linux)")


def _enter_namespace(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "erlang_interop.matrix", *arguments]
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *command])


def _run_suite(suite: str, options: argparse.Namespace) -> Column:
    try:
        root = _make_root(suite, options.roots.resolve())
        _mount(root)
        with tempfile.TemporaryDirectory(prefix=f"{suite}-") as directory:
            return _test(suite, root, Path(directory) / "results.xml", options.pytest)
    except (MatrixError, OSError, subprocess.CalledProcessError) as error:
        print(f"interop-matrix: {suite}: {error}", file=sys.stderr)
        return Column(suite, "?", {})


def _make_root(suite: str, roots: Path) -> Path:
    """The root of a release. One that lacks packages, or was never finished, is made anew."""
    root, log = roots / suite, roots / f"{suite}.log"
    if not _is_complete(root):
        _remove(root)
        print(f"Making {suite} in {root}; the log is {log}", flush=True)
        roots.mkdir(parents=True, exist_ok=True)
        _debootstrap(suite, root, log)
        (root / _DONE).write_text("\n".join(PACKAGES))
    return root


def _is_complete(root: Path) -> bool:
    done = root / _DONE
    return done.exists() and set(PACKAGES) <= set(done.read_text().split())


def _remove(root: Path) -> None:
    if f" {root}/" in Path("/proc/self/mountinfo").read_text():
        raise MatrixError(f"{root} is to be removed, but something is mounted in it")
    if root.exists():
        shutil.rmtree(root)


def _debootstrap(suite: str, root: Path, log: Path) -> None:
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command = ["debootstrap", *options, suite, str(root), _mirror()]
    with log.open("w") as output:
        done = subprocess.run(command, check=False, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-10:])
        raise MatrixError(f"debootstrap failed; {log} ends with\n{end}")


def _mirror() -> str:
    """The Debian mirror that this machine's own packages come from."""
    rows = _output("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)").splitlines()
    own = _output("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME")
    for site, _, release in (row.partition(" ") for row in rows):
        if release == own:
            return site
    raise MatrixError(f"apt has no source for {own}, so no mirror is known")


def _mount(root: Path) -> None:
    """Show the tree, and where temporary files are, at the same place inside the root."""
    _bind(Path("/proc"), root)
    _bind(Path("/dev"), root)
    temporary = Path(tempfile.gettempdir()).resolve()
    _bind(temporary, root)
    if not TREE.is_relative_to(temporary):
        _bind(TREE, root)
    for file in filter(Path.exists, map(Path, NETWORK_FILES)):
        (root / file.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / file.relative_to("/"))


def _bind(source: Path, root: Path) -> None:
    target = root / source.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--rbind", source, target], check=True)


def _test(suite: str, root: Path, results: Path, arguments: list[str]) -> Column:
    otp = _inside(root, "erl", "-noinput", "-boot", "no_dot_erlang", "-eval", _OTP_VERSION)
    version = f"{_inside(root, 'python3', '--version')}, OTP {otp}"
    print(f"Running the tests on {version} ({suite})", flush=True)
    _inside(root, "python3", "-m", "venv", _VENV)
    _inside(root, f"{_VENV}/bin/pip", "install", "--quiet", "--editable", f"{TREE}[dev]")
    pytest = (f"{_VENV}/bin/pytest", "-q", f"--rootdir={TREE}", f"--junitxml={results}", *arguments)
    subprocess.run(_command(root, *pytest), env=_environment(), cwd=TREE, check=False)
    return Column(suite, version, _read_results(results))


def _inside(root: Path, *command: str) -> str:
    """What a command prints that runs in the root."""
    return _output(*_command(root, *command), env=_environment())


def _command(root: Path, *command: str) -> tuple[str, ...]:
    return ("chroot", str(root), "env", f"--chdir={TREE}", *command)


def _environment() -> dict[str, str]:
    """This process's environment, for another system."""
    own = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | own


def _read_results(results: Path) -> Counts:
    counts: Counts = defaultdict(Counter)
    if results.exists():
        for case in ET.parse(results).iter("testcase"):
            outcome = next((_OUTCOMES[e.tag] for e in case if e.tag in _OUTCOMES), "passed")
            counts[case.get("classname", "").rpartition(".")[2] or "?"][outcome] += 1
    return counts


def _table(columns: list[Column]) -> str:
    modules = sorted({module for column in columns for module in column.counts})
    rows = [["", *(f"{column.version} ({column.suite})" for column in columns)]]
    rows += [[m, *(_cell(column.counts.get(m)) for column in columns)] for m in modules]
    total = [_cell(sum(column.counts.values(), Counter()) or None) for column in columns]
    rows.append(["all", *total])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(counts: Counter[str] | None) -> str:
    if counts is None:
        return "not run"
    words = [f"{counts[word]} {word}" for word in ("failed", "passed", "skipped") if counts[word]]
    return ", ".join(words)


def _output(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
