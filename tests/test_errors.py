"""Tests of `errors`, and of all exceptions of the package."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NoReturn

import pytest

import pybeethoven
from pybeethoven.distribution.handshake import Status
from pybeethoven.errors import brief
from pybeethoven.etf import Atom
from tests.etf.test_terms import CONTAINERS, VALUES

ARGUMENTS: dict[str, Any] = {
    "answer": "join_failed",
    "child": Atom("child"),
    "message": "a message",
    "process": "a process",
    "reason": (Atom("reason"), *VALUES, *CONTAINERS),
    "stack": [(Atom("module"), Atom("function"), 1, [])],
    "status": Status.NOK,
    "table": "a table",
    "text": "a text",
}
"""What an exception is made with, by the name of the parameter of its `__init__`."""

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


def _classes_below(parent: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in type.__subclasses__(parent):
        yield child
        yield from _classes_below(child)


def _exception_classes() -> list[type[BaseException]]:
    for module in pkgutil.walk_packages(pybeethoven.__path__, "pybeethoven."):
        if module.name != "pybeethoven.__main__":  # which would run the command
            importlib.import_module(module.name)
    found = {c for c in _classes_below(BaseException) if c.__module__.startswith("pybeethoven.")}
    return sorted(found, key=lambda c: c.__qualname__)


EXCEPTIONS = _exception_classes()


def _example(kind: type[BaseException]) -> BaseException:
    parameters = inspect.signature(kind.__init__).parameters
    names = [name for name in parameters if name not in ("self", "args", "kwargs")]
    error = kind(*(ARGUMENTS[name] for name in names or ["message"]))
    error.add_note("a note")
    return error


def _content(error: BaseException) -> tuple[Any, ...]:
    return type(error), error.args, vars(error), str(error), repr(error)


def _raise(error: BaseException) -> NoReturn:
    raise error


def test_terms_are_shown_briefly() -> None:
    """An error has at most 200 characters of a term, and the type of one that Python can't show."""
    assert brief((1, "a")) == "(1, 'a')"
    assert brief("x" * 1000) == repr("x" * 1000)[:200]
    assert brief(10**5000) == "a int too large to show"


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__qualname__)
def test_copied_or_pickled_exception_is_the_same(kind: type[BaseException]) -> None:
    """A copy has the type, arguments, attributes, text and notes of the exception."""
    error = _example(kind)
    for make_copy in COPIES:
        assert _content(make_copy(error)) == _content(error)


def test_exception_of_another_process_is_the_same() -> None:
    """Each exception that a process of a pool raises arrives as it was raised."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        raised = {error: pool.submit(_raise, error) for error in map(_example, EXCEPTIONS)}
        for error, future in raised.items():
            arrived = future.exception(timeout=60)
            assert arrived is not None
            assert _content(arrived) == _content(error)
