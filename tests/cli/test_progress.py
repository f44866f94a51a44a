from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cli.progress import Progress, describe

AT = "2026-11-21T08:00:0{}.000Z"


def event(type_: str, second: int = 0, attempt: int = 1, **data):
    return {"type": type_, "attempt": attempt, "created_at": AT.format(second), "data": data}


USAGE: dict[str, Any] = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": None,
    "output_tokens": 7,
}
REPLY: dict[str, Any] = {
    "step": 1, "stop_reason": "tool_use", "usage": USAGE, "settled_usd": "0.002", "seconds": 1.0, "content": [],
}  # fmt: skip
JOB = [
    event("job.queued", 0, 0, status="queued"),
    event("job.started", 1, status="running"),
    event("model.started", 1, step=1, model="claude-x", reserved_usd="0.1", call_id="m1"),
    {"type": "message.delta", "job_id": "job_1", "attempt": 1, "data": {"step": 1, "text": "Let me "}},
    {"type": "message.delta", "job_id": "job_1", "attempt": 1, "data": {"step": 1, "text": "look"}},
    event("model.completed", 2, **REPLY),
    event("tool.requested", 2, step=1, call_id="t1", name="query", input={"sql": "SELECT\n 1"}, effect="read"),
    event("tool.requested", 2, step=1, call_id="t2", name="save", input={"name": "a", "content": "b"}, effect="write"),
    event("tool.completed", 3, step=1, call_id="t1", name="query", content="[[1]]", is_error=False, seconds=0.5),
    event("tool.completed", 3, step=1, call_id="t2", name="save", content="no", is_error=True, seconds=0.1),
    event("job.completed", 4, status="completed", stop_reason="end_turn", output="done"),
]


def after(count: int) -> Progress:
    progress = Progress()
    for item in JOB[:count]:
        progress.apply(item)
    return progress


@pytest.mark.parametrize(
    ("count", "now"),
    [
        (1, "waits for a worker"),
        (2, "starts"),
        (3, "asks claude-x"),
        (5, "the model writes"),
        (6, "has a reply"),
        (7, "runs query"),
        (9, "runs save"),
        (10, "has the results"),
        (11, "done"),
    ],
)
def test_it_says_what_the_agent_does_now(count, now):
    assert after(count).now == now


def test_it_gathers_what_the_model_says_until_the_reply_is_whole():
    assert after(5).saying == "Let me look"
    assert after(6).saying == ""


def test_it_counts_tokens_money_steps_and_tool_calls():
    done = after(len(JOB))
    assert (done.step, done.tokens, done.cost, done.status) == (1, 22, Decimal("0.002"), "completed")
    assert [(c.name, c.input, c.seconds, c.failed) for c in done.calls.values()] == [
        ("query", "SELECT 1", 0.5, False),
        ("save", '{"name": "a", "content": "b"}', 0.1, True),
    ]
    assert done.started is not None
    assert done.ended is not None
    assert (done.ended - done.started).total_seconds() == 3


def test_what_a_fork_copied_was_paid_for_by_another_job():
    progress = Progress()
    progress.apply(event("model.completed", attempt=0, **REPLY))
    assert (progress.tokens, progress.cost) == (0, Decimal(0))


@pytest.mark.parametrize("item", [e for e in JOB if e["type"] != "message.delta"])
def test_each_event_is_one_plain_line_with_its_type(item):
    line = describe(item)
    assert line.split()[1] == item["type"]
    assert "\n" not in line


def test_a_job_waits_for_its_batch():
    submitted = event("model.submitted", 2, step=1, call_id="m1", batch_id="msgbatch_1")
    assert describe(submitted) == "08:00:02 model.submitted  step 1: with the batch msgbatch_1"
    progress = after(3)
    for item in (submitted, event("job.queued", 3, status="queued", batch_id="msgbatch_1")):
        progress.apply(item)
    assert (progress.status, progress.now) == ("queued", "waits for its batch")


def test_a_failure_says_why():
    line = describe(
        event("job.failed", status="failed", stop_reason="error", error={"code": "x", "message": "it\nbroke"})
    )
    assert line.endswith("error: it broke")


def test_a_phase_is_shown_with_what_the_model_is_told():
    assert describe(event("state.changed", state="planning", say="Plan\nit.")).endswith("planning: Plan it.")
    assert describe(event("state.changed", state="executing", session_length=6)).endswith("executing")


def test_an_event_of_a_later_version_is_shown_as_it_is():
    assert describe(event("child.started", child="job_2")) == '08:00:00 child.started    {"child": "job_2"}'


def test_what_a_tool_says_cannot_act_on_the_terminal():
    hostile = event("tool.completed", step=1, call_id="t", name="query", content="\x1b]0;x\x07\x9b31m", is_error=False)
    assert not set("\x1b\x07\x9b") & set(describe(hostile))
