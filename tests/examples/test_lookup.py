"""The agent as a library, run as a user runs it, with the simulated model behind the real SDK."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from simulator.server import create_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where a simulated model answers."""
    runner = web.AppRunner(create_app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def run_example(url: str, *words: str) -> str:
    """What the example prints; it must not complain about anything."""
    environment = {"PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": "test", "ANTHROPIC_BASE_URL": url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(ROOT / "examples/library/lookup.py"), *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    return said.decode()


async def test_it_answers_with_what_its_tool_found(url: str) -> None:
    turns = [{"tool": "lookup_order", "input": {"order_id": "A-1042"}}, {"text": "It says {{last_tool_result}}"}]
    said = await run_example(url, "#sim " + json.dumps({"turns": turns}))
    assert said == 'It says {"status": "shipped", "total": "17.90"}\n'


async def test_it_needs_no_script(url: str) -> None:
    assert "The tool lookup_order" in await run_example(url)
