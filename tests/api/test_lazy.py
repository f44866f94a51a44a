"""What takes a second to import waits for the first request that needs it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import pytest
from starlette.responses import PlainTextResponse

from tests.api.conftest import client_of, serving

HEAVY = ("a2a", "google.protobuf", "jsonschema", "mcp", "mcp_types", "pypdf", "re2")


@pytest.mark.parametrize(("module", "heavy"), [("api.main", HEAVY), ("worker.main", ("a2a", "mcp", "mcp_types"))])
def test_a_process_starts_without(module, heavy):
    look = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", look], text=True).strip() == "[]"


class Opened:
    """Opens an application, slowly, and keeps a record of that."""

    def __init__(self, faults: int = 0) -> None:
        self.faults = faults
        self.threads: list[int] = []
        self.tasks: list[asyncio.Task | None] = []
        self.go_on = threading.Event()

    def __call__(self):
        self.threads.append(threading.get_ident())
        self.go_on.wait(20)
        if len(self.threads) <= self.faults:
            raise ImportError("half installed")
        return self._opened()

    @asynccontextmanager
    async def _opened(self):
        self.tasks.append(asyncio.current_task())
        yield PlainTextResponse("hello")
        self.tasks.append(asyncio.current_task())


async def test_first_requests_open_once_and_block_nobody(settings, monkeypatch):
    opened = Opened()
    monkeypatch.setattr("api.app._mcp", opened)
    async with serving(settings) as url, client_of(url) as client, client_of(url, None) as stranger:
        assert (await stranger.get("/mcp")).status_code == 401
        assert opened.threads == []
        first = [asyncio.create_task(client.get("/mcp")) for _ in range(5)]
        assert (await client.get("/healthz")).status_code == 200
        assert not any(task.done() for task in first)
        opened.go_on.set()
        assert [answer.text for answer in await asyncio.gather(*first)] == ["hello"] * 5
        assert opened.threads != [threading.get_ident()]
        assert (len(opened.threads), len(opened.tasks)) == (1, 1)
    began, ended = opened.tasks
    assert began is ended


async def test_what_could_not_be_opened_is_tried_again(settings, monkeypatch):
    opened = Opened(faults=1)
    opened.go_on.set()
    monkeypatch.setattr("api.app._mcp", opened)
    async with serving(settings) as url, client_of(url) as client:
        answer = await client.get("/mcp")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert (await client.get("/mcp")).text == "hello"
