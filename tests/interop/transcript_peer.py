"""The processes of `erlang_interop/transcript_peer.erl` in Python; it tells what they do."""

from __future__ import annotations

from typing import Any

from pybeethoven import NO_REPLY, Atom, From, GenServer, Node, Pid, Process, Reference, Term
from pybeethoven.errors import ErlangExit, ErlangThrow, ProcessExit

MODULE = "transcript_peer"
SENT = Atom("sent")


def export(node: Node) -> None:
    """Let other nodes call and spawn what the Erlang module exports."""

    async def start_server(name: str) -> Pid:
        return await node.start(Server(), name=name)

    async def hang() -> None:
        _, reason = await node.caller().receive()
        raise ErlangExit(reason)

    for function in (start_server, hang, toss, quit_):
        node.export(MODULE, function, name=function.__name__.rstrip("_"))
    node.export(MODULE, lambda: Atom("pong"), name="ping")
    node.export(MODULE, lambda: node.spawn(Actor()).pid, name="start_actor")
    node.export(MODULE, node.disconnect, name="leave")
    node.export(MODULE, lambda term: term, name="return")


def toss(term: Term) -> None:
    """Throw."""
    raise ErlangThrow(term)


def quit_(reason: Term) -> None:
    """Exit."""
    raise ErlangExit(reason)


class Actor(Process):
    """Keeps what it is sent and does what it is told."""

    def __init__(self) -> None:
        self.seen: list[Term] = []

    async def run(self) -> None:
        """Obey, until told to exit."""
        while True:
            match await self.receive():
                case ("ask", from_, reference, ("messages", count)):
                    while len(self.seen) < count:
                        self.seen.append(await self.receive())
                    self.node.send(from_, (reference, self.seen))
                    self.seen = []
                case ("ask", from_, reference, command):
                    self.node.send(from_, (reference, self.obey(command)))
                case ("tell", command):
                    self.obey(command)
                case message:
                    self.seen.append(message)

    def obey(self, command: Term) -> Term:
        """Do one thing, and tell what Erlang's function for it returns."""
        match command:
            case "ping":
                return Atom("pong")
            case ("all", commands):
                return [self.obey(each) for each in commands]
            case ("exit", reason):
                raise ProcessExit(reason)
            case ("trap_exit", flag):
                before, self.trap_exit = self.trap_exit, flag
                return before
            case "links":
                return list(self.links)
            case "watchers":
                return [pid for pid, _ in self.watchers.values()]
            case "alias":
                return self.alias()
            case "reply_alias":
                return self.alias(reply=True)
            case ("unalias", Reference() as alias):
                return self.unalias(alias)
            case ("monitor", target):
                return self.monitor(target)
            case ("monitor", target, kind):
                return self.monitor(target, alias=kind)
            case ("leave", node):
                return self.node.disconnect(node)
            case ("reply", from_, reply):
                self.node.reply(from_, reply)
                return Atom("replied")
        return self.send_or_tie(command)

    def send_or_tie(self, command: Term) -> Term:
        """Obey the commands whose result is nothing new."""
        match command:
            case ("send", to, message):
                self.node.send(to, message)
                return SENT
            case ("count", to, last):
                for number in range(1, last + 1):
                    self.node.send(to, number)
                return Atom("counted")
            case ("large", to, size):
                self.node.send(to, b"\7" * size)
                return SENT
            case ("signal", pid, reason):
                self.node.exit(pid, reason)
            case ("signal_self", reason):
                self.node.exit(self, reason)
            case ("link", pid):
                self.link(pid)
            case ("unlink", pid):
                self.unlink(pid)
            case ("demonitor", reference):
                self.demonitor(reference)
            case ("register", name):
                self.node.register(name, self)
            case ("unregister", name):
                self.node.unregister(name)
            case _:
                raise ValueError(f"no command: {command!r}")
        return True


class Server(GenServer):
    """A gen_server whose state is what it was last told to make it."""

    def __init__(self) -> None:
        self.state: Term = Atom("new")
        self.held: list[From] = []
        self.kept: list[Term] = []

    def format_state(self) -> Term:
        """The state alone, as in Erlang."""
        return self.state

    async def handle_call(self, request: Term, from_: From) -> Any:
        """Reply, now or later, or end."""
        match request:
            case ("echo", term):
                return term
            case ("set", term):
                self.state = term
                return Atom("ok")
            case ("exit" | "stop", reason):
                raise ProcessExit(reason)
            case ("stop", reason, reply):
                self.node.reply(from_, reply)
                raise ProcessExit(reason)
            case "hold":
                self.held.append(from_)
                return NO_REPLY
            case ("release", reply):
                self.node.reply(self.held.pop(), reply)
                return Atom("released")
            case ("hand_over", actor):
                self.node.send(actor, (Atom("caller"), from_))
                return NO_REPLY
            case ("trap_exit", flag):
                before, self.trap_exit = self.trap_exit, flag
                return before
            case "kept":
                return self.kept
            case ("twice", first, second):
                self.node.reply(from_, first)
                return second
        return await super().handle_call(request, from_)

    async def handle_cast(self, message: Term) -> None:
        """Pass on, or end."""
        await self.handle_info(message)

    async def handle_info(self, message: Term) -> None:
        """Pass on, or end."""
        match message:
            case ("tell", to, term):
                self.node.send(to, term)
            case ("exit", reason):
                raise ProcessExit(reason)
            case ("leave_and_tell", node, to, term):
                self.node.disconnect(node)
                self.node.send(to, term)
            case _:
                self.kept.append(message)
