"""The process between a worker and code that a model wrote: it builds the sandbox, watches it, brings out its files.

It is started as a program of its own, with an empty environment, reads one line of JSON (an `Order`) and answers with
one (an `Answer`) and the contents that it announces. It does what cannot wait for a worker's busy event loop: it
reads output as it comes, stops what takes too long or too much, and ends with everything it started when its standard
input closes. Standard library alone, for it starts hundreds of times a minute and must run without the platform.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import json
import math
import os
import resource
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

NOBODY = 65534
STAGE = Path("/sys")
"""Where the sandbox's parts are put together, in a mount namespace of our own: a directory that every Linux has, and
of which nothing is shown inside."""
TICK_SECONDS = 0.05
BLOCK = 1 << 16
FILES_OPEN = 128
INODES = 4_096
LEFT_OUT_TOLD = 20
DEVICES = ("null", "zero", "full", "random", "urandom")
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
Stopped = Literal["", "time", "memory"]


@dataclass(frozen=True)
class Order:
    """What to run and within which limits. `shown` maps paths inside to what stands there, read-only, of the host."""

    bwrap: str
    command: list[str]
    code: str
    shown: dict[str, str]
    links: dict[str, str]
    filter: str
    seconds: float
    memory: int
    processes: int
    disk: int
    output: int
    most_artifacts: int
    artifact_bytes: int


@dataclass
class Answer:
    """What became of it. The contents of stdout, stderr and the artifacts follow, in this order and of these sizes.

    `exit` is None where the sandbox could not be built; `fault` says why. `stopped` is "", "time" or "memory".
    """

    exit: int | None = None
    stopped: Stopped = ""
    fault: str = ""
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Kept:
    """The beginning and the end of a stream: what comes between them is dropped as it is read."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head, self._tail, self._dropped = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(0, room) :]
        if (excess := len(self._tail) - self._half) > 0:
            del self._tail[:excess]
            self._dropped += excess

    def text(self) -> bytes:
        gap = f"\n[… {self._dropped:,} bytes left out …]\n" if self._dropped else ""
        return bytes(self._head) + gap.encode() + bytes(self._tail)


# ---- building


def _call(function: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _mount(source: str, target: Path | str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, str(target), kind, data)]
    _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def stage(order: Order) -> list[str]:
    """Puts the parts together in a mount namespace of our own; returns bubblewrap's options that show them inside.

    A worker that is root first stops being it: root inside a sandbox is still the host's root to /proc/sys, and no
    limit on processes holds for it.
    """
    uid, gid = os.getuid(), os.getgid()
    as_root = uid == 0
    _call("unshare", CLONE_NEWNS if as_root else CLONE_NEWNS | CLONE_NEWUSER)
    if as_root:
        uid = gid = NOBODY
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    caps = f"size={order.disk},nr_inodes={INODES + len(order.shown)},mode=0700,uid={uid},gid={gid}"
    _mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, caps)
    options: list[str] = []
    for number, (inside, source) in enumerate(order.shown.items()):
        place = STAGE / str(number)
        (place.mkdir if os.path.isdir(source) else place.touch)()
        _mount(source, place, None, MS_BIND | MS_REC)
        options += ["--ro-bind", str(place), inside]
    if as_root:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    for name in ("work", "tmp"):
        (STAGE / name).mkdir(mode=0o700)
    (STAGE / "main.py").write_text(order.code, encoding="utf-8")
    own = ["--bind", f"{STAGE}/work", "/work", "--bind", f"{STAGE}/tmp", "/tmp"]
    return [*own, *options, "--ro-bind", f"{STAGE}/main.py", "/code/main.py"]  # what is shown may stand below /tmp


def _options(order: Order, shown: list[str]) -> list[str]:
    """bubblewrap's command line, up to the command."""
    devices = [part for name in DEVICES for part in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    # bubblewrap's own /dev has a tmpfs without a limit, and terminals
    links = {**order.links, "/dev/fd": "/proc/self/fd", "/dev/shm": "/tmp"}
    return [
        *(order.bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"),
        *("--new-session", "--die-with-parent"),
        *("--proc", "/proc", "--tmpfs", "/dev", *devices, *shown),
        *(part for link, target in links.items() for part in ("--symlink", target, link)),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8", "--chdir", "/work"),
    ]


# ---- watching


def _held(first: int, limit: int) -> int:
    """What all processes of the sandbox hold of memory, in bytes; shared pages count once, when it comes to that."""
    found = _processes(first)
    resident = sum(_resident(pid) for pid in found)
    return resident if resident <= limit else sum(_proportional(pid) for pid in found)


def _processes(first: int) -> list[int]:
    """This process and all below it. A sandbox's own first process adopts whatever loses its parent."""
    found = [first]
    for pid in found:
        found += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        tasks = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        return [int(child) for children in tasks for child in children.split()]
    return []


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)


def _die_with_parent() -> None:
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # bubblewrap asks for it too, but not at once


class Run:
    """The sandboxed process, from its start to the end of everything that it started."""

    def __init__(self, order: Order, options: list[str]) -> None:
        self._order = order
        self.out, self.err = Kept(order.output), Kept(order.output)
        self.stopped: Stopped = ""
        self.exit: int | None = None
        self._inside: int | None = None
        """The sandbox's first process, by its number out here."""
        self._said = b""
        self._deadline = time.monotonic() + order.seconds
        self._status, status = os.pipe()
        block, self._unblock = os.pipe()
        rules = os.memfd_create("filter")
        os.write(rules, base64.b64decode(order.filter))
        os.lseek(rules, 0, os.SEEK_SET)
        given = {"--json-status-fd": status, "--block-fd": block, "--seccomp": rules}
        self._process = subprocess.Popen(
            [*options, *(part for name, fd in given.items() for part in (name, str(fd))), "--", *order.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=list(given.values()),
            env={},
            cwd="/",
            preexec_fn=_die_with_parent,
        )
        for fd in given.values():
            os.close(fd)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._sinks: dict[int, Callable[[bytes], object]] = {
            self._process.stdout.fileno(): self.out.add,
            self._process.stderr.fileno(): self.err.add,
            self._status: self._heed,
        }

    def supervise(self, leash: int) -> None:
        """Runs it to its end or to a limit's; nothing of it lives afterwards. Raises ConnectionError when there is
        something on `leash`: whoever held its other end has let go.
        """
        exited = os.pidfd_open(self._process.pid)
        with selectors.DefaultSelector() as selector:
            for fd in (*self._sinks, exited, leash):
                selector.register(fd, selectors.EVENT_READ)
            try:
                self._until(exited, leash, selector)
            finally:
                self._end()

    def _until(self, exited: int, leash: int, selector: selectors.BaseSelector) -> None:
        look = 0.0
        while not self.stopped:
            ready = {key.fd for key, _ in selector.select(TICK_SECONDS)}
            for fd in ready & set(self._sinks):
                if not self._read(fd):
                    selector.unregister(fd)
            if leash in ready:
                raise ConnectionError("nobody waits for this run any more")
            if exited in ready:
                return
            if (now := time.monotonic()) >= look:  # and not with each piece of output
                look = now + TICK_SECONDS
                self.stopped = self._limit_passed(now)

    def _limit_passed(self, now: float) -> Stopped:
        if now > self._deadline:
            return "time"
        held = 0 if self._inside is None else _held(self._inside, self._order.memory)
        return "memory" if held > self._order.memory else ""

    def _read(self, fd: int) -> bool:
        data = os.read(fd, BLOCK)
        self._sinks[fd](data)
        return bool(data)

    def _heed(self, told: bytes) -> None:
        """Takes in what bubblewrap says, an object a line. Limits the first process when it is there, and frees it."""
        *lines, self._said = (self._said + told).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.exit = said.get("exit-code", self.exit)
            if "child-pid" in said:
                self._inside = int(said["child-pid"])
                self._limit(self._inside)
                self._deadline = time.monotonic() + self._order.seconds
                os.write(self._unblock, b"1")

    def _limit(self, pid: int) -> None:
        # From out here, once bubblewrap has made its user namespace: a limit on processes that is there before is
        # counted over all sandboxes of this user together.
        order = self._order
        for kind, most in (
            (resource.RLIMIT_AS, order.memory),
            (resource.RLIMIT_NPROC, order.processes),
            (resource.RLIMIT_FSIZE, order.disk),
            (resource.RLIMIT_CPU, math.ceil(order.seconds) + 1),
            (resource.RLIMIT_NOFILE, FILES_OPEN),
            (resource.RLIMIT_CORE, 1),  # 0 would still start a core_pattern that is a program of the host
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        ):
            resource.prlimit(pid, kind, (most, most))

    def _end(self) -> None:
        """Kills all of it. Whatever loses bubblewrap as its parent comes to us, its subreaper: the sandbox's first
        process, or one that was about to be that. With it end all processes of its PID namespace, before it is reaped.
        """
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in _children(os.getpid()):
                    os.kill(pid, signal.SIGKILL)
                os.wait()
        for fd in self._sinks:  # with no writer left, each has an end
            while self._read(fd):
                pass


# ---- bringing out


def collect(directory: Path, most: int, room: int) -> tuple[dict[str, bytes], list[str]]:
    """The regular files of a directory whose processes are all dead, by name, and what was left out and why."""
    kept: dict[str, bytes] = {}
    left_out: list[str] = []
    directory.chmod(0o700)
    for name in sorted(os.listdir(directory)):
        if not name.isprintable() or "\\" in name:
            reason = "its name is not plain text"
        elif len(kept) == most:
            reason = f"only {most} files are kept"
        else:
            data = _content(directory / name, room)
            if isinstance(data, bytes):
                kept[name] = data
                room -= len(data)
                continue
            reason = data
        left_out.append(f"{ascii(name)[1:-1][:80]}: {reason}")
    return kept, left_out


def _content(path: Path, room: int) -> bytes | str:
    """A regular file's content, or why there is none: what else stands there is not opened, or has no effect."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        return "it is a symbolic link" if exc.errno == errno.ELOOP else f"it cannot be opened: {exc.strerror}"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return "it is no regular file"
        if found.st_size > room:
            return f"its {found.st_size:,} bytes are more than are kept"
        with open(fd, "rb", closefd=False) as file:
            return file.read(room)
    finally:
        os.close(fd)


def main() -> int:
    """Runs the order that is on standard input."""
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    answer, contents = Answer(), list[bytes]()
    try:
        _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.nice(5)
        Path("/proc/self/oom_score_adj").write_text("1000")
        run = Run(order, _options(order, stage(order)))
        run.supervise(sys.stdin.fileno())
        answer.exit, answer.stopped = run.exit, run.stopped
        if run.exit is None and not run.stopped:
            answer.fault = run.err.text().decode("utf-8", "replace").strip() or "bubblewrap ended without a word"
        files, left_out = collect(STAGE / "work", order.most_artifacts, order.artifact_bytes)
        answer.names, answer.left_out = list(files), left_out[:LEFT_OUT_TOLD]
        contents = [run.out.text(), run.err.text(), *files.values()]
    except OSError as exc:
        answer.fault = str(exc)
    answer.sizes = [len(content) for content in contents]
    out = sys.stdout.buffer
    out.write(json.dumps(asdict(answer)).encode() + b"\n")
    for content in contents:
        out.write(content)
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
