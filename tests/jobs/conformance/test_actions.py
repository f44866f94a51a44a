"""Cancel, pause, resume, retry and fork, as the API offers them."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.entries import (
    Compacted,
    Entry,
    ModelCompleted,
    ModelStarted,
    StateChanged,
    ToolCompleted,
    ToolRequested,
    entry_to_json,
)
from agent_core.types import Budget, Json
from jobs import actions
from jobs.errors import ConflictError, IdempotencyError, InvalidError, NotFoundError
from jobs.journal import ledger_rows
from jobs.link import milliseconds
from jobs.moves import Attempt, Idempotency
from jobs.records import Job
from jobs.status import ENDED, Status
from tests.jobs.driver import HOUR_MS, TENANT, Driver, attempt_of

WAITING: list[Status] = ["scheduled", "queued", "paused", "requires_action"]


# ---- cancel


@pytest.mark.parametrize("status", WAITING)
async def test_a_cancel_ends_a_waiting_job_at_once(driver: Driver, status: Status) -> None:
    job = await driver.into(status)
    cancelled = await actions.cancel(driver.store, TENANT, job.id)
    assert (cancelled.status, cancelled.stop_reason) == ("cancelled", "cancelled")
    assert await actions.cancel(driver.store, TENANT, job.id) == cancelled
    assert (await driver.types(job)).count("job.cancelled") == 1
    assert await driver.claim(10) == []


async def test_a_cancel_is_asked_of_a_running_job(driver: Driver) -> None:
    job, attempt = await driver.start()
    asked = await actions.cancel(driver.store, TENANT, job.id)
    assert (asked.status, asked.flag) == ("running", "cancel")
    assert await driver.write(job, attempt, 1, "a") == 1
    await driver.end(job, attempt, "stop", stop_reason="cancelled")
    assert (await actions.cancel(driver.store, TENANT, job.id)).status == "cancelled"


@pytest.mark.parametrize("status", sorted(ENDED - {"cancelled"}))
async def test_what_has_ended_is_not_cancelled(driver: Driver, status: Status) -> None:
    job = await driver.into(status)
    with pytest.raises(ConflictError):
        await actions.cancel(driver.store, TENANT, job.id)
    assert await driver.get(job) == job


@pytest.mark.parametrize("action", [actions.cancel, actions.pause, actions.resume, actions.retry])
async def test_nobody_acts_on_another_tenants_job(driver: Driver, action) -> None:
    job = await driver.submit()
    with pytest.raises(NotFoundError):
        await action(driver.store, "rival", job.id)
    assert await driver.get(job) == await driver.store.get(TENANT, job.id)
    assert await driver.status(job) == "queued"


# ---- pause and resume


@pytest.mark.parametrize("status", ["scheduled", "queued"])
async def test_a_pause_takes_a_waiting_job_off_the_queue(driver: Driver, status: Status) -> None:
    job = await driver.into(status)
    paused = await actions.pause(driver.store, TENANT, job.id)
    assert paused.status == "paused"
    assert await actions.pause(driver.store, TENANT, job.id) == paused
    assert await driver.claim(10) == []


async def test_a_pause_is_asked_of_a_running_job(driver: Driver) -> None:
    job, attempt = await driver.start()
    assert (await actions.pause(driver.store, TENANT, job.id)).flag == "pause"
    assert await driver.write(job, attempt, 1, "a") == 2
    await driver.end(job, attempt, "suspend")
    assert (await driver.get(job)).flag is None


@pytest.mark.parametrize("status", [*sorted(ENDED), "requires_action"])
async def test_what_cannot_be_paused(driver: Driver, status: Status) -> None:
    job = await driver.into(status)
    with pytest.raises(ConflictError):
        await actions.pause(driver.store, TENANT, job.id)


async def test_a_resumed_job_runs_again(driver: Driver) -> None:
    job = await driver.into("paused")
    assert (await actions.resume(driver.store, TENANT, job.id)).status == "queued"
    with pytest.raises(ConflictError):
        await actions.resume(driver.store, TENANT, job.id)
    assert (await driver.claim_one()).job_id == job.id
    assert (await driver.types(job))[-2:] == ["job.resumed", "job.started"]


async def test_a_pause_does_not_make_a_scheduled_job_run_early(driver: Driver) -> None:
    job = await driver.submit(run_at=milliseconds() + HOUR_MS)
    await actions.pause(driver.store, TENANT, job.id)
    assert (await actions.resume(driver.store, TENANT, job.id)).status == "queued"
    await driver.sweep()
    assert await driver.claim(10) == []


# ---- retry


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
async def test_a_retry_queues_it_again(driver: Driver, status: Status) -> None:
    job = await driver.into(status)
    again = await actions.retry(driver.store, TENANT, job.id, {"usd": "9.00"})
    assert (again.status, again.budget) == ("queued", Budget(usd="9.00"))
    (*_, last) = await driver.store.lines(job.id)
    assert (last.type, last.data) == ("job.queued", {"status": "queued", "retry": True})
    assert (await driver.claim_one()).job_id == job.id


async def test_only_what_ended_badly_is_retried(driver: Driver) -> None:
    for status in ("completed", "running", "queued"):
        job = await driver.into(status)
        with pytest.raises(ConflictError):
            await actions.retry(driver.store, TENANT, job.id)
        await driver.claim(10)


# ---- fork


def turn(step: int, *, stop_reason: str = "tool_use", settled: int = 100) -> list[tuple[str, Json]]:
    """A model call with one tool call, as the loop records it."""
    call, tool = f"call_{step}", f"tool_{step}"
    entries: list[Entry] = [
        ModelStarted(call, step, "m", 500),
        ModelCompleted(call, step, "m", [{"type": "text", "text": f"t{step}"}], stop_reason,
                       {"input_tokens": 3, "output_tokens": 4}, "p1", 500, settled, "usage"),
    ]  # fmt: skip
    if stop_reason == "tool_use":
        entries += [ToolRequested(tool, step, "look", {}, "read"), ToolCompleted(tool, step, "look", "{}", False)]
    return [(entry.TYPE, entry_to_json(entry)) for entry in entries]


async def finished(driver: Driver, **spec):
    """A job of three turns; the third is its answer."""
    job, attempt = await driver.start(**spec)
    lines = [*turn(1), *turn(2), *turn(3, stop_reason="end_turn")]
    await driver.store.record(job.id, attempt.token, 1, {"cost": 300}, lines)
    await driver.end(job, attempt, data={"output": "done"})
    return job


async def kept(driver: Driver, job) -> list[tuple[str, int]]:
    lines = await driver.store.lines(job.id)
    return [(line.type, line.data["step"]) for line in lines if "step" in line.data]


TURN = ["model.completed", "tool.requested", "tool.completed"]


@pytest.mark.parametrize(("step", "steps"), [(0, 0), (1, 1), (2, 2)])
async def test_a_fork_starts_with_the_steps_it_is_made_from(driver: Driver, step: int, steps: int) -> None:
    job = await finished(driver, tags=["a"], session_id="s", priority="high")
    forked = (await actions.fork(driver.store, TENANT, job.id, step=step, changes={"tags": ["b"]})).job
    assert await kept(driver, forked) == [(type_, n + 1) for n in range(steps) for type_ in TURN]
    assert (forked.spec.tags, forked.spec.priority, forked.spec.session_id) == (["b"], "high", None)
    assert forked.spec.forked_from == {"job_id": job.id, "step": step}
    first, *rest = await driver.store.lines(forked.id)
    assert first.data == {"status": "queued", "forked_from": {"job_id": job.id, "step": step}}
    assert {line.attempt for line in rest} <= {0}
    assert (await driver.claim_one()).job_id == forked.id
    assert (await driver.get(job)).status == "completed"


async def test_a_fork_goes_on_from_the_end_with_a_message(driver: Driver) -> None:
    job = await finished(driver)
    with pytest.raises(InvalidError, match="final answer"):
        await actions.fork(driver.store, TENANT, job.id, step=None, changes={})
    forked = (await actions.fork(driver.store, TENANT, job.id, step=None, changes={}, message="and now?")).job
    (*_, last) = await driver.store.lines(forked.id)
    assert (last.type, last.data) == ("user.message", {"text": "and now?"})
    second = (await actions.fork(driver.store, TENANT, forked.id, step=3, changes={}, message="again")).job
    said = [line.data["text"] for line in await driver.store.lines(second.id) if line.type == "user.message"]
    assert said == ["again"], "what was said after the step is not part of it"
    assert await kept(driver, second) == await kept(driver, forked)


async def test_a_fork_is_told_what_the_platform_said_and_what_gave_way_to_summaries(driver: Driver) -> None:
    """Without it the copied replies would answer questions that nobody asked."""
    job, attempt = await driver.start()
    entries: list[Entry] = [
        StateChanged("planning", 0, "phase", "plan"),
        ModelCompleted("m1", 1, "m", [], "end_turn", None, "p", 1, 1, "settled"),
        StateChanged("executing", 1, "phase", "do it"),
        ModelCompleted("s1", 1, "m", [], "end_turn", None, "p", 1, 1, "settled", role="summariser"),
        Compacted(1, "so far", 1),
        ModelCompleted("m2", 2, "m", [], "end_turn", None, "p", 1, 1, "settled"),
        StateChanged("validating", 2, "phase", "check it"),
    ]
    noted = ("state.changed", {"state": "executing", "session_length": 3})
    lines = [noted, *((entry.TYPE, entry_to_json(entry)) for entry in entries)]
    await driver.store.record(job.id, attempt.token, 1, {}, lines)
    await driver.end(job, attempt, "stop", stop_reason="cancelled")
    for step, count in ((1, 5), (2, 7)):  # a phase's answer is not the final one
        forked = (await actions.fork(driver.store, TENANT, job.id, step=step, changes={})).job
        found = [line.entry() for line in await driver.store.lines(forked.id)]
        assert [entry for entry in found if entry is not None] == entries[:count]
    bare = (await actions.fork(driver.store, TENANT, job.id, step=0, changes={"input": "other"})).job
    assert await driver.types(bare) == ["job.queued"]


async def test_a_fork_leaves_out_an_intent_without_a_result(driver: Driver) -> None:
    job, attempt = await driver.start()
    await driver.store.record(job.id, attempt.token, 1, {}, turn(1)[:-1])
    forked = (await actions.fork(driver.store, TENANT, job.id, step=1, changes={})).job
    assert await kept(driver, forked) == [("model.completed", 1)]


@pytest.mark.parametrize(
    ("step", "changes", "code"),
    [(4, {}, "no_such_step"), (-1, {}, "no_such_step"), (1, {"input": "else"}, "invalid_request")],
)
async def test_forks_that_make_no_sense(driver: Driver, step: int, changes: Json, code: str) -> None:
    job = await finished(driver)
    with pytest.raises(InvalidError) as caught:
        await actions.fork(driver.store, TENANT, job.id, step=step, changes=changes)
    assert caught.value.code == code
    assert await driver.tickets() == 0


async def test_a_fork_is_made_once_for_its_idempotency_key(driver: Driver) -> None:
    job = await finished(driver)
    key = Idempotency("d", "f")
    how: dict[str, Any] = {"step": 0, "changes": {"input": "other"}, "budget": {"usd": "0.01"}, "idempotency": key}
    first = await actions.fork(driver.store, TENANT, job.id, **how)
    second = await actions.fork(driver.store, TENANT, job.id, **how)
    assert (second.replayed, second.job.id) == (True, first.job.id)
    assert (first.job.spec.input, first.job.budget) == ("other", Budget(usd="0.01"))
    with pytest.raises(IdempotencyError):
        await actions.fork(driver.store, TENANT, job.id, **{**how, "idempotency": Idempotency("d", "g")})


# ---- the ledger


async def test_the_ledger_has_a_row_for_each_call_an_open_one_included(driver: Driver) -> None:
    job, attempt = await driver.start()
    open_call = ModelStarted("call_2", 2, "m", 700)
    lines = [*turn(1, settled=120), (open_call.TYPE, entry_to_json(open_call))]
    await driver.store.record(job.id, attempt.token, 1, {}, lines)
    paid, reserved = ledger_rows(job.id, await driver.store.lines(job.id))
    assert (paid["id"], paid["reserved_usd"], paid["settled_usd"], paid["reason"]) == (
        "call_1", "0.0005", "0.00012", "usage",
    )  # fmt: skip
    assert (paid["attempt"], paid["step"], paid["price_version"]) == (1, 1, "p1")
    assert (reserved["id"], reserved["reserved_usd"], reserved["settled_usd"]) == ("call_2", "0.0007", None)
    assert (reserved["reason"], reserved["usage"]) == ("reserved", None)


async def test_copied_steps_cost_a_fork_nothing(driver: Driver) -> None:
    job = await finished(driver)
    assert len(ledger_rows(job.id, await driver.store.lines(job.id))) == 3
    forked = (await actions.fork(driver.store, TENANT, job.id, step=2, changes={})).job
    assert ledger_rows(forked.id, await driver.store.lines(forked.id)) == []
    attempt = attempt_of(await driver.claim_one())
    await driver.store.record(forked.id, attempt.token, 1, {}, turn(3, stop_reason="end_turn"))
    (row,) = ledger_rows(forked.id, await driver.store.lines(forked.id))
    assert (row["step"], row["attempt"]) == (3, 1)


# ---- the whole journal of a life with everything in it


async def test_a_life_reads_in_the_order_in_which_it_happened(driver: Driver) -> None:
    job, first = await driver.start(lease=-1)
    await driver.write(job, first, 1, "one")
    await driver.rescue(job.id, first)
    second = attempt_of(await driver.claim_one())
    await driver.end(job, second, "park", {"calls": []}, stop_reason="approval")
    await driver.store.move(job, "decide")
    third = attempt_of(await driver.claim_one(worker="w2"))
    await actions.pause(driver.store, TENANT, job.id)
    await driver.end(job, third, "suspend")
    await actions.resume(driver.store, TENANT, job.id)
    fourth: Attempt = attempt_of(await driver.claim_one())
    await driver.end(job, fourth, "fail", {"error": {"code": "c", "message": "m"}}, stop_reason="error")
    lines = await driver.store.lines(job.id)
    assert [(line.type, line.attempt, line.data) for line in lines] == [
        ("job.queued", 0, {"status": "queued"}),
        ("job.started", 1, {"worker": "w1"}),
        ("state.changed", 1, {"state": "one"}),
        ("job.rescued", 1, {"status": "queued"}),
        ("job.started", 2, {"worker": "w1"}),
        ("job.requires_action", 2, {"status": "requires_action", "calls": []}),
        ("job.resumed", 2, {"status": "queued"}),
        ("job.started", 3, {"worker": "w2"}),
        ("job.paused", 3, {"status": "paused"}),
        ("job.resumed", 3, {"status": "queued"}),
        ("job.started", 4, {"worker": "w1"}),
        ("job.failed", 4, {"status": "failed", "error": {"code": "c", "message": "m"}}),
    ]


# ---- a job that moves between the look and the act


def see_first(driver: Driver, monkeypatch: pytest.MonkeyPatch, *outdated: Job) -> None:
    """The next looks at a job show it as it was."""
    looks, plain = list(outdated), driver.store.get

    async def get(tenant: str | None, job_id: str) -> Job:
        return looks.pop(0) if looks else await plain(tenant, job_id)

    monkeypatch.setattr(driver.store, "get", get)


@pytest.mark.parametrize(("action", "flag"), [(actions.cancel, "cancel"), (actions.pause, "pause")])
async def test_it_was_claimed_meanwhile(driver: Driver, monkeypatch: pytest.MonkeyPatch, action, flag: str) -> None:
    job = await driver.submit()
    await driver.claim_one()
    see_first(driver, monkeypatch, job)
    asked = await action(driver.store, TENANT, job.id)
    assert (asked.status, asked.flag) == ("running", flag)


@pytest.mark.parametrize(("action", "status"), [(actions.cancel, "cancelled"), (actions.pause, "paused")])
async def test_it_was_handed_back_meanwhile(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, action, status: Status
) -> None:
    job, attempt = await driver.start()
    await driver.end(job, attempt, "hand_back")
    see_first(driver, monkeypatch, job)
    assert (await action(driver.store, TENANT, job.id)).status == status


@pytest.mark.parametrize("action", [actions.cancel, actions.pause])
async def test_a_job_that_never_stands_still_is_given_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, action
) -> None:
    job = await driver.submit()
    await driver.claim_one()
    see_first(driver, monkeypatch, *[job] * actions.ROUNDS)
    with pytest.raises(ConflictError, match="too quickly"):
        await action(driver.store, TENANT, job.id)
