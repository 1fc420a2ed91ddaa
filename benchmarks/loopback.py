"""The web that the download benchmark fetches from: photographs out of memory, over loopback, by the standard library.

Usage: `python loopback.py FOLDER HOSTS`; prints the port on which it plays 127.0.0.1 and so many hosts from 127.0.0.2
on, serves `/<n>.jpg` as the (n mod files)-th file of the folder with a comment that makes its bytes unique, keeps
connections alive, and ends when its standard input does. `/seconds` tells how long ago the first of all requests came
when the last did, and forgets them.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from pathlib import Path


class Photographs(asyncio.Protocol):
    """One connection."""

    files: list[bytes] = []
    times: list[float] = []  # monotonic seconds of the first and the last request
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head, self.held = self.held[:end], self.held[end + 4 :]
            close = b"connection: close" in head.lower() or b" HTTP/1.0\r\n" in head
            self.transport.writelines(answer(head.split(b" ", 2)[1], close))
            if close:
                self.transport.close()


def answer(path: bytes, close: bool) -> list[bytes]:
    """The pieces of an answer: 404 for all but photographs (robots.txt, above all)."""
    last = b"Connection: close\r\n\r\n" if close else b"\r\n"
    times, now = Photographs.times, time.monotonic()
    if path == b"/seconds":
        elapsed = b"%.6f" % (times[-1] - times[0] if times else 0)
        times.clear()
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(elapsed), last, elapsed]
    times[1 if times else 0 :] = [now]
    number = path[1:-4]
    if not (path.endswith(b".jpg") and number.isdigit()):
        return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" + last]
    comment = b"\xff\xfe" + struct.pack(">HQ", 10, int(number))
    body = Photographs.files[int(number) % len(Photographs.files)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n" % (len(body) + len(comment))
    return [head + last + body[:2] + comment, body[2:]]


async def main(folder: str, hosts: int) -> None:
    """Listen on one free port of all hosts' addresses, which are loopback and nothing else."""
    Photographs.files = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    loop = asyncio.get_running_loop()
    first = await loop.create_server(Photographs, "127.0.0.1", 0, backlog=1024)
    port = first.sockets[0].getsockname()[1]
    others = [f"127.0.0.{2 + number}" for number in range(hosts)]
    serving = await loop.create_server(Photographs, others, port, backlog=1024)
    assert serving.is_serving()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    parent = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(parent), sys.stdin)
    await parent.read()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
