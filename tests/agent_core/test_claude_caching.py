"""What makes prompt caching pay: the same prompt has the same bytes, from turn to turn and from attempt to attempt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent_core import Agent, ClaudeModel, Completed, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import ModelCompleted
from agent_core.state import State
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from simulator.server import create_app
from tests.agent_core.harness import Killed, Log, MortalJournal, make_agent, make_ports, play, reread
from tests.agent_core.test_claude import script, serve

INSTRUCTIONS = "Count with care. " * 200  # longer than the shortest prompt that is cached
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated() -> AsyncIterator[ClaudeModel]:
    async with serve(create_app()) as url:
        model = ClaudeModel.connect(api_key="test", base_url=url)
        yield model
        await model.aclose()


def counting(*, reverse: bool = False, **changes: object) -> Agent:
    """An agent whose calls end in another order than they begin, with its tools listed in either order."""

    @tool(effect="read")
    async def slow(zebra: int, apple: int, notes: dict[str, str]) -> Json:
        """Counts slowly."""
        for _ in range(zebra):
            await asyncio.sleep(0)
        return {"zebra": zebra, "apple": apple, **notes}

    tools = [slow, *Log().tools]
    return make_agent(reversed(tools) if reverse else tools, instructions=INSTRUCTIONS, **changes)


def parallel_calls(first: int) -> list[Json]:
    return [{"name": "slow", "input": {"zebra": first - n, "apple": n, "notes": {"b": "", "a": "é"}}} for n in range(3)]


def usages(journal: MemoryJournal) -> list[Json]:
    return [entry.usage or {} for entry in journal.entries if isinstance(entry, ModelCompleted)]


async def test_every_turn_reads_the_whole_prompt_of_the_one_before(simulated: ClaudeModel) -> None:
    journal = MemoryJournal()
    task = script({"tools": parallel_calls(9)}, {"tools": parallel_calls(5)}, {"text": "counted"})
    state = State([{"role": "user", "content": task}])
    assert await play(counting(), make_ports(simulated, journal), state) == Completed("counted")
    first, *later = usages(journal)
    assert first["cache_read_input_tokens"] == 0
    prompt = first["cache_creation_input_tokens"]
    for usage in later:
        assert usage["cache_read_input_tokens"] == prompt
        assert usage["cache_creation"] == {
            "ephemeral_5m_input_tokens": usage["cache_creation_input_tokens"],
            "ephemeral_1h_input_tokens": 0,
        }
        prompt += usage["cache_creation_input_tokens"]


async def test_the_next_attempt_reads_what_the_last_one_wrote(simulated: ClaudeModel) -> None:
    task = {"role": "user", "content": script({"tools": parallel_calls(9)}, {"text": "counted"})}
    dead = MortalJournal(4, keeps_last=True)
    with pytest.raises(Killed):
        await play(counting(), make_ports(simulated, dead), State([task]))
    [before] = usages(dead)
    recorded = reread(dead.entries)
    journal = MemoryJournal()
    outcome = await play(counting(reverse=True), make_ports(simulated, journal), State.restore([task], recorded))
    assert outcome == Completed("counted")
    [after] = usages(journal)
    assert after["cache_read_input_tokens"] == before["cache_creation_input_tokens"] > 512


async def test_an_agent_may_have_its_prompts_kept_for_an_hour(simulated: ClaudeModel) -> None:
    journal = MemoryJournal()
    state = State([{"role": "user", "content": script({"text": "counted"})}])
    await play(counting(cache_ttl="1h"), make_ports(simulated, journal), state)
    [usage] = usages(journal)
    written = usage["cache_creation"]
    assert written == {
        "ephemeral_5m_input_tokens": 0,
        "ephemeral_1h_input_tokens": written["ephemeral_1h_input_tokens"],
    }
    assert written["ephemeral_1h_input_tokens"] > 512
    [entry] = (entry for entry in journal.entries if isinstance(entry, ModelCompleted))
    assert entry.settled == simulated.price(entry.model, usage) <= entry.reserved
    sent = len(INSTRUCTIONS) + len(json.dumps(state.messages[:1]))
    assert entry.reserved > simulated.worst_case(entry.model, sent, 4096)  # an hour's writes are dearer than 5 minutes'


async def test_no_request_changes_a_byte_of_the_one_before() -> None:
    both = calls(("slow", {"zebra": 3, "apple": 1, "notes": {}}), ("look", {"at": 1}))
    model = ScriptedModel([both, calls(("look", {"at": 2})), says("done")])
    task = {"role": "user", "content": "go on"}
    await play(counting(), make_ports(model), State([task]))
    again = ScriptedModel(model.replies)
    await play(counting(reverse=True), make_ports(again), State([task]))
    assert len(model.requests) == 3
    for before, after in zip(model.requests, [*model.requests[1:], model.requests[-1]], strict=True):
        assert (after.system, json.dumps(after.tools)) == (before.system, json.dumps(before.tools))
        assert json.dumps(after.messages[: len(before.messages)]) == json.dumps(before.messages)
    assert [json.dumps([r.system, r.tools, r.messages]) for r in again.requests] == [
        json.dumps([r.system, r.tools, r.messages]) for r in model.requests
    ]
