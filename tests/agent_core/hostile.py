"""Programs that try to get out of the sandbox, or to take more than it gives: what each does, and what must be seen.

docs/security.md lists every one of them; `test_sandbox` holds it to that, and runs them.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_core.sandbox import seccomp

MARK = "hostile"
"""The name of each process of each program, as the host's /proc/*/comm has it; {pid} is the test's own."""

PRELUDE = f"""
import ctypes, errno, fcntl, os, resource, signal, socket, stat, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, b"{{mark}}", 0, 0, 0)  # PR_SET_NAME
NUMBERS = { {**seccomp.CALLS, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3} }
COLUMN = {seccomp.ARCHITECTURES.get(platform.machine(), (0, 0))[1]}

def call(name, *arguments):
    "The error of a system call, or what it returned."
    number = NUMBERS[name][COLUMN] if isinstance(name, str) else name
    found = libc.syscall(number, *(a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments))
    return errno.errorcode[ctypes.get_errno()] if found == -1 else found

def tried(function, *arguments):
    "The error of a function, or that it did what it was called for."
    try:
        function(*arguments)
    except OSError as exc:
        return errno.errorcode.get(exc.errno, type(exc).__name__)
    except ValueError:  # so does Python call EPERM when a limit is set
        return "EPERM"
    return "done"

def write(path, text="x"):
    with open(path, "w") as file:
        file.write(text)

"""


@dataclass(frozen=True)
class Hostile:
    """`tries` and `held_by` are what the documentation says; the rest is what must be seen.

    `said` is all of stdout; `kept` names the artifacts, `left_out` has the beginnings of what is told of others.
    In `code` and `said`, {file}, {port}, {socket} and {pid} are things of the host that nothing may reach.
    """

    name: str
    tries: str
    held_by: str
    code: str
    said: str = ""
    exit: int = 0
    stopped: str = ""
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)


def refused(name: str, tries: str, *calls: str, error: str = "EPERM") -> Hostile:
    """A program that makes system calls, each of which must end with the error."""
    code = "".join(f"print(call({made}))\n" for made in calls)
    return Hostile(name, tries, "the seccomp filter", code, "\n".join([error] * len(calls)))


SNIPPETS = (
    # ---- processes and time
    Hostile(
        "fork bomb",
        "forks until nothing else on the machine can",
        "the limit on processes, counted in the sandbox's own user namespace",
        """
        made = 0
        try:
            while made < 500:
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except BlockingIOError:
            pass
        print(made <= 16)
        """,
        "True",
        limits={"processes": 16},
    ),
    Hostile(
        "thread bomb",
        "starts threads without end",
        "the limit on processes, which counts threads",
        """
        made = 0
        try:
            while made < 500:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                made += 1
        except RuntimeError:
            pass
        print(made <= 16, flush=True)
        os._exit(0)
        """,
        "True",
        limits={"processes": 16},
    ),
    Hostile(
        "daemon",
        "leaves a process behind, in a session of its own and with its output closed",
        "the PID namespace, which is ended and waited for when the program ends",
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)
        os.wait()
        print("left")
        """,
        "left",
    ),
    Hostile(
        "endless loop",
        "ignores every signal that it can, and goes on for ever",
        "the limit on time, which ends with SIGKILL",
        """
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        print("on and on", flush=True)
        while True:
            pass
        """,
        "on and on",
        exit=137,
        stopped="time",
        limits={"seconds": 3},
    ),
    Hostile(
        "stopped process",
        "stops itself, so that it uses no time of the processor",
        "the limit on time, which goes by the clock",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        exit=137,
        stopped="time",
        limits={"seconds": 3},
    ),
    Hostile(
        "kill others",
        "looks for processes of the host and kills all that it may",
        "the PID namespace: it sees its own two processes alone",
        """
        print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
        print(tried(os.kill, {pid}, signal.SIGKILL))
        print(tried(os.kill, -1, 0), tried(os.kill, 1, signal.SIGKILL))
        """,
        "[1, 2]\nESRCH\nESRCH done",
    ),
    # ---- memory
    Hostile(
        "memory",
        "takes memory until there is no more",
        "the limit on each process's address space",
        """
        held = []
        try:
            while True:
                held.append(bytearray(1 << 24))
        except MemoryError:
            taken = len(held) << 4
            held.clear()
            print(taken <= 256)
        """,
        "True",
        limits={"memory_mb": 256},
    ),
    Hostile(
        "memory of many",
        "takes it in many processes, each of which is within the limit",
        "the limit on what all of them hold",
        """
        for _ in range(8):
            if os.fork() == 0:
                held = bytearray(os.urandom(1 << 20)) * 100
                time.sleep(60)
        time.sleep(60)
        """,
        exit=137,
        stopped="memory",
        limits={"memory_mb": 256},
    ),
    refused(
        "memory of nobody",
        "takes memory that no process and no file system is charged with: memfd, System V, message queues",
        '"memfd_create", b"m", 0',
        '"shmget", 0, 1 << 30, 0o1600',
        '"msgget", 0, 0o1600',
        '"semget", 0, 100, 0o1600',
        '"mq_open", b"m", 0o102, 0o600, 0',
    ),
    Hostile(
        "locked memory",
        "locks memory, so that it cannot be swapped out",
        "the limit on locked memory: none",
        "print(tried(os.mkdir, '/tmp/x'), libc.mlockall(3), errno.errorcode[ctypes.get_errno()])",
        "done -1 EPERM",
    ),
    # ---- disk and output
    Hostile(
        "disk",
        "writes until the disk is full, in the working directory, /tmp and /dev/shm",
        "a tmpfs with a size, which the three share",
        """
        total = 0
        for place in ("/work", "/tmp", "/dev/shm"):
            try:
                for number in range(20):
                    with open(f"{place}/{number}", "wb", buffering=0) as file:
                        total += file.write(bytes(1 << 20))
            except OSError as exc:
                print(errno.errorcode[exc.errno])
        print(total <= 8 << 20)
        for number in range(20):
            tried(os.unlink, f"/work/{number}")
        """,
        "ENOSPC\nENOSPC\nENOSPC\nTrue",
        limits={"disk_mb": 8},
    ),
    Hostile(
        "inodes",
        "makes empty files without end: they take the kernel's memory and no room",
        "the tmpfs's limit on inodes",
        """
        made = 0
        try:
            while made < 100_000:
                os.close(os.open(f"/tmp/{made}", os.O_CREAT))
                made += 1
        except OSError as exc:
            print(errno.errorcode[exc.errno], made < 5_000)
        """,
        "ENOSPC True",
    ),
    Hostile(
        "one large file",
        "makes one file of a terabyte, with nothing in it",
        "the limit on a file's size",
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open("/tmp/large", "wb") as file:
            print(tried(file.truncate, 1 << 40))
        """,
        "EFBIG",
    ),
    Hostile(
        "system files",
        "writes to the system, to the interpreter and to places that have no limit",
        "everything but the two directories of the tmpfs is read-only",
        """
        for path in ("/x", "/dev/x", "/code/x", "/code/main.py", "/usr/lib/x", os.path.dirname(os.__file__) + "/os.py"):
            print(tried(write, path))
        """,
        "\n".join(["EROFS"] * 6),
    ),
    Hostile(
        "output flood",
        "prints without end",
        "output is cut as it is read",
        """
        for _ in range(64):
            os.write(1, b"x" * (1 << 20))
        os.write(2, b"the end")
        """,
        "x" * 500 + f"\n[… {(64 << 20) - 1000:,} bytes left out …]\n" + "x" * 500,
        limits={"output_chars": 1000},
    ),
    # ---- secrets and files of the host
    Hostile(
        "environment",
        "reads the environment, its own and that of every process it sees, for keys",
        "the environment is empty from the start of bubblewrap on",
        """
        print(sorted(os.environ))
        print(open("/proc/1/environ").read())
        print(len(open("/proc/self/environ").read().split("\\0")))
        """,
        "['HOME', 'LANG', 'PWD']\n\n4",
    ),
    Hostile(
        "files of the host",
        "reads a file of the host, its users' homes, its passwords and its settings",
        "a mount namespace that has libraries, the interpreter and /input",
        """
        for path in ("{file}", "/etc/passwd", "/etc/shadow", "/home", "/var", "/run", "/sys", "/proc/1/root{file}"):
            print(os.path.exists(path))
        """,
        "\n".join(["False"] * 8),
    ),
    Hostile(
        "way through /proc",
        "looks for the host behind the first process, its root, directory and open files, and in files left open",
        "that process is bubblewrap's, in the same namespaces; nothing is handed down but the output's pipes",
        """
        print(os.path.exists("/proc/1/root/etc/passwd"), tried(os.stat, "/proc/1/cwd{file}"))
        links = {os.readlink(f"/proc/1/fd/{name}").partition(":")[0] for name in os.listdir("/proc/1/fd")}
        print(links - {"/dev/null", "pipe", "anon_inode"}, len(os.listdir("/proc/self/fd")))
        """,
        "False ENOENT\nset() 4",
    ),
    Hostile(
        "input files",
        "changes, removes and links to a file of the job",
        "/input is read-only and another file system than the working directory",
        """
        print(open("/input/given.txt").read())
        print(tried(write, "/input/given.txt"), tried(os.unlink, "/input/given.txt"))
        print(tried(os.link, "/input/given.txt", "/work/given.txt"), tried(os.chmod, "/input/given.txt", 0o777))
        """,
        "given\nEROFS EROFS\nEXDEV EROFS",
    ),
    Hostile(
        "link among the input files",
        "follows a symbolic link, in the job's own files, to a file of the host",
        "a link is followed inside, where that file is not",
        'print(os.readlink("/input/link") == "{file}", os.path.exists("/input/link"))',
        "True False",
    ),
    Hostile(
        "programs",
        "runs a shell, and programs that change the user",
        "there is no program inside but the interpreter, and `no_new_privs` is set",
        """
        import subprocess
        print(os.system("true") >> 8)
        for program in ("/bin/sh", "/bin/su", "/usr/bin/sudo", "/usr/bin/mount"):
            print(tried(subprocess.run, [program]))
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
        """,
        "127\nENOENT\nENOENT\nENOENT\nENOENT\n['1']",
    ),
    Hostile(
        "own program",
        "writes a program and starts it",
        "the tmpfs is `noexec`",
        """
        write("/tmp/program", "#!" + sys.executable)
        os.chmod("/tmp/program", 0o755)
        print(tried(os.execv, "/tmp/program", ["x"]))
        """,
        "EACCES",
    ),
    # ---- rights
    Hostile(
        "root",
        "becomes another user, or root",
        "one user is mapped, nobody, without capabilities",
        """
        print(os.getuid(), tried(os.setuid, 0), tried(os.setgid, 0), tried(os.setgroups, [0]))
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")])
        """,
        "65534 EINVAL EINVAL EPERM\n" + str(["0" * 16] * 5),
    ),
    Hostile(
        "core_pattern",
        "names the program that the host is to run, as root, at the next crash",
        "the host's user is not root, even when the worker's is",
        """
        for path in ("core_pattern", "hostname", "overflowuid"):
            print(tried(write, "/proc/sys/kernel/" + path, "|/tmp/x") in ("EACCES", "EROFS"))
        """,
        "True\nTrue\nTrue",
    ),
    Hostile(
        "sysrq",
        "restarts the machine through /proc/sysrq-trigger",
        "the host's user is not root",
        'print(tried(write, "/proc/sysrq-trigger", "b") in ("EACCES", "EROFS", "ENOENT"))',
        "True",
    ),
    Hostile(
        "higher limits",
        "raises its own limits, and lowers the one that keeps core dumps away",
        "the seccomp filter, under hard limits",
        """
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
            print(tried(resource.setrlimit, kind, (0, 0)), tried(resource.prlimit, 1, kind, (1 << 40, 1 << 40)))
        """,
        "\n".join(["EPERM EPERM"] * 3),
    ),
    Hostile(
        "crash",
        "crashes, so that the host's handler of core dumps reads what it prepared",
        "a limit on core dumps that starts no handler",
        """
        print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
        ctypes.string_at(0)
        """,
        "(1, 1)",
        exit=139,
    ),
    # ---- system calls
    refused(
        "ptrace", "reads and steers other processes", '"ptrace", 16, 1, 0, 0', '"process_vm_readv", 1, 0, 0, 0, 0, 0'
    ),
    refused(
        "stolen descriptors", "takes an open file of another process", '"pidfd_getfd", 0, 0, 0', '"kcmp", 1, 2, 0, 0, 0'
    ),
    refused(
        "mount",
        "mounts, and takes mounts away",
        '"mount", b"none", b"/tmp", b"tmpfs", 0, 0',
        '"umount2", b"/input", 2',
        '"fsopen", b"tmpfs", 0',
        '"open_tree", -100, b"/", 1',
        '"mount_setattr", -100, b"/", 0, 0, 0',
    ),
    refused("new root", "leaves its root directory", '"chroot", b"/tmp"', '"pivot_root", b"/tmp", b"/tmp"'),
    refused(
        "namespaces",
        "makes user namespaces, in which it has all capabilities, and enters others",
        '"unshare", 0x10000000',
        '"clone", 0x10000011, 0, 0, 0, 0',
        '"clone", 0x40000011, 0, 0, 0, 0',
        '"setns", os.open("/proc/1/ns/net", os.O_RDONLY), 0',
    ),
    refused("clone3", "makes them by clone3, whose flags no filter sees", '"clone3", bytes(88), 88', error="ENOSYS"),
    refused("file handles", "opens files of the host by their inode", '"open_by_handle_at", 0, 0, 0'),
    refused("keyrings", "reads the kernel's keys", '"keyctl", 0, -3, 0, 0, 0', '"add_key", b"user", b"x", b"x", 1, -3'),
    refused("bpf", "loads a program into the kernel", '"bpf", 0, 0, 0'),
    refused("io_uring", "makes its system calls where no filter sees them", '"io_uring_setup", 1, bytes(120)'),
    refused("userfaultfd", "holds the kernel up in the middle of a call", '"userfaultfd", 1'),
    refused("perf", "measures the machine and its neighbours", '"perf_event_open", bytes(128), 0, -1, -1, 0'),
    refused("kernel log", "reads the kernel's log", '"syslog", 3, bytes(16), 16'),
    refused(
        "kernel modules",
        "loads a module or another kernel, or restarts",
        '"init_module", 0, 0, b""',
        '"kexec_load", 0, 0, 0, 0',
        '"reboot", 0, 0, 0, 0',
    ),
    refused("clock", "sets the clock", '"clock_settime", 0, bytes(16)', '"settimeofday", 0, 0'),
    refused(
        "calls of tomorrow",
        "makes calls that are newer than the filter, or of another ABI",
        "451, 0, 0",
        "0x40000000 + 39, 0",
        error="ENOSYS",
    ),
    # ---- devices and terminals
    Hostile(
        "devices",
        "opens disks, memory, the kernel's log and the terminal, and makes a device of its own",
        "/dev has null, zero, full, random and urandom; the tmpfs is `nodev`",
        """
        print(sorted(os.listdir("/dev")))
        print(tried(os.mknod, "/tmp/sda", stat.S_IFBLK | 0o600, os.makedev(8, 0)), tried(open, "/dev/tty"))
        """,
        "['fd', 'full', 'null', 'random', 'shm', 'urandom', 'zero']\nEPERM ENOENT",
    ),
    Hostile(
        "TIOCSTI",
        "types into the terminal of whoever started the worker",
        "the seccomp filter, and a session without a terminal",
        """
        print(tried(fcntl.ioctl, 1, 0x5412, b"x"), tried(fcntl.ioctl, 1, 0x541C, b"x"), os.isatty(1))
        """,
        "EPERM EPERM False",
    ),
    # ---- network
    Hostile(
        "localhost",
        "connects to a server of the host on 127.0.0.1, like Redis or the API",
        "a network namespace with nothing but a loopback of its own",
        'print(tried(socket.create_connection, ("127.0.0.1", {port}), 5))',
        "ECONNREFUSED",
    ),
    Hostile(
        "abstract socket",
        "connects to a unix socket of the host that stands in no directory, like a desktop's bus",
        "the network namespace, to which those names belong",
        'print(tried(socket.socket(socket.AF_UNIX).connect, "\\0{socket}"))',
        "ECONNREFUSED",
    ),
    Hostile(
        "internet",
        "reaches for an address outside, and for the metadata of a cloud",
        "the network namespace has no way out",
        """
        for address in ("192.0.2.1", "169.254.169.254"):
            print(tried(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect, (address, 80)))
        print(open("/proc/net/dev").read().count(":"))
        """,
        "ENETUNREACH\nENETUNREACH\n1",
    ),
    Hostile(
        "DNS",
        "carries data out in the names that it looks up",
        "no name is resolved",
        """
        try:
            print(socket.getaddrinfo("secret.example.com", 80))
        except socket.gaierror:
            print("nothing")
        """,
        "nothing",
    ),
    Hostile(
        "raw sockets",
        "sends packets of its own making",
        "no capability for it",
        "print(tried(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))",
        "EPERM",
    ),
    Hostile(
        "other sockets",
        "reaches the kernel by rare address families: packet, netlink, vsock, crypto",
        "the seccomp filter lets unix, IPv4 and IPv6 through",
        "print({tried(socket.socket, family, kind) for family in (16, 17, 38, 40, 31) for kind in (1, 2, 3, 5)})",
        "{'EAFNOSUPPORT'}",
    ),
    # ---- what it leaves behind
    Hostile(
        "link as artifact",
        "leaves a symbolic link to a file of the host, to be read as an artifact",
        "artifacts are opened with O_NOFOLLOW, when nothing of the sandbox runs any more",
        """
        os.symlink("{file}", "report.txt")
        os.symlink("/proc/self/environ", "other.txt")
        """,
        left_out=("other.txt: it is a symbolic link", "report.txt: it is a symbolic link"),
    ),
    Hostile(
        "special files as artifacts",
        "leaves a fifo, a socket and a directory, on which a reader waits for ever",
        "they are opened without waiting, and regular files alone are read",
        """
        os.mkfifo("fifo")
        socket.socket(socket.AF_UNIX).bind("socket")
        os.mkdir("directory")
        """,
        left_out=("directory: it is no regular file", "fifo: it is no regular file", "socket: it cannot be opened"),
    ),
    Hostile(
        "device as artifact",
        "leaves /dev/zero, which has no end",
        "a device can neither be made nor linked to",
        """
        print(tried(os.mknod, "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5)), tried(os.link, "/dev/zero", "zero"))
        """,
        "EPERM EXDEV",
    ),
    Hostile(
        "huge artifact",
        "leaves files that are large together, most of them with nothing in them",
        "a cap on the bytes of all artifacts",
        """
        for number in range(3):
            with open(f"{number}.bin", "wb") as file:
                file.truncate(10 << 20)
        """,
        kept=("0.bin",),
        left_out=("1.bin: its 10,485,760 bytes", "2.bin: its 10,485,760 bytes"),
    ),
    Hostile(
        "many artifacts",
        "leaves more files than anyone wants",
        "a cap on their number, and on the report of what was left out",
        """
        for number in range(1000):
            write(f"{number:03}.txt")
        """,
        kept=tuple(f"{number:03}.txt" for number in range(20)),
        left_out=tuple(f"{number:03}.txt: only 20 files are kept" for number in range(20, 40)),
    ),
    Hostile(
        "names of artifacts",
        "leaves names that lead elsewhere, or command a terminal",
        "plain names of the working directory itself; others are shown escaped",
        r"""
        os.makedirs("/tmp/deep")
        for name in (b"../tmp/deep/x", b"a\nb", b"\x1b[2J", b"\xff", b"..\\x"):
            write(name)
        os.chmod("/work", 0)
        """,
        left_out=(r"\x1b[2J: its name", r"..\\x: its name", r"a\nb: its name", r"\udcff: its name"),
    ),
)
