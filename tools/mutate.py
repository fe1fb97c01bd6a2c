"""Mutation testing: change the code a little, and see whether a test fails.

    python -m tools.mutate --module distribution/framing --minutes 10
    python -m tools.mutate                                  all modules in `TESTS`, in equal shares

A mutant is a copy of the tree with one small change: a comparison, a condition, a number, a
constant, a statement that is missing. The tests named in `TESTS` run on it, in a temporary
directory. A mutant that survives is printed; look whether it does the same as the original, or
whether a test is missing. Messages and what is logged are left as they are.

The mutants are tried in an order that depends on the seed, until the time is over. What survives
is no failure: the exit status is 1 only when the tests fail without any change.
"""

from __future__ import annotations

import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

ROOT: Final = Path(__file__).resolve().parent.parent
COPIED: Final = (
    *("pybeethoven", "tests", "fuzz", "erlang_interop", "benchmarks"),
    *("pyproject.toml", "README.md"),
)
MEMORY: Final = 2 << 30
"""Bytes that each process of the tests may have: some mutants never stop asking for more."""

_QUERIES: Final = "mnesia/test_guards mnesia/test_match_spec interop/test_match_spec"
TESTS: Final = {
    "distribution/framing": "distribution/test_framing distribution/test_outgoing fuzz/test_frames",
    "distribution/handshake": (
        "distribution/test_handshake distribution/test_handshake_lengths fuzz/test_handshakes"
    ),
    "net/connection": (
        "net/test_connection net/test_network net/test_ticktime net/test_writer net/test_limits"
    ),
    "mnesia/guards": _QUERIES,
    "mnesia/match_spec": _QUERIES,
    "mnesia/patterns": _QUERIES,
    "mnesia/mirror": "mnesia/test_served interop/test_mirror interop/test_rejoin",
    "cluster/core_server": (
        "cluster/test_core_server cluster/test_readers cluster/test_sharing cluster/test_standing"
        " interop/test_core_server interop/test_join"
    ),
}
"""The tests of each module, those that fail first in front."""

PAIRS: Final[list[tuple[type, type]]] = [
    *((ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.And, ast.Or)),
    *((ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.BitAnd, ast.BitOr)),
    *((ast.LShift, ast.RShift), (ast.Break, ast.Continue), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)),
]
SWAPS: Final = dict(PAIRS) | {other: one for one, other in PAIRS}
SKIPPED: Final = ("annotation", "returns", "decorator_list")
NEGATED: Final = (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)
REMOVED: Final = (ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Expr)


@dataclass(frozen=True)
class Mutant:
    """A part of a module, and what takes its place."""

    old: ast.expr | ast.stmt
    new: str

    def apply(self, source: bytes) -> bytes:
        """The changed module."""
        lines = source.splitlines(keepends=True)
        first, last = self.old.lineno - 1, (self.old.end_lineno or 0) - 1
        head = lines[first][: self.old.col_offset]
        tail = lines[last][self.old.end_col_offset :]
        return b"".join([*lines[:first], head, self.new.encode(), tail, *lines[last + 1 :]])

    def describe(self, source: bytes) -> str:
        """The line that is changed, before and after."""
        texts = [text.splitlines()[self.old.lineno - 1] for text in (source, self.apply(source))]
        old, new = (text.decode().strip() for text in texts)
        return f"{self.old.lineno}: - {old}  + {new}"


def mutants_in(node: ast.AST, in_function: bool = False) -> Iterator[Mutant]:
    """Every mutant of a module, or of a part of it."""
    if _is_left_out(node):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield from (Mutant(node, new) for new in _replacements(node, in_function))
    if isinstance(node, ast.Raise):
        return  # a message is in it
    in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in SKIPPED:
                yield from mutants_in(child, in_function)
            if isinstance(child, NEGATED) and name in ("test", "guard", "ifs"):
                yield Mutant(child, f"(not {ast.unparse(child)})")


def _is_left_out(node: ast.AST) -> bool:
    """Whether a node is a text for people, or there for those who import."""
    match node:
        case ast.Expr(ast.Constant() | ast.Call(ast.Attribute(ast.Name("logger")))):
            return True
        case ast.AnnAssign(annotation=ast.Name("TypeAlias")) | ast.Assign([ast.Name("__all__")]):
            return True
        case ast.Constant(str(text)):
            return " " in text
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def _replacements(node: ast.expr | ast.stmt, in_function: bool) -> Iterator[str]:
    match node:
        case ast.Compare(ops=ops):
            for place, operator in enumerate(ops):
                yield _changed(node, ops=[*ops[:place], _swapped(operator), *ops[place + 1 :]])
        case ast.BoolOp(op) | ast.BinOp(op=op) if type(op) in SWAPS:
            yield _changed(node, op=_swapped(op))
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield repr(not value)
        case ast.Constant(int(value)):
            yield repr(value + 1)
        case ast.Constant(str() | bytes() as text) if text:
            yield repr(text[:-1])
        case ast.Return(ast.expr() as value) if ast.unparse(value) not in ("None", "False"):
            yield "return None"
        case ast.Break() | ast.Continue():
            yield ast.unparse(_swapped(node))
        case _ if in_function and isinstance(node, REMOVED):
            yield "pass"


def _swapped(node: Any) -> Any:
    return SWAPS[type(node)]()


def _changed(node: ast.expr, **fields: Any) -> str:
    changed = deepcopy(node)
    vars(changed).update(fields)
    return f"({ast.unparse(changed)})"


class Tree:
    """A copy of the checkout, where the tests of one module run."""

    def __init__(self, path: Path, module: str) -> None:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, path / name)
        self._path = path
        self._module = path / "pybeethoven" / f"{module}.py"
        self._tests = [f"tests/{name}.py" for name in TESTS[module].split()]
        self.source = self._module.read_bytes()

    def run(self, source: bytes, time_limit: float) -> str:
        """Run the tests with that source: `survived`, `killed` or `timed out`."""
        self._module.write_bytes(source)
        # Bytecode of a mutant would be taken for that of the next, of the same size and second.
        keep = "" if source == self.source else "1"
        with subprocess.Popen(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *self._tests],
            cwd=self._path,
            env={**os.environ, "PYTHONPATH": str(self._path), "PYTHONDONTWRITEBYTECODE": keep},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
            try:
                return "killed" if process.wait(time_limit) else "survived"
            except subprocess.TimeoutExpired:
                return "timed out"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def mutate(module: str, minutes: float, seed: int) -> bool:
    """Try mutants of a module and print what became of them; False if the tests fail anyway."""
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(Path(directory), module)
        start = time.monotonic()
        if tree.run(tree.source, 60 * minutes + 600) != "survived":
            print(f"{module}: its tests fail without a change", flush=True)
            return False
        time_limit = 30 + 3 * (time.monotonic() - start)
        outcomes = Counter[str]()
        mutants = list(mutants_in(ast.parse(tree.source)))
        for mutant in random.Random(seed).sample(mutants, len(mutants)):
            if time.monotonic() > end:
                break
            outcome = tree.run(mutant.apply(tree.source), time_limit)
            outcomes[outcome] += 1
            if outcome != "killed":
                print(f"{outcome}: {module}.py:{mutant.describe(tree.source)}", flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{module}: {outcomes.total()} of {len(mutants)} mutants tried: {counts}")
    return True


@click.command()
@click.option("--module", type=click.Choice(list(TESTS)), multiple=True, help="the modules (all)")
@click.option("--minutes", default=30.0, help="the time for all modules (30)")
@click.option("--seed", type=int, help="the order of the mutants (random)")
def main(module: tuple[str, ...], minutes: float, seed: int | None) -> None:
    """Try mutants of modules of pybeethoven, and print those that no test notices."""
    modules = module or tuple(TESTS)
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"--seed {seed}", flush=True)
    passed = [mutate(name, minutes / len(modules), seed) for name in modules]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
