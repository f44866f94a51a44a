"""Retries of tools, and the hooks around a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core import DefinitionError, DidNotHappen, Happened, StaleAttemptError, Tool, ToolContext, ToolError, tool
from agent_core.context import Pending
from agent_core.errors import Veto
from agent_core.registry import LONGEST_RETRY_SECONDS, RETRY_SECONDS, Registry, ToolCall, ToolResult, jittered
from agent_core.types import Json

SECRET = "sk-very-secret"


class Flaky:
    """A tool's function that fails so often, with these faults in turn, before it succeeds."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.calls = 0

    def tool(self, **options: Any) -> Tool:
        @tool(name="flaky", **options)
        async def call(text: str = "x") -> str:
            """Fails, then works."""
            self.calls += 1
            if self.faults:
                raise self.faults.pop(0)
            return f"{text} after {self.calls}"

        return call


async def call(made: Tool, given: Json | None = None, **hooks: Any) -> ToolResult:
    context = ToolContext("job_1", "job_1.toolu_1", Path())
    return await Registry([made], pause=lambda _: 0.0, **hooks).call(made.name, given or {}, context)


def code(result: ToolResult) -> str:
    assert result.is_error, result.content
    return str(json.loads(result.content)["error"]["code"])


def passing() -> ToolError:
    return ToolError("busy", code="busy", retryable=True)


# ---- retries


@pytest.mark.parametrize("options", [{"effect": "read"}, {"effect": "write", "idempotent": True}])
async def test_passing_failures_are_tried_again(options: Any) -> None:
    flaky = Flaky(passing(), passing())
    assert (await call(flaky.tool(retries=2, **options))).content == "x after 3"
    flaky = Flaky(passing(), passing(), passing())
    result = await call(flaky.tool(retries=2, **options))
    assert (code(result), result.retryable, flaky.calls) == ("busy", True, 3)


@pytest.mark.parametrize("fault", [ToolError("no", code="no"), RuntimeError("no"), TimeoutError("no")])
async def test_other_failures_are_not(fault: Exception) -> None:
    flaky = Flaky(fault)
    assert (await call(flaky.tool(effect="read", retries=5))).is_error
    assert flaky.calls == 1


@pytest.mark.parametrize("options", [{"effect": "read"}, {"effect": "write", "idempotent": True}])
async def test_a_timeout_is_of_one_try(options: Any) -> None:
    tries = 0

    @tool(timeout=0.02, retries=1, **options)
    async def slow() -> str:
        """Hangs the first time."""
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return "done"

    assert (await call(slow)).content == "done"


async def test_a_write_runs_once_whatever_it_says() -> None:
    flaky = Flaky(passing())
    result = await call(flaky.tool(effect="write"))
    assert (code(result), flaky.calls) == ("busy", 1)
    for effect in ("write", "destructive"):
        with pytest.raises(DefinitionError, match="retries is for tools that read or are idempotent"):
            Flaky().tool(effect=effect, retries=1)
    with pytest.raises(DefinitionError, match="does not go with price_usd"):
        Flaky().tool(effect="read", retries=1, price_usd="0.01")


@pytest.mark.parametrize("retries", [-1, 11, True, 1.5, "2"])
def test_retries_that_are_none(retries: Any) -> None:
    with pytest.raises(DefinitionError, match=r"retries is .*; expected a whole number from 0 to 10"):
        Flaky().tool(effect="read", retries=retries)


def test_the_definition_says_so_and_others_keep_their_version() -> None:
    assert Flaky().tool(effect="read", retries=2).definition()["retries"] == 2
    assert "retries" not in Flaky().tool(effect="read").definition()


async def test_the_pauses_are_asked_for_one_by_one() -> None:
    pauses: list[int] = []

    def pause(attempt: int) -> float:
        pauses.append(attempt)
        return 0.0

    made = Flaky(passing(), passing(), passing()).tool(effect="read", retries=3)
    await Registry([made], pause=pause).call("flaky", {}, ToolContext("job_1", "c", Path()))
    assert pauses == [1, 2, 3]


@given(st.integers(1, 10))
def test_pauses_grow_to_a_limit(attempt: int) -> None:
    assert 0 <= jittered(attempt) <= min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2 ** (attempt - 1))


# ---- the hook before a call


def is_async(hook: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*args: Any) -> Any:
        return hook(*args)

    return wrapped


both = pytest.mark.parametrize("kind", [lambda hook: hook, is_async], ids=["sync", "async"])


@both
async def test_it_sees_the_call_and_lets_it_run(kind: Any) -> None:
    seen: list[ToolCall] = []
    flaky = Flaky()
    assert (await call(flaky.tool(effect="write"), {"text": "a"}, before=kind(seen.append))).content == "a after 1"
    assert [(c.name, c.input, c.effect, c.context.call_id) for c in seen] == [
        ("flaky", {"text": "a"}, "write", "job_1.toolu_1")
    ]


@both
async def test_it_may_veto(kind: Any) -> None:
    def never(call: ToolCall) -> None:
        raise Veto("not on Sundays")

    flaky = Flaky()
    result = await call(flaky.tool(), before=kind(never))
    assert json.loads(result.content)["error"] == {"code": "vetoed", "message": "not on Sundays", "retryable": False}
    assert (result.outcome, flaky.calls) == ("vetoed", 0)


@both
async def test_it_may_edit_the_input_but_not_what_the_model_said(kind: Any) -> None:
    def edit(call: ToolCall) -> Json:
        call.input["text"] = "scribbled"
        return {"text": "edited"}

    said = {"text": "a"}
    assert (await call(Flaky().tool(), said, before=kind(edit))).content == "edited after 1"
    assert said == {"text": "a"}
    wrong = await call(Flaky().tool(), said, before=kind(lambda call: {"colour": "red"}))
    assert code(wrong) == "invalid_arguments"
    scribbled = await call(Flaky().tool(), said, before=kind(lambda call: call.input.update(text="b")))
    assert scribbled.content == "a after 1"


@both
@pytest.mark.parametrize("broken", [lambda c: 1 / 0, lambda c: "text", lambda c: next(iter([])), lambda c: exit(1)])
async def test_when_it_fails_the_call_is_not_run(kind: Any, broken: Any) -> None:
    flaky = Flaky()
    result = await call(flaky.tool(), before=kind(broken))
    assert (code(result), flaky.calls) == ("hook_failed", 0)


async def test_it_is_asked_once_for_all_tries() -> None:
    asked: list[ToolCall] = []
    await call(Flaky(passing()).tool(effect="read", retries=1), before=asked.append)
    assert len(asked) == 1


# ---- the hook after a call


@both
async def test_it_may_redact(kind: Any) -> None:
    def redact(call: ToolCall, result: ToolResult) -> str:
        return result.content.replace(SECRET, "[secret]")

    assert (await call(Flaky().tool(), {"text": SECRET}, after=kind(redact))).content == "[secret] after 1"
    failed = await call(Flaky(ToolError(f"bad key {SECRET}", code="bad")).tool(), after=kind(redact))
    assert (code(failed), SECRET in failed.content) == ("bad", False)
    other = ToolResult("other", is_error=True, outcome="other")
    assert await call(Flaky().tool(), after=kind(lambda c, r: other)) == other
    assert (await call(Flaky().tool(), after=kind(lambda c, r: None))).content == "x after 1"


@both
@pytest.mark.parametrize("broken", [lambda c, r: 1 / 0, lambda c, r: 5, lambda c, r: next(iter([]))])
async def test_when_it_fails_the_result_is_withheld(kind: Any, broken: Any) -> None:
    flaky = Flaky()
    result = await call(flaky.tool(), {"text": SECRET}, after=kind(broken))
    assert (code(result), flaky.calls, SECRET in result.content) == ("hook_failed", 1, False)


async def test_it_comes_before_a_long_result_is_kept() -> None:
    kept: list[bytes] = []

    class Shelf:
        async def save(self, job_id: str, name: str, data: bytes) -> Json:
            kept.append(data)
            return {}

        async def load(self, job_id: str, name: str) -> bytes:
            raise NotImplementedError

    made = Flaky().tool()
    registry = Registry([made], after=lambda call, result: result.content.replace(SECRET, "[secret]"))
    await registry.call("flaky", {"text": SECRET * 9_000}, ToolContext("job_1", "c", Path(), Shelf()))
    assert len(kept) == 1
    assert SECRET.encode() not in kept[0]


async def test_what_is_found_out_about_a_lost_call_passes_it_too() -> None:
    answers: list[Any] = [Happened(SECRET), DidNotHappen(), None]

    def ask() -> Any:
        return answers.pop(0)

    @tool(effect="write", reconcile=ask)
    def pay() -> str:
        """Pays."""
        return SECRET

    registry = Registry([pay], after=lambda call, result: "redacted")
    context = ToolContext("job_1", "c", Path())
    found = [await registry.reconcile("pay", {}, context) for _ in range(3)]
    assert found == [ToolResult("redacted"), DidNotHappen(), None]
    assert (await registry.as_told("pay", {}, SECRET, context)).content == "redacted"


async def test_a_call_that_has_no_result_yet_is_none_of_its_business() -> None:
    @tool(effect="read")
    def delegate() -> Pending:
        """Hands the work to a child job."""
        return Pending("job_2")

    assert (await call(delegate, after=lambda call, result: "redacted")).pending == "job_2"


@pytest.mark.parametrize("hook", ["before", "after"])
async def test_an_attempt_that_lost_its_job_stops_instead(hook: str) -> None:
    def stale(*_: Any) -> None:
        raise StaleAttemptError("fenced")

    with pytest.raises(StaleAttemptError):
        await call(Flaky().tool(), None, **{hook: stale})


async def test_an_unknown_tool_is_no_hooks_concern() -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    registry = Registry(before=never, after=never)
    assert code(await registry.call("gone", {}, ToolContext("job_1", "c", Path()))) == "unknown_tool"
