"""The embedded memory as a real process, which may be killed and started again on the same data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from qdrant_client import AsyncQdrantClient

from memory.client import connect


class EmbeddedServer:
    """One process on its own data directory and a free port, which it has again when it is started again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.url = ""
        self.api_key = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when it serves."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "memory.embedded", "--data-dir", str(self.data_dir), "--port", port]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.url = said["url"]
        self.api_key = Path(said["api_key_file"]).read_text(encoding="ascii")

    def client(self) -> AsyncQdrantClient:
        return connect(self.url, self.api_key)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(lambda process: process.kill())

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self._end(lambda process: process.terminate())

    def _end(self, how) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdout is not None
        how(process)
        status = process.wait(20)
        process.stdout.close()
        return int(status)

    def files_with(self, text: str) -> list[Path]:
        """The files of the data directory that have these bytes in them."""
        needle = text.encode()
        return [path for path in self.data_dir.rglob("*") if path.is_file() and needle in path.read_bytes()]
