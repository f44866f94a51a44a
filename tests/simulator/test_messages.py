"""The Messages API as the real SDK sees it: replies, streams, usage, ids."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient

PLAIN: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Tell me about the weather in Ulm, please."}],
}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}


async def streamed(client, **request):
    async with client.messages.stream(**request) as stream:
        return await stream.get_final_message()


async def test_a_plain_answer_says_that_it_is_simulated_and_repeats_the_request(client):
    message = await client.messages.create(**PLAIN)
    assert message.stop_reason == "end_turn"
    assert message.model == "claude-haiku-5-5"
    assert message.id.startswith("msg_sim_")
    assert message._request_id.startswith("req_sim_")
    [block] = message.content
    assert "simulated model" in block.text
    assert "weather in Ulm" in block.text


@pytest.mark.parametrize("tools", [[], [WEATHER]])
async def test_a_stream_adds_up_to_the_message_that_is_not_streamed(client, tools):
    request = {**PLAIN, "tools": tools} if tools else PLAIN
    assert (await streamed(client, **request)).to_dict() == (await client.messages.create(**request)).to_dict()


async def test_the_aiohttp_client_gets_the_same(client, url):
    async with AsyncAnthropic(
        base_url=url, api_key="simulated", max_retries=0, http_client=DefaultAioHttpClient()
    ) as other:
        assert (await streamed(other, **PLAIN)).to_dict() == (await streamed(client, **PLAIN)).to_dict()
        assert (await other.messages.create(**PLAIN)).to_dict() == (await client.messages.create(**PLAIN)).to_dict()


async def test_a_stream_has_the_events_of_the_api_in_their_order(client):
    types = [event.type async for event in await client.messages.create(**PLAIN, tools=[WEATHER], stream=True)]
    assert types[:2] == ["message_start", "content_block_start"]
    assert types[-2:] == ["message_delta", "message_stop"]
    assert types.count("content_block_start") == types.count("content_block_stop") == 2
    assert types.count("content_block_delta") > 3


async def test_text_comes_in_several_pieces(client):
    async with client.messages.stream(**PLAIN) as stream:
        pieces = [text async for text in stream.text_stream]
    assert len(pieces) > 3
    assert "".join(pieces) == (await client.messages.create(**PLAIN)).content[0].text


async def test_the_same_request_gets_the_same_ids_and_another_one_others(client):
    first = await client.messages.create(**PLAIN, tools=[WEATHER])
    again = await client.messages.create(**PLAIN, tools=[WEATHER])
    other = await client.messages.create(
        model="m", max_tokens=500, tools=[WEATHER], messages=[{"role": "user", "content": "Something else"}]
    )
    assert first.to_dict() == again.to_dict()
    assert {b.id for b in first.content if b.type == "tool_use"}.isdisjoint(
        b.id for b in other.content if b.type == "tool_use"
    )
    assert first.id != other.id


async def test_usage_grows_with_what_is_sent(client):
    small = (await client.messages.create(**PLAIN)).usage
    large = (await client.messages.create(**PLAIN, system="s" * 4000)).usage
    assert large.input_tokens - small.input_tokens == pytest.approx(1000, abs=2)
    assert small.cache_read_input_tokens == small.cache_creation_input_tokens == 0
    assert small.output_tokens > 10


async def test_a_reply_never_has_more_tokens_than_were_allowed(client):
    message = await client.messages.create(**{**PLAIN, "max_tokens": 5})
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 5
    assert len(message.content[0].text) == 20


async def test_counting_tokens_gives_what_a_call_is_billed_for(client):
    request = {k: v for k, v in PLAIN.items() if k != "max_tokens"}
    counted = await client.messages.count_tokens(**request, tools=[WEATHER])
    assert counted.input_tokens == (await client.messages.create(**PLAIN, tools=[WEATHER])).usage.input_tokens


async def test_models_are_listed_and_found(client):
    ids = [model.id async for model in client.models.list()]
    assert "claude-sonnet-5-5" in ids
    assert "simulated" in (await client.models.retrieve("claude-sonnet-5-5")).display_name
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("nobody")


async def test_a_schema_that_is_asked_for_is_kept_to(client):
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["fair", "foul"]}, "days": {"type": "integer", "minimum": 3}},
        "required": ["mood", "days"],
    }
    message = await client.messages.create(**PLAIN, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert message.content[0].text == '{"mood": "fair", "days": 3}'
