"""Finding agents in modules and files, and rebuilding published versions."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic
import pytest

from agent_core import UserMemory
from agent_core.patterns import Chain, EvaluatorOptimiser, PlanExecuteValidate, Router
from jobs.agents import AgentCatalogue
from jobs.firing import Launcher
from jobs.keyring import DEFAULT_TENANT
from jobs.link import RedisLink
from jobs.schedules import Schedules, declared_id
from jobs.store import JobStore
from tests.worker.conftest import lookup, make_agent, pay
from worker.errors import StartError
from worker.loader import load, load_agents, published, rebuild, runnable
from worker.runtime import declare

GOOD = """
    from agent_core import Agent, tool

    @tool(effect="read")
    async def ping() -> str:
        '''Answers.'''
        return "pong"

    {variable} = Agent(name="{name}", instructions="{words}", model="claude-sonnet-5-5", tools=[ping])
"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def good(folder: Path, file: str, name: str = "a", words: str = "Do it.") -> str:
    return write(folder, file, GOOD.format(variable=f"agent_{name}", name=name, words=words))


def test_agents_come_from_modules_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good(tmp_path, "some_agents_of_a_test.py", "from_module")
    monkeypatch.syspath_prepend(tmp_path)
    found = load_agents(["some_agents_of_a_test", good(tmp_path, "more.py", "from_file")])
    assert sorted(found) == ["from_file", "from_module"]
    assert found["from_file"].tools[0].name == "ping"


DECLARES = """
from datetime import UTC, datetime
from agent_core import Budget, Schedule
hourly = Schedule(name="hourly", cron="0 * * * *", agent="a", input="{{{{ scheduled_at }}}}", {more})
"""


def declaring(folder: Path, more: str = "") -> str:
    source = good(folder, "declares.py")
    with Path(source).open("a") as file:
        file.write(DECLARES.format(more=more))
    return source


async def test_schedules_come_with_agents_and_are_declared(tmp_path: Path, link: RedisLink):
    more = "budget=Budget(usd='0.5'), ends_at=datetime(2099, 1, 1, tzinfo=UTC)"
    loaded = load([declaring(tmp_path, more)])
    assert list(loaded.agents) == ["a"]
    (spec,) = loaded.schedules
    assert (spec.name, spec.cron, spec.overlap, spec.ends_at) == ("hourly", "0 * * * *", "skip", 4_070_908_800_000)
    assert (spec.job["agent"], spec.job["budget"]["usd"]) == ("a", "0.5")
    await AgentCatalogue(link).publish([published(agent) for agent in loaded.agents.values()])
    await declare(link, loaded.schedules)
    schedule = await Schedules(link).get(DEFAULT_TENANT, declared_id(DEFAULT_TENANT, "hourly"))
    row = await Schedules(link).trigger(schedule)
    job = await Launcher(Schedules(link), JobStore(link), AgentCatalogue(link)).submit(schedule.id, row.slot)
    assert job is not None
    assert (job.spec.input, job.budget.usd) == (row.to_json()["scheduled_at"], "0.5")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("timezone='Mars'", "schedule 'hourly': 'Mars' is no time zone"),
        ("overlap='maybe'", "overlap is 'maybe'; expected one of skip, queue, cancel_previous, allow"),
        ("concurrency=0", "concurrency is 0; expected a whole number from 1 to 1000"),
        ("ends_at=3", "ends_at is 3; expected a datetime with a zone"),
        ("jitter=True", "jitter is True"),
        ("max_runs=-1", "max_runs is -1"),
        ("budget=1", "budget is 1; expected a Budget"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_at_the_start(tmp_path: Path, more: str, said: str):
    with pytest.raises(StartError) as caught:
        load([declaring(tmp_path, more)])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "defines no agent"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def (:", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("from agent_core import Agent\nAgent(name='a b', instructions='x', model='m')", "name is 'a b'; expected"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line_that_names_it(tmp_path: Path, text: str, said: str):
    source = write(tmp_path, "bad.py", text)
    with pytest.raises(StartError) as caught:
        load_agents([source])
    message = str(caught.value)
    assert message.startswith(f"NIGHTSHIFT_AGENTS: {source}")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["no_such_module_anywhere", "/no/such/file.py"])
def test_a_source_that_is_not_there(source: str):
    with pytest.raises(StartError, match=source):
        load_agents([source])


def test_two_agents_of_one_name_are_refused(tmp_path: Path):
    sources = [good(tmp_path, "one.py", words="One."), good(tmp_path, "two.py", words="Two.")]
    with pytest.raises(StartError, match="two different agents are named 'a'"):
        load_agents(sources)


def test_an_agent_with_memory_has_its_tools(tmp_path: Path):
    more = 'model="claude-sonnet-5-5", memory=True, tools=['
    source = write(
        tmp_path,
        "remembers.py",
        GOOD.replace('model="claude-sonnet-5-5", tools=[', more).format(variable="a", name="a", words="Do it."),
    )
    agent = load_agents([source])["a"]
    assert [t.name for t in agent.tools] == ["ping", "remember", "recall"]
    found = runnable([published(agent)], {"a": agent})
    assert [a.definition() for a in found.values()] == [agent.definition()]
    clash = write(tmp_path, "clashes.py", Path(source).read_text().replace("ping", "recall"))
    with pytest.raises(StartError, match="agent 'a' has memory, which brings a tool 'recall'"):
        load_agents([clash])


def test_an_older_version_keeps_the_schema_that_it_pinned():
    old = make_agent(tools=[replace(lookup, description="Looked up otherwise.", timeout=7.0)], auto_approve=[])
    now = make_agent(tools=[lookup, pay], auto_approve=[])
    found = runnable([published(old), published(now)], {"x": now})
    assert sorted(found) == sorted([f"x@{old.version}", f"x@{now.version}"])
    rebuilt = found[f"x@{old.version}"]
    assert rebuilt.version == old.version
    assert (rebuilt.tools[0].description, rebuilt.tools[0].timeout) == ("Looked up otherwise.", 7.0)
    assert rebuilt.tools[0].validated is lookup.validated


def test_what_cannot_be_run_here_is_left_to_others():
    agent = make_agent(tools=[lookup, pay], auto_approve=[])
    mine = make_agent(tools=[lookup], auto_approve=[])
    assert runnable([published(agent)], {"x": mine}) == {}
    assert runnable([published(agent)], {"y": agent}) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"a_field_of_tomorrow": 1},
        {"model": ""},
        {"memory": {"k": 8, "a_field_of_tomorrow": 1}},
        {"memory": {"k": 0}},
        {"budget": {"usd": "1", "joules": 5}},
        {"tools": [{**lookup.definition(), "a_field_of_tomorrow": 1}]},
        {"tools": [{"description": "nameless"}]},
    ],
)
def test_a_definition_of_another_platform_version_is_left_to_others(change: dict[str, object]):
    agent = make_agent(tools=[lookup], auto_approve=[])
    assert rebuild(agent.definition(), agent) == agent
    assert rebuild({**agent.definition(), **change}, agent) is None


class Verdict(pydantic.BaseModel):
    ok: bool


@pytest.mark.parametrize(
    "fields",
    [
        {"agents": ["clerk"]},
        {"memory": UserMemory()},
        {"memory": UserMemory(k=3, shared=False, learns=False)},
        {"output": Verdict},
        {"pattern": PlanExecuteValidate(replans=1, validator_tools=True)},
        {"pattern": Chain(["First this.", "Then that."])},
        {"pattern": EvaluatorOptimiser("It is short.")},
        {"pattern": Router({"a": "Do it so.", "b": "Do it otherwise."})},
    ],
    ids=str,
)
def test_what_leads_to_the_answer_is_rebuilt(fields: dict[str, Any]):
    agent = make_agent(tools=[lookup], auto_approve=[], **fields)
    assert rebuild(agent.definition(), agent) == agent
    older = rebuild(agent.definition(), make_agent(tools=[lookup], auto_approve=[]))
    assert older is not None
    assert older.definition() == agent.definition()


@pytest.mark.parametrize(
    "pattern", [{"name": "of_tomorrow"}, {"name": "chain", "steps": []}, {"name": "react", "a": 1}]
)
def test_a_pattern_that_is_not_known_here_is_left_to_others(pattern: dict[str, object]):
    agent = make_agent(tools=[lookup], auto_approve=[])
    assert rebuild({**agent.definition(), "pattern": pattern}, agent) is None
