"""What becomes of a job for each way in which its run can end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from agent_core import Budget
from agent_core.entries import ModelCompleted, ToolRequested
from agent_core.errors import ModelError
from agent_core.ports import Draft, Request
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from jobs import actions, keys
from jobs.queue import queue_names
from jobs.records import Job
from jobs.stats import Stats
from memory.session import SessionMemory, SessionScope
from tests.worker.conftest import TENANT, Bench, make_agent
from worker.durable import DurableJournal, LiveText
from worker.executor import LONGEST_WAIT, MOST_DEFERRALS, Attempted

REFUSED = ModelError("invalid_request", "the model answered 400: no", retryable=False)


def overloaded(retry_after: float) -> ModelError:
    return ModelError("overloaded", "try later", retryable=True, retry_after=retry_after)


def ending(job: Job) -> tuple[str, str | None, str | None, Any]:
    return job.status, job.stop_reason, job.error["code"] if job.error else None, job.output


LOOKUP = calls(("lookup", {"order_id": "A1"}), text="looking")


@pytest.mark.parametrize(
    ("script", "budget", "expected"),
    [
        ([says("fine")], {}, ("completed", "end_turn", None, "fine")),
        ([says("so", "stop_sequence")], {}, ("completed", "end_turn", None, "so")),
        ([LOOKUP, says("fine")], {}, ("completed", "end_turn", None, "fine")),
        ([calls(("tidy", {})), says("fine")], {}, ("completed", "end_turn", None, "fine")),
        ([says("par", "max_tokens")], {}, ("failed", "max_tokens", "max_tokens", "par")),
        ([says("no", "refusal")], {}, ("failed", "refusal", "refusal", "no")),
        ([says("hm", "novel")], {}, ("failed", "error", "novel", "hm")),
        ([LOOKUP], {"steps": 1}, ("failed", "max_steps", "max_steps", "looking")),
        ([], {"tokens": 100}, ("failed", "budget_exceeded", "tokens", None)),
        ([], {"usd": "0.000001"}, ("failed", "budget_exceeded", "usd", None)),
        ([calls(("hang", {}), text="a bit")], {"seconds": 0.05}, ("failed", "timeout", "timeout", "a bit")),
        ([calls(("erase", {}))], {}, ("requires_action", "approval", None, None)),
        ([REFUSED], {}, ("failed", "error", "invalid_request", None)),
        ([LOOKUP, REFUSED], {}, ("failed", "error", "invalid_request", "looking")),
        ([overloaded(60)], {}, ("queued", None, None, None)),
    ],
)
async def test_endings(bench: Bench, script: list[Any], budget: dict[str, Any], expected: tuple[Any, ...]):
    await bench.submit(budget=Budget(**budget))
    job = await bench.run(script)
    assert ending(job) == expected
    assert (job.token, job.counters["reserved"]) == ("", 0)
    assert await bench.store.tickets.running() == 0


async def test_a_model_without_a_price_is_not_called(bench: Bench):
    agent = make_agent(model="nobody-knows-1")
    await bench.submit(agent)
    model = ScriptedModel([says("no")])
    job = await bench.run(model, agent)
    assert ending(job) == ("failed", "error", "unknown_price", None)
    assert model.requests == []


async def test_a_file_that_is_gone_fails_the_job(bench: Bench):
    await bench.submit(files=["file_0"])
    job = await bench.run([says("no")])
    assert ending(job) == ("failed", "error", "file_not_found", None)


async def test_the_files_of_a_job_lie_in_its_workspace_and_go_with_it(bench: Bench):
    record = await bench.files.save(TENANT, "a.csv", b"a,b\n1,2\n")
    job_id = await bench.submit(files=[record.id])
    seen: list[bytes] = []

    class Looks(ScriptedModel):
        async def complete(self, request: Request, draft: Draft) -> None:
            seen.append((bench.folder / "work" / job_id / "a.csv").read_bytes())
            await super().complete(request, draft)

    model = Looks([says("ok")])
    assert (await bench.run(model)).status == "completed"
    assert seen == [b"a,b\n1,2\n"]
    assert model.requests[0].messages[0]["content"].endswith("Files of this job: a.csv")
    assert not (bench.folder / "work" / job_id).exists()


class Broken(ScriptedModel):
    """Fails as only a bug of the platform's own can."""

    def __init__(self) -> None:
        super().__init__([])

    async def complete(self, request: Request, draft: Draft) -> None:
        raise RuntimeError("the password is hunter2")


async def test_a_fault_of_the_platform_fails_the_job_and_tells_no_secrets(bench: Bench):
    await bench.submit()
    with structlog.testing.capture_logs() as logs:
        job = await bench.run(Broken())
    assert [entry["job"] for entry in logs] == [job.id]
    assert ending(job) == ("failed", "error", "internal", None)
    assert job.error is not None
    assert "hunter2" not in job.error["message"]


async def test_waits_for_a_busy_model_grow_and_end(bench: Bench):
    job_id = await bench.submit()
    waits = []
    for _ in range(MOST_DEFERRALS):
        job = await bench.run([overloaded(21)])
        assert job.status == "queued"
        due = float(await bench.store.link.command("ZSCORE", keys.DUE, job_id))
        last = (await bench.store.lines(job_id))[-1]
        waits.append(last.data["deferred"])
        assert due - last.ms == pytest.approx(waits[-1] * 1000, abs=50)
        assert await bench.store.tickets.depths() == {"default.default": 0}
        await bench.store.undefer(job_id)
        await bench.store.release(job_id)
    assert waits == pytest.approx([21, 21, 21, 40, 80, 160, 300, 300], abs=1)
    job = await bench.run([overloaded(21)])
    assert ending(job)[:3] == ("failed", "error", "overloaded")
    assert job.error is not None
    assert "given up" in job.error["message"]


async def test_no_server_can_put_a_job_off_for_ever(bench: Bench):
    job_id = await bench.submit()
    assert (await bench.run([overloaded(10.0**9)])).status == "queued"
    assert (await bench.store.lines(job_id))[-1].data["deferred"] == LONGEST_WAIT


async def test_an_answer_starts_the_waits_anew(bench: Bench):
    job_id = await bench.submit()
    for script in ([overloaded(21)], [LOOKUP, overloaded(21)]):
        assert (await bench.run(script)).status == "queued"
        await bench.store.undefer(job_id)
        await bench.store.release(job_id)
    waits = [line.data["deferred"] for line in await bench.store.lines(job_id) if "deferred" in line.data]
    assert waits == pytest.approx([21, 21], abs=1)
    model = ScriptedModel([LOOKUP, says("ok")])
    assert (await bench.run(model)).status == "completed"
    assert len(model.requests) == 1


async def test_a_pause_that_was_asked_for_before_holds_at_the_next_step(bench: Bench):
    job_id = await bench.submit()

    class Pauses(ScriptedModel):
        async def complete(self, request: Request, draft: Draft) -> None:
            await actions.pause(bench.store, TENANT, job_id)
            await super().complete(request, draft)

    assert (await bench.run(Pauses([LOOKUP]))).status == "paused"
    assert (await bench.types(job_id))[-2:] == ["tool.completed", "job.paused"]
    await actions.resume(bench.store, TENANT, job_id)
    assert (await bench.run([LOOKUP, says("ok")])).output == "ok"


@pytest.mark.parametrize("effect", ["pay", "lookup"])
async def test_an_interrupted_call_is_repeated_only_when_that_is_harmless(bench: Bench, effect: str):
    inputs: dict[str, Json] = {"pay": {"amount": 3}, "lookup": {"order_id": "A1"}}
    given = inputs[effect]
    model = ScriptedModel([calls((effect, given)), says("ok")])
    job_id = await bench.submit()
    claim = await bench.claim()
    assert claim.job is not None
    first = Draft()
    await model.complete(Request("m", "", [{"role": "user", "content": "go"}], [], 1), first)
    call_id = first.content[0]["id"]
    journal = DurableJournal(
        bench.store, claim.job, claim.token, Stats(), LiveText(bench.store, claim.job), on_cancel=lambda: None
    )
    await journal.record(
        ModelCompleted("c", 1, "m", first.content, "tool_use", None, "p", reserved=0, settled=0, reason="settled"),
        ToolRequested(call_id, 1, effect, given, bench.agent.registry.effect(effect)),
    )
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    job = await bench.run(model)
    if effect == "lookup":
        assert ending(job) == ("completed", "end_turn", None, "ok")
    else:
        assert ending(job)[:2] == ("requires_action", "needs_reconcile")
        (call,) = (await bench.store.lines(job_id))[-1].data["calls"]
        assert (call["tool"], call["input"]) == ("pay", {"amount": 3})


async def test_a_cancel_that_was_asked_for_before_the_claim_is_obeyed_without_a_step(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    await bench.store.flag(await bench.job(job_id), "cancel")
    assert claim.job is not None
    await bench.store.move(claim.job, "hand_back", attempt=bench.attempt(claim))
    model = ScriptedModel([says("no")])
    job = await bench.run(model)
    assert (ending(job), model.requests) == (("cancelled", "cancelled", None, None), [])


@pytest.mark.parametrize(
    ("reply", "last"), [(says("late"), "model.completed"), (calls(("erase", {})), "model.completed")]
)
async def test_a_cancel_that_comes_with_the_last_record_ends_the_job_and_frees_its_session(
    bench: Bench, reply: Json, last: str
):
    first = await bench.submit(session_id="s")
    second = await bench.submit(session_id="s")
    real = bench.store.record

    async def record(
        job_id: str, token: str, number: int, counters: Any, entries: list[tuple[str, Json]], *money: Any
    ) -> int:
        if entries[0][0] == last:
            await bench.store.flag(await bench.job(first), "cancel")
        return await real(job_id, token, number, counters, entries, *money)

    bench.store.record = record  # type: ignore[method-assign, assignment]
    attempted = Attempted(await bench.claim())
    attempted.task = asyncio.create_task(bench.executor(ScriptedModel([reply])).execute(attempted))
    await attempted.task
    assert (await bench.job(first)).status == "cancelled"
    assert (await SessionMemory(bench.store.link).read(SessionScope(TENANT, "s"))).messages == []
    assert (await bench.claim()).job_id == second


async def test_nothing_interrupts_an_ending(bench: Bench):
    await bench.submit()
    claim = await bench.claim()
    attempted = Attempted(claim)
    executor = bench.executor(ScriptedModel([says("ok")]))
    moves: list[str] = []
    real = bench.store.move

    async def move(job: Job, action: str, *args: Any, **kwargs: Any) -> Any:
        moves.append(action)
        attempted.interrupt("cancel")
        attempted.interrupt("lost")
        return await real(job, action, *args, **kwargs)

    bench.store.move = move  # type: ignore[method-assign]
    attempted.task = asyncio.create_task(executor.execute(attempted))
    await attempted.task
    assert moves == ["complete"]
    assert (await bench.job(claim.job_id)).output == "ok"
    assert executor.ended == {"successful": 1}


async def test_a_zombie_writes_nothing(bench: Bench):
    """The job is taken over while the model answers; the first attempt's reply must not reach the journal."""
    job_id = await bench.submit()
    claim = await bench.claim()

    class TakenOver(ScriptedModel):
        async def complete(self, request: Request, draft: Draft) -> None:
            await bench.end_lease(claim)
            await bench.reaper.sweep()
            second = await bench.claim()
            assert second.job_id == job_id
            await super().complete(request, draft)

    await bench.executor(TakenOver([says("from the grave")])).execute(Attempted(claim))
    job = await bench.job(job_id)
    assert (job.status, job.attempts) == ("running", 2)
    lines = await bench.store.lines(job_id)
    assert [line.type for line in lines][-2:] == ["job.rescued", "job.started"]
    assert bench.stats.take()["fenced_total"] == 1


async def test_a_version_that_this_worker_has_lost_is_handed_back(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    await bench.executor(ScriptedModel([]), make_agent(instructions="other")).execute(Attempted(claim))
    job = await bench.job(job_id)
    assert (job.status, job.lost) == ("queued", 0)
    assert await bench.store.tickets.depths() == {"default.default": 1}


async def test_a_session_keeps_what_completed_jobs_said_and_nothing_of_others(bench: Bench):
    # a scripted model takes the answers of the conversation for turns that it has played
    scripts: list[list[Any]] = [[says("one")], [says("one"), REFUSED], [says("one"), says("two")]]
    scripts.append([says("one"), says("two"), says("ok")])
    statuses = []
    for number, script in enumerate(scripts):
        model = ScriptedModel(script)
        await bench.submit(session_id="s", input=f"question {number}")
        statuses.append((await bench.run(model)).status)
    assert statuses == ["completed", "failed", "completed", "completed"]
    asked = model.requests[0].messages
    texts = [m["content"] if isinstance(m["content"], str) else m["content"][0]["text"] for m in asked]
    assert texts == ["question 0", "one", "question 2", "two", "question 3"]


async def test_a_claim_takes_nothing_of_a_version_that_is_not_there(bench: Bench):
    await bench.submit()
    assert await bench.store.tickets.claim(queue_names(["default"]), [], most=5, lease=5, worker="w") == []
    depths = await bench.store.tickets.depths()
    assert depths[f"default.default@x@{bench.agent.version}"] == 1
