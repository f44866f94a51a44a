"""The threads in which blocking tools run. A thread cannot be stopped, so a worker that ends leaves them behind."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

MOST = 64
PREFIX = "tool"
FAREWELL_SECONDS = 0.2


class ToolThreads:
    """Makes itself the running loop's default executor."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix=PREFIX)
        asyncio.get_running_loop().set_default_executor(self._pool)

    def leave_behind(self) -> None:
        """Gives the loop other threads: what the worker still has to do must not queue behind tools that hang."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="farewell"))
        self._pool.shutdown(wait=False, cancel_futures=True)


def leave(status: int) -> int:
    """The exit status of a process that may end. While a tool is still in its thread, for which Python would wait,
    this does not return but ends the process.
    """
    deadline = time.monotonic() + FAREWELL_SECONDS
    while any(thread.name.startswith(PREFIX) for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            logging.shutdown()
            sys.stderr.flush()
            os._exit(status)
        time.sleep(0.005)
    return status
