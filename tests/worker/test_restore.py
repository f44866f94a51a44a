"""Where a run starts: the fold of a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent_core.errors import ModelError
from agent_core.state import State
from agent_core.testing import calls
from agent_core.testing import says as answers
from agent_core.toolbox import read_file, write_file
from agent_core.types import Json, Usage
from jobs.journal import Line
from jobs.records import Job
from memory.session import SessionMemory, SessionScope
from tests.worker.conftest import TENANT, Bench, make_agent
from worker.restore import fold, restore


class Journal:
    """Writes lines as attempts do."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.attempt = 0

    def add(self, type_: str, **data: Any) -> None:
        self.lines.append(Line(f"{len(self.lines) + 1}-0", type_, self.attempt, data))

    def reply(self, step: int, *content: Json, stop_reason: str = "end_turn") -> None:
        self.add("model.started", call_id=f"m{step}", step=step, model="m", reserved=500)
        self.add("model.completed", call_id=f"m{step}", step=step, model="m", content=list(content),
                 stop_reason=stop_reason, usage={"input_tokens": 7, "output_tokens": 3}, price_version="p",
                 reserved=500, settled=40, reason="settled")  # fmt: skip

    def call(self, step: int, call_id: str) -> None:
        use = {"type": "tool_use", "id": call_id, "name": "lookup", "input": {}}
        self.reply(step, use, stop_reason="tool_use")
        self.add("tool.requested", call_id=call_id, step=step, name="lookup", input={}, effect="read")
        self.add("tool.completed", call_id=call_id, step=step, name="lookup", content="found", is_error=False)

    def fold(self) -> State:
        state = State([{"role": "user", "content": "go"}])
        fold(state, self.lines)
        return state


def says(text: str) -> Json:
    return {"type": "text", "text": text}


def test_what_attempts_recorded_is_the_conversation_and_the_bill():
    journal = Journal()
    journal.add("job.queued", status="queued")
    journal.attempt = 1
    journal.add("job.started", worker="w")
    journal.call(1, "t1")
    journal.add("job.rescued")
    journal.attempt = 2
    journal.add("job.started", worker="v")
    journal.reply(2, says("done"))
    state = journal.fold()
    assert [m["role"] for m in state.messages] == ["user", "assistant", "user", "assistant"]
    assert (state.step, state.stop_reason, state.last_text()) == (2, "end_turn", "done")
    assert state.usage == Usage(input_tokens=14, output_tokens=6, model_calls=2, tool_calls=1, cost=80)


def test_copied_steps_cost_a_fork_nothing():
    journal = Journal()
    journal.add("job.queued", forked_from={"job_id": "job_0", "step": 1})
    journal.call(1, "t1")
    assert journal.fold().usage == Usage()
    assert journal.fold().step == 1
    journal.attempt = 1
    journal.add("job.started", worker="w")
    journal.reply(2, says("done"))
    state = journal.fold()
    assert len(state.messages) == 4
    assert state.usage == Usage(input_tokens=7, output_tokens=3, model_calls=1, cost=40)


def test_a_retry_takes_back_the_reply_that_ended_the_run():
    journal = Journal()
    journal.attempt = 1
    journal.add("job.started", worker="w")
    journal.call(1, "t1")
    journal.reply(2, says("cut"), stop_reason="max_tokens")
    journal.add("job.failed", error={})
    assert journal.fold().stop_reason == "max_tokens"
    journal.add("job.queued", retry=True)
    state = journal.fold()
    assert (state.stop_reason, state.last_text(), len(state.messages)) == (None, None, 3)
    assert state.usage.cost == 80  # it was paid for all the same


def test_a_message_of_the_users_reopens_the_conversation():
    journal = Journal()
    journal.reply(1, says("anything else?"))
    journal.add("user.message", text="yes")
    state = journal.fold()
    assert state.messages[-1] == {"role": "user", "content": "yes"}
    assert state.stop_reason is None


async def restored(bench: Bench, job_id: str) -> tuple[Any, Job]:
    job = await bench.job(job_id)
    return await restore(job, bench.store, SessionMemory(bench.store.link), bench.folder, bench.files), job


async def test_an_object_is_shown_to_the_model_as_json(bench: Bench):
    found, _ = await restored(bench, await bench.submit(input={"q": "größe"}))
    assert found.state.messages == [{"role": "user", "content": '{"q": "größe"}'}]
    assert (found.fresh, found.state.head, found.deferrals) == (True, 1, 0)


async def test_a_job_goes_on_from_the_length_its_session_had_when_it_began(bench: Bench):
    sessions, scope = SessionMemory(bench.store.link), SessionScope(TENANT, "s")
    earlier: list[Json] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [says("hello")]}]
    await sessions.append(scope, 0, earlier)
    job_id = await bench.submit(session_id="s")
    first, _ = await restored(bench, job_id)
    assert (first.session_length, first.state.head, first.fresh) == (2, 3, True)
    claim = await bench.claim()
    noted = {"state": "executing", "session_length": 2}
    await bench.store.record(job_id, claim.token, 1, {}, [("state.changed", noted)])
    await sessions.append(scope, 2, [{"role": "user", "content": "later"}])
    second, _ = await restored(bench, job_id)
    assert (second.session_length, second.state.head, second.fresh) == (2, 3, False)
    assert second.state.messages == [*earlier, {"role": "user", "content": "go"}]


async def test_waits_since_the_last_answer_are_found(bench: Bench):
    job_id = await bench.submit()
    claim = await bench.claim()
    assert claim.job is not None
    await bench.store.move(claim.job, "hand_back", {"deferred": 5.0}, attempt=bench.attempt(claim))
    found, _ = await restored(bench, job_id)
    assert found.deferrals == 1


async def test_a_worker_elsewhere_finds_the_files_that_the_job_wrote(bench: Bench, tmp_path: Path) -> None:
    agent = make_agent(tools=[write_file, read_file], auto_approve=[])
    job_id = await bench.submit(agent)
    wrote = calls(("write_file", {"path": "notes/a.md", "content": "what I found"}))
    busy = ModelError("overloaded", "busy", retryable=True, retry_after=99)
    await bench.run([wrote, busy], agent)
    await bench.store.undefer(job_id)
    await bench.store.release(job_id)
    bench.folder = tmp_path / "elsewhere"
    await bench.run([wrote, calls(("read_file", {"path": "notes/a.md", "offset": 5})), answers("done")], agent)
    results = [line.data["content"] for line in await bench.store.lines(job_id) if line.type == "tool.completed"]
    assert "I found" in results[-1]
