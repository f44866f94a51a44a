"""One child process: started on a leash, started again when it dies, ended in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path

from cli import leash
from cli.errors import CliError, UnreachableError

STEADY_SECONDS = 10.0
"""A process that lived this long had started well."""
QUICK_DEATHS = 4
"""A process that dies this often in a row before it is steady is given up."""
WRONG_USAGE = 2
"""The exit status of a process whose settings are wrong: starting it again would not help."""
LARGEST_LOG = 10_000_000
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. After SIGTERM it gets `grace` seconds; `orphan_signal` is what it gets when we are killed."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    grace: float = 10.0
    orphan_signal: signal.Signals = signal.SIGKILL


class ChildError(CliError):
    """A process of the platform keeps dying; the message has the last lines of its log."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Child:
    """A program that is kept running until `stop`. `log` gets what it prints; `echo` copies that to our stderr."""

    def __init__(self, program: Program, log: Path, *, echo: bool = False, hurry: asyncio.Event | None = None) -> None:
        self.program = program
        self.log = log
        self.pid: int | None = None
        self._echo = echo
        self._stop = asyncio.Event()
        self._hurry = hurry or asyncio.Event()
        self._log_start = 0
        self.running = asyncio.create_task(self._keep_running(), name=program.name)
        """Ends after `stop`, or raises ChildError."""

    async def stop(self) -> None:
        """SIGTERM, its grace (or until `hurry` is set), SIGKILL; returns when the process is gone."""
        self._stop.set()
        await asyncio.wait({self.running})

    async def _keep_running(self) -> None:
        stop = asyncio.create_task(self._stop.wait())
        quick = 0
        try:
            while True:
                begun = time.monotonic()
                process = await self._spawn()
                exited = asyncio.create_task(self._watch(process))
                await asyncio.wait({exited, stop}, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    await self._end(process, exited)
                    return
                quick = quick + 1 if time.monotonic() - begun < STEADY_SECONDS else 1
                self._judge(exited.result(), quick)
                await asyncio.wait({stop}, timeout=min(0.2 * 2**quick, 10.0))
                if stop.done():
                    return
        finally:
            stop.cancel()
            self.pid = None

    def _judge(self, status: int, quick: int) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if status == WRONG_USAGE or quick >= QUICK_DEATHS:
            message = f"{self.program.name} {how} and cannot be kept running\n{self._last_lines()}"
            raise ChildError(message, WRONG_USAGE if status == WRONG_USAGE else UnreachableError.exit_code)
        print(f"{self.program.name} {how}; starting it again (its log: {self.log})", file=sys.stderr)

    async def _end(self, process: asyncio.subprocess.Process, exited: asyncio.Task[int]) -> None:
        if not exited.done():
            process.send_signal(signal.SIGTERM)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({exited, hurry}, timeout=self.program.grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not exited.done():
            process.send_signal(signal.SIGKILL)
        await exited

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = self.program
        parent = (str(int(program.orphan_signal)), str(os.getpid()))
        with self._open_log() as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, *parent, *program.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._echo else log,
                stderr=asyncio.subprocess.STDOUT,
                env=program.environment,
                start_new_session=True,  # a Ctrl-C on the terminal is ours alone: we end the children in order
            )
        self.pid = process.pid
        return process

    def _open_log(self) -> BufferedWriter:
        if self.log.is_file() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        file = self.log.open("ab")
        self._log_start = file.tell()
        return file

    async def _watch(self, process: asyncio.subprocess.Process) -> int:
        if process.stdout is not None:
            with self.log.open("ab") as log:
                while chunk := await process.stdout.readline():
                    log.write(chunk)
                    log.flush()
                    sys.stderr.write(f"{self.program.name:>10} | {chunk.decode(errors='replace')}")
        return await process.wait()

    def _last_lines(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or f"  it printed nothing; see {self.log}"
