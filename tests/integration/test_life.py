"""The life of a job in real processes, from its submission to its end."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from rq import Worker
from rq.job import Job as RqJob
from rq.registry import FinishedJobRegistry
from rq.serializers import JSONSerializer

from agent_core.types import micros
from jobs import actions, stats
from jobs.link import connect
from tests.integration.harness import TENANT, Platform, calls, eventually, says

LANE = "default.default~default"
"""Of the tenant whose jobs the harness submits."""


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


async def test_a_job_runs_its_tools_and_completes(shared: Platform):
    job_id = await shared.submit(calls("note", folder=shared.folder, text="one"), says("It is {{last_tool_result}}."))
    job = await shared.becomes(job_id, "completed")
    assert (job.output, job.stop_reason, job.attempts, job.worker) == ("It is noted one.", "end_turn", 1, None)
    call_id = next(line.data["call_id"] for line in await shared.lines(job_id, "tool.completed"))
    assert shared.trace("note") == [f"{job_id}.{call_id} one"]
    assert await shared.types(job_id) == [
        "job.queued", "job.started", "model.started", "model.completed", "tool.requested", "tool.completed",
        "model.started", "model.completed", "job.completed",
    ]  # fmt: skip


async def test_the_ledger_adds_up_to_the_cost_and_nothing_stays_reserved(shared: Platform):
    job_id = await shared.submit(calls("echo", text="a"), says("b"))
    job = await shared.becomes(job_id, "completed")
    rows = await shared.ledger(job_id)
    assert [row["reason"] for row in rows] == ["settled", "settled"]
    assert sum(micros(row["settled_usd"]) for row in rows) == job.counters["cost"] > 0
    assert job.counters["reserved"] == 0
    assert (job.counters["model_calls"], job.counters["tool_calls"]) == (2, 1)
    assert job.counters["input_tokens"] == sum(row["usage"]["input_tokens"] for row in rows)


async def test_rq_sees_the_worker_the_running_job_and_its_end(shared: Platform):
    worker = shared.processes.workers[0]
    job_id = await shared.submit(calls("slow_read", folder=shared.folder, hold="go"), says("done"))
    await shared.traced("slow_read")
    with connect(shared.redis.url) as redis:
        assert worker.name in {w.name for w in Worker.all(connection=redis)}
        ticket = RqJob.fetch(job_id, connection=redis, serializer=JSONSerializer)
        assert (ticket.get_status(), ticket.worker_name, ticket.origin) == ("started", worker.name, LANE)
        shared.release("go")
        await shared.becomes(job_id, "completed")
        ticket.refresh()
        assert ticket.get_status() == "finished"
        assert job_id in FinishedJobRegistry(LANE, connection=redis).get_job_ids(cleanup=False)


async def test_three_hundred_jobs_run_at_once_in_one_worker(shared: Platform):
    turns = (calls("slow_read", folder=shared.folder, hold="go"), says("done"))
    ids = await asyncio.gather(*(shared.submit(*turns) for _ in range(300)))
    await shared.traced("slow_read", 300)
    assert all(job is not None and job.status == "running" for job in await shared.store.get_many(ids))
    shared.release("go")
    jobs = await shared.all_become(ids, "completed")
    assert {job.attempts for job in jobs} == {1}
    assert (await shared.simulator.stats())["calls"] == 600


async def test_jobs_of_a_session_run_one_after_another_over_two_workers_and_see_the_conversation(shared: Platform):
    second = await shared.start_worker()
    held = calls("slow_read", folder=shared.folder, hold="go", text="the word is heron")
    first = await shared.submit(held, says("noted"), session_id="s")
    others = [await shared.submit(says("I recall: {{last_tool_result}}"), session_id="s") for _ in range(2)]
    await shared.traced("slow_read")
    bystander = await shared.submit(says("me too"))
    await shared.becomes(bystander, "completed")
    assert [(await shared.job(job_id)).status for job_id in others] == ["queued", "queued"]
    shared.release("go")
    finished = await shared.all_become([first, *others], "completed")
    assert [job.output for job in finished[1:]] == ["I recall: the word is heron"] * 2
    for earlier, later in itertools.pairwise(finished):
        assert earlier.ended_ms is not None
        assert later.started_ms is not None
        assert earlier.ended_ms <= later.started_ms
    # 1 and 3 messages for the first job's turns, then 4 of the first + 1, then 6 + 1
    seen = sorted(call["messages"] for call in await shared.simulator.calls())
    assert seen == [1, 1, 3, 5, 7]
    second.kill()


async def test_a_destructive_tool_waits_for_a_person_and_holds_no_worker(shared: Platform):
    job_id = await shared.submit(calls("wipe", folder=shared.folder), says("wiped"))
    job = await shared.becomes(job_id, "requires_action")
    assert job.stop_reason == "approval"
    assert shared.trace("wipe") == []
    assert (await shared.lines(job_id))[-1].data["calls"][0]["tool"] == "wipe"
    assert await shared.store.tickets.running() == 0


async def test_a_pause_takes_hold_between_two_steps_and_resume_repeats_nothing(shared: Platform):
    job_id = await shared.submit(
        calls("note", folder=shared.folder, text="once"),
        calls("slow_read", folder=shared.folder, hold="go"),
        says("done"),
    )
    await shared.traced("slow_read")
    assert (await actions.pause(shared.store, TENANT, job_id)).status == "running"
    shared.release("go")
    await shared.becomes(job_id, "paused")
    assert len(await shared.lines(job_id, "model.completed")) == 2
    await actions.resume(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "completed")
    assert (len(shared.trace("note")), len(shared.trace("slow_read")), job.attempts) == (1, 1, 2)
    assert (await shared.simulator.stats())["calls"] == 3


async def test_a_retry_goes_on_from_the_last_recorded_step(shared: Platform):
    refused = says("done", faults=[{"status": 400}])
    job_id = await shared.submit(calls("note", folder=shared.folder, text="once"), refused)
    failed = await shared.becomes(job_id, "failed")
    assert failed.error is not None
    assert (failed.stop_reason, failed.error["code"]) == ("error", "invalid_request")
    await actions.retry(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "completed")
    assert (job.output, job.attempts, len(shared.trace("note"))) == ("done", 2, 1)
    assert [call["outcome"] for call in await shared.simulator.calls()] == ["completed", "failed:400", "completed"]


async def test_a_fork_takes_the_history_along_and_pays_only_for_its_own_steps(shared: Platform):
    job_id = await shared.submit(calls("note", folder=shared.folder, text="once"), says("first answer"))
    source = await shared.becomes(job_id, "completed")
    made = await actions.fork(shared.store, TENANT, job_id, step=1, changes={"tags": ["again"]})
    fork = await shared.becomes(made.job.id, "completed")
    assert (fork.output, fork.spec.tags, len(shared.trace("note"))) == ("first answer", ["again"], 1)
    rows = await shared.ledger(fork.id)
    assert len(rows) == 1
    assert fork.counters["cost"] == micros(rows[0]["settled_usd"]) < source.counters["cost"]
    assert fork.counters["model_calls"] == 1
    assert fork.counters["tool_calls"] == 0


async def test_a_job_that_reaches_its_time_limit_keeps_what_it_has(shared: Platform):
    turn = {"text": "half the answer", **calls("slow_read", folder=shared.folder, hold="never")}
    job_id = await shared.submit(turn, budget={"seconds": 0.5})
    job = await shared.becomes(job_id, "failed")
    assert job.error is not None
    assert (job.stop_reason, job.error["code"], job.output) == ("timeout", "timeout", "half the answer")
    assert job.ran_ms >= 500


async def test_a_tool_that_calls_exit_harms_nobody(shared: Platform):
    neighbour = await shared.submit(calls("slow_read", folder=shared.folder, hold="go"), says("fine"))
    await shared.traced("slow_read")
    job_id = await shared.submit(calls("leave"), says("{{last_tool_result}}"))
    job = await shared.becomes(job_id, "completed")
    assert "SystemExit" in job.output
    shared.release("go")
    assert (await shared.becomes(neighbour, "completed")).attempts == 1


async def test_a_full_worker_takes_the_high_before_the_default_before_the_low(platform: Platform):
    worker = await platform.start_worker(concurrency=1)
    first = await platform.submit(calls("slow_read", folder=platform.folder, hold="go", text="first"), says("done"))
    await platform.traced("slow_read")
    ids = [first]
    for priority in ("low", "default", "high", "low", "default", "high"):
        turn = calls("slow_read", folder=platform.folder, hold="go", text=priority)
        ids.append(await platform.submit(turn, says("done"), priority=priority))
    platform.release("go")
    await platform.all_become(ids, "completed")
    order = [line.split()[1] for line in platform.trace("slow_read")]
    assert order == ["first", "high", "high", "default", "default", "low", "low"], worker.tail()


async def test_what_happened_is_counted_for_the_fleet_and_for_the_process(platform: Platform):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    worker = await platform.start_worker(metrics_port=port, concurrency=7)
    done = await platform.submit(calls("echo", text="a"), says("b"))
    bad = await platform.submit(says("x", faults=[{"status": 400}], always=True))
    await platform.becomes(done, "completed")
    await platform.becomes(bad, "failed")
    model = "claude-sonnet-5-5"
    expected = {
        "jobs_total|tester|completed": 1,
        "jobs_total|tester|failed": 1,
        f"model_calls_total|{model}|ok": 2,
        f"model_calls_total|{model}|invalid_request": 1,
        "tool_calls_total|echo|ok": 1,
    }

    async def counted() -> dict[str, float] | None:
        found = await stats.read(platform.link)
        return found if expected.items() <= found.items() else None

    found = await eventually(counted, "the counters of two jobs")
    for name in (f"tokens_total|{model}|cache_write", f"tokens_total|{model}|output", f"cost_usd_total|tester|{model}",
                 "queue_wait_seconds|sum", "job_duration_seconds|sum", "model_call_seconds|sum"):  # fmt: skip
        assert found[name] > 0, name
    scraped = await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/metrics")
    samples = {s.name: s.value for family in text_string_to_metric_families(scraped) for s in family.samples}
    assert (samples["nightshift_worker_running_jobs"], samples["nightshift_worker_concurrency"]) == (0, 7)
    assert samples["process_resident_memory_bytes"] > 0
    worker.signal(signal.SIGTERM)
    assert await worker.exited(within=5) == 0
