"""A process that the bench starts, its CPU time and its memory, and its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
"""Children get no other variables: no setting and no key of the user's own changes what is measured."""
STOP_SECONDS = 15
T = TypeVar("T")


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


class Process:
    """A child with its output in a file. Leave it by `stop`."""

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stdout=log, stderr=log)
        self._process = psutil.Process(self._popen.pid)

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, live and ended children included."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def pss(self) -> int:
        """The proportional set size of the process itself, in bytes."""
        for line in Path(f"/proc/{self._popen.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name}: the kernel reports no PSS")

    def check(self) -> None:
        """Raises BenchError with the end of the log when the process has ended."""
        if self._popen.poll() is not None:
            raise BenchError(f"{self.name} ended with {self._popen.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._popen.kill()
        self._popen.wait()


def wait_for(what: str, probe: Callable[[], T | None], seconds: float, interval: float = 0.05) -> T:
    """The first answer of `probe` that is neither None nor False. Raises BenchError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = probe()
        if answer is not None and answer is not False:
            return answer
        time.sleep(interval)
    raise BenchError(f"{what}: not within {seconds:g} s")


def run_peer(module: str, *args: object, python: str = sys.executable, seconds: float = 120) -> dict[str, Any]:
    """Runs a module to its end and returns the JSON object of its last line. Raises BenchError."""
    command = [python, "-m", module, *map(str, args)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{module}: not done within {seconds:g} s") from None
    if done.returncode:
        raise BenchError(f"{module} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
