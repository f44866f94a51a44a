"""Runs a coroutine of a client command on one connection to the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from cli.client import Client
from cli.settings import connection

T = TypeVar("T")


def call(data_dir: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """What `work` returns, given a client of the platform that the environment names. Raises CliError."""

    async def main() -> T:
        async with Client(connection(data_dir)) as client:
            return await work(client)

    return asyncio.run(main())
