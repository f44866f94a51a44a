"""`nightshift` for tests: commands in this process, and platforms as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
OWN = ("NIGHTSHIFT_", "ANTHROPIC_")
LAST_LINE_OF_BANNER = "Ctrl-C stops it."
PATIENCE = 60.0


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without any setting of the platform, and then with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def script(*turns: dict[str, Any]) -> str:
    """The input of a job that makes the simulated model say these turns."""
    return f"#sim {json.dumps({'turns': turns})}"


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def nightshift(*words: str | Path, cwd: Path, **changes: str) -> Result:
    """Runs a command as a process of its own."""
    command = [sys.executable, "-m", "cli", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=120, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


class Up:
    """A `nightshift up` on a free port; `stderr` is a file beside its data directory."""

    def __init__(self, data_dir: Path, *options: str, **changes: str) -> None:
        self.data_dir = data_dir
        self.stderr = data_dir.with_suffix(".stderr")
        command = [sys.executable, "-m", "cli", "up", "--data-dir", str(data_dir), "--port", "0", *options]
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(**changes),
                cwd=data_dir.parent,
            )

    def wait_until_up(self) -> str:
        """The banner, once it is there."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].strip() != LAST_LINE_OF_BANNER:
            line = self.process.stdout.readline()
            assert line, f"`up` ended: {self.stderr.read_text()}"
            lines.append(line)
        return "".join(lines)

    @property
    def url(self) -> str:
        return (self.data_dir / "api.url").read_text().strip()

    @property
    def key(self) -> str:
        return (self.data_dir / "admin.key").read_text().strip()

    def children(self) -> dict[str, psutil.Process]:
        """The processes that it runs, by what they are."""
        return {self._role(child): child for child in psutil.Process(self.process.pid).children(recursive=True)}

    def _role(self, child: psutil.Process) -> str:
        words = child.cmdline()
        if "redis-server" in words[0]:
            return "redis"
        return "memory" if "memory.embedded" in words else words[words.index("cli") + 1]

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Ends it, if it runs, and its children with it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that have not ended after a time in which they must."""
    return list(psutil.wait_procs(processes, timeout=PATIENCE)[1])
