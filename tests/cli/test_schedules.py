"""Schedules from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from agent_core.types import Budget
from api.settings import Settings
from jobs.agents import AgentCatalogue, Published
from tests.api.conftest import ADMIN, serving
from tests.cli.conftest import Cli
from tests.cli.harness import Result

ECHO = Published("echo", "v1", {"name": "echo", "pool": "default", "budget": Budget().to_json(), "tools": []})
CREATE = ("schedules", "create", "0 9 * * *", "echo", "hello {{ scheduled_at }}")


@pytest.fixture
async def run(redis_url: str, tmp_path, monkeypatch, cli: Cli, link) -> AsyncIterator[object]:
    await AgentCatalogue(link).publish([ECHO])
    settings = Settings(redis_url=redis_url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN))
    async with serving(settings) as url:
        monkeypatch.setenv("NIGHTSHIFT_URL", url)
        monkeypatch.setenv("NIGHTSHIFT_API_KEY", ADMIN)

        async def words(*given: str) -> Result:
            return await asyncio.to_thread(cli, *given)

        yield words


async def test_the_life_of_a_schedule(run):
    made = await run(*CREATE, "--timezone", "Asia/Tokyo", "--name", "morning", "--budget-usd", "0.5")
    schedule = made.out.strip()
    assert made.err.count("next: ") == 10
    assert "T00:00:00" in made.err
    listed = await run("schedules")
    assert f"{schedule}\tmorning\tactive\t0 9 * * *\tAsia/Tokyo\techo\t" in listed.out
    assert "state:         paused" in (await run("schedules", "pause", schedule)).out
    assert "state:         active" in (await run("schedules", "resume", schedule)).out
    changed = json.loads((await run("schedules", "change", schedule, "--cron", "@every 2h", "--json")).out)
    assert (changed["cron"], changed["name"], changed["budget"]) == ("@every 2h", "morning", {"usd": "0.5"})
    job = (await run("schedules", "trigger", schedule)).out.strip()
    assert job.startswith("job_")
    assert f"fired\ttriggered\t{job}" in (await run("schedules", "runs", schedule)).out
    assert (await run("schedules", "show", schedule)).err.count("next: ") == 10
    assert "is removed" in (await run("schedules", "delete", schedule)).out
    assert json.loads((await run("schedules", "list", "--json")).out)["data"] == []


async def test_a_dry_run_only_shows_the_times(run):
    shown = await run(*CREATE, "--dry-run")
    assert (shown.out, shown.err.count("next: ")) == ("", 10)
    assert len(json.loads((await run(*CREATE, "--dry-run", "--json")).out)["next_runs"]) == 10
    assert (await run("schedules", "list", "--json")).out.startswith('{"data": []')


async def test_what_is_refused_says_why(run):
    refused = await run("schedules", "create", "99 * * * *", "echo", "x")
    assert (refused.status, "bad minute" in refused.err) == (2, True)
