"""`python -m simulator` as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import httpx2
import pytest
from anthropic import AsyncAnthropic

CUT = '#sim {"turns": [{"text": "one two three", "chunks": 3, "faults": [{"cut": 0.6}]}]}'
HANGING = '#sim {"turns": [], "latency": 60}'


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


async def collect(client, request, seen):
    async for event in await client.messages.create(**request, stream=True):
        seen.append(event.type)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_its_url_answers_and_stops_at_a_signal(number):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", "--port", "0", "--latency", "0.001",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        async with AsyncAnthropic(base_url=url, api_key="simulated", max_retries=0) as client:
            assert (await client.messages.create(**ask("hi"))).stop_reason == "end_turn"
            seen: list[str] = []
            with pytest.raises(httpx2.RemoteProtocolError):
                await collect(client, ask(CUT), seen)
            assert "content_block_delta" in seen
            call = asyncio.create_task(client.messages.create(**ask(HANGING)))
            await asyncio.sleep(0)
            process.send_signal(number)
            _, errors = await process.communicate()
            await asyncio.gather(call, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (0, b"")
