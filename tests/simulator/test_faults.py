"""Each fault, and what the real SDK makes of it."""

from __future__ import annotations

import json

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient

WORDS = " ".join(f"word{n}" for n in range(60))


async def consume(client, request):
    async with client.messages.stream(**request) as stream:
        return await stream.get_final_message()


async def collect(client, request, seen):
    async for event in await client.messages.create(**request, stream=True):
        seen.append(event.type)


async def whole(client, request):
    return await client.messages.create(**request)


@pytest.fixture(params=[None, DefaultAioHttpClient], ids=["default", "aiohttp"])
async def either(request, url):
    """The SDK over each of its HTTP clients."""
    http = request.param() if request.param else None
    async with AsyncAnthropic(base_url=url, api_key="simulated", max_retries=0, http_client=http) as client:
        yield client


@pytest.mark.parametrize("call", [consume, whole])
@pytest.mark.parametrize(
    ("status", "error", "type_"),
    [
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
async def test_a_status_is_an_error_of_its_class_and_then_the_turn_succeeds(
    client, scripted, status, error, type_, call
):
    request = scripted({"text": "at last", "faults": [{"status": status, "retry_after": 1.5}, {"status": status}]})
    with pytest.raises(error) as caught:
        await call(client, request)
    assert caught.value.type == type_
    assert caught.value.response.headers["retry-after"] == "1.5"
    with pytest.raises(error) as caught:
        await call(client, request)
    assert "retry-after" not in caught.value.response.headers
    assert (await call(client, request)).content[0].text == "at last"


@pytest.mark.parametrize("call", [consume, whole])
async def test_a_dropped_connection(either, scripted, call, fetch):
    request = scripted({"text": "at last", "faults": [{"drop": True}]})
    with pytest.raises(anthropic.APIConnectionError):
        await call(either, request)
    assert (await call(either, request)).content[0].text == "at last"
    outcomes = [(c["outcome"], c["closed_at"] is not None) for c in await fetch("/_sim/calls")]
    assert outcomes == [("cut", True), ("completed", False)]


@pytest.mark.parametrize("delay", [0, 0.001])
async def test_a_stream_that_is_cut_breaks_after_its_share(either, scripted, delay):
    request = scripted({"text": WORDS, "chunks": 20, "chunk_delay": delay, "faults": [{"cut": 0.5}]})
    seen: list[str] = []
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):  # which, is up to the HTTP client
        await collect(either, request, seen)
    assert seen[0] == "message_start"
    assert 5 < seen.count("content_block_delta") < 15
    assert "message_delta" not in seen


async def test_a_whole_answer_that_is_cut_does_not_arrive(either, scripted):
    request = scripted({"text": WORDS, "faults": [{"cut": 0.5}]})
    with pytest.raises((anthropic.APIConnectionError, httpx2.TransportError)):
        await whole(either, request)


async def test_a_stream_that_ends_early_raises_nothing_and_has_no_stop_reason(client, scripted):
    message = await consume(client, scripted({"text": WORDS, "faults": [{"early_end": True}]}))
    assert message.content[0].text == WORDS
    assert message.stop_reason is None


async def test_an_error_within_a_stream_has_status_200(client, scripted, fetch):
    request = scripted({"text": WORDS, "faults": [{"error_event": "overloaded_error"}]})
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        await collect(client, request, seen)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    assert seen.count("content_block_delta") > 1
    assert [c["outcome"] for c in await fetch("/_sim/calls")] == ["failed:overloaded_error"]


async def test_an_error_without_a_stream_is_the_status_of_its_type(client, scripted):
    with pytest.raises(anthropic.OverloadedError):
        await whole(client, scripted({"text": "hi", "faults": [{"error_event": "overloaded_error"}]}))


async def test_a_server_that_hangs_runs_into_the_timeout_of_the_client(client, scripted, fetch):
    request = scripted({"text": "hi", "faults": [{"hang": 60}]})
    with pytest.raises(anthropic.APITimeoutError):
        await whole(client.with_options(timeout=0.1), request)
    assert (await whole(client, request)).content[0].text == "hi"


async def test_a_stream_that_falls_silent_halfway_runs_into_the_timeout_of_the_client(client, scripted):
    request = scripted({"text": WORDS, "faults": [{"hang": 60, "after": 0.5}]})
    with pytest.raises(httpx2.ReadTimeout):
        await consume(client.with_options(timeout=0.2), request)


async def test_who_outlasts_a_hang_finds_the_connection_closed(client, scripted):
    with pytest.raises(anthropic.APIConnectionError):
        await whole(client, scripted({"text": "hi", "faults": [{"hang": 0.01}]}))


async def test_the_input_of_a_tool_call_can_be_no_json(client, scripted):
    request = scripted({"tool": "look", "input": {"at": "this"}, "faults": [{"malformed_tool_json": True}]})
    pieces = [
        event.delta.partial_json
        async for event in await client.messages.create(**request, stream=True)
        if event.type == "content_block_delta"
    ]
    with pytest.raises(json.JSONDecodeError):
        json.loads("".join(pieces))
    assert (await consume(client, request)).content[0].input == {"at": "this"}


async def test_the_sdk_refuses_an_input_that_is_no_json(client, scripted):
    request = scripted({"tool": "look", "input": {"at": "this"}, "faults": [{"malformed_tool_json": True}]})
    with pytest.raises(ValueError, match="JSON"):
        await consume(client, request)


async def test_faults_that_come_always_start_over(client, scripted):
    request = scripted({"text": "never", "faults": [{"status": 500}, {"status": 529}], "always": True})
    seen = []
    for _ in range(4):
        with pytest.raises(anthropic.InternalServerError) as caught:
            await whole(client, request)
        seen.append(caught.value.status_code)
    assert seen == [500, 529, 500, 529]


async def test_attempts_are_counted_by_script_and_key_until_forgotten(client, scripted, http):
    turn = {"text": "hi", "faults": [{"status": 500}]}
    for key in ("a", "b"):
        with pytest.raises(anthropic.InternalServerError):
            await whole(client, scripted(turn, key=key))
        assert (await whole(client, scripted(turn, key=key))).stop_reason == "end_turn"
    async with http.delete("/_sim/calls") as response:
        assert response.status == 204
    with pytest.raises(anthropic.InternalServerError):
        await whole(client, scripted(turn, key="a"))
