"""The behaviour with tools that the simulated model does not know, and the values it makes for them."""

from __future__ import annotations

import pytest

from simulator.behaviours.choose import reply_to
from simulator.behaviours.example import example_of


def tool(name, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": name, "input_schema": schema}


def ask(*tools, text="Find the cheapest kettle.", **more):
    return {
        "model": "m",
        "max_tokens": 500,
        "tools": list(tools),
        "messages": [{"role": "user", "content": text}],
        **more,
    }


def called(reply):
    return [(b["name"], b["input"]) for b in reply.content if b["type"] == "tool_use"]


SEARCH = tool("search_shop", query={"type": "string"}, limit={"type": "integer"})
BUY = tool("buy", item={"type": "string"})


def test_it_calls_what_looks_like_reading_with_arguments_that_fit():
    reply = reply_to(ask(BUY, SEARCH, tool("getStock")))
    assert reply.stop_reason == "tool_use"
    assert called(reply) == [("search_shop", {"query": "Find the cheapest kettle.", "limit": 1}), ("getStock", {})]


async def test_it_quotes_the_results_and_says_that_it_is_simulated(client):
    request = ask(BUY, SEARCH, tool("list_brands"))
    first = await client.messages.create(**request)
    calls = [b for b in first.content if b.type == "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": [{"type": "text", "text": "kettle: 9.90"}]},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": "no brands", "is_error": True},
    ]
    request["messages"] += [
        {"role": "assistant", "content": first.to_dict()["content"]},
        {"role": "user", "content": results},
    ]
    last = await client.messages.create(**request)
    assert last.stop_reason == "end_turn"
    [block] = last.content
    for words in ("simulated model", "search_shop returned: kettle: 9.90", "list_brands failed with: no brands"):
        assert words in block.text


def test_a_tool_that_may_do_harm_is_not_called():
    reply = reply_to(ask(BUY, tool("delete_shop"), tool("listen")))
    assert (reply.stop_reason, called(reply)) == ("end_turn", [])
    assert "buy, delete_shop, listen" in reply.content[0]["text"]


@pytest.mark.parametrize(
    ("choice", "names"),
    [({"type": "tool", "name": "buy"}, ["buy"]), ({"type": "any"}, ["search_shop"]), ({"type": "none"}, [])],
)
def test_the_choice_of_the_caller_is_kept_to(choice, names):
    assert [name for name, _ in called(reply_to(ask(BUY, SEARCH, tool_choice=choice)))] == names


def test_tools_that_the_server_runs_are_not_called():
    assert called(reply_to(ask({"type": "web_search_20260318", "name": "web_search"}))) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "my words"),
        ({"type": "string", "maxLength": 3}, "my…"),
        ({"type": "string", "minLength": 10}, "my words.."),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 4}, 4),
        ({"type": "string", "examples": ["x"]}, "x"),
        ({"type": "string", "default": "d"}, "d"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": "boolean"}, False),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"type": "null"}, None),
        ({"properties": {"a": {}, "b": {}}, "required": ["b"]}, {"b": "my words"}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1),
    ],
)
def test_values_fit_their_schema(schema, value):
    assert example_of(schema, "my words") == value


def test_a_schema_that_contains_itself_comes_to_an_end():
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    assert "child" in example_of(schema, "x")
