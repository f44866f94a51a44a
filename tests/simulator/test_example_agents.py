"""Which requests the behaviours of examples/ take for their own, and what they say at the edges."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simulator.behaviours.choose import reply_to

Json = dict[str, Any]

DESK = ("ask_human", "lookup_order", "refund")
FIXER = ("deliver", "list_files", "read_file", "run_python", "write_file")


def body(text: str, tools: tuple[str, ...], *turns: tuple[str, Json, str, bool], **more: Any) -> Json:
    """A request in which these tools were called, each with its input, its result and whether that is an error."""
    messages: list[Json] = [{"role": "user", "content": text}]
    for number, (name, given, result, is_error) in enumerate(turns):
        call = {"type": "tool_use", "id": f"t{number}", "name": name, "input": given}
        told = {"type": "tool_result", "tool_use_id": f"t{number}", "content": result, "is_error": is_error}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [told]}]
    return {
        "messages": messages,
        "tools": [{"name": name, "input_schema": {"type": "object"}} for name in tools],
        **more,
    }


def asking(*properties: str) -> Json:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in properties}}
    return {"format": {"type": "json_schema", "schema": schema}}


def said(request: Json) -> str:
    return "".join(block.get("text", "") for block in reply_to(request).content)


def called(request: Json) -> list[str]:
    return [block["name"] for block in reply_to(request).content if block["type"] == "tool_use"]


def test_an_agent_with_the_same_tools_and_another_answer_is_not_the_reader_of_the_research() -> None:
    tools = ("read_file", "search_files")
    assert called(body("What is new?", tools, output_config=asking("passages", "summary"))) == ["search_files"]
    assert called(body("What is new?", tools, output_config=asking("title"))) == ["read_file", "search_files"]
    assert called(body("What is new?", tools)) == ["read_file", "search_files"]


@pytest.mark.parametrize("tools", [DESK, FIXER, ("delegate", "search_files")])
def test_when_no_tool_may_be_called_none_is(tools: tuple[str, ...]) -> None:
    more = {"tool_choice": {"type": "none"}, "output_config": asking("findings")} if "delegate" in tools else {}
    assert called(body("Do it.", tools, **{"tool_choice": {"type": "none"}, **more})) == []


def test_the_lead_says_what_was_not_read() -> None:
    matches = json.dumps({"matches": [{"path": "a.md", "line": 1, "text": "news"}]})
    task = {"agent": "reader", "task": "Question: What is new?\nDocument: a.md"}
    turns = [("search_files", {}, matches, False), ("delegate", task, "the reader did not do it", True)]
    request = body("What is new?", ("delegate", "search_files"), *turns, output_config=asking("findings"))
    assert "a.md was not read: the reader did not do it" in json.loads(said(request))["gaps"]


def test_the_code_fixer_says_when_it_knows_no_fault() -> None:
    turns = [
        ("run_python", {}, "ended, exit status 1", False),
        ("list_files", {}, json.dumps({"files": [{"path": "own.py", "bytes": 3}]}), False),
        ("read_file", {"path": "own.py"}, "[characters 0 to 3 of 3]\nx=1", False),
    ]
    assert "a simulated model knows those of the example alone" in said(body("Mend it.", FIXER, *turns))
    passing = [("run_python", {}, "ended, exit status 0", False), *turns[1:]]
    assert "there is nothing to mend" in said(body("Mend it.", FIXER, *passing))


def test_its_validator_objects_to_a_run_that_fails_without_a_failing_test() -> None:
    turn: tuple[str, Json, str, bool] = (
        "run_python",
        {},
        "stopped: it ran for longer than 30 seconds, exit status 137",
        False,
    )
    verdict = json.loads(said(body("Check it.", FIXER, turn, output_config=asking("ok", "problems"))))
    assert verdict == {"ok": False, "problems": [turn[2]]}


def test_the_support_desk_says_when_there_is_no_such_order() -> None:
    turn = ("lookup_order", {"order_id": "A-1"}, "there is no order 'A-999'", True)
    assert "I could not find the order A-999" in said(body("I want my money back for A-999.", DESK, turn))
