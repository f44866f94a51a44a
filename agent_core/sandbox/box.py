"""The sandbox as a worker uses it: what it allows, whether it is there, and one run of some code in it."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from agent_core.errors import DefinitionError
from agent_core.sandbox import jail, seccomp

INPUT = "/input"
"""Where a job's files stand inside."""
PLACES = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"
"""Where bubblewrap is looked for: not on PATH, on which something else may stand before it."""
SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives",
          "/usr/share/zoneinfo")  # fmt: skip
"""What a Python needs of the system: libraries, and no programs."""
MIB = 1 << 20
MOST_ARTIFACTS = 20
ARTIFACT_BYTES = 16 * MIB
GRACE_SECONDS = 20.0
"""What a run may take beyond its code's own time, on a machine that is busy."""
HOW_TO = "it needs Linux 5.14 or newer, where this user may make user namespaces and mount /proc in them"
ABOUT = """\
import json, os, sys
home = getattr(sys, "_base_executable", sys.executable)
print(json.dumps([[sys.executable, sys.prefix], [os.path.realpath(home), sys.base_prefix]]))
"""


class SandboxUnavailableError(Exception):
    """There is no sandbox on this machine; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of some code. `exit` is 128 and the signal's number for code that a signal ended.

    `stopped` says which limit ended it; `left_out` names the files that were not brought out, each with the reason.
    """

    stdout: str
    stderr: str
    exit: int
    stopped: Literal["", "time", "memory"] = ""
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def timed_out(self) -> bool:
        return self.stopped == "time"


@dataclass(frozen=True)
class Sandbox:
    """What code in the sandbox may use.

    `memory_mb` bounds the address space of each process, and, as far as a look twenty times a second sees it, what all
    of them hold. `processes` counts threads too. `disk_mb` is for the working directory and /tmp together.
    `output_chars` is for stdout and stderr, each. `python` is a path to the interpreter, which may be a virtual
    environment's; None is the one beneath this process's, without packages of the platform. Raises DefinitionError for
    a limit that is not above 0.
    """

    seconds: float = 30.0
    memory_mb: int = 512
    processes: int = 32
    disk_mb: int = 64
    output_chars: int = 20_000
    python: str | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb", "processes", "disk_mb", "output_chars"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise DefinitionError(f"Sandbox: {name} is {value!r}; expected a number above 0")

    async def available(self) -> str | None:
        """None when code can be run here, else why not and what to do. It tries: a trivial run takes 0.1 seconds."""
        try:
            await self.run("")
        except SandboxUnavailableError as exc:
            return str(exc)
        return None

    async def run(self, code: str, files: Path | None = None) -> Ran:
        """Runs Python code with nothing but these limits, its standard library and `files`, a directory, at /input.

        Raises SandboxUnavailableError, having run nothing, where there is no sandbox. A cancellation kills what runs.
        """
        order = await asyncio.to_thread(self._order, code, files)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", jail.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            answer, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
        finally:
            process.stdin.close()  # the jail kills what runs when this ends, be it with us
            await process.communicate()
        return _ran(answer, errors)

    def _order(self, code: str, files: Path | None) -> jail.Order:
        machine = platform.machine()
        if sys.platform != "linux" or machine not in seccomp.ARCHITECTURES:
            known = " or ".join(seccomp.ARCHITECTURES)
            raise SandboxUnavailableError(
                f"the sandbox needs Linux on {known}, and this is {sys.platform} on {machine}"
            )
        bwrap = shutil.which("bwrap", path=PLACES)
        if bwrap is None:
            raise SandboxUnavailableError("there is no bubblewrap here; install it (Debian: apt install bubblewrap)")
        python, shown, links = _surroundings(self.python or getattr(sys, "_base_executable", sys.executable))
        return jail.Order(
            bwrap=bwrap,
            command=[python, "-B", "-u", "/code/main.py"],
            code=code.encode("utf-8", "replace").decode(),
            shown={**shown, INPUT: str(files.absolute())} if files is not None else dict(shown),
            links=dict(links),
            filter=base64.b64encode(seccomp.program(machine)).decode(),
            seconds=self.seconds,
            memory=int(self.memory_mb * MIB),
            processes=self.processes,
            disk=int(self.disk_mb * MIB),
            output=self.output_chars,
            most_artifacts=MOST_ARTIFACTS,
            artifact_bytes=ARTIFACT_BYTES,
        )


@functools.cache
def _surroundings(python: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
    """An interpreter's own path, and what it needs of the host: paths to show, and symbolic links to make."""
    try:
        told = subprocess.run(
            [python, "-I", "-c", ABOUT], capture_output=True, check=True, timeout=GRACE_SECONDS, env={}
        )
        installations: list[tuple[str, str]] = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise SandboxUnavailableError(f"the sandbox's Python {python!r} cannot be run: {exc}") from exc
    links = {path: os.readlink(path) for path in SYSTEM if os.path.islink(path)}
    wanted = [path for path in SYSTEM if path not in links]
    for executable, prefix in installations:
        wanted += [executable, *(os.path.join(prefix, part) for part in ("pyvenv.cfg", "lib", "lib64"))]
    shown: dict[str, str] = {}
    for path in filter(os.path.exists, wanted):
        if not any(Path(path).is_relative_to(there) for there in shown):
            shown[path] = os.path.realpath(path)
    return installations[0][0], shown, links


def _ran(answer: bytes, errors: bytes) -> Ran:
    head, _, rest = answer.partition(b"\n")
    if not head:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise SandboxUnavailableError(f"the sandbox could not be built: {last or 'its process was killed'}")
    told = jail.Answer(**json.loads(head))
    if told.fault:
        raise SandboxUnavailableError(f"the sandbox could not be built: {told.fault}; {HOW_TO}")
    contents = io.BytesIO(rest)
    stdout, stderr, *artifacts = (contents.read(size) for size in told.sizes)
    return Ran(
        stdout.decode("utf-8", "replace"),
        stderr.decode("utf-8", "replace"),
        told.exit if told.exit is not None else 128 + signal.SIGKILL,
        told.stopped,
        dict(zip(told.names, artifacts, strict=True)),
        tuple(told.left_out),
    )
