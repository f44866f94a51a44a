"""Prompt caching as the Messages API has it: what a request reads, what it writes, and for how long."""

from __future__ import annotations

import copy
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ApiError
from simulator.prompt_cache import PromptCache, uncached

Json = dict[str, Any]
MARK: Json = {"cache_control": {"type": "ephemeral"}}
HOUR: Json = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LONG = "s" * 4000  # 1,000 tokens
LOOK = {"name": "look", "description": "d" * 4000, "input_schema": {"type": "object"}}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(*said: str | list[Json], **changes: Any) -> Json:
    """A request whose messages are said by the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(said)]
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "system": LONG, "messages": messages, **MARK, **changes}


def text(said: str, **mark: Any) -> Json:
    return {"type": "text", "text": said, **mark}


def split(usage: Json) -> tuple[int, int, int]:
    """What a request read, what it wrote, and what it neither read nor wrote."""
    return usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"], usage["input_tokens"]


def test_each_turn_reads_what_the_turn_before_wrote_and_writes_the_rest():
    cache = PromptCache()
    assert split(cache.count(ask("a" * 40))) == (0, 1010, 0)
    assert split(cache.count(ask("a" * 40, "b" * 80, "c" * 120))) == (1010, 50, 0)
    assert split(cache.count(ask("a" * 40, "b" * 80, "c" * 120))) == (1060, 0, 0)
    assert split(cache.count(ask("a" * 40, "b" * 80, "c" * 120, "d" * 4, "e" * 4))) == (1060, 2, 0)


def test_a_request_that_does_not_ask_for_the_cache_neither_reads_nor_writes():
    cache = PromptCache()
    plain = ask("a" * 40)
    del plain["cache_control"]
    assert split(cache.count(plain)) == (0, 0, 1010)
    assert split(cache.count(ask("a" * 40))) == (0, 1010, 0)
    assert split(cache.count(plain)) == (0, 0, 1010)
    assert uncached(ask("a" * 40)) == cache.count(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"system": LONG.replace("s", "S", 1)},
        {"model": "claude-opus-5-5"},
        {"tools": [{**LOOK, "name": "other"}]},
        {"tools": [{"description": LOOK["description"], "name": "look", "input_schema": LOOK["input_schema"]}]},
        {"tool_choice": {"type": "none"}},
        {"thinking": {"type": "adaptive"}},
    ],
)
def test_another_prefix_is_not_read(change):
    """Down to the order of keys: what is not the same bytes is another prompt."""
    cache = PromptCache()
    asked = ask("a" * 4, tools=[LOOK])
    cache.count(asked)
    assert split(cache.count({**asked, **change}))[0] == 0
    assert split(cache.count(copy.deepcopy(asked)))[0] > 2000


def test_a_choice_of_tools_leaves_the_tools_and_the_system_text_readable():
    cache = PromptCache()
    asked = ask("a" * 400, tools=[LOOK], system=[text(LONG, **MARK)])
    cache.count(asked)
    read, written, _ = split(cache.count({**asked, "tool_choice": {"type": "none"}}))
    assert (read > 2000, written) == (True, 100)


@pytest.mark.parametrize(
    ("model", "least"), [("claude-opus-5-5", 512), ("claude-sonnet-5", 1024), ("claude-haiku-4-5", 4096)]
)
def test_a_prompt_that_is_too_short_is_not_cached(model, least):
    cache = PromptCache()
    below, enough = (ask("a" * 4, model=model, system="s" * (4 * tokens - 4)) for tokens in (least - 1, least))
    for _ in range(2):
        assert split(cache.count(below)) == (0, 0, least - 1)
    assert split(cache.count(enough)) == (0, least, 0)
    assert split(cache.count(enough)) == (least, 0, 0)


def test_what_follows_the_last_breakpoint_is_not_cached():
    cache = PromptCache()
    asked = ask("a" * 40, system=[text(LONG, **MARK)], cache_control=None)
    assert split(cache.count(asked)) == (0, 1000, 10)
    assert split(cache.count({**asked, "messages": [{"role": "user", "content": "b" * 80}]})) == (1000, 0, 20)


def test_the_split_by_lifetime_follows_the_breakpoints():
    cache = PromptCache()
    asked = ask("a" * 400, system=[text(LONG, **HOUR)])
    assert cache.count(asked)["cache_creation"] == {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 1000}
    assert cache.count(ask("b" * 400, **HOUR))["cache_creation"] == {
        "ephemeral_5m_input_tokens": 0,
        "ephemeral_1h_input_tokens": 100,
    }


@pytest.mark.parametrize(("mark", "lifetime"), [(MARK, 300), (HOUR, 3600)])
def test_a_prefix_lives_from_use_to_use(mark, lifetime):
    clock = Clock()
    cache = PromptCache(clock)
    asked = ask("a" * 40, **mark)
    cache.count(asked)
    for _ in range(3):
        clock.now += lifetime - 1
        assert split(cache.count(asked)) == (1010, 0, 0)
    clock.now += lifetime
    assert split(cache.count(asked)) == (0, 1010, 0)


def test_a_prefix_lives_on_by_what_follows_it():
    clock = Clock()
    cache = PromptCache(clock)
    for said in (["a" * 40], ["a" * 40, "b", "c"], ["a" * 40, "d", "e"]):
        read = split(cache.count(ask(*said)))[0]
        clock.now += 200
    assert read == 1010


def test_a_prefix_that_lapsed_lives_as_long_as_it_is_asked_for_the_next_time():
    clock = Clock()
    cache = PromptCache(clock)
    cache.count(ask("a" * 40, **HOUR))
    clock.now += 3600
    cache.count(ask("a" * 40))
    clock.now += 300
    assert split(cache.count(ask("a" * 40))) == (0, 1010, 0)


@pytest.mark.parametrize(("added", "read"), [(19, 1010), (20, 0)])
def test_a_prefix_is_looked_for_within_twenty_blocks(added, read):
    cache = PromptCache()
    cache.count(ask("a" * 40))
    assert split(cache.count(ask("a" * 40, [text("b" * 4)] * (added - 1), "c")))[0] == read


def test_forgetting_the_calls_forgets_the_cache():
    cache = PromptCache()
    cache.count(ask("a" * 40))
    cache.reset()
    assert split(cache.count(ask("a" * 40))) == (0, 1010, 0)


def test_breakpoints_that_the_api_does_not_take():
    with pytest.raises(ApiError, match=r"A maximum of 4 blocks .* Found 5"):
        PromptCache().count(ask("hi", system=[text("s", **MARK)] * 4))
    with pytest.raises(ApiError, match=r"cache_control\.ttl: Input should be '5m' or '1h'"):
        PromptCache().count(ask("hi", cache_control={"type": "ephemeral", "ttl": "1d"}))
    with pytest.raises(ApiError, match=r"cache_control\.ttl"):
        PromptCache().count(ask("hi", cache_control="yes"))


@given(
    lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=12),
    marks=st.lists(st.sampled_from([{}, {}, {}, MARK, HOUR]), min_size=12, max_size=12),
    whole=st.sampled_from([None, MARK["cache_control"], HOUR["cache_control"]]),
    prefix=st.integers(0, 11),
)
def test_the_parts_of_a_usage_are_the_whole_prompt(lengths, marks, whole, prefix):
    chosen = [mark if sum(map(bool, marks[: n + 1])) <= 3 else {} for n, mark in enumerate(marks)]
    blocks = [text("x" * length, **mark) for length, mark in zip(lengths, chosen, strict=False)]
    cache = PromptCache()
    cache.count(ask(blocks[: prefix + 1], cache_control=whole))
    asked = ask(blocks, cache_control=whole)
    for _ in range(2):
        usage = cache.count(asked)
        assert sum(split(usage)) == uncached(asked)["input_tokens"]
        assert min(split(usage)) >= 0
        assert sum(usage["cache_creation"].values()) == usage["cache_creation_input_tokens"]
    assert usage["cache_creation_input_tokens"] == 0


# ---- over HTTP


async def test_a_stream_and_a_whole_reply_report_the_cache(client, fetch, http):
    first = await client.messages.create(**ask("a" * 40))
    assert first.usage.cache_creation_input_tokens == first.usage.cache_creation.ephemeral_5m_input_tokens == 1010
    async with client.messages.stream(**ask("a" * 40, "b" * 40, "c" * 40)) as stream:
        second = await stream.get_final_message()
    assert (second.usage.cache_read_input_tokens, second.usage.cache_creation_input_tokens) == (1010, 20)
    assert second.usage.input_tokens == 0
    counted = await client.messages.count_tokens(
        model="claude-sonnet-5-5", system=LONG, messages=ask("a" * 40)["messages"]
    )
    assert counted.input_tokens == 1010
    await http.delete("/_sim/calls")
    assert (await client.messages.create(**ask("a" * 40))).usage.cache_read_input_tokens == 0


async def test_a_refused_call_writes_nothing(client, scripted):
    asked = {**scripted({"text": "hi", "faults": [{"status": 529}]}), "system": LONG, **MARK}
    with pytest.raises(anthropic.APIStatusError):
        await client.messages.create(**asked)
    assert (await client.messages.create(**asked)).usage.cache_read_input_tokens == 0
    assert (await client.messages.create(**asked)).usage.cache_read_input_tokens > 1000
