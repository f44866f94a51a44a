"""Scripted conversations, driven through the real SDK."""

from __future__ import annotations

import pytest

from simulator import script as script_format
from simulator.script import find_script


def results(message, *texts):
    calls = [block for block in message.content if block.type == "tool_use"]
    content = [
        {"type": "tool_result", "tool_use_id": call.id, "content": text}
        for call, text in zip(calls, texts, strict=True)
    ]
    return [{"role": "assistant", "content": message.to_dict()["content"]}, {"role": "user", "content": content}]


async def test_a_script_is_played_turn_by_turn(client, scripted):
    request = scripted(
        {"tool": "lookup", "input": {"id": 7}},
        {"tools": [{"name": "a", "input": {"x": [1]}}, {"name": "b"}], "text": "Both at once."},
        {"text": "It was: {{last_tool_result}}!"},
    )
    first = await client.messages.create(**request)
    assert (first.stop_reason, first.content[0].name, first.content[0].input) == ("tool_use", "lookup", {"id": 7})

    request["messages"] += results(first, "seven")
    second = await client.messages.create(**request)
    assert [b.type for b in second.content] == ["text", "tool_use", "tool_use"]
    assert [b.input for b in second.content if b.type == "tool_use"] == [{"x": [1]}, {}]

    request["messages"] += results(second, "one", "two")
    third = await client.messages.create(**request)
    assert (third.stop_reason, third.content[0].text) == ("end_turn", "It was: two!")

    request["messages"] += [{"role": "assistant", "content": "It was: two!"}, {"role": "user", "content": "And now?"}]
    assert (await client.messages.create(**request)).content[0].text == "done"


@pytest.mark.parametrize(
    "reason", ["max_tokens", "refusal", "pause_turn", "model_context_window_exceeded", "something_new"]
)
async def test_a_turn_stops_for_the_reason_it_was_told(client, scripted, reason):
    request = scripted({"text": "I stop.", "stop_reason": reason})
    async with client.messages.stream(**request) as stream:
        assert (await stream.get_final_message()).stop_reason == reason
    assert (await client.messages.create(**request)).stop_reason == reason


async def test_usage_can_be_told(client, scripted):
    message = await client.messages.create(
        **scripted({"text": "hi", "usage": {"output_tokens": 900, "input_tokens": 5}})
    )
    assert (message.usage.output_tokens, message.usage.input_tokens) == (900, 5)


async def test_usage_can_be_left_out(client, scripted):
    request = scripted({"text": "hi", "usage": None})
    assert "usage" not in (await client.messages.create(**request)).to_dict()
    starts = [e.to_dict() async for e in await client.messages.create(**request, stream=True)]
    assert all("usage" not in e and "usage" not in e.get("message", {}) for e in starts)


async def test_text_is_cut_into_as_many_pieces_as_told(client, scripted):
    async with client.messages.stream(**scripted({"text": "one two three four five six"}, chunks=3)) as stream:
        assert [text async for text in stream.text_stream] == ["one two ", "three four ", "five six"]


async def test_a_delayed_stream_adds_up_to_the_same(client, scripted):
    request = scripted({"text": "one two three", "chunks": 3, "chunk_delay": 0.001, "latency": 0.001})
    async with client.messages.stream(**request) as stream:
        assert (await stream.get_final_message()).to_dict() == (await client.messages.create(**request)).to_dict()


def user(text):
    return {"role": "user", "content": text}


def test_the_script_of_the_newest_message_counts_from_there():
    said = {"role": "assistant", "content": "done"}
    messages = [user('#sim {"turns": []}'), said, user('Again\n#sim {"turns": [],\n "key": "2"} thanks'), said]
    found = find_script(messages)
    assert found is not None
    script, source, played = found
    assert (script.key, source, played) == ("2", '{"turns": [],\n "key": "2"}', 1)


def test_only_a_line_that_starts_with_the_mark_is_a_script():
    assert find_script([user('Write #sim {"turns": []}')]) is None
    result = {"type": "tool_result", "tool_use_id": "t", "content": '#sim {"turns": []}'}
    assert find_script([user("hi"), {"role": "user", "content": [result]}]) is None


def test_the_example_in_the_documentation_is_a_script():
    example = next(line.strip() for line in (script_format.__doc__ or "").splitlines() if "#sim {" in line)
    found = find_script([user(example)])
    assert found is not None
    assert [len(turn.calls) for turn in found[0].turns] == [1, 0]
