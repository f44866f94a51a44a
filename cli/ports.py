"""Addresses to listen on and to be reached at."""

from __future__ import annotations

import asyncio
import errno
import socket

from cli.errors import UsageError

LOOPBACK = "127.0.0.1"


def free_port(host: str, port: int) -> int:
    """The port itself when nobody listens on it, or for 0 a free one. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as server:
            return int(server.getsockname()[1])
    except OSError as exc:
        reason = "in use" if exc.errno == errno.EADDRINUSE else f"not to be had: {exc.strerror}"
        hint = "choose another with --port (0 takes a free one)"
        raise UsageError(f"port {port} on {host} is {reason}; {hint}") from None


def reachable(host: str) -> str:
    """The host by which a client on this machine reaches a server that listens on `host`."""
    known = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "[::1]"}
    return known.get(host, f"[{host}]" if ":" in host else host)


async def until_open(port: int) -> None:
    """Returns when something listens on the port of this machine. Waits for ever: bound it, or cancel it."""
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
