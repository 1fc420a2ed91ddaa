"""The demonstration's web server: fast, and misbehaving where `www/routes.json` demands it.

Runs as a process of its own with nothing but the standard library, and ends when its standard input does: a killed
parent leaves no server behind. Usage: `python server.py ROOT`; prints the port it listens on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".html": "text/html; charset=utf-8"}
_REASONS = {200: "OK", 301: "Moved Permanently", 302: "Found", 404: "Not Found", 410: "Gone", 429: "Too Many Requests"}
#: Longest a slow answer goes on, should a client be so patient, in seconds.
_PATIENCE = 60.0


class Server:
    """Answers GET requests for a world's files.

    A route is looked up by path alone: `file` (below the root), `status`, `headers`, and one of `retry_after`
    (429 until that many seconds have passed since the first request), `dribble` (seconds between single bytes),
    `silent` (takes the request and never answers).
    """

    def __init__(self, root: str) -> None:
        self.root = root
        with open(os.path.join(root, "www", "routes.json"), encoding="utf-8") as file:
            self.routes: dict[str, dict[str, Any]] = json.load(file)
        self.first_requests: dict[str, float] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client or the request ends it."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, _, fields = head.partition(b"\r\n")
                parts = line.split()
                keep = b"connection: close" not in fields.lower() and line.endswith(b"1.1")
                path = parts[1].decode("latin-1").partition("?")[0] if len(parts) == 3 else "/"
                await self.answer(path, keep, writer)
                if not keep:
                    return
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def answer(self, path: str, keep: bool, writer: asyncio.StreamWriter) -> None:
        """Send the answer that the route of `path` defines."""
        route = self.routes.get(path, {})
        status, headers = int(route.get("status", 200)), dict(route.get("headers", {}))
        if "retry_after" in route:
            waited = time.monotonic() - self.first_requests.setdefault(path, time.monotonic())
            if waited < route["retry_after"]:
                status, headers = 429, {"Retry-After": str(route["retry_after"])}
        if route.get("silent"):
            await asyncio.sleep(_PATIENCE)
            return
        body = b""
        if status == 200:
            try:
                with open(os.path.join(self.root, route.get("file") or self.static(path)), "rb") as file:
                    body = file.read()
                headers.setdefault(
                    "Content-Type", _TYPES.get(os.path.splitext(route.get("file", path))[1], "text/plain")
                )
            except (FileNotFoundError, IsADirectoryError):
                status = 404
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Connection: keep-alive" if keep else "Connection: close", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        if "dribble" not in route:
            writer.write(head + body)
            await writer.drain()
            return
        writer.write(head)
        until = time.monotonic() + _PATIENCE
        for position in range(len(body)):
            writer.write(body[position : position + 1])
            await writer.drain()
            await asyncio.sleep(route["dribble"])
            if time.monotonic() > until:
                return

    def static(self, path: str) -> str:
        """File of a path that no route names: `/shapes/7.png` and `/photos/NAME.jpg`."""
        folder, _, name = path.lstrip("/").partition("/")
        folders = {"shapes": "images/train", "photos": "www/photos"}
        if folder not in folders or "/" in name or name.startswith("."):
            return "www/no-such-file"
        return f"{folders[folder]}/{name}"


async def main(root: str) -> None:
    """Listen on a free port of 127.0.0.1 until standard input ends."""
    server = await asyncio.start_server(Server(root).connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    parent = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(parent), sys.stdin)
    await parent.read()
    # Whatever is still dribbling has no one left to listen.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
