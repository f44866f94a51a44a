"""Long conversations: what it sums up, and how a script goes on from there; and the questions of the patterns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_core.compaction import SUMMARISE, is_sound
from agent_core.patterns.base import VERDICT

Json = dict[str, Any]
SCRIPT = '#sim {"turns": [{"text": "one"}, {"text": "two"}, {"text": "three: {{facts}}"}]}'


def said(role: str, text: str) -> Json:
    return {"role": role, "content": text}


def asked_for_a_summary(*messages: Json) -> list[Json]:
    *before, last = messages
    blocks = [{"type": "text", "text": last["content"]}, {"type": "text", "text": SUMMARISE}]
    return [*before, {"role": "user", "content": blocks}]


async def text_of(client, messages: list[Json], **more: Any) -> str:
    message = await client.messages.create(model="claude-sonnet-5-5", max_tokens=1000, messages=messages, **more)
    assert message.stop_reason == "end_turn"
    return message.content[0].text


@pytest.mark.parametrize("script", ["go on", SCRIPT])
async def test_a_summary_keeps_the_facts_and_is_one_that_the_platform_takes(client, script):
    messages = asked_for_a_summary(
        said("user", f"FACT 1: the sky is blue\n{script}"),
        said("assistant", "FACT 2: so is the sea\nand this is no FACT"),
        said("user", "FACT 1: the sky is blue\n  FACT 3: not at the start of its line"),
    )
    text = await text_of(client, messages)
    assert is_sound(text, 40_000)
    assert [line for line in text.splitlines() if "FACT" in line] == [
        "FACT 1: the sky is blue",
        "FACT 2: so is the sea",
    ]


async def test_a_script_goes_on_after_the_summary_of_its_first_turns(client):
    head = said("user", SCRIPT)
    first = await text_of(client, [head])
    messages = [head, said("assistant", first), said("user", "FACT 7: it rained")]
    summary = await text_of(client, asked_for_a_summary(*messages))
    blocks = [{"type": "text", "text": SCRIPT}, {"type": "text", "text": f"[Summary]\n{summary}"}]
    compacted = [{"role": "user", "content": blocks}]
    assert await text_of(client, compacted) == "two"
    compacted += [said("assistant", "two"), said("user", "[Do not repeat yourself.]")]
    assert await text_of(client, compacted) == "three: FACT 7: it rained"

    second = await text_of(client, asked_for_a_summary(*compacted))  # which takes the first one up
    blocks[1] = {"type": "text", "text": second}
    assert await text_of(client, [{"role": "user", "content": blocks}]) == "three: FACT 7: it rained"


async def test_it_is_no_request_for_a_summary_to_have_one(client):
    summary = await text_of(client, asked_for_a_summary(said("user", "go on")))
    assert "You wrote" in await text_of(client, [said("user", summary)])


async def test_a_script_that_is_over_answers_in_the_form_that_is_asked_for(client):
    asked = {"output_config": {"format": {"type": "json_schema", "schema": VERDICT}}}
    messages = [said("user", '#sim {"turns": [{"text": "one"}]}')]
    assert await text_of(client, messages, **asked) == "one"
    messages += [said("assistant", "one"), said("user", "Is that right?")]
    assert json.loads(await text_of(client, messages, **asked)) == {"ok": True, "problems": []}
    assert await text_of(client, messages) == "done"
