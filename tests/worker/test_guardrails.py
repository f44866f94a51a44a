"""Guardrails in a job's life: what becomes of the job, who decides, and that no secret of the settings is kept."""

from __future__ import annotations

from typing import Any

from agent_core.guardrails import AskPerson, Block, Redact, Verdict, input_check, output_check
from agent_core.redaction import Redactor
from agent_core.testing import ScriptedModel, calls, says
from jobs.approvals import Approvals
from tests.worker.conftest import Bench, make_agent
from worker.executor import Attempted, Executor

SECRET = "correct-horse-battery"


def shout(text: str, job_input: Any) -> Verdict:
    return Redact(text.upper())


def refuse(text: str, job_input: Any) -> Verdict:
    return Block(f"{job_input} is not allowed")


def ask(text: str, job_input: Any) -> Verdict:
    return AskPerson("may it?")


async def test_a_redacted_job(bench: Bench):
    agent = make_agent(guardrails=[input_check(shout), output_check(shout)])
    await bench.submit(agent)
    model = ScriptedModel([says("fine")])
    job = await bench.run(model, agent)
    assert (job.status, job.output) == ("completed", "FINE")
    assert "GO" in str(model.requests[0].messages)


async def test_a_blocked_job(bench: Bench):
    agent = make_agent(guardrails=[output_check(refuse)])
    await bench.submit(agent)
    job = await bench.run([says("rude")], agent)
    assert (job.status, job.stop_reason, job.output) == ("failed", "guardrail_blocked", None)
    assert job.error == {
        "code": "guardrail_blocked",
        "message": "the output check refuse blocked it: go is not allowed",
    }


async def test_a_person_is_asked_as_for_a_tool_call(bench: Bench):
    agent = make_agent(guardrails=[input_check(ask)])
    job_id = await bench.submit(agent)
    job = await bench.run([says("fine")], agent)
    assert (job.status, job.stop_reason) == ("requires_action", "approval")
    assert await Approvals(bench.store.link).pending() == 1
    assert "model.started" not in await bench.types(job_id)


async def test_what_a_job_leaves_has_no_secret(bench: Bench):
    await bench.submit()
    model = ScriptedModel([calls(("lookup", {"order_id": SECRET})), says(f"it is {SECRET}")])
    claim = await bench.claim()
    agents = {f"x@{bench.agent.version}": bench.agent}
    executor = Executor(
        bench.store,
        bench.files,
        {"standard": model, "batch": model},
        agents.get,
        bench.stats,
        bench.folder / "work",
        redactor=Redactor([SECRET]),
    )
    await executor.execute(Attempted(claim))
    job = await bench.job(claim.job_id)
    assert (job.status, job.output) == ("completed", "it is [redacted:secret]")
    assert SECRET not in str(model.requests[1].messages)
    assert SECRET not in str(await bench.store.lines(claim.job_id))
