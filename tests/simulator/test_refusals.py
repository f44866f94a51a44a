"""What the server refuses, and how it says so."""

from __future__ import annotations

import json

import anthropic
import pytest

from simulator.server import SimulatorOptions

CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}
ASK = {"role": "user", "content": "Look."}


def error_of(exc: anthropic.APIStatusError) -> str:
    assert isinstance(exc.body, dict)
    return str(exc.body["error"]["message"])


def said(*content):
    return {"role": "assistant", "content": list(content)}


def given(*content):
    return {"role": "user", "content": list(content)}


BAD_MESSAGES = {
    "none": ([], "at least one message"),
    "starts with the assistant": ([said({"type": "text", "text": "hi"})], 'first message must use the "user" role'),
    "unknown role": ([{"role": "robot", "content": "hi"}], "messages.0.role"),
    "no content": ([{"role": "user", "content": ""}], "non-empty content"),
    "empty text": ([given({"type": "text", "text": ""})], "text content blocks must be non-empty"),
    "block without type": ([given({"text": "hi"})], "messages.0.content.0.type"),
    "call at the end": ([ASK, said(CALL)], "without `tool_result` blocks immediately after: toolu_1"),
    "call without result": ([ASK, said(CALL), {"role": "user", "content": "Well?"}], "immediately after: toolu_1"),
    "one result of two": (
        [ASK, said(CALL, {**CALL, "id": "toolu_2"}), given(RESULT)],
        "immediately after: toolu_2",
    ),
    "result too late": ([ASK, said(CALL), ASK, given(RESULT)], "messages.2: `tool_use` ids were found without"),
    "result of nothing": ([given(RESULT)], "unexpected `tool_use_id`"),
    "two results": ([ASK, said(CALL), given(RESULT, RESULT)], "must have a single result"),
    "result after text": ([ASK, said(CALL), given({"type": "text", "text": "so"}, RESULT)], "must come first"),
    "same id twice": ([ASK, said(CALL, CALL), given(RESULT)], "ids must be unique"),
    "same id again": ([ASK, said(CALL), given(RESULT), said(CALL), given(RESULT)], "ids must be unique"),
    "call by the user": ([given(CALL)], "can only be in assistant messages"),
    "input is text": ([ASK, said({**CALL, "input": "{}"}), given(RESULT)], "valid dictionary"),
}


@pytest.mark.parametrize(("messages", "words"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_a_broken_history_is_refused(client, messages, words):
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.messages.create(model="m", max_tokens=10, messages=messages)
    assert caught.value.type == "invalid_request_error"
    assert words in error_of(caught.value)


async def test_a_sound_history_is_taken(client):
    messages = [ASK, said(CALL), given(RESULT, {"type": "text", "text": "Go on."})]
    assert (await client.messages.create(model="m", max_tokens=100, messages=messages)).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"tools": [{"name": "a b"}]}, "tools.0.name"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "must be unique"),
        ({"messages": "hi"}, "at least one message"),
    ],
)
async def test_a_broken_request_is_refused(http, change, words):
    body = {"model": "m", "max_tokens": 10, "messages": [ASK]} | change
    async with http.post("/v1/messages", json=body) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]["message"]


@pytest.mark.parametrize("data", [b"{", b"[]", b'"hi"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(http, data):
    async with http.post("/v1/messages", data=data) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_without_a_key_nothing_is_answered(http):
    body = {"model": "m", "max_tokens": 10, "messages": [ASK]}
    async with http.post("/v1/messages", json=body, skip_auto_headers=["x-api-key"], headers={}) as response:
        assert response.status == 200
    http.headers.popall("x-api-key")
    async with http.post("/v1/messages", json=body) as response:
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2/x", 404), ("GET", "/v1/messages", 405)])
async def test_unknown_routes_are_answered_in_the_shape_of_the_api(http, method, path, status):
    async with http.request(method, path) as response:
        assert response.status == status
        body = await response.json()
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize("options", [SimulatorOptions(max_body_bytes=1000)])
async def test_a_body_that_is_too_large_is_refused(client):
    with pytest.raises(anthropic.RequestTooLargeError) as caught:
        await client.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "x" * 2000}])
    assert str(caught.value.type) == "request_too_large"


BAD_SCRIPTS = {
    "not JSON": ("{turns", "not JSON"),
    "no turns": ("{}", "turns: Field required"),
    "unknown field": ('{"turns": [{"txt": "hi"}]}', "turns.0.txt"),
    "empty turn": ('{"turns": [{}]}', "turns.0: Value error, a turn needs"),
    "tool and tools": ('{"turns": [{"tool": "a", "tools": [{"name": "b"}]}]}', "either tool or tools"),
    "input alone": ('{"turns": [{"text": "a", "input": {}}]}', "input goes with tool"),
    "no fault": ('{"turns": [{"text": "a", "faults": [{}]}]}', "turns.0.faults.0: Value error, a fault is exactly one"),
    "two faults": ('{"turns": [{"text": "a", "faults": [{"drop": true, "cut": 0.5}]}]}', "exactly one of"),
    "good status": ('{"turns": [{"text": "a", "faults": [{"status": 200}]}]}', "turns.0.faults.0.status"),
    "cut of all": ('{"turns": [{"text": "a", "faults": [{"cut": 1.0}]}]}', "turns.0.faults.0.cut"),
    "retry alone": ('{"turns": [{"text": "a", "faults": [{"drop": true, "retry_after": 1}]}]}', "retry_after"),
    "after alone": ('{"turns": [{"text": "a", "faults": [{"drop": true, "after": 0.1}]}]}', "after goes with"),
    "no call to break": ('{"turns": [{"text": "a", "faults": [{"malformed_tool_json": true}]}]}', "with a tool call"),
    "latency": ('{"turns": [], "latency": NaN}', "latency"),
}


@pytest.mark.parametrize(("script", "words"), BAD_SCRIPTS.values(), ids=BAD_SCRIPTS)
async def test_a_bad_script_is_refused_by_name_of_its_fault(client, script, words):
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": f"#sim {script}"}])
    message = error_of(caught.value)
    assert message.startswith("#sim: ")
    assert words in message


async def test_a_call_that_is_refused_is_recorded(http, fetch):
    async with http.post("/v1/messages", data=json.dumps({"model": "m"})):
        pass
    assert [call["outcome"] for call in await fetch("/_sim/calls")] == ["failed:400"]


async def test_a_system_message_within_a_conversation_is_taken(client):
    messages = [ASK, {"role": "system", "content": "Be brief."}]
    assert (await client.messages.create(model="m", max_tokens=100, messages=messages)).stop_reason == "end_turn"


async def test_a_failure_of_the_server_itself_has_the_shape_of_the_api(client, fetch):
    impossible = {"type": "object", "properties": {"n": {"type": "integer", "minimum": "x"}}, "required": ["n"]}
    tools = [{"name": "get_n", "input_schema": impossible}]
    with pytest.raises(anthropic.InternalServerError) as caught:
        await client.messages.create(model="m", max_tokens=100, messages=[ASK], tools=tools)
    assert caught.value.type == "api_error"
    assert [call["outcome"] for call in await fetch("/_sim/calls")] == ["failed:500"]
