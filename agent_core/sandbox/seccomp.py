"""The system calls that sandboxed code may not make, as a program for the kernel's seccomp filter.

A list of what is refused and not of what is allowed: Python and its libraries make too many calls, and new ones with
each release of libc. A call that is newer than this list answers as on a kernel that does not have it.
"""

from __future__ import annotations

import errno
import struct

# Operations of classic BPF, as linux/bpf_common.h and linux/seccomp.h have them.
LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""By `platform.machine()`: what the kernel calls it, and its column in the tables below."""
NEWEST = 450
"""The last call of Linux 5.17. The x32 calls of x86_64 are above it, too."""

CALLS: dict[str, tuple[int | None, int | None]] = {
    # another process's memory, or the kernel's
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    # whole subsystems that code for one computation has no use for
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # memory that no limit counts, for it belongs to no process and to no file system with a size
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    # what is old, or changes how the process itself is run
    "personality": (135, 92),
    "setrlimit": (160, 164),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "nfsservctl": (180, 42),
    "_sysctl": (156, None),
    "sysfs": (139, None),
    "ustat": (136, None),
}
"""What is refused with EPERM, whatever its arguments: the numbers of each call for each architecture."""

CLONE, CLONE3, SOCKET, IOCTL, PRLIMIT = (56, 220), (435, 435), (41, 198), (16, 29), (302, 261)
NEW_NAMESPACES = 0x7E020000
"""Every flag of clone() that makes a namespace."""
UNIX, INET, INET6 = 1, 2, 10
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

Instruction = tuple[int, int, int, int]


def program(machine: str) -> bytes:
    """The filter for an architecture, as bubblewrap takes it. Raises KeyError for one that is not in ARCHITECTURES."""
    architecture, column = ARCHITECTURES[machine]
    found = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (ABOVE, 0, 1, NEWEST),
        _refuse(errno.ENOSYS),
    ]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            found += [(EQUAL, 0, 1, number), _refuse(errno.EPERM)]
    for call, rule in (
        (CLONE, [_argument(0), (ANY_BIT, 0, 1, NEW_NAMESPACES), _refuse(errno.EPERM)]),
        (CLONE3, [_refuse(errno.ENOSYS)]),  # its flags are out of a filter's sight; libc then takes clone
        (SOCKET, [_argument(0), *_one_of((UNIX, INET, INET6)), _refuse(errno.EAFNOSUPPORT)]),
        (IOCTL, [_argument(1), *_none_of((TIOCSTI, TIOCLINUX))]),
        (PRLIMIT, [_argument(2), *_none_but(0), _argument(2, high=True), *_none_but(0)]),  # limits may be read
    ):
        body = [*rule, (RETURN, 0, 0, ALLOW)]
        found += [(EQUAL, 0, len(body), call[column]), *body]
    found.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in found)


def _refuse(number: int) -> Instruction:
    return (RETURN, 0, 0, ERRNO | number)


def _argument(index: int, *, high: bool = False) -> Instruction:
    """Loads half of an argument; both architectures have the low half first."""
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * index + 4 * high)


def _one_of(values: tuple[int, ...]) -> list[Instruction]:
    return [part for value in values for part in ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]


def _none_of(values: tuple[int, ...]) -> list[Instruction]:
    return [part for value in values for part in ((EQUAL, 0, 1, value), _refuse(errno.EPERM))]


def _none_but(value: int) -> list[Instruction]:
    return [(EQUAL, 1, 0, value), _refuse(errno.EPERM)]
