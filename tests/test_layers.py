"""The layers: imports go down only, and pure modules import no clock, socket or randomness.

Each module is read, not run: an import in a function or under TYPE_CHECKING counts like any other,
save that the modules of one folder may name each other's types.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pybeethoven

ROOT = Path(pybeethoven.__file__).parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

LAYERS = [
    *("errors", "etf", "distribution", "net", "otp", "mnesia", "cluster"),
    *("__init__", "cli", "__main__"),
]
"""From the ground up; a module imports from its own layer and those before it."""

ALLOWED = {"testing": {"testing", "etf", "errors"}}
"""`testing` stands aside: it has BEAM nodes, for which no node of ours is needed."""

PURE = [
    *("errors", "etf", "distribution", "cluster/seek_chat"),
    *(
        f"mnesia/{name}"
        for name in ("budget", "events", "guards", "match_spec", "operations", "patterns", "table")
    ),
]
IMPURE = {
    *("asyncio", "datetime", "os", "pathlib", "random", "secrets", "select", "selectors", "signal"),
    *("socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"),
}


def layer_of(module: str) -> str:
    """The folder, or the file in `pybeethoven/`, that a module belongs to."""
    return module.split("/")[0].removesuffix(".py")


def imports_of(source: str, module: str) -> Iterator[tuple[str, bool]]:
    """Each module that is imported, with its full name, and whether for its types alone."""
    tree = ast.parse(source)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            assert node.module is not None
            yield from ((f"{node.module}.{alias.name}", node in for_types) for alias in node.names)


def own_layer(imported: str) -> str | None:
    """The layer of an imported name of ours, None of anybody else's."""
    parts = imported.split(".")
    if parts[0] != "pybeethoven":
        return None
    known = len(parts) > 1 and ((ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").exists())
    return parts[1] if known else "__init__"


def violations(source: str, module: str) -> list[str]:
    """What a module imports and may not."""
    layer = layer_of(module)
    allowed = ALLOWED.get(layer) or set(LAYERS[: LAYERS.index(layer) + 1])
    found = []
    for imported, _ in imports_of(source, module):
        own = own_layer(imported)
        if own is not None and own not in allowed:
            found.append(f"{module} imports {imported}")
        if any(module.startswith(pure) for pure in PURE) and imported.split(".")[0] in IMPURE:
            found.append(f"{module} is pure and imports {imported}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_layers(module: str) -> None:
    """The module imports only what stands below it."""
    assert violations((ROOT / module).read_text(), module) == []


def edges() -> dict[str, set[str]]:
    """Which module needs which other of the same folder when it is imported."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        needed = graph.setdefault(name, set())
        for imported, for_types in imports_of((ROOT / module).read_text(), module):
            target = imported.removeprefix("pybeethoven.")
            while target and not for_types and layer_of(module) == target.split(".")[0]:
                path = ROOT / target.replace(".", "/")
                if path.with_suffix(".py").exists():
                    needed.add(target)
                target = target.rpartition(".")[0]
    return graph


def test_no_cycles() -> None:
    """Within a folder, too, the modules stand above each other; types alone may go round."""
    graph = edges()
    left = set(graph)
    while ground := {name for name in left if not graph[name] & left}:
        left -= ground
    assert left == set()


def test_beacon_server_and_core_server_do_not_know_each_other() -> None:
    """`substrate` connects them."""
    for module, other in (("beacon_server", "core_server"), ("core_server", "beacon_server")):
        path = ROOT / "cluster" / f"{module}.py"
        if path.exists():
            names = [imported for imported, _ in imports_of(path.read_text(), module)]
            assert not [name for name in names if other in name.split(".")]


def test_pytest_is_needed_by_the_plugin_alone() -> None:
    """Whoever runs pybeethoven, or its `testing` without fixtures, needs no pytest."""
    for module in MODULES:
        imported = {
            name.split(".")[0] for name, _ in imports_of((ROOT / module).read_text(), module)
        }
        assert module == "testing/plugin.py" or not imported & {"pytest", "pytest_asyncio"}


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("etf/terms.py", "import pybeethoven.errors", 0),
        ("etf/terms.py", "from pybeethoven.distribution import flags", 1),
        ("etf/terms.py", "from pybeethoven import distribution", 1),
        ("etf/terms.py", "from pybeethoven import Atom", 1),
        ("etf/terms.py", "import pybeethoven.cluster.tracker as t", 1),
        ("errors.py", "def f():\n    from pybeethoven.etf import Term", 1),
        ("net/epmd.py", "if TYPE_CHECKING:\n    from pybeethoven.otp import Node", 1),
        ("otp/node.py", "import asyncio, socket", 0),
        ("distribution/control.py", "import asyncio.streams, struct", 1),
        ("distribution/control.py", "from time import monotonic", 1),
        ("mnesia/events.py", "def f():\n    import random", 1),
        ("mnesia/mirror.py", "import random", 0),
        ("cluster/seek_chat.py", "from socket import socket", 1),
        ("testing/beam.py", "from pybeethoven.etf import decode", 0),
        ("testing/beam.py", "from pybeethoven.otp import Node", 1),
        ("cluster/locator.py", "from pybeethoven.cli import main", 1),
        ("cli.py", "from pybeethoven import Beethoven", 0),
        ("otp/node.py", "from pybeethoven.testing import Epmd", 1),
    ],
)
def test_the_test(module: str, source: str, count: int) -> None:
    """Each kind of import is seen."""
    assert len(violations(source, module)) == count
