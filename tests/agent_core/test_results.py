"""Long results: what the conversation gets, and where the rest is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_core import Agent, DefinitionError, StaleAttemptError, Tool, ToolContext, ToolError, read_artifact, tool
from agent_core.results import HEAD_CHARS, RESULT_CHARS, TAIL_CHARS, artifact_name
from agent_core.tools import Registry, ToolResult
from agent_core.types import Json

TEXT = "".join(f"{number:07} ünï\n" for number in range(10_000))


class Shelf:
    """An artifact store in memory, which raises `fault` when it has one."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.fault = fault

    async def save(self, job_id: str, name: str, data: bytes) -> Json:
        if self.fault is not None:
            raise self.fault
        self.files[name] = data
        return {"artifact": name, "id": f"{job_id}/{name}", "bytes": len(data)}

    async def load(self, job_id: str, name: str) -> bytes:
        try:
            return self.files[name]
        except KeyError:
            raise FileNotFoundError(name) from None


@tool(effect="read")
async def dump(length: int = len(TEXT)) -> str:
    """Gives a long text."""
    return TEXT[:length]


async def call(
    shelf: Shelf | None, given: Json | None = None, *, made: Tool = dump, tools: tuple[Tool, ...] = (), **limits: Any
) -> ToolResult:
    context = ToolContext("job_1", "job_1.toolu_1", Path(), shelf)
    return await Registry([made, *tools], **limits).call(made.name, given or {}, context)


async def test_a_long_result_is_kept_whole_and_previewed() -> None:
    shelf = Shelf()
    content = (await call(shelf)).content
    ((name, data),) = shelf.files.items()
    assert data.decode() == TEXT
    assert name == artifact_name("dump", "job_1.toolu_1")
    note, rest = content.split("\n", 1)
    assert name in note
    assert f"{len(TEXT):,} characters" in note
    assert f"{len(data):,} bytes" in note
    assert rest.startswith(TEXT[:HEAD_CHARS])
    assert rest.endswith(TEXT[-TAIL_CHARS:])
    assert f"{len(TEXT) - HEAD_CHARS - TAIL_CHARS:,} characters left out" in rest
    assert len(content) < HEAD_CHARS + TAIL_CHARS + 1_000


async def test_the_same_call_has_the_same_artifact_and_another_call_another() -> None:
    names = [artifact_name("dump", call_id) for call_id in ("job_1.a", "job_1.a", "job_1.b", "../\ud800\n")]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert "/" not in names[3]


async def test_a_result_at_the_limit_is_left_alone() -> None:
    shelf = Shelf()
    assert (await call(shelf, {"length": RESULT_CHARS})).content == TEXT[:RESULT_CHARS]
    assert shelf.files == {}
    assert (await call(shelf, {"length": RESULT_CHARS + 1})).content != TEXT[: RESULT_CHARS + 1]
    assert len(shelf.files) == 1


async def test_the_tools_own_limit_goes_before_the_agents() -> None:
    shelf = Shelf()
    wide = tool(effect="read", max_result_chars=200_000)(dump.function)
    assert (await call(shelf, made=wide, max_result_chars=1_000)).content == TEXT
    assert (await call(None, made=wide)).content == TEXT
    narrow = (await call(shelf, {"length": 2_000}, max_result_chars=1_000)).content
    assert narrow.endswith(TEXT[1_750:2_000])
    assert "1,000 characters left out" in narrow
    agent = Agent(name="a", instructions="x", model="m", tools=[dump], max_result_chars=1_000)
    context = ToolContext("job_1", "c", Path(), shelf)
    assert "1,000 characters left out" in (await agent.registry.call("dump", {"length": 2_000}, context)).content


async def test_without_a_place_a_result_is_cut() -> None:
    assert "[cut: " in (await call(None)).content


async def test_a_long_failure_is_still_a_failure() -> None:
    @tool(effect="read")
    async def fail() -> str:
        """Fails at length."""
        raise ToolError("why " * 10_000)

    result = await call(Shelf(), made=fail)
    assert result.is_error
    assert len(result.content) < 6_000


async def test_a_result_that_cannot_be_kept_is_cut_and_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    content = (await call(Shelf(OSError("disk full")))).content
    assert content.startswith(TEXT[:50_000])
    assert "[cut: " in content
    assert "could not be kept" in caplog.text


async def test_an_attempt_that_lost_its_job_stops_instead() -> None:
    with pytest.raises(StaleAttemptError):
        await call(Shelf(StaleAttemptError("fenced")))


async def test_an_agent_with_the_reader_is_told_of_it_and_reads_on() -> None:
    shelf = Shelf()
    content = (await call(shelf, tools=(read_artifact,))).content
    (name,) = shelf.files
    assert f'read_artifact(name="{name}", offset={HEAD_CHARS})' in content
    more = await call(shelf, {"name": name, "offset": HEAD_CHARS, "length": 40}, made=read_artifact)
    assert more.content.split("\n", 1)[1] == TEXT[HEAD_CHARS : HEAD_CHARS + 40]
    missing = await call(shelf, {"name": "nothing.txt"}, made=read_artifact)
    assert json.loads(missing.content)["error"]["code"] == "not_found"
    assert "read_artifact" not in (await call(shelf)).content


@pytest.mark.parametrize("limit", [0, -1, 999, True, "many", 2_000_000])
def test_a_limit_that_leaves_no_room_is_refused(limit: Any) -> None:
    with pytest.raises(DefinitionError, match="max_result_chars"):
        tool(max_result_chars=limit)(dump.function)
    with pytest.raises(DefinitionError, match="max_result_chars"):
        Agent(name="a", instructions="x", model="m", max_result_chars=limit)
