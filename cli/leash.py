"""Runs a command that ends when its parent does, however the parent ends.

    python -I -S leash.py SIGNAL PARENT_PID COMMAND [ARGUMENT…]

Only Linux can promise this; elsewhere the command is run as it is. It is a program of its own, and not a `preexec_fn`,
because code between fork and exec can deadlock in a process that has threads.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG = 1


def main(signal_number: int, parent: int, command: list[str]) -> None:
    """Never returns."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before we asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
