"""An agent as a library: one call, and nothing else is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_core import Budget, Completed, Stopped, Suspended, run_agent, tool, tool_context
from agent_core.defaults import AskForDestructive, MemoryJournal
from agent_core.results import as_data
from agent_core.testing import ScriptedModel, calls, says
from tests.agent_core.harness import Log, make_agent


@tool(effect="read")
def count_files() -> list[str]:
    """Lists the files of the workspace."""
    return sorted(path.name for path in tool_context().workspace.iterdir())


async def test_one_call_runs_a_task_to_its_end() -> None:
    model = ScriptedModel([says("four")])
    result = await run_agent(make_agent(), "What is two and two?", model=model)
    assert result.outcome == Completed("four")
    assert result.output == "four"
    assert (result.usage.model_calls, result.usage.cost) == (1, 400)
    assert model.requests[0].messages == [{"role": "user", "content": "What is two and two?"}]
    assert result.state.step == 1


async def test_tools_work_in_the_given_workspace(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    script = ScriptedModel([calls(("count_files", {})), says("one")])
    result = await run_agent(make_agent([count_files]), "count", model=script, workspace=tmp_path)
    assert result.state.messages[2]["content"][0]["content"] == as_data("count_files", '["a.csv"]')


def take_note(workspace: Path | None) -> Path:
    """Where an agent wrote its note."""
    places: list[Path] = []

    @tool(effect="write")
    def note(text: str) -> None:
        """Writes a note."""
        places.append(tool_context().workspace / "note.txt")
        places[0].write_text(text, encoding="utf-8")

    script = ScriptedModel([calls(("note", {"text": "hi"})), says("noted")])
    asyncio.run(run_agent(make_agent([note]), "take a note", model=script, workspace=workspace))
    return places[0]


def test_a_given_workspace_stays_and_any_other_is_gone_afterwards(tmp_path: Path) -> None:
    kept = take_note(tmp_path)
    assert kept.read_text(encoding="utf-8") == "hi"
    lost = take_note(None)
    assert lost.name == "note.txt"
    assert not lost.parent.exists()


async def test_the_partial_result_of_a_run_that_was_stopped() -> None:
    script = ScriptedModel([calls(("count_files", {}), text="so far"), says("never")])
    result = await run_agent(make_agent([count_files], budget=Budget(steps=1)), "count", model=script)
    assert isinstance(result.outcome, Stopped)
    assert result.output == "so far"


async def test_the_ports_may_be_ones_own() -> None:
    log, journal = Log(), MemoryJournal()
    script = ScriptedModel([calls(("erase", {"what": 1})), says("gone")])
    agent = make_agent(log.tools)
    result = await run_agent(agent, "erase", model=script, journal=journal, approver=AskForDestructive())
    assert isinstance(result.outcome, Suspended)
    assert result.output is None
    assert journal.entries[-1].TYPE == "model.completed"
    assert (await run_agent(agent, "erase", model=script)).output == "gone"  # denied, for nobody is there
    assert not log.began


async def test_a_script_that_is_too_short_says_so() -> None:
    with pytest.raises(LookupError, match="the script has 0 replies, and one more was asked for"):
        await run_agent(make_agent(), "hi", model=ScriptedModel([]))
