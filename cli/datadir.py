"""The data directory of a platform on this machine: its lock, the admin key and where its API listens."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cli.errors import UsageError
from jobs.folders import make_private

LOCK = "lock"
ADMIN_KEY = "admin.key"
API_URL = "api.url"
LOGS = "logs"
MEMORY = "memory"
FOLDERS = (LOGS, "files", "work")
"""What processes of the platform write into."""


class DataDirLock:
    """Holds a data directory for one platform, as long as this process lives: the lock is the kernel's.

    Raises UsageError when another process has it, or when the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fd: int | None = None

    def __enter__(self) -> DataDirLock:
        try:
            make_private(self.directory)
            fd = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise UsageError(f"the data directory {self.directory} cannot be written: {exc.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise UsageError(_taken(self.directory)) from None
        self._fd = fd
        self.describe(pid=os.getpid())
        return self

    def __exit__(self, *failure: object) -> None:
        if self._fd is not None:
            (self.directory / API_URL).unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def describe(self, **facts: Any) -> None:
        """Writes into the lock file who holds it, for the message to a second one and for `doctor`."""
        assert self._fd is not None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(facts).encode(), 0)


def make_folders(directory: Path) -> None:
    """Makes the folders of a data directory, and closes them to others also where the directory itself is open."""
    for name in FOLDERS:
        make_private(directory / name)
        (directory / name).chmod(0o700)


def holder(directory: Path) -> dict[str, Any]:
    """What the process that holds the directory wrote about itself; empty when there is no such process."""
    try:
        facts = json.loads((directory / LOCK).read_bytes())
        os.kill(facts["pid"], 0)
    except PermissionError:
        pass
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return dict(facts)


def _taken(directory: Path) -> str:
    facts = holder(directory)
    pid, url = facts.get("pid", "unknown"), facts.get("url")
    at = f" and answers at {url}" if url else ""
    return f"a platform runs in {directory} already (process {pid}){at}; stop it, or choose another --data-dir"


def ensure_admin_key(directory: Path) -> str:
    """The admin key of the directory, made when it has none; only its owner can read the file."""
    known = read_admin_key(directory)
    path = directory / ADMIN_KEY
    if known:
        path.chmod(0o600)
        return known
    key = f"ns_{secrets.token_urlsafe(32)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{key}\n")
    return key


def read_admin_key(directory: Path) -> str | None:
    """The admin key of the directory, if it has one that can be read."""
    return _read(directory / ADMIN_KEY)


def write_api_url(directory: Path, url: str) -> None:
    """Says where the API of the directory's platform listens."""
    (directory / API_URL).write_text(f"{url}\n", encoding="ascii")


def read_api_url(directory: Path) -> str | None:
    """Where the API of the directory's platform listens, if it runs."""
    return _read(directory / API_URL)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
