"""The API as a process: how it starts, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import redis

from tests.api.conftest import ADMIN, client_of, submitted, until_ready
from tests.api.test_events import STREAM


def environment(redis_url: str, port: int, folder: Path, **changes: str) -> dict[str, str]:
    return {
        **os.environ,
        "NIGHTSHIFT_REDIS_URL": redis_url,
        "NIGHTSHIFT_PORT": str(port),
        "NIGHTSHIFT_DATA_DIR": str(folder),
        "NIGHTSHIFT_ADMIN_KEY": ADMIN,
        **changes,
    }


def command() -> list[str]:
    return [sys.executable, "-m", "api.main"]


async def started(redis_url: str, port: int, folder: Path, **changes: str) -> asyncio.subprocess.Process:
    given = environment(redis_url, port, folder, **changes)
    return await asyncio.create_subprocess_exec(*command(), env=given, stderr=asyncio.subprocess.PIPE)


async def test_it_serves_until_sigterm_and_then_ends_streams_and_waiting_requests(redis_url, port, tmp_path, echo):
    process = await started(redis_url, port, tmp_path / "new" / "data", NIGHTSHIFT_DRAIN_SECONDS="10.5")
    async with client_of(f"http://127.0.0.1:{port}") as client:
        await until_ready(client)
        job = await submitted(client)
        waiting = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", params={"wait": 60}))
        async with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=STREAM) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines)
            process.send_signal(signal.SIGTERM)
            async for _ in lines:
                pass
        assert (await waiting).json() == job
    assert await process.wait() == 0
    assert [stat.S_IMODE((tmp_path / made).stat().st_mode) for made in ("new", "new/data")] == [0o700, 0o700]


async def test_it_does_not_start_on_a_redis_that_evicts(redis_url, port, tmp_path):
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            process = await started(redis_url, port, tmp_path)
            _, said = await process.communicate()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert process.returncode == 2
    assert b"NIGHTSHIFT_REDIS_URL" in said
    assert b"allkeys-lru" in said
    assert b"Traceback" not in said


async def test_it_does_not_start_on_a_redis_that_refuses_the_password(guarded_redis, port, tmp_path):
    process = await started(guarded_redis, port, tmp_path)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said == b"nightshift api: NIGHTSHIFT_REDIS_URL is wrong: Redis refuses its user or password\n"


async def test_a_wrong_setting_is_one_line_and_exit_status_2(redis_url, port, tmp_path):
    process = await started("redis://:hunter2@host:port", port, tmp_path)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().startswith(
        "nightshift api: NIGHTSHIFT_REDIS_URL is 'redis://***@host:port': expected redis://"
    )
    assert len(said.splitlines()) == 1
