"""A job's whole life, from before its submission to after its pruning."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_core import tool
from agent_core.testing import calls, says
from jobs import keys, queue_keys
from jobs.blobs import INLINE_BYTES
from jobs.link import milliseconds
from jobs.retention import DAY_MS, Pruned, Retention
from jobs.store import JobStore
from memory.session import SessionScope
from tests.jobs.driver import OUTLIVES_JOBS
from tests.worker.conftest import TENANT, Bench, make_agent
from worker.pruner import Pruner
from worker.runtime import make_pruner
from worker.settings import Settings

OF_THE_FLEET = {keys.STATS, queue_keys.QUEUES, queue_keys.TURNS, keys.wake("default")}


@tool(effect="read", max_result_chars=INLINE_BYTES)
async def dump(length: int) -> str:
    """Gives much."""
    return "x" * length


def pruner(bench: Bench) -> Pruner:
    """One that keeps nothing that has ended."""
    link = bench.store.link
    return Pruner(link, bench.files, Retention(link, bench.files, 0, 0), bench.folder / "work")


async def held(store: JobStore) -> set[str]:
    """Every key but those of the fleet, and the conversation, which goes by its own time to live."""
    found = {key.decode() for key in await store.link.command("KEYS", "*")}
    conversation = SessionScope(TENANT, "s").key
    assert conversation not in found or await store.link.command("TTL", conversation) > 0
    of_tenants = {key for key in found if key.startswith(OUTLIVES_JOBS)}
    return found - OF_THE_FLEET - of_tenants - {conversation}


def on_disk(folder: Path) -> set[Path]:
    """Files, and working directories of jobs."""
    return {path for path in folder.rglob("*") if path.is_file() or path.name.startswith("job_")}


async def test_a_whole_life_leaves_no_key_and_no_file(bench: Bench) -> None:
    agent = make_agent(tools=[dump], auto_approve=[])
    keys_before, files_before = await held(bench.store), on_disk(bench.folder)
    upload = await bench.files.save(TENANT, "in.csv", b"1,2")
    job_id = await bench.submit(agent, session_id="s", files=[upload.id])
    turns = [
        calls(("dump", {"length": INLINE_BYTES})),
        calls(("dump", {"length": 200_000})),
        says("y" * 50_000),
    ]
    job = await bench.run(turns, agent)
    assert job.status == "completed"
    assert [record.bytes for record in await bench.files.artifacts(job_id)] == [200_000]
    assert len(await held(bench.store)) > len(keys_before)
    assert await pruner(bench).sweep() == Pruned(jobs=1, files=1, contents=2)
    assert await held(bench.store) == keys_before
    assert on_disk(bench.folder) == files_before


async def test_a_parked_job_that_is_cancelled_leaves_no_working_directory(bench: Bench) -> None:
    upload = await bench.files.save(TENANT, "in.csv", b"1,2")
    job_id = await bench.submit(files=[upload.id])
    assert (await bench.run([calls(("erase", {}))])).status == "requires_action"
    living = await bench.submit(files=[upload.id])
    await bench.run([calls(("erase", {}))])
    workspaces = bench.folder / "work"
    assert {path.name for path in workspaces.iterdir()} == {job_id, living}
    await bench.store.move(await bench.job(job_id), "cancel", stop_reason="cancelled")
    (workspaces / "notes").mkdir()
    await pruner(bench).sweep()
    assert {path.name for path in workspaces.iterdir()} == {living, "notes"}


async def test_a_worker_keeps_what_ended_for_seven_days(bench: Bench, redis_url: str) -> None:
    link = bench.store.link
    duty = make_pruner(link, Settings.model_validate({"redis_url": redis_url, "data_dir": bench.folder}))
    job_ids = [await bench.submit() for _ in range(2)]
    for job_id, days in zip(job_ids, (6.9, 7.1), strict=True):
        assert (await bench.run([says("done")])).status == "completed"
        when = milliseconds() - int(days * DAY_MS)
        await link.command("HSET", keys.job(job_id), "ended_ms", when)
        await link.command("ZADD", keys.ENDED, when, job_id)
    assert (await duty.sweep()).jobs == 1
    assert [job and job.id for job in await bench.store.get_many(job_ids)] == [job_ids[0], None]


async def test_a_sweep_that_fails_is_not_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sweeps = 0
    third = asyncio.Event()

    class Failing(Retention):
        async def sweep(self) -> Pruned:
            nonlocal sweeps
            sweeps += 1
            if sweeps < 3:
                raise OSError("the bucket is away")
            third.set()
            return Pruned()

    monkeypatch.setattr("worker.pruner.SWEEP_SECONDS", 0)
    duty = Pruner(bench.store.link, bench.files, Failing(bench.store.link, bench.files, 0), bench.folder)
    task = asyncio.create_task(duty.run())
    await asyncio.wait_for(third.wait(), 10)
    task.cancel()
    assert sweeps >= 3
