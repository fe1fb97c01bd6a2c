"""Records the corpus: `python -m fuzz.seeds`, with an Erlang on PATH.

Terms are those of tests/etf/golden, one or two for each tag. Handshakes and frames are what a BEAM
sends to a node with the cookie and the challenges of `targets`, so that its digests are right when
they are played back. A BEAM fragments only what is larger than an input may be: those are made here
of frames that are smaller.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Final

from fuzz import corpus, targets
from fuzz.targets import (
    CHALLENGE,
    COOKIE,
    FLAGS,
    INITIATOR,
    KEEPS_OLDER,
    LENGTHS_GIVEN,
    NAMELESS,
    OWN,
    PEER,
    UNNAMED,
)
from pybeethoven.distribution import epmd as protocol
from pybeethoven.distribution.framing import TICK
from pybeethoven.distribution.handshake import (
    Completed,
    Handshake,
    Identity,
    NameReceived,
    State,
    Status,
    StatusReceived,
)
from pybeethoven.distribution.handshake_messages import build_status, parse_name
from pybeethoven.net import epmd
from pybeethoven.testing import BeamNode, Peers

GOLDEN: Final = Path(__file__).parent.parent / "tests" / "etf" / "golden" / "otp25.txt"
LARGEST_TERM: Final = 300
QUIET: Final = 0.3
"""Seconds without a byte after which a BEAM has said all."""

TALK: Final = f"""
py = {{:nobody, :"{OWN.name}"}}
send(py, :hello)
send(py, {{self(), make_ref(), 1.5, "binary", 'list', [a: 1], %{{1 => 2}}, 1 <<< 80}})
ref = Process.monitor(py)
Process.demonitor(ref)
GenServer.cast(py, {{:some, &Enum.map/2, fn -> py end}})
spawn(fn -> Node.spawn(:"{OWN.name}", :erlang, :node, []) end)
:erpc.send_request(:"{OWN.name}", :erlang, :node, [])
:ok
""".replace("1 <<< 80", "1208925819614629174706176")


class Recorder(asyncio.Protocol):
    """One connection of ours to a BEAM, which keeps all that the BEAM sends."""

    def __init__(self, handshake: Handshake, status: Status, *, proceed: bool = True) -> None:
        self._handshake = handshake
        self._status = status
        self._proceed = proceed
        self.received = self.frames = b""
        self.up = asyncio.Event()
        self.heard = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what the handshake starts with."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Keep it, and go on with the handshake."""
        self.heard.set()
        if self._handshake.state is State.DONE:
            self.frames += data
            return
        self.received += data
        for event in self._handshake.receive_data(data):
            match event:
                case NameReceived():
                    self._handshake.send_status(self._status)
                case StatusReceived(Status.ALIVE):
                    self._handshake.answer_alive(self._proceed)
                case Completed():
                    self.up.set()
        self.transport.write(self._handshake.data_to_send())
        if trailing := self._handshake.trailing_data:
            self.received, self.frames = self.received[: -len(trailing)], trailing

    async def until_quiet(self) -> None:
        """Wait until nothing comes any more."""
        while True:
            self.heard.clear()
            try:
                await asyncio.wait_for(self.heard.wait(), QUIET)
            except TimeoutError:
                return


def write(target: str, name: str, data: bytes) -> None:
    """Make one seed."""
    directory = corpus.ROOT / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def write_terms() -> None:
    """The golden terms, the first two of each tag."""
    seen: Counter[int] = Counter()
    for line in GOLDEN.read_text().splitlines():
        name, text, _ = line.split("\t", 2)
        data = bytes.fromhex(text)
        if len(data) <= LARGEST_TERM and seen[data[1]] < 2:
            seen[data[1]] += 1
            write("decoder", "".join(c if c.isalnum() else "_" for c in name), data)


def write_requests() -> None:
    """What a node asks EPMD, and the one thing that it need not."""
    write("epmd", "alive2", protocol.alive2_request("seed", 4370, hidden=True))
    write("epmd", "port_please2", protocol.port_please2_request("seed"))
    write("epmd", "names", b"\0\1n")
    write("epmd", "kill", b"\0\1k")


async def accept(how: int, status: Status, talk: str, beam: BeamNode) -> Recorder:
    """Let the BEAM dial us."""
    made: list[Recorder] = []
    identity = Identity(OWN.name, FLAGS[how], OWN.creation)

    def make() -> Recorder:
        made.append(Recorder(Handshake.acceptor(identity, COOKIE, CHALLENGE), status))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    registration = await epmd.register(OWN.name.partition("@")[0], port, hidden=True)
    try:
        await beam.eval(f':net_kernel.connect_node(:"{OWN.name}"); :ok')
        await beam.eval(talk)
        await made[0].until_quiet()
        return made[0]
    finally:
        server.close()
        for recorder in made:
            recorder.transport.close()
        await registration.close()


async def dial(own: Identity = OWN, *, proceed: bool = True) -> Recorder:
    """Dial the BEAM; the connection is left open."""
    alive_name, _, host = PEER.partition("@")
    port = await epmd.look_up(alive_name, host)
    assert port is not None
    handshake = Handshake.initiator(own, PEER, COOKIE, CHALLENGE)
    recorder = Recorder(handshake, Status.OK, proceed=proceed)
    await asyncio.get_running_loop().create_connection(lambda: recorder, host, port)
    await recorder.until_quiet()
    return recorder


def contents(stream: bytes) -> list[bytes]:
    """What is in the frames of a stream."""
    found = []
    while stream:
        end = 4 + int.from_bytes(stream[:4])
        found.append(stream[4:end])
        stream = stream[end:]
    return found


def with_short_lengths(parts: list[bytes]) -> bytes:
    """Frames as `LENGTHS_GIVEN` has them."""
    return b"".join(len(part).to_bytes(2) + part for part in parts)


def fragmented(content: bytes, count: int) -> list[bytes]:
    """The contents of a frame, cut into fragments."""
    data = content[3:]
    size = -(-len(data) // count)
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    ids = [struct.pack(">QQ", 9, len(parts) - number) for number in range(len(parts))]
    first = b"\x83E" + ids[0] + b"\0" + parts[0]
    rest = zip(ids[1:], parts[1:], strict=True)
    return [first, *(b"\x83F" + id_ + part for id_, part in rest)]


def write_frames(how: int, form: str, stream: bytes) -> None:
    """A recorded stream: whole, and each message alone."""
    write("framing", f"{form}_stream", bytes([how]) + stream + TICK)
    parts = [part for part in contents(stream) if part]
    for number, part in enumerate(parts):
        data = bytes([how | LENGTHS_GIVEN]) + with_short_lengths([part])
        write("framing", f"{form}_{number}", data)
    if how == 0:
        longest = max(parts, key=len)
        data = bytes([LENGTHS_GIVEN]) + with_short_lengths(fragmented(longest, 4))
        write("framing", "fragments", data)


def write_rare_handshakes(received: bytes) -> None:
    """What this BEAM does not say to us: the name message of OTP 24, and an answer to alive."""
    name, reply = targets.messages(received)
    alive = list(Status).index(Status.ALIVE) << 1
    write("handshake", "acceptor_alive", bytes([alive]) + name + build_status("true") + reply)
    peer = parse_name(name[2:])
    old = struct.pack(">cHI", b"n", 5, peer.flags & 0xFFFFFFFF) + peer.name.encode()
    rest = struct.pack(">cII", b"c", peer.flags >> 32, peer.creation)
    data = b"".join(len(part).to_bytes(2) + part for part in (old, rest)) + reply
    write("handshake", "acceptor_old_name", b"\0" + data)


async def main() -> None:
    """Record everything."""
    write_terms()
    write_requests()
    async with Peers(cookie=COOKIE) as peers:
        os.environ.update(peers.env)
        beam = await peers.start_bare(PEER)
        for how, form in ((0, "header"), (1, "pass_through")):
            got = await accept(how, Status.OK, TALK, beam)
            write("handshake", f"acceptor_{form}", b"\0" + got.received)
            if how == 0:
                write_rare_handshakes(got.received)
            write_frames(how, form, got.frames)
        for status in (Status.NOK, Status.NOT_ALLOWED, Status.OK_SIMULTANEOUS):
            got = await accept(0, status, ":ok", beam)
            how = list(Status).index(status) << 1
            write("handshake", f"acceptor_{status}", bytes([how]) + got.received)
        first = await dial()
        write("handshake", "initiator_ok", bytes([INITIATOR]) + first.received)
        second = await dial(proceed=False)
        write("handshake", "initiator_gives_up", bytes([INITIATOR | KEEPS_OLDER]) + second.received)
        third = await dial()
        write("handshake", "initiator_alive", bytes([INITIATOR]) + third.received)
        named = await dial(UNNAMED)
        write("handshake", "initiator_named", bytes([INITIATOR | NAMELESS]) + named.received)
        for recorder in (first, second, third, named):
            recorder.transport.close()


if __name__ == "__main__":
    asyncio.run(main())
