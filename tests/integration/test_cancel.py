"""Cancelling jobs that run in a real worker: the model's connection closes at once and what was used is on the bill."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from agent_core.types import Json, micros
from jobs import actions, keys
from jobs.link import connect
from tests.integration.harness import TENANT, Platform, calls, eventually, says

LONG = {"text": "a long answer " * 200, "chunks": 200, "chunk_delay": 0.1}


async def first_live_text(platform: Platform, job_id: str) -> Json:
    """The first live text of a job, from the channel that watchers listen to."""
    with connect(platform.redis.url) as redis, redis.pubsub() as channel:
        channel.subscribe(keys.channel(job_id))

        def heard() -> Json | None:
            message = channel.get_message(ignore_subscribe_messages=True, timeout=0)
            return json.loads(message["data"]) if message and message["data"] else None

        found: Json = await eventually(heard, "live text")
        return found


async def the_call(platform: Platform) -> Json:
    """The one call that the model has heard, once it is over."""

    async def over() -> Json | None:
        found = await platform.simulator.calls()
        return found[0] if len(found) == 1 and found[0]["closed_at"] else None

    found: Json = await eventually(over, "the end of the model's call")
    return found


async def test_a_cancel_cuts_the_stream_within_a_second_and_settles_what_was_said(shared: Platform):
    job_id = await shared.submit(LONG)
    live = await first_live_text(shared, job_id)
    assert (live["type"], live["attempt"], live["data"]["step"]) == ("message.delta", 1, 1)
    assert live["data"]["text"].startswith("a long answer")
    asked = time.time()
    await actions.cancel(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "cancelled")
    call = await the_call(shared)
    assert call["outcome"] == "client_closed"
    assert call["closed_at"] - asked < 1.0
    (row,) = await shared.ledger(job_id)
    assert (row["reason"], job.stop_reason) == ("cut_stream", "cancelled")
    assert row["usage"]["output_tokens"] > 0
    assert job.counters["output_tokens"] == row["usage"]["output_tokens"]
    assert job.counters["cost"] == micros(row["settled_usd"]) > 0
    assert job.counters["reserved"] == 0


async def test_a_cancel_before_the_first_byte_costs_the_worst_case(shared: Platform):
    job_id = await shared.submit({"text": "late", "latency": 60})
    await eventually(shared.simulator.calls, "the model's call")
    asked = time.time()
    await actions.cancel(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "cancelled")
    assert (await the_call(shared))["closed_at"] - asked < 1.0
    (row,) = await shared.ledger(job_id)
    assert (row["reason"], row["settled_usd"]) == ("worst_case", row["reserved_usd"])  # the provider may bill it
    assert (job.counters["cost"], job.counters["reserved"]) == (micros(row["settled_usd"]), 0)


@pytest.mark.parametrize("tool", ["slow_read", "block"])
async def test_a_cancel_does_not_wait_for_a_tool(shared: Platform, tool: str):
    job_id = await shared.submit(calls(tool, folder=shared.folder, hold="go"), says("never"))
    await shared.traced(tool)
    await actions.cancel(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "cancelled")
    assert job.token == ""
    assert (await shared.types(job_id))[-2:] == ["tool.requested", "job.cancelled"]
    shared.release("go")


async def test_rqs_own_command_stops_a_job(shared: Platform):
    job_id = await shared.submit(calls("slow_read", folder=shared.folder, hold="never"), says("never"))
    await shared.traced("slow_read")
    with connect(shared.redis.url) as redis:
        await asyncio.to_thread(send_stop_job_command, redis, job_id, JSONSerializer)
    assert (await shared.becomes(job_id, "cancelled")).stop_reason == "cancelled"


async def test_the_heartbeat_brings_a_cancel_whose_command_was_lost(shared: Platform):
    job_id = await shared.submit(calls("slow_read", folder=shared.folder, hold="never"), says("never"))
    await shared.traced("slow_read")
    assert await shared.store.flag(await shared.job(job_id), "cancel") == shared.processes.workers[0].name
    await shared.becomes(job_id, "cancelled")


async def test_a_cancelled_job_goes_on_where_it_was_when_it_is_retried(shared: Platform):
    job_id = await shared.submit(calls("note", folder=shared.folder, text="once"), {**LONG, "text": "all of it"})
    await eventually(lambda: shared.lines(job_id, "tool.completed"), "the note's result")
    await actions.cancel(shared.store, TENANT, job_id)
    await shared.becomes(job_id, "cancelled")
    await actions.retry(shared.store, TENANT, job_id)
    job = await shared.becomes(job_id, "completed")
    assert (job.output, job.stop_reason, len(shared.trace("note"))) == ("all of it", "end_turn", 1)
