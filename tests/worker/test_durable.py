"""The journal that writes under a token, and the live text beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis

from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted, ToolCompleted, ToolRequested
from agent_core.errors import BudgetError, StaleAttemptError
from agent_core.redaction import Redactor
from agent_core.state import State, commit
from agent_core.types import Budget
from jobs import actions, keys
from jobs.link import connect
from jobs.queue import Claim
from jobs.stats import Stats
from tests.worker.conftest import TENANT, Bench
from worker.durable import DurableJournal, LiveText

USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
STARTED = ModelStarted("c1", 1, "m", reserved=900)
COMPLETED = ModelCompleted(
    "c1", 1, "m", [{"type": "text", "text": "hi"}], "end_turn", USAGE, "p", reserved=900, settled=70, reason="settled"
)


class Attempt:
    """A claimed job and its journal."""

    def __init__(self, bench: Bench, claim: Claim) -> None:
        assert claim.job is not None
        self.claim, self.job, self.stats = claim, claim.job, Stats()
        self.cancels: list[str] = []
        self.live = LiveText(bench.store, claim.job)
        self.journal = DurableJournal(
            bench.store, claim.job, claim.token, self.stats, self.live, on_cancel=lambda: self.cancels.append("cancel")
        )


@pytest.fixture
async def attempt(bench: Bench) -> Attempt:
    await bench.submit()
    return Attempt(bench, await bench.claim())


async def test_a_call_reserves_when_it_starts_and_settles_when_it_ends(bench: Bench, attempt: Attempt):
    await attempt.journal.record(STARTED)
    counters = (await bench.job(attempt.job.id)).counters
    assert (counters["reserved"], counters["cost"], counters["model_calls"]) == (900, 0, 0)
    await attempt.journal.record(COMPLETED)
    counters = (await bench.job(attempt.job.id)).counters
    assert counters == {
        "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 3, "cache_write_tokens": 2,
        "model_calls": 1, "tool_calls": 0, "cost": 70, "reserved": 0, "spent": 70, "held": 0,
    }  # fmt: skip


async def test_a_failed_call_and_a_tool_count_too(bench: Bench, attempt: Attempt):
    await attempt.journal.record(STARTED)
    await attempt.journal.record(
        ModelFailed("c1", 1, "m", "cut", "", None, "p", reserved=900, settled=900, reason="worst_case"),
        ToolCompleted("t1", 1, "pay", "paid", is_error=False, seconds=0.2),
        ToolCompleted("t2", 1, "pay", "no", is_error=True, seconds=0.2),
    )
    counters = (await bench.job(attempt.job.id)).counters
    assert (counters["cost"], counters["reserved"], counters["model_calls"], counters["tool_calls"]) == (900, 0, 1, 2)
    counted = attempt.stats.take()
    assert counted["model_calls_total|m|cut"] == 1
    assert (counted["tool_calls_total|pay|ok"], counted["tool_calls_total|pay|error"]) == (1, 1)
    assert counted["cost_usd_total|x|m"] == pytest.approx(0.0009)


async def test_a_write_that_comes_twice_counts_once(bench: Bench, attempt: Attempt):
    await attempt.journal.record(STARTED)
    again = DurableJournal(
        bench.store, attempt.job, attempt.claim.token, Stats(), attempt.live, on_cancel=lambda: None
    )  # numbers its writes from 1 again, as a link does that repeats what nobody answered
    await again.record(STARTED)
    assert (await bench.job(attempt.job.id)).counters["reserved"] == 900
    assert (await bench.types(attempt.job.id)).count("model.started") == 1


async def test_what_is_noted_goes_with_the_next_write_that_is_taken(bench: Bench):
    await bench.submit(budget=Budget(usd="0.001"))
    attempt = Attempt(bench, await bench.claim())
    attempt.journal.note("memory.recalled", {"memories": []})
    assert "memory.recalled" not in await bench.types(attempt.job.id)
    with pytest.raises(BudgetError):
        await attempt.journal.record(replace(STARTED, reserved=2000))
    await asyncio.gather(attempt.journal.record(STARTED), attempt.journal.record(COMPLETED))
    assert (await bench.types(attempt.job.id))[2:] == ["memory.recalled", "model.started", "model.completed"]


async def test_another_attempts_token_is_refused(bench: Bench, attempt: Attempt):
    await bench.end_lease(attempt.claim)
    await bench.reaper.sweep()
    await bench.claim()
    with pytest.raises(StaleAttemptError):
        await attempt.journal.record(STARTED)
    assert "model.started" not in await bench.types(attempt.job.id)


async def test_a_write_brings_back_what_was_asked_for_meanwhile(bench: Bench, attempt: Attempt):
    await attempt.journal.record(STARTED)
    assert not attempt.journal.pause_requested()
    await actions.pause(bench.store, TENANT, attempt.job.id)
    await attempt.journal.record(COMPLETED)
    assert (attempt.journal.pause_requested(), attempt.cancels) == (True, [])
    await actions.cancel(bench.store, TENANT, attempt.job.id)
    await attempt.journal.record(ToolCompleted("t1", 1, "pay", "paid", is_error=False))
    assert attempt.cancels == ["cancel"]


@pytest.fixture
async def channel(redis_url: str, attempt: Attempt) -> AsyncIterator[redis.client.PubSub]:
    with connect(redis_url) as client, client.pubsub() as channel:
        channel.subscribe(keys.channel(attempt.job.id))
        assert channel.get_message(timeout=5) is not None  # the confirmation
        yield channel


async def heard(channel: redis.client.PubSub) -> tuple[int, str]:
    """Step and text of the next live event."""
    async with asyncio.timeout(10):
        while True:
            message = channel.get_message(ignore_subscribe_messages=True)
            if message and message["data"]:
                event = json.loads(message["data"])
                assert event["type"] == "message.delta"
                return event["data"]["step"], event["data"]["text"]
            await asyncio.sleep(0.01)


async def test_live_text_is_gathered(attempt: Attempt, channel: redis.client.PubSub):
    for piece in ("a", "b", "c"):
        attempt.live.text(1, piece)
    assert await heard(channel) == (1, "abc")
    attempt.live.text(1, "d")
    assert await heard(channel) == (1, "d")


async def test_live_text_of_another_step_or_of_a_reply_that_stands_in_the_journal_is_dropped(
    attempt: Attempt, channel: redis.client.PubSub
):
    attempt.live.text(1, "lost")
    attempt.live.text(2, "lost too")
    await attempt.journal.record(COMPLETED)
    attempt.live.text(2, "heard")
    assert await heard(channel) == (2, "heard")


# ---- secrets

SECRET = "correct-horse-battery"


def leaky(bench: Bench, claim: Claim) -> DurableJournal:
    assert claim.job is not None
    redactor = Redactor([SECRET])
    live = LiveText(bench.store, claim.job, redactor)
    return DurableJournal(bench.store, claim.job, claim.token, Stats(), live, lambda: None, redactor)


async def test_what_is_recorded_and_folded_has_no_secret(bench: Bench):
    await bench.submit()
    claim = await bench.claim()
    journal, state = leaky(bench, claim), State([{"role": "user", "content": "go"}])
    call = {"type": "tool_use", "id": "t1", "name": "pay", "input": {"key": SECRET}}
    reply = ModelCompleted("c1", 1, "m", [call], "tool_use", USAGE, "p", reserved=900, settled=70, reason="settled")
    await commit(state, journal, STARTED)
    await commit(state, journal, reply)
    (open_call,) = state.open_calls()
    assert open_call["input"] == {"key": "[redacted:secret]"}
    about = ("t1", 1, "pay")
    await commit(state, journal, ToolRequested(*about, open_call["input"], "read"))
    await commit(state, journal, ToolCompleted(*about, f"ghp_{'a1B2' * 9} and {SECRET}", is_error=False))
    lines = await bench.store.lines(claim.job_id)
    assert SECRET not in str(lines)
    assert "ghp_" not in str(lines)
    entries = [entry for line in lines if (entry := line.entry()) is not None]
    resumed = State.restore([{"role": "user", "content": "go"}], entries)
    assert resumed.messages == state.messages
    assert resumed.measured == state.measured


async def test_live_text_has_no_secret_that_comes_in_pieces(
    bench: Bench, attempt: Attempt, channel: redis.client.PubSub
):
    live = LiveText(bench.store, attempt.job, Redactor([SECRET]))
    live.text(1, "the key is " + SECRET[:9])
    assert await heard(channel) == (1, "the key is ")
    live.text(1, SECRET[9:] + " and no")
    assert await heard(channel) == (1, "[redacted:secret] and ")
    assert await heard(channel) == (1, "no")
