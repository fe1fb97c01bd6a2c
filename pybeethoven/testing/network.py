"""The network between nodes, in which connections can be cut and slowed.

It is a proxy, so that it works for every user and on every machine: network namespaces want root,
and to slow them wants a kernel with netem. Nodes that have a host of their own on the loopback find
each other at an EPMD; here they ask this network in its place, on the same port of every host:

    a@127.0.0.1              network                      EPMD              b@127.0.0.2
        | where is b? ---------->| where is b? -------------->|                   |
        |<------------ at port P |<--------------- at port R |                   |
        | connect to 127.0.0.2:P, `send_name` a@127.0.0.1 --->| connect to 127.0.0.2:R
        |<=========== the wire between a and b ==============>|<=================>|

What connects to P says its own name first, and so the network knows between which two nodes the
connection is. It can't read that name over TLS.

A cut is that of a cable. Nothing arrives, and no end is told: bytes wait as TCP would send them
again, a connection that is closed stays open at the other end, a new one is not answered. Whoever
wants to know has to find out by himself, from silence. When it is mended, what waited goes on.

Sources: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final

from pybeethoven.testing.relay import Ends, Listener, Relays, Wire

_PORT_PLEASE2_REQ: Final = b"z"
_NAMES_REQ: Final = b"n"
_PORT2_RESP: Final = 119
_SEND_NAME: Final = ord("N")
_OLD_SEND_NAME: Final = ord("n")


class Network:
    """Carries what nodes on `hosts` say to each other.

    `port`: where it is asked for nodes, on each host; `epmd_port`: of the EPMD that it asks, on
    127.0.0.1. All must be called in the loop that called `open`.
    """

    def __init__(self, hosts: Iterable[str], *, port: int, epmd_port: int) -> None:
        self._hosts = list(hosts)
        self.port = port
        self._epmd = ("127.0.0.1", epmd_port)
        self._relays = Relays()
        self._wires: dict[frozenset[str], Wire] = {}
        self._fronts: list[Listener] = []
        self._doors: dict[str, Listener] = {}
        self._real_ports: dict[str, int] = {}
        self._beacons: dict[tuple[str, str], Listener] = {}
        self._beacon_ports: dict[str, int] = {}
        self._lit: set[str] = set()

    def open(self) -> None:
        """Take the place of EPMD, also again after `close_epmd`. Raises `OSError`."""
        for host in self._hosts:
            self._fronts.append(Listener((host, self.port), self._answer_as_epmd, self._relays))

    def close_epmd(self) -> None:
        """Be an EPMD that is not there: those who ask are refused."""
        while self._fronts:
            self._fronts.pop().close()

    async def close(self) -> None:
        """End all connections, whatever waits in them, and listen no more."""
        self.close_epmd()
        for listener in (*self._doors.values(), *self._beacons.values()):
            listener.close()
        self._doors.clear()
        self._beacons.clear()
        await self._relays.close()

    # Faults

    def cut(self, one: str, other: str) -> None:
        """Cut what lies between two nodes, by their names; one of them may not run yet."""
        self.wire(one, other).cut()
        self._listen_for_seekers()

    def mend(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self.wire(one, other).mend()
        self._listen_for_seekers()

    def heal(self) -> None:
        """Let every wire be whole and without delay."""
        for wire in self._wires.values():
            wire.mend()
            wire.delay = 0.0
        self._listen_for_seekers()

    def wire(self, one: str, other: str) -> Wire:
        """What lies between two nodes."""
        return self._wires.setdefault(frozenset((one, other)), Wire())

    # Beacons

    def add_seeker(self, name: str, port: int) -> None:
        """Let a node seek beacons on a port of its own, so that it is known who seeks.

        A seeker that is cut off from a beacon is refused there: that ends its attempt as the lost
        SYN would, which can't be had without root.
        """
        self._beacon_ports[name] = port
        self._listen_for_seekers()

    def light(self, name: str) -> None:
        """The beacon of a seeker is up now, at its own host and port."""
        self._lit.add(name)
        self._listen_for_seekers()

    def put_out(self, name: str) -> None:
        """The beacon of a seeker is gone."""
        self._lit.discard(name)
        self._listen_for_seekers()

    def _listen_for_seekers(self) -> None:
        pairs = {(s, b) for s in self._beacon_ports for b in self._lit if s != b}
        seen = {pair for pair in pairs if not self.wire(*pair).is_cut}
        for pair in self._beacons.keys() - seen:
            self._beacons.pop(pair).close()
        for seeker, beacon in seen - self._beacons.keys():
            address = (_host(beacon), self._beacon_ports[seeker])
            serve = partial(self._seek, seeker, beacon)
            self._beacons[seeker, beacon] = Listener(address, serve, self._relays)

    async def _seek(self, seeker: str, beacon: str, here: Ends) -> None:
        to = (_host(beacon), self._beacon_ports[beacon])
        await self._relays.join(self.wire(seeker, beacon), here, to)

    # Distribution

    async def _answer_as_epmd(self, here: Ends) -> None:
        reader, writer = here
        size = await reader.readexactly(2)
        request = await reader.readexactly(int.from_bytes(size, "big"))
        host: str = writer.get_extra_info("sockname")[0]
        if request[:1] == _PORT_PLEASE2_REQ:
            name = f"{request[1:].decode()}@{host}"
            writer.write(self._with_our_door(await self._ask(size + request), name))
        elif request == _NAMES_REQ:
            writer.write(self._with_our_port(await self._ask(size + request)))
        else:
            await self._relays.join(Wire(), here, self._epmd, size + request)

    async def _ask(self, request: bytes) -> bytes:
        there, onward = await asyncio.open_connection(*self._epmd)
        try:
            onward.write(request)
            return await there.read(-1)
        finally:
            onward.close()

    def _with_our_port(self, answer: bytes) -> bytes:
        """The names, with the port of EPMD in front: OTP looks whether it is the one it asked."""
        return self.port.to_bytes(4, "big") + answer[4:]

    def _with_our_door(self, answer: bytes, name: str) -> bytes:
        if len(answer) < 4 or answer[0] != _PORT2_RESP or answer[1] != 0:
            return answer
        self._real_ports[name] = int.from_bytes(answer[2:4], "big")
        return answer[:2] + self._door(name).port.to_bytes(2, "big") + answer[4:]

    def _door(self, name: str) -> Listener:
        if name not in self._doors:
            serve = partial(self._let_in, name)
            self._doors[name] = Listener((_host(name), 0), serve, self._relays)
        return self._doors[name]

    async def _let_in(self, name: str, here: Ends) -> None:
        reader, _ = here
        size = await reader.readexactly(2)
        message = await reader.readexactly(int.from_bytes(size, "big"))
        wire = self.wire(_sender(message), name)
        to = (_host(name), self._real_ports[name])
        await self._relays.join(wire, here, to, size + message)


def _sender(message: bytes) -> str:
    """Who sends `send_name`, in the form of OTP 23 or the older one; nobody if it is neither."""
    name = b""
    if message[0] == _SEND_NAME:  # N flags:64 creation:32 nlen:16 name
        name = message[15 : 15 + int.from_bytes(message[13:15], "big")]
    elif message[0] == _OLD_SEND_NAME:  # n version:16 flags:32 name
        name = message[7:]
    return name.decode(errors="replace")


def _host(name: str) -> str:
    return name.rpartition("@")[2]
