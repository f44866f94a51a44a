"""Starting a worker process that cannot work, or cannot work yet."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.integration.harness import Platform, eventually, says


async def refusal(platform: Platform, **settings: str | int) -> str:
    """What a worker says last that does not start: one line, and exit status 2."""
    worker = platform.processes.start_worker(log_format="console", **settings)
    assert await worker.exited(within=20) == 2
    *before, said = worker.log.read_text().splitlines()
    assert all("[info" in line for line in before), before
    return said


async def test_a_worker_that_cannot_start_says_why_in_one_line(platform: Platform, tmp_path: Path):
    broken = tmp_path / "broken.py"
    broken.write_text("from agent_core import Agent\nAgent(name='x', instructions='', model='m')")
    said = await refusal(platform, agents=str(broken))
    assert said.startswith(f"nightshift worker: NIGHTSHIFT_AGENTS: {broken}: agent 'x': instructions is ''")
    assert "set ANTHROPIC_API_KEY" in await refusal(platform, model_base_url="", simulate=0)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        assert "NIGHTSHIFT_METRICS_PORT" in await refusal(platform, metrics_port=port)


@pytest.mark.parametrize("patience", ["Redis comes", "told to stop"])
async def test_a_worker_that_starts_before_redis_waits_for_it(platform: Platform, patience: str):
    platform.redis.kill()
    worker = platform.processes.start_worker()
    await eventually(lambda: worker.logged("Redis does not answer"), lambda: f"its wait{worker.tail()}")
    if patience == "told to stop":
        worker.signal(signal.SIGTERM)
        assert await worker.exited(within=5) == 0
    else:
        platform.redis.start()
        await platform.reported(worker)
        await platform.becomes(await platform.submit(says("hello")), "completed")
