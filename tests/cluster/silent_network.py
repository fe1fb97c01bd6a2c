"""Run in a network of its own: looks for a beacon at the end of a network in which nobody answers.

    unshare -rn python -m tests.cluster.silent_network 16 1024

looks through 10.9.0.0/16, with at most 1,024 file descriptors, and prints a JSON object: who was
found, in how many seconds, how many sockets were open at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import os
import resource
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Final

from pybeethoven.cluster.locator import Locator, hosts_of
from pybeethoven.cluster.seek_chat import REPLY, Message, encode

PORT: Final = 33000
NODE: Final = "last@10.9.0.1"

# <linux/sockios.h>, <linux/if.h>, <linux/if_tun.h>
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x1, 0x400454CA, 0x1, 0x1000


def configure(interface: str, address: str, mask: str) -> None:
    """Give an interface an address, and have it run."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
            packed = struct.pack("16sHH4s8x", interface.encode(), socket.AF_INET, 0, _bytes(value))
            fcntl.ioctl(control, request, packed)
        flags = struct.pack("16sH14x", interface.encode(), IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, flags)


def _bytes(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def make_network(prefix: int) -> str:
    """A network 10.9.0.0 that swallows what is sent to it; its last host is here, and is given."""
    tun = os.open("/dev/net/tun", os.O_RDWR)  # nobody reads from it: what comes is dropped
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"tun0", IFF_TUN | IFF_NO_PI))
    network = ipaddress.IPv4Network(f"10.9.0.0/{prefix}")
    configure("lo", "127.0.0.1", "255.0.0.0")
    configure("tun0", str(network[1]), str(network.netmask))
    last = str(network[-2])
    configure("lo:1", last, "255.255.255.255")
    return last


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a beacon that lets everybody in."""
    if await reader.read(4096):
        writer.write(encode(Message(NODE, REPLY, "joined")))
    writer.close()


async def most_open(counts: list[int]) -> None:
    """Count this process's sockets, over and over."""
    while True:
        counts.append(len(os.listdir("/proc/self/fd")))
        await asyncio.sleep(0.05)


async def main(prefix: int, descriptors: int) -> None:
    """Seek once, and print what came of it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    last = make_network(prefix)
    server = await asyncio.start_server(answer, last, PORT)
    before = len(os.listdir("/proc/self/fd"))
    counts: list[int] = []
    counting = asyncio.create_task(most_open(counts))
    progress: list[tuple[int, int]] = []
    locator = Locator(
        "py@127.0.0.1",
        hosts_of(f"10.9.0.0/{prefix}"),
        PORT,
        lambda: 0.0,
        on_progress=lambda *hosts: progress.append(hosts),
    )
    cpu, began = time.process_time(), time.monotonic()
    found = await locator.seek(rounds=1)
    took, busy = time.monotonic() - began, time.process_time() - cpu
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    server.close()
    result = {
        "found": found,
        "seconds": round(took, 2),
        "cpu_seconds": round(busy, 2),
        "sockets": max(counts) - before,
        "asked": progress[-1][0] if progress else 0,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
