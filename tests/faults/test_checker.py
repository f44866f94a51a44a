"""The checker finds each kind of fault, and a run in which nothing succeeded wrong: it can say no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_core.types import Budget
from jobs.journal import Line
from jobs.records import Job, JobSpec
from tests.faults.checker import check
from tests.faults.evidence import Evidence, Payment, gather, payments
from tests.faults.history import History

JOB = "job_1"
Spoil = Callable[[Evidence], None]


def line(second: int, type_: str, attempt: int = 1, **data: Any) -> Line:
    return Line(f"{second * 1000}-0", type_, attempt, data)


def model(second: int, step: int, attempt: int = 1) -> list[Line]:
    money = {"call_id": f"call-{step}-{second}", "step": step, "model": "m", "reserved": 50}
    reply = {**money, "settled": 10, "reason": "settled"}
    return [line(second, "model.started", attempt, **money), line(second + 1, "model.completed", attempt, **reply)]


def intent(second: int, name: str, attempt: int = 1) -> Line:
    return line(second, "tool.requested", attempt, call_id=name, name=name, step=1)


def result(second: int, name: str, attempt: int = 1) -> Line:
    return line(second, "tool.completed", attempt, call_id=name, name=name, step=1, is_error=False)


def call(turn: int, at: float) -> dict[str, Any]:
    return {"script_key": "o", "turn": turn, "started_at": at}


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Evidence]:
    """One job that was rescued between its two turns, wired its money, and completed."""
    history = History(tmp_path / "history.jsonl")
    for what in ({"what": "submit"}, {"what": "ack", "job": JOB}, {"what": "saw", "job": JOB, "status": "completed"}):
        history.write(order="o", **what)
    counters = {"cost": 20, "reserved": 0, "model_calls": 2, "tool_calls": 1}
    job = Job(JOB, "t", JobSpec("payer", "x"), Budget(), "completed", 0, counters=counters)
    lines = [
        line(0, "job.queued", 0),
        line(1, "job.started"),
        *model(2, 1),
        line(4, "job.rescued"),
        line(5, "job.started", 2),
        intent(6, "wire", 2),
        result(8, "wire", 2),
        *model(9, 2, 2),
        line(11, "job.completed", 2),
    ]
    calls, paid = [call(0, 2.5), call(1, 9.5)], [Payment("wire", "o", "job_1.wire", 7.0)]
    yield Evidence(history, {JOB: job}, {JOB: lines}, calls, paid)
    history.close()


def test_a_sound_run_is_found_sound(sound: Evidence) -> None:
    assert check(sound, least_completed=1) == []


def test_a_run_in_which_too_little_succeeded_proves_nothing(sound: Evidence) -> None:
    assert "only 1 jobs completed" in "".join(check(sound, least_completed=2))


def with_job(**changes: Any) -> Spoil:
    def spoil(evidence: Evidence) -> None:
        evidence.jobs[JOB] = replace(evidence.jobs[JOB], **changes)

    return spoil


def with_lines(at: int, *lines: Line) -> Spoil:
    return lambda evidence: evidence.journals[JOB].__setitem__(slice(at, at), lines)


def without_lines(at: int, to: int) -> Spoil:
    return lambda evidence: evidence.journals[JOB].__delitem__(slice(at, to))


def with_history(what: str, order: str = "o", **more: str) -> Spoil:
    return lambda evidence: evidence.history.write(what, order, **more)


def with_call(turn: int, at: float) -> Spoil:
    return lambda evidence: evidence.calls.append(call(turn, at))


def with_payment(key: str, at: float, way: str = "wire") -> Spoil:
    return lambda evidence: evidence.payments.append(Payment(way, "o", key, at))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (with_history("submit", "other"), "other was never accepted"),
        (with_history("ack", job="job_2"), "accepted as 2 jobs"),
        (with_history("ack", "other", job="job_3"), "job_3 was accepted and is lost"),
        (lambda e: e.jobs.update(job_9=replace(e.jobs[JOB], id="job_9")), "job_9 is nobody's"),
        (with_job(status="running"), "stranded as running"),
        (with_history("saw", job=JOB, status="failed"), "was seen as"),
        (with_lines(11, line(12, "job.failed", 2)), "job.failed after its end"),
        (with_lines(6, *model(5, 1, 2)), "of step 1, which has its reply"),
        (with_lines(8, intent(8, "wire", 2)), "tool.requested of wire, which has its result"),
        (with_lines(8, result(8, "wire", 2)), "tool.completed of wire, which has its result"),
        (with_lines(5, line(4, "state.changed", 1)), "by attempt 1 while nobody owns"),
        (with_lines(6, line(5, "state.changed", 1)), "by attempt 1 while 2 owns"),
        (with_lines(4, intent(3, "wire")), "wire was begun again"),
        (with_lines(4, intent(3, "wire"), line(4, "job.queued")), "nobody was asked about ['wire']"),
        (with_lines(4, line(3, "job.requires_action", calls=[{"call_id": "x"}])), "parked for ['x']"),
        (with_job(counters={"cost": 19}), "its journal comes to"),
        (without_lines(9, 10), "still reserved"),
        (with_call(0, 3.5), "again after its reply was recorded"),
        (with_call(1, 9.6), "1 calls for ('o', 1) were made without a reservation"),
        (with_payment("job_1.wire", 7.5), "wire o happened 2 times"),
        (with_payment("job_1.other", 7.5), "wire o was sent under 2 keys"),
        (with_payment("job_1.wire", 8.5), "happened after its result was recorded"),
        (lambda e: e.payments.clear(), "has a result and never happened"),
    ],
)
def test_a_fault_is_found(sound: Evidence, spoil: Spoil, found: str) -> None:
    spoil(sound)
    assert found in "\n".join(check(sound, least_completed=1))


async def test_evidence_is_what_redis_and_the_stub_hold(store, sound: Evidence, tmp_path: Path) -> None:
    job = (await store.submit("t", JobSpec("payer", "x", "v1"), Budget())).job
    (tmp_path / "wire").write_text("key o 1.5\n")
    evidence = await gather(store.link, "t", sound.history, [], str(tmp_path))
    assert list(evidence.jobs) == list(evidence.journals) == [job.id]
    assert [line.type for line in evidence.journals[job.id]] == ["job.queued"]
    assert evidence.payments == payments(tmp_path) == [Payment("wire", "o", "key", 1.5)]
