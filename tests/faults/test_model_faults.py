"""The model fails in every way at every turn of a job: what becomes of it, how often it is asked, what it costs."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent_core.pricing import PUBLISHED
from agent_core.types import Json, micros
from jobs import actions
from jobs.journal import Line, ledger_rows
from jobs.records import Job
from tests.faults.rig import Rig
from tests.integration.harness import TENANT, eventually, says

MODEL = "claude-sonnet-5-5"
TURNS = 6
ATTEMPTS = 3
"""At a turn, before the job goes back to the queue for a while."""
LONG_WAITS = 8
"""After which a job is given up."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to fail: the fault in the simulated model, the code that it gets here, and what its attempt is billed."""

    fault: Json
    code: str
    reason: str


KINDS = {
    "429": Kind({"status": 429, "retry_after": 0.1}, "rate_limited", "released"),
    "529": Kind({"status": 529}, "overloaded", "released"),
    "500": Kind({"status": 500}, "server_error", "released"),
    "502": Kind({"status": 502}, "server_error", "worst_case"),
    "hang": Kind({"hang": 0.2}, "connection", "worst_case"),
    "hang in the stream": Kind({"hang": 0.2, "after": 0.5}, "connection", "cut_stream"),
    "reset": Kind({"drop": True}, "connection", "worst_case"),
    "reset in the stream": Kind({"cut": 0.5}, "connection", "cut_stream"),
    "error in the stream": Kind({"error_event": "overloaded_error"}, "overloaded", "cut_stream"),
    "early end": Kind({"early_end": True}, "early_end", "cut_stream"),
    "malformed tool JSON": Kind({"malformed_tool_json": True}, "malformed_tool_input", "settled"),
}
EACH = [(name, turn) for name in KINDS for turn in range(1, TURNS + 1)]


def turns(rig: Rig, order: str, name: str, faulty: int, *, always: bool) -> list[Json]:
    """Five tool calls and an answer; one of the turns fails twice, or for ever."""
    given = {"folder": str(rig.folder)}
    played: list[Json] = [{"tool": "look", "input": {**given, "order": f"{order}-{turn}"}} for turn in range(1, TURNS)]
    played.append(says("all looked up"))
    if name.startswith("malformed") and faulty == TURNS:  # it takes a call to have a malformed one
        played[-1] = {"tool": "look", "input": {**given, "order": f"{order}-{TURNS}"}}
    fault = KINDS[name].fault
    played[faulty - 1] |= {"always": True, "faults": [fault]} if always else {"faults": [fault] * (ATTEMPTS - 1)}
    return played


async def submit_all(rig: Rig, *, always: bool) -> dict[tuple[str, int], str]:
    """A job for each kind and turn, all at once."""

    async def submit(name: str, turn: int) -> str:
        order = f"{name.replace(' ', '_')}-{turn}-{'always' if always else 'twice'}"
        return await rig.client.submit(order, *turns(rig, order, name, turn, always=always))

    ids = await asyncio.gather(*(submit(*each) for each in EACH))
    return dict(zip(EACH, ids, strict=True))


def attempts_at(lines: list[Line]) -> Counter[int]:
    """How often each turn was asked for."""
    return Counter(line.data["step"] for line in lines if line.type == "model.started")


async def reckon(rig: Rig, found: dict[tuple[str, int], str]) -> dict[str, Counter[str]]:
    """Holds each ledger against what the provider would bill; returns the reasons of the rows, by kind.

    What is known is billed to the micro-dollar. What is not is at no less than it may be: a stream that was cut at its
    input and what arrived of it, an attempt without an answer at its worst case.
    """
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    seen: dict[str, list[Json]] = defaultdict(list)
    for call in await rig.processes.simulator.calls():
        seen[call["script_key"]].append(call)
    orders = {job_id: order for order, ids in rig.history.accepted().items() for job_id in ids}
    for (name, _), job_id in found.items():
        job, rows = await rig.store.get(TENANT, job_id), ledger_rows(job_id, await rig.store.lines(job_id))
        rows = [row for row in rows if row["model"]]
        calls = seen[orders[job_id]]
        assert len(rows) == len(calls), (name, job_id)
        for row, call in zip(rows, calls, strict=True):
            check_row(row, call["usage"])
            reasons[name][row["reason"]] += 1
        assert job.counters["cost"] == sum(micros(row["settled_usd"]) for row in rows)
        assert job.counters["reserved"] == 0
    return dict(reasons)


def check_row(row: Json, usage: Json | None) -> None:
    settled, reserved = micros(row["settled_usd"]), micros(row["reserved_usd"])
    billed = 0 if usage is None else PUBLISHED.price(MODEL, usage)
    match row["reason"]:
        case "settled" | "released":
            assert settled == billed, row
        case "cut_stream":
            assert usage is not None
            assert PUBLISHED.price(MODEL, {**usage, "output_tokens": 0}) <= settled <= reserved, row
        case "worst_case":
            assert billed <= settled == reserved, row
        case reason:
            pytest.fail(f"a row has the reason {reason!r}")


async def test_two_failures_in_a_row_at_any_turn_cost_the_job_nothing_but_time(
    rig: Rig, report: Callable[..., None]
) -> None:
    rig.start_worker()
    found = await submit_all(rig, always=False)
    for (name, faulty), job_id in found.items():
        job = await ends(rig, job_id)
        assert job.status == "completed", (name, faulty, job.error)
        lines = await rig.store.lines(job_id)
        last = TURNS + (name.startswith("malformed") and faulty == TURNS)
        assert attempts_at(lines) == {step: ATTEMPTS if step == faulty else 1 for step in range(1, last + 1)}
        failures = [line.data["code"] for line in lines if line.type == "model.failed"]
        assert failures == [KINDS[name].code] * (ATTEMPTS - 1), name
    for name, reasons in (await reckon(rig, found)).items():
        assert reasons[KINDS[name].reason] >= TURNS * (ATTEMPTS - 1), (name, reasons)
    assert len(found) == len(KINDS) * TURNS
    report("model fails twice", jobs=len(found), completed=len(found), most_attempts_at_a_turn=ATTEMPTS, drift=0)


@pytest.mark.parametrize(
    "waits", [pytest.param(1, id="short"), pytest.param(LONG_WAITS + 1, marks=pytest.mark.chaos, id="long")]
)
async def test_a_turn_that_never_succeeds_waits_in_the_queue_and_is_given_up_in_the_end(
    rig: Rig, waits: int, report: Callable[..., None]
) -> None:
    """Each wait is cut short here. The short form cancels the jobs in their first."""
    rig.start_worker()
    found = await submit_all(rig, always=True)
    for round_ in range(1, waits + 1):
        for (name, faulty), job_id in found.items():
            lines = await put_off(rig, job_id, round_)
            assert attempts_at(lines)[faulty] == ATTEMPTS * round_, (name, faulty)
            if round_ <= LONG_WAITS:
                assert lines[-1].data["code"] == KINDS[name].code
        if round_ < waits:
            for job_id in found.values():
                await rig.store.undefer(job_id)
                await rig.store.release(job_id)
    for (name, faulty), job_id in found.items():
        if waits == 1:
            await actions.cancel(rig.store, TENANT, job_id)
        job = await rig.store.get(TENANT, job_id)
        assert job.status == ("cancelled" if waits == 1 else "failed"), (name, faulty)
        if waits > 1:
            assert (job.stop_reason, (job.error or {})["code"]) == ("error", KINDS[name].code)
    reasons = await reckon(rig, found)
    report("model never answers", jobs=len(found), attempts_at_a_turn_between_waits=ATTEMPTS, waits=waits - 1, drift=0)
    for name, counted in reasons.items():
        assert counted[KINDS[name].reason] >= TURNS * ATTEMPTS * waits, (name, counted)


async def put_off(rig: Rig, job_id: str, round_: int) -> list[Line]:
    """The journal of a job once it was put off so many times, or has ended."""

    async def probe() -> list[Line] | None:
        lines = await rig.store.lines(job_id)
        waits = sum(line.type == "job.queued" and "deferred" in line.data for line in lines)
        return lines if waits == round_ or lines[-1].type == "job.failed" else None

    found: list[Line] = await eventually(probe, f"wait {round_} of {job_id}", within=60)
    return found


async def ends(rig: Rig, job_id: str) -> Job:
    async def probe() -> Job | None:
        job = await rig.store.get(TENANT, job_id)
        return job if job.ended else None

    found: Job = await eventually(probe, f"the end of {job_id}", within=60)
    return found
