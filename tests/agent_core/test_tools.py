"""Tools: what the model is told of them, and what becomes of its calls."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import Field

from agent_core import DefinitionError, Tool, ToolContext, ToolError, tool, tool_context
from agent_core.results import MAX_RESULT_CHARS
from agent_core.tools import Registry, ToolResult
from agent_core.types import Json

SECRET = "hunter2"


class Line(pydantic.BaseModel):
    """A line of an order."""

    article: str
    count: int = 1


async def call(made: Tool, given: Json | None = None, context: ToolContext | None = None) -> ToolResult:
    return await Registry([made]).call(made.name, given or {}, context or ToolContext("job_1", "toolu_1", Path()))


def error(result: ToolResult) -> Json:
    assert result.is_error
    found = json.loads(result.content)
    assert list(found) == ["error"]
    assert found["error"]["code"] == result.outcome
    error: Json = found["error"]
    return error


# ---- what the model is told


def test_the_schema_comes_from_the_signature_and_the_docstring() -> None:
    @tool(effect="read", timeout=5, idempotent=True)
    async def find_orders(
        customer: Annotated[str, "the customer's number, like C-7"],
        state: Literal["open", "shipped"] = "open",
        limit: Annotated[int, Field(ge=1, le=50)] = 10,
        lines: list[Line] | None = None,
    ) -> list[Json]:
        """Finds orders of one customer.

        Not for changing them.

        Args:
            customer: an Annotated text comes before this
            state: which of them
        """
        raise AssertionError

    assert find_orders.definition() == {
        "name": "find_orders",
        "description": "Finds orders of one customer.\n\nNot for changing them.",
        "effect": "read",
        "timeout": 5,
        "idempotent": True,
        "input_schema": find_orders.input_schema,
    }
    assert find_orders.to_json().keys() == {"name", "description", "input_schema"}
    schema = find_orders.input_schema
    assert schema["required"] == ["customer"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["customer"]["description"] == "the customer's number, like C-7"
    assert properties["state"]["description"] == "which of them"
    assert properties["state"]["enum"] == ["open", "shipped"]
    assert (properties["limit"]["minimum"], properties["limit"]["maximum"]) == (1, 50)
    assert schema["$defs"]["Line"]["required"] == ["article"]


def test_a_bare_decorator_takes_the_careful_defaults() -> None:
    @tool
    def send(text: str) -> str:
        """Sends a text."""
        return text

    assert (send.name, send.effect, send.idempotent, send.timeout) == ("send", "write", False, 150.0)
    assert send("hi") == "hi"


def test_a_tool_may_have_another_name_than_its_function() -> None:
    @tool(name="orders-find")
    def find() -> None:
        """Finds."""

    assert find.name == "orders-find"
    assert find.to_json()["name"] == "orders-find"


def fine() -> None:
    """Does nothing."""


def undocumented(text: str) -> None:
    pass


def untyped(thing: threading.Thread) -> None:
    """Takes what JSON cannot carry."""


def nameless(*texts: str) -> None:
    """Takes arguments without a name."""


def positional(text: str, /) -> None:
    """Takes an argument without a name."""


def several() -> Iterator[str]:
    """Gives several results."""
    yield "one"


async def several_later() -> AsyncIterator[str]:
    """Gives several results."""
    yield "one"


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (undocumented, {}, r"^tool undocumented: it has no docstring; say in one what it does and when to use it$"),
        (untyped, {}, r"^tool untyped: its signature gives no JSON schema: .*Thread"),
        (nameless, {}, r"^tool nameless: its signature has parameters without a name"),
        (positional, {}, r"^tool positional: its signature has parameters without a name"),
        (several, {}, r"^tool several: it is a generator"),
        (several_later, {}, r"^tool several_later: it is a generator"),
        (lambda: None, {}, r"^tool <lambda>: name is '<lambda>'; accepted are 1 to 128 letters"),
        (fine, {"name": "look up"}, r"^tool look up: name is 'look up'; accepted are"),
        (fine, {"effect": "maybe"}, r"^tool fine: effect is 'maybe'; accepted are read, write, destructive$"),
        (fine, {"timeout": 0}, r"^tool fine: timeout is 0; it must be a number of seconds above 0$"),
        (fine, {"timeout": -1.5}, r"timeout is -1.5"),
        (fine, {"timeout": float("nan")}, r"timeout is nan"),
        (fine, {"timeout": "1m"}, r"timeout is '1m'"),
        (fine, {"timeout": True}, r"timeout is True"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(function: Any, options: Json, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        tool(**options)(function)


# ---- running a call


async def test_a_function_that_is_not_async_runs_in_a_thread_with_the_context() -> None:
    @tool
    def where() -> list[str]:
        """Says where it runs, and for which call."""
        return [threading.current_thread().name, tool_context().call_id]

    thread, call_id = json.loads((await call(where)).content)
    assert thread != threading.current_thread().name
    assert call_id == "toolu_1"


async def test_the_context_is_that_of_the_call_and_of_no_other() -> None:
    both = asyncio.Barrier(2)

    @tool
    async def who() -> str:
        """Says for which call it runs."""
        await both.wait()
        return f"{tool_context().job_id} {tool_context().call_id}"

    results = await asyncio.gather(
        call(who, context=ToolContext("job_a", "a", Path())), call(who, context=ToolContext("job_b", "b", Path()))
    )
    assert [r.content for r in results] == ["job_a a", "job_b b"]
    with pytest.raises(LookupError):
        tool_context()


async def test_a_wrapped_coroutine_function_is_a_tool_like_any_other() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return "seen: " + await function(*args, **kwargs)

        return wrapper

    @tool
    @logged
    async def shout(text: Annotated[str, "what to shout"]) -> str:
        """Shouts."""
        return text.upper()

    assert shout.input_schema["properties"]["text"]["description"] == "what to shout"
    assert (await call(shout, {"text": "hi"})).content == "seen: HI"


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "null"),
        ({"é": [1, 2.5, True]}, '{"é": [1, 2.5, true]}'),
        ([], "[]"),
        (Line(article="nail"), '{"article": "nail", "count": 1}'),
        ([Point(1, 2)], '[{"x": 1, "y": 2}]'),
        (Path("a/b"), '"a/b"'),
        ("a\ud800b", "a?b"),
        ({"k": "\udfff"}, '{"k": "?"}'),
    ],
)
async def test_a_result_becomes_text(value: Any, content: str) -> None:
    @tool
    async def give() -> Any:
        """Gives something."""
        return value

    assert await call(give) == ToolResult(content)


async def test_a_result_that_is_no_data_is_a_failure_of_the_tool() -> None:
    @tool
    async def give() -> Any:
        """Gives something that is not data."""
        return threading.Lock()

    assert error(await call(give))["code"] == "tool_failed"


async def test_a_long_result_is_cut_with_a_note() -> None:
    @tool
    async def read(length: int) -> str:
        """Reads much."""
        return "x" * length

    whole = (await call(read, {"length": MAX_RESULT_CHARS})).content
    assert whole == "x" * MAX_RESULT_CHARS
    cut = (await call(read, {"length": 250_000})).content
    kept, note = cut.split("\n")
    assert kept == whole
    assert note == "[cut: 250,000 characters, the first 100,000 are shown; ask for less at once]"


async def test_arguments_are_read_leniently_and_become_what_the_signature_says() -> None:
    @tool
    async def order(lines: list[Line], urgent: bool = False) -> str:
        """Orders."""
        return f"{[type(line).__name__ for line in lines]} {lines[0].count + 1} {urgent}"

    assert (await call(order, {"lines": [{"article": "nail", "count": "41"}]})).content == "['Line'] 42 False"


# ---- failures are results


async def test_an_unknown_tool_is_named_with_those_there_are() -> None:
    @tool
    def here() -> None:
        """Is here."""

    context = ToolContext("job_1", "toolu_1", Path())
    assert error(await Registry([here]).call("there", {}, context)) == {
        "code": "unknown_tool",
        "message": "there is no tool named 'there'; the tools are: here",
        "retryable": False,
    }
    assert error(await Registry().call("there", {}, context))["message"].endswith("the tools are: none")


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({}, "count: Missing required argument"),
        ({"count": "many"}, "count: Input should be a valid integer"),
        ({"count": 1, "colour": "red"}, "colour: Unexpected keyword argument"),
        ({"count": 1, "line": {"article": 5}}, "line.article: Input should be a valid string"),
    ],
)
async def test_arguments_that_do_not_fit_are_explained(given: Json, detail: str) -> None:
    @tool
    def order(count: int, line: Line | None = None) -> None:
        """Orders."""
        raise AssertionError

    found = error(await call(order, given))
    assert found["code"] == "invalid_arguments"
    assert detail in found["message"]


async def test_a_tool_error_reaches_the_model_in_its_own_words() -> None:
    @tool
    def book(seat: int) -> None:
        """Books a seat."""
        raise ToolError(f"seat {seat} is taken; try another", code="taken", retryable=True) from KeyError(SECRET)

    assert error(await call(book, {"seat": 3})) == {
        "code": "taken",
        "message": "seat 3 is taken; try another",
        "retryable": True,
    }


class Sneaky(Exception):
    def __repr__(self) -> str:
        return SECRET


def raise_(fault: BaseException) -> None:
    raise fault


def validate_something_else() -> None:
    Line.model_validate({"article": "nail", "count": SECRET})


def stop_iterating() -> None:
    next(iter([]))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (lambda: raise_(RuntimeError(SECRET)), "RuntimeError"),
        (lambda: raise_(Sneaky(SECRET)), "Sneaky"),
        (lambda: raise_(TimeoutError(SECRET)), "TimeoutError"),
        (lambda: raise_(SystemExit(SECRET)), "SystemExit"),
        (validate_something_else, "ValidationError"),
    ],
)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_unexpected_failure_reaches_the_model_by_its_class_alone(
    body: Any, kind: str, in_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        """Fails."""
        body()

    def fail_in_thread() -> None:
        """Fails."""
        body()

    with caplog.at_level(logging.WARNING, logger="agent_core"):
        result = await call(tool(fail_in_thread if in_thread else fail))
    assert error(result) == {"code": "tool_failed", "message": f"the tool failed with {kind}", "retryable": False}
    assert SECRET not in result.content
    assert caplog.records[0].exc_info is not None  # whoever runs the tool finds the whole story in the log


async def test_an_exhausted_iterator_in_a_thread_does_not_hang_the_call() -> None:
    @tool
    def first() -> None:
        """Takes the first of none."""
        stop_iterating()

    async with asyncio.timeout(10):
        assert error(await call(first))["message"] == "the tool failed with StopIteration"


@pytest.mark.parametrize(
    ("effect", "retryable", "message"),
    [
        ("read", True, "the tool did not finish within 0.01 seconds"),
        ("write", False, "the tool did not finish within 0.01 seconds; it may have had its effect all the same"),
    ],
)
async def test_a_tool_that_does_not_end_is_cut_off(effect: Any, retryable: bool, message: str) -> None:
    cut = asyncio.Event()

    @tool(effect=effect, timeout=0.01)
    async def wait() -> None:
        """Waits for ever."""
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    assert error(await call(wait)) == {"code": "timeout", "message": message, "retryable": retryable}
    assert cut.is_set()


async def test_cancellation_is_no_result() -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> None:
        """Waits for ever."""
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call(wait))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- the registry, and artifacts


def test_the_registry_knows_effects_and_what_may_be_repeated() -> None:
    def make(name: str, effect: Any, idempotent: bool = False) -> Tool:
        return tool(effect=effect, idempotent=idempotent, name=name)(fine)

    tools = [make("pay", "write", True), make("look", "read"), make("change", "write"), make("erase", "destructive")]
    registry = Registry(tools)
    assert [t["name"] for t in registry.to_json()] == ["change", "erase", "look", "pay"]
    assert {t.name: registry.repeatable(t.name) for t in tools} == {
        "pay": True,
        "look": True,
        "change": False,
        "erase": False,
    }
    assert [registry.effect(name) for name in ("look", "erase", "nobody")] == ["read", "destructive", "read"]
    assert not registry.repeatable("nobody")
    assert registry.get("look") is tools[1]
    assert registry.get("nobody") is None


class Shelf:
    async def save(self, job_id: str, name: str, data: bytes) -> Json:
        return {"artifact": name, "id": f"{job_id}/{name}", "bytes": len(data)}

    async def load(self, job_id: str, name: str) -> bytes:
        raise FileNotFoundError(name)


async def test_artifacts_go_where_the_run_keeps_them() -> None:
    @tool
    async def keep() -> Json:
        """Keeps a file."""
        return await tool_context().save_artifact("a.txt", b"abc")

    kept = await call(keep, context=ToolContext("job_1", "toolu_1", Path(), Shelf()))
    assert json.loads(kept.content) == {"artifact": "a.txt", "id": "job_1/a.txt", "bytes": 3}
    assert error(await call(keep))["code"] == "no_artifact_store"


async def test_outside_a_call_there_is_no_context() -> None:
    await call(tool(fine))
    with pytest.raises(LookupError):
        tool_context()
