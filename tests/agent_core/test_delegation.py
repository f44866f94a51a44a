"""Parts of a task that become other jobs: the tool, the wait for them, and a run that goes on when they have ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent_core import Completed, ToolError
from agent_core.context import Pending
from agent_core.defaults import MemoryJournal
from agent_core.delegation import delegation
from agent_core.entries import ToolCompleted, ToolRequested
from agent_core.outcomes import Delegated, Outcome
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.tools import ToolContext
from agent_core.types import Json
from tests.agent_core.harness import TASK, Log, make_agent, make_ports, play, reread

PARTS = calls(
    ("delegate", {"agent": "reader", "task": "read a"}),
    ("delegate", {"agent": "reader", "task": "read b", "usd": "0.10"}),
    ("look", {"at": 1}),
)


class Family:
    """Children that have ended or not, by their call; `asked` has every question about one."""

    def __init__(self) -> None:
        self.ended: dict[str, Json | ToolError] = {}
        self.asked: list[tuple[str, str, str, str | None]] = []

    async def delegate(self, call_id: str, agent: str, task: str, usd: str | None) -> Pending | Json:
        self.asked.append((call_id, agent, task, usd))
        found = self.ended.get(call_id)
        if isinstance(found, ToolError):
            raise found
        return Pending(f"job_of_{call_id}") if found is None else found


async def run(
    script: list[Json], family: Family | None, state: State, journal: MemoryJournal, **changes: Any
) -> tuple[Outcome, Log]:
    log = Log()
    agent = make_agent(log.tools, agents=["reader", "writer"], **changes)
    ports = make_ports(
        ScriptedModel(script), journal, context=lambda call_id: ToolContext("job_1", call_id, Path(), children=family)
    )
    return await play(agent, ports, state), log


async def test_a_run_waits_for_its_children_and_goes_on_with_what_they_found() -> None:
    family, state, journal = Family(), State([TASK]), MemoryJournal()
    outcome, log = await run([PARTS, says("a and b")], family, state, journal)
    assert outcome == Delegated(["job_of_toolu_0_0", "job_of_toolu_0_1"])
    assert family.asked == [
        ("toolu_0_0", "reader", "read a", None),
        ("toolu_0_1", "reader", "read b", "0.10"),
    ]
    assert [e.call_id for e in journal.entries if isinstance(e, ToolRequested)] == [f"toolu_0_{n}" for n in range(3)]
    assert [e.call_id for e in journal.entries if isinstance(e, ToolCompleted)] == ["toolu_0_2"]

    family.ended["toolu_0_0"] = {"job_id": "job_a", "status": "completed", "output": "a", "cost_usd": "0.01"}
    state, second = State.restore([TASK], reread(journal.entries)), MemoryJournal()
    outcome, log = await run([PARTS, says("a and b")], family, state, second)
    assert outcome == Delegated(["job_of_toolu_0_1"])
    assert not log.began, "what has its result is not asked for again"
    assert [e.TYPE for e in second.entries] == ["tool.completed"], "nor is what was begun begun again"

    family.ended["toolu_0_1"] = ToolError("reader did not do it (failed): no b", code="child_failed")
    state = State.restore([TASK], reread([*journal.entries, *second.entries]))
    outcome, _ = await run([PARTS, says("a and b")], family, state, MemoryJournal())
    assert outcome == Completed("a and b")
    first, failed, looked = state.messages[2]["content"]
    assert '"output": "a"' in first["content"]
    assert json.loads(failed["content"])["error"]["code"] == "child_failed"
    assert '"seen": 1' in looked["content"]


async def test_a_call_for_a_person_does_not_keep_children_from_starting() -> None:
    family, journal = Family(), MemoryJournal()
    script = [calls(("erase", {"what": 1}), ("delegate", {"agent": "writer", "task": "write"}))]
    outcome, _ = await run(script, family, State([TASK]), journal)
    assert outcome == Delegated(["job_of_toolu_0_1"])
    assert [e.name for e in journal.entries if isinstance(e, ToolCompleted)] == ["erase"]


async def test_an_agent_that_may_not_be_asked_is_refused() -> None:
    family, state = Family(), State([TASK])
    script = [calls(("delegate", {"agent": "stranger", "task": "read"})), says("so")]
    assert (await run(script, family, state, MemoryJournal()))[0] == Completed("so")
    error = json.loads(state.messages[2]["content"][0]["content"])["error"]
    assert (error["code"], family.asked) == ("no_agent", [])
    assert "expected reader, writer" in error["message"]


async def test_a_run_without_a_platform_says_that_there_are_no_workers() -> None:
    state = State([TASK])
    script = [calls(("delegate", {"agent": "reader", "task": "read"})), says("so")]
    assert (await run(script, None, state, MemoryJournal()))[0] == Completed("so")
    assert json.loads(state.messages[2]["content"][0]["content"])["error"]["code"] == "no_workers"


def test_the_tool_says_who_may_be_asked() -> None:
    made = delegation(("reader", "writer"))
    assert made.input_schema["properties"]["agent"]["enum"] == ["reader", "writer"]
    assert "Agents: reader, writer." in made.description
    assert made.repeatable
    assert "enum" not in delegation(("reader",)).input_schema["properties"]["task"]
    assert delegation(("writer",)).input_schema["properties"]["agent"]["enum"] == ["writer"]


def test_only_agents_with_agents_have_it() -> None:
    assert make_agent().registry.get("delegate") is None
    assert make_agent(agents=["reader"]).registry.get("delegate") is not None
    assert make_agent(agents=["reader"]).version != make_agent(agents=["writer"]).version
