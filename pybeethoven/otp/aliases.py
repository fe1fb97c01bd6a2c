"""Aliases: references that a process can be sent messages by, until it takes them back.

Source: https://www.erlang.org/doc/system/ref_man_processes.html#process-aliases
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from pybeethoven.etf import Pid, Reference, Term

if TYPE_CHECKING:
    from pybeethoven.otp.node import Node
    from pybeethoven.otp.process import Process

AliasKind: TypeAlias = Literal["explicit_unalias", "reply", "demonitor", "reply_demonitor"]
"""When an alias ends, besides by `unalias`: with the first message by it (`reply`), with its
monitor (`demonitor`), or with either, which then ends the monitor, too (`reply_demonitor`)."""

MONITOR_ALIASES: Final = ("explicit_unalias", "demonitor", "reply_demonitor")
"""Those that a monitor may be."""
_ONCE: Final = ("reply", "reply_demonitor")
_WITH_MONITOR: Final = ("demonitor", "reply_demonitor")


class _Alias(NamedTuple):
    process: Process
    kind: AliasKind


class Aliases:
    """The aliases of the processes of `node`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._aliases: dict[Reference, _Alias] = {}

    def add(self, reference: Reference, process: Process, kind: AliasKind) -> None:
        """Let `reference` be an alias of a live process."""
        if self._node.process(process.pid) is process:
            self._aliases[reference] = _Alias(process, kind)
            process.aliases.add(reference)

    def remove(self, process: Process, reference: Reference) -> bool:
        """See `Process.unalias`."""
        alias = self._aliases.get(reference)
        if alias is None or alias.process is not process:
            return False
        del self._aliases[reference]
        process.aliases.discard(reference)
        return True

    def monitor_ended(self, process: Process, reference: Reference) -> None:
        """A monitor was taken back or has said DOWN; so ends the alias that goes with it."""
        alias = self._aliases.get(reference)
        if alias is not None and alias.kind in _WITH_MONITOR:
            self.remove(process, reference)

    def deliver(self, reference: Reference, message: Term, sender: Pid | None) -> None:
        """Give a message to the process with that alias; it is dropped when there is none."""
        alias = self._aliases.get(reference)
        if alias is None:
            return
        if alias.kind in _ONCE:
            self.remove(alias.process, reference)
        if alias.kind == "reply_demonitor":
            self._node.ties.demonitor(reference)
        alias.process.deliver(message, sender)

    def end(self, process: Process) -> None:
        """A process has ended, and with it its aliases."""
        for reference in list(process.aliases):
            self.remove(process, reference)
