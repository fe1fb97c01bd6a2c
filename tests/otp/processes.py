"""Processes, exit reasons, and the messages that tell of an exit."""

from __future__ import annotations

from pybeethoven import Atom, Node, Process, Reference, Term
from tests.helpers import Recorder, atoms

KILL, KILLED, NORMAL, NOPROC, SHUTDOWN = atoms("kill", "killed", "normal", "noproc", "shutdown")
BOOM = Atom("boom")


def down(reference: Reference, target: Term, reason: Term) -> Term:
    """The message that a monitor gives."""
    return (Atom("DOWN"), reference, Atom("process"), target, reason)


def exited(process: Process, reason: Term) -> Term:
    """The message that a process that traps exits gets."""
    return (Atom("EXIT"), process.pid, reason)


def spawn_recorder(node: Node, *, trap_exit: bool = False, name: str | None = None) -> Recorder:
    """A running process that keeps its messages."""
    recorder = Recorder(trap_exit=trap_exit)
    node.spawn(recorder, name=name)
    return recorder
