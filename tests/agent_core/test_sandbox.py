"""The sandbox: that nothing gets out of it or takes more than it gives, and what is said where there is none.

What needs bubblewrap is skipped where it does not run; the rest needs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from venv import EnvBuilder

import pytest

from agent_core import DefinitionError, ToolContext
from agent_core.sandbox import Ran, Sandbox, SandboxUnavailableError, box, jail, seccomp
from agent_core.toolbox.python import run_python
from agent_core.tools import Registry, ToolResult
from agent_core.types import Json
from tests.agent_core.hostile import MARK, PRELUDE, SNIPPETS, Hostile
from tests.docs.markdown import ROOT, table

AT_ONCE = 4
pytestmark = pytest.mark.timeout(300)  # whichever test is the first waits for all the hostile programs
in_sandbox = pytest.mark.usefixtures("there_is_one")


@pytest.fixture(scope="module")
def there_is_one() -> None:
    if why_not := asyncio.run(Sandbox().available()):
        pytest.skip(f"no sandbox here: {why_not}")


class Host:
    """Things of the host that nothing in a sandbox may reach."""

    def __init__(self, directory: Path) -> None:
        self.mark = f"{MARK}{os.getpid()}"
        self.secret = directory / "secret.txt"
        self.secret.write_text("hunter2")
        self.files = directory / "files"
        self.files.mkdir()
        (self.files / "given.txt").write_text("given")
        (self.files / "link").symlink_to(self.secret)
        self.abstract = f"nightshift-{self.mark}"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind("\0" + self.abstract)
        self.unix.listen()
        for listener in (self.tcp, self.unix):
            listener.setblocking(False)

    def here(self, text: str) -> str:
        values = {"file": self.secret, "port": self.tcp.getsockname()[1], "socket": self.abstract}
        for name, value in {**values, "pid": os.getpid(), "mark": self.mark}.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    async def run(self, hostile: Hostile) -> Ran:
        code = self.here(PRELUDE + textwrap.dedent(hostile.code))
        return await Sandbox(**{"seconds": 30, **hostile.limits}).run(code, self.files)

    def alive(self) -> list[int]:
        """The processes of programs that were run."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                found += [int(path.parent.name)] if path.read_text().strip() == self.mark else []
            except OSError:
                continue
        return found

    def untouched(self) -> bool:
        for listener in (self.tcp, self.unix):
            with pytest.raises(BlockingIOError):
                listener.accept()
        return self.secret.read_text() == "hunter2" and sorted(os.listdir(self.files)) == ["given.txt", "link"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.tcp.close()
    made.unix.close()


# ---- hostile programs


@pytest.fixture(scope="module")
def observed(there_is_one: None, host: Host) -> Mapping[str, Ran]:
    """What became of every hostile program, some of them at once."""

    async def run() -> list[Ran]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(hostile: Hostile) -> Ran:
            async with room:
                return await host.run(hostile)

        return await asyncio.gather(*map(one, SNIPPETS))

    found = dict(zip((hostile.name for hostile in SNIPPETS), asyncio.run(run()), strict=True))
    assert host.alive() == []
    return found


@in_sandbox
@pytest.mark.parametrize("hostile", SNIPPETS, ids=lambda hostile: hostile.name)
def test_it_is_contained(hostile: Hostile, observed: Mapping[str, Ran], host: Host) -> None:
    ran = observed[hostile.name]
    assert ran.stdout.strip() == host.here(hostile.said), ran.stderr
    assert (ran.exit, ran.stopped) == (hostile.exit, hostile.stopped), ran.stderr
    assert tuple(ran.artifacts) == hostile.kept
    assert len(ran.left_out) == len(hostile.left_out)
    for told, begins in zip(ran.left_out, hostile.left_out, strict=True):
        assert told.startswith(begins)


@in_sandbox
def test_nothing_of_the_host_was_reached(observed: Mapping[str, Ran], host: Host) -> None:
    assert len(observed) == len(SNIPPETS) >= 30
    assert host.untouched()
    assert all("hunter2" not in ran.stdout + ran.stderr for ran in observed.values())


def test_the_documentation_lists_each_of_them() -> None:
    rows = table(ROOT / "docs/security.md", "program", "what it tries", "what holds it")
    assert [tuple(row) for row in rows] == [(hostile.name, hostile.tries, hostile.held_by) for hostile in SNIPPETS]


# ---- honest programs


@in_sandbox
async def test_it_computes_reads_and_leaves_files(host: Host) -> None:
    code = """
        import json, multiprocessing, pathlib, sqlite3, sys, tempfile, threading, zoneinfo
        assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
        assert zoneinfo.ZoneInfo("Europe/Berlin").key
        with multiprocessing.Pool(2) as pool:
            print(sum(pool.map(abs, range(-3, 3))))
        print("ü", pathlib.Path("/input/given.txt").read_text())
        print("to stderr", file=sys.stderr)
        pathlib.Path("report.json").write_text(json.dumps({"a": 1}))
        tempfile.TemporaryFile().write(b"scratch")
        raise SystemExit(3)
    """
    ran = await Sandbox().run(textwrap.dedent(code), host.files)
    assert ran == Ran("9\nü given\n", "to stderr\n", 3, "", {"report.json": b'{"a": 1}'}, ())


@in_sandbox
async def test_one_run_leaves_nothing_to_the_next() -> None:
    await Sandbox().run("open('/tmp/x', 'w'); open('/work/y', 'w')")
    ran = await Sandbox().run("import os; print(os.listdir('/tmp'), os.listdir('/work'), os.path.exists('/input'))")
    assert ran.stdout == "[] [] False\n"


@in_sandbox
async def test_a_virtual_environment_brings_its_packages(tmp_path: Path) -> None:
    venv = tmp_path / "science"
    await asyncio.to_thread(EnvBuilder().create, venv)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "given_package.py").write_text("answer = 42")
    code = "import given_package; print(given_package.answer)"
    assert (await Sandbox(python=str(venv / "bin/python")).run(code)).stdout == "42\n"
    assert "ModuleNotFoundError" in (await Sandbox().run(code)).stderr


@in_sandbox
async def test_packages_of_the_worker_are_not_there() -> None:
    ran = await Sandbox().run("import anthropic")
    assert "ModuleNotFoundError" in ran.stderr


@in_sandbox
@pytest.mark.parametrize("code", ["print('\ud800')", "\0", "x" * 1_000_000])
async def test_any_text_may_be_run(code: str) -> None:
    assert (await Sandbox().run(code)).stopped == ""


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(50):
        while not condition():  # noqa: ASYNC110 - it is another process that makes it true
            await asyncio.sleep(0.1)


WORKER = """
import asyncio, sys
from agent_core.sandbox import Sandbox
asyncio.run(Sandbox(seconds=300).run(sys.argv[1]))
"""
SLEEPER = PRELUDE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\ntime.sleep(600)"


@in_sandbox
async def test_a_cancelled_run_has_ended_when_it_returns(host: Host) -> None:
    task = asyncio.create_task(Sandbox(seconds=300).run(host.here(SLEEPER)))
    await until(lambda: len(host.alive()) == 2)
    assert {os.stat(f"/proc/{pid}").st_uid for pid in host.alive()} == {os.getuid() or jail.NOBODY}  # out here, too
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.alive() == []


@in_sandbox
async def test_it_ends_at_whatever_moment_it_is_cancelled(host: Host) -> None:
    """Also between the steps of bubblewrap's own start, of which one leaves a process that nobody waits for."""

    async def cancelled_after(milliseconds: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await Sandbox(seconds=300).run(host.here(SLEEPER))

    for milliseconds in range(10, 250, 20):
        await asyncio.gather(*(cancelled_after(milliseconds + extra) for extra in (0, 5, 10, 15)))
    assert host.alive() == []


@in_sandbox
async def test_it_ends_with_a_worker_that_is_killed(host: Host) -> None:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, host.here(SLEEPER), cwd=ROOT)
    await until(lambda: len(host.alive()) == 2)
    worker.kill()
    await worker.wait()
    await until(lambda: not host.alive())


# ---- the tool


class Shelf:
    """An artifact store."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def save(self, job_id: str, name: str, data: bytes) -> Json:
        self.kept[name] = data
        return {"name": name}

    async def load(self, job_id: str, name: str) -> bytes:
        return self.kept[name]


async def call(code: str, directory: Path, shelf: Shelf | None = None, **limits: Any) -> ToolResult:
    made = run_python(Sandbox(**limits))
    return await Registry([made]).call(made.name, {"code": code}, ToolContext("job_1", "toolu_1", directory, shelf))


@in_sandbox
async def test_the_tool_tells_the_model_what_happened(host: Host) -> None:
    shelf = Shelf()
    code = "import os; print('seen', os.listdir('/input')[:0]); open('a.txt', 'w').write('x'); os.mkdir('d'); 1 / 0"
    found = await call(code, host.files, shelf)
    assert not found.is_error
    assert re.fullmatch(
        r"ended, exit status 1\n--- stdout\nseen \[\]\n--- stderr\nTraceback .*ZeroDivisionError: division by zero\n"
        r"--- artifacts\na\.txt \(1 bytes\)\n--- not kept\nd: it is no regular file",
        found.content,
        re.DOTALL,
    )
    assert shelf.kept == {"a.txt": b"x"}


@in_sandbox
async def test_the_tool_says_which_limit_ended_it(tmp_path: Path) -> None:
    found = await call("while True: pass", tmp_path, seconds=0.5)
    assert found.content == "stopped: it ran for longer than 0.5 seconds, exit status 137"
    found = await call("open('a', 'w')", tmp_path)
    assert found.content == "ended, exit status 0\n--- not kept\na: this run has no place to keep artifacts"


def test_the_tool_may_be_run_again() -> None:
    made = run_python(Sandbox(seconds=5))
    assert (made.name, made.effect) == ("run_python", "read")
    assert made.timeout > 5


# ---- where there is none


async def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(box, "PLACES", str(tmp_path))
    assert "install it" in (await Sandbox().available() or "")
    with pytest.raises(SandboxUnavailableError, match="there is no bubblewrap here"):
        await Sandbox().run("raise SystemExit(0)")
    found = await call(f"open({str(tmp_path / 'ran')!r}, 'w')", tmp_path)
    assert (found.is_error, found.outcome) == (True, "sandbox_unavailable")
    assert "there is no bubblewrap here" in found.content
    assert os.listdir(tmp_path) == []


async def test_a_bubblewrap_that_cannot_build_it_is_no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces for you >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(box, "PLACES", str(tmp_path))
    with pytest.raises(SandboxUnavailableError, match=r"the sandbox could not be built: .*; it needs Linux"):
        await Sandbox().run("")


async def test_a_python_that_is_none_is_named() -> None:
    with pytest.raises(SandboxUnavailableError, match=r"there is no bubblewrap|Python '/nowhere/python' cannot be run"):
        await Sandbox(python="/nowhere/python").run("")


async def test_another_machine_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "needs Linux on x86_64 or aarch64" in (await Sandbox().available() or "")


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"memory_mb": -1}, {"processes": True}, {"disk_mb": float("nan")}])
def test_a_wrong_limit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Sandbox: {next(iter(wrong))} is .*; expected a number above 0"):
        Sandbox(**wrong)


# ---- parts that need no sandbox


def answer(machine: str, number: int, *arguments: int) -> int:
    """What the filter says of a system call: the program, run as the kernel would."""
    arch = seccomp.ARCHITECTURES[machine][0]
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", seccomp.program(machine)))
    at = loaded = 0
    while True:
        operation, yes, no, value = program[at]
        at += 1
        match operation:
            case seccomp.LOAD:
                (loaded,) = struct.unpack_from("<I", data, value)
            case seccomp.EQUAL:
                at += yes if loaded == value else no
            case seccomp.ABOVE:
                at += yes if loaded > value else no
            case seccomp.ANY_BIT:
                at += yes if loaded & value else no
            case seccomp.RETURN:
                return int(value)


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_refuses_these_and_no_others(machine: str) -> None:
    column = seccomp.ARCHITECTURES[machine][1]
    special = (seccomp.CLONE, seccomp.CLONE3, seccomp.SOCKET, seccomp.PRLIMIT)
    listed = {numbers[column] for numbers in seccomp.CALLS.values()}
    refused = {number for number in range(seccomp.NEWEST + 1) if answer(machine, number) != seccomp.ALLOW}
    assert refused == (listed - {None}) | {seccomp.CLONE3[column], seccomp.SOCKET[column]}
    assert all(answer(machine, number) == seccomp.ERRNO | errno.ENOSYS for number in (451, 999, 0x40000000 + 39))
    clone, clone3, opened, limit = (numbers[column] for numbers in special)
    assert answer(machine, clone3) == seccomp.ERRNO | errno.ENOSYS
    assert answer(machine, clone, 0x01200011) == seccomp.ALLOW
    assert {answer(machine, clone, flag) for flag in (0x20000, 0x10000000, 0x40000000)} == {seccomp.ERRNO | errno.EPERM}
    assert [family for family in range(64) if answer(machine, opened, family) == seccomp.ALLOW] == [1, 2, 10]
    assert answer(machine, limit, 0, 4, 0, 1 << 40) == seccomp.ALLOW
    assert {answer(machine, limit, 0, 4, new) for new in (1, 1 << 40)} == {seccomp.ERRNO | errno.EPERM}
    assert answer(machine, seccomp.IOCTL[column], 1, 0x5413) == seccomp.ALLOW
    assert answer(machine, seccomp.IOCTL[column], 1, 0x5412) == seccomp.ERRNO | errno.EPERM


def test_calls_of_another_architecture_are_fatal() -> None:
    program = list(struct.iter_unpack("<HBBI", seccomp.program("x86_64")))
    assert program[:3] == [(0x20, 0, 0, 4), (0x15, 1, 0, 0xC000003E), (0x06, 0, 0, seccomp.KILL)]


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"there is no {header} here")
    text = Path(header).read_text(encoding="utf-8")
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)}
    column = seccomp.ARCHITECTURES[machine][1]
    special = {"clone": seccomp.CLONE, "clone3": seccomp.CLONE3, "socket": seccomp.SOCKET, "ioctl": seccomp.IOCTL}
    for name, known in {**seccomp.CALLS, **special, "prlimit64": seccomp.PRLIMIT}.items():
        assert known[column] == numbers.get(name, known[column]), name


FILTERED = """
import ctypes, errno, socket, sys
rules = bytes.fromhex(sys.argv[1])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(rules) // 8, rules)), 0, 0) == 0
for number in map(int, sys.argv[2:]):
    print(libc.syscall(number, 0, 0, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
try:
    socket.socket(16, 3)
except OSError as exc:
    print(errno.errorcode[exc.errno])
"""


@pytest.mark.skipif(platform.machine() not in seccomp.ARCHITECTURES, reason="the filter is not made for this machine")
def test_the_kernel_takes_the_filter() -> None:
    column = seccomp.ARCHITECTURES[platform.machine()][1]
    numbers = [str(seccomp.CALLS[name][column]) for name in ("ptrace", "bpf", "unshare", "memfd_create")]
    command = [sys.executable, "-c", FILTERED, seccomp.program(platform.machine()).hex(), *numbers, "451"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "-1 EPERM\n" * 4 + "-1 ENOSYS\nEAFNOSUPPORT\n"


def test_output_keeps_its_beginning_and_its_end() -> None:
    kept = jail.Kept(10)
    for piece in (b"abc", b"defgh", b"", b"i" * 100, b"vwxyz"):
        kept.add(piece)
    assert kept.text().decode() == "abcde\n[… 103 bytes left out …]\nvwxyz"
    whole = jail.Kept(10)
    whole.add(b"abcdefghij")
    assert whole.text() == b"abcdefghij"


def test_files_are_brought_out_only_when_they_are_files(tmp_path: Path) -> None:
    secret, work = tmp_path / "secret", tmp_path / "work"
    secret.write_text("hunter2")
    work.mkdir()
    (work / "a.txt").write_text("a" * 10)
    (work / "b.txt").write_text("b" * 10)
    (work / "c.txt").write_text("")
    (work / "d.txt").write_text("")
    (work / "link").symlink_to(secret)
    os.mkfifo(work / "fifo")
    (work / "new\nline").touch()
    kept, left_out = jail.collect(work, 2, 15)
    assert kept == {"a.txt": b"a" * 10, "c.txt": b""}
    assert left_out == [
        "b.txt: its 10 bytes are more than are kept",
        "d.txt: only 2 files are kept",
        "fifo: only 2 files are kept",
        "link: only 2 files are kept",
        r"new\nline: its name is not plain text",
    ]
    kept, left_out = jail.collect(work, 9, 100)
    assert "link: it is a symbolic link" in left_out
    assert "fifo: it is no regular file" in left_out
    assert b"hunter2" not in kept.values()


def test_memory_is_counted_with_all_below_a_process() -> None:
    code = "import os, sys; held = bytearray(30 << 20); os.fork(); os.write(1, b'1'); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"11"
        alone, together = jail._resident(process.pid), jail._held(process.pid, 1 << 40)
        shared = jail._held(process.pid, 0)
        process.communicate()
    assert alone > 30 << 20
    assert together > 60 << 20
    assert shared < together - (20 << 20)
