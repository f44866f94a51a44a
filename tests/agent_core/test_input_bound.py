"""The bound of a request's input: no tokeniser that makes at most one token of a byte ever makes more of it."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_core import Budget
from agent_core.defaults import MemoryJournal
from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted, ToolCompleted
from agent_core.ports import Draft, Request
from agent_core.pricing import OWN_TOKENS
from agent_core.state import State
from agent_core.testing import DEFAULT_USAGE, ScriptedModel, calls, says
from agent_core.types import Json
from tests.agent_core.harness import MODEL, TASK, Log, make_agent, make_ports, play

Tokeniser = Callable[[str], int]
OTHER = "claude-haiku-4-5"


def tokenisers() -> st.SearchStrategy[Tokeniser]:
    """Makes of each text as many tokens as it likes, up to one of a byte, and always the same."""

    def make(seed: int, most: float) -> Tokeniser:
        def count(text: str) -> int:
            data = text.encode("utf-8", "surrogatepass")
            return round(len(data) * most * (zlib.crc32(data, seed) % 5) / 4)

        return count

    return st.builds(make, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0])) | st.just(
        lambda text: len(text.encode("utf-8", "surrogatepass"))
    )


def texts_of(blocks: str | list[Json]) -> list[str]:
    """The texts of a message's content that a model reads."""
    if isinstance(blocks, str):
        return [blocks]
    return [
        text
        for block in blocks
        for text in (
            block.get("text", ""),
            block.get("content", ""),
            block.get("name", ""),
            json.dumps(block["input"], ensure_ascii=False) if "input" in block else "",
        )
    ]


def tokens_of(count: Tokeniser, messages: list[Json], around: list[str]) -> int:
    return sum(map(count, [*around, *(text for message in messages for text in texts_of(message["content"]))]))


class Counting(ScriptedModel):
    """Reports what its tokeniser makes of each request and reply; `inputs` has the former."""

    def __init__(self, script: list[Any], count: Tokeniser) -> None:
        super().__init__(script)
        self.count = count
        self.inputs: list[int] = []

    async def complete(self, request: Request, draft: Draft) -> None:
        around = [request.system, *(json.dumps(tool, ensure_ascii=False) for tool in request.tools)]
        self.inputs.append(tokens_of(self.count, request.messages, around))
        await super().complete(request, draft)
        output = tokens_of(self.count, [{"content": draft.content}], [])
        draft.usage = {"input_tokens": self.inputs[-1], "output_tokens": output}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["\n" * 40, "\u0000", "💶" * 9]
)
REPLIES = st.one_of(
    st.builds(lambda text, at: calls(("look", {"at": at}), text=text), TEXTS, st.integers(0, 10**9)),
    st.builds(lambda text: calls(("sing", {"words": text})), TEXTS),
    st.builds(lambda text: says(text, "pause_turn"), TEXTS),
)


def bounds(journal: MemoryJournal) -> list[int]:
    return [e.tokens - e.max_tokens - OWN_TOKENS for e in journal.entries if isinstance(e, ModelStarted)]


@settings(max_examples=60, deadline=None)
@given(tokenisers(), TEXTS, TEXTS, st.lists(REPLIES, max_size=4), st.sampled_from([None, 12_000, 14_000]))
def test_no_request_of_a_run_has_more_tokens_than_its_bound(
    count: Tokeniser, instructions: str, task: str, replies: list[Json], tokens: int | None
) -> None:
    agent = make_agent(Log().tools, instructions=f"Be brief. {instructions}")
    model = Counting([*replies, says("done")], count)
    journal = MemoryJournal(Budget(usd=None, tokens=tokens))
    state = State([{"role": "user", "content": task}])
    asyncio.run(play(agent, make_ports(model, journal), state))
    assert len(model.inputs) == len(bounds(journal)) > 0
    for sent, bound in zip(model.inputs, bounds(journal), strict=True):
        assert sent <= bound


STEPS = st.one_of(
    st.tuples(st.just("reply"), TEXTS, st.sampled_from(["end_turn", "tool_use", "refusal", "pause_turn"])),
    st.tuples(st.just("say"), TEXTS, st.just("")),
    st.tuples(st.just("reopen"), st.just(""), st.just("")),
    st.tuples(st.just("result"), TEXTS, st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(tokenisers(), st.lists(STEPS, max_size=10))
def test_the_bound_holds_whatever_becomes_of_the_conversation(count: Tokeniser, steps: list[Any]) -> None:
    state = State([TASK])
    for number, (what, text, stop_reason) in enumerate(steps):
        if what == "reply":
            content: list[Json] = [{"type": "text", "text": text}]
            if stop_reason in ("tool_use", "refusal"):
                content.append({"type": "tool_use", "id": f"t{number}", "name": "look", "input": {"at": text}})
            usage = {
                "input_tokens": tokens_of(count, state.messages, ["around"]),
                "output_tokens": tokens_of(count, [{"content": content}], []),
            }
            state.apply(ModelCompleted(f"m{number}", number, MODEL, content, stop_reason, usage, "p", 9, 4, "settled"))
        elif what == "say":
            state.say(text)
        elif what == "reopen":
            state.reopen()
        else:
            for call in state.open_calls():
                state.apply(ToolCompleted(call["id"], number, "look", text, False))
        assert tokens_of(count, state.messages, ["around"]) <= state.input_bound(MODEL, len("around"))


def reply(usage: Json | None, model: str = MODEL, text: str = "hi") -> ModelCompleted:
    content = [{"type": "text", "text": text}]
    return ModelCompleted("m1", 1, model, content, "end_turn", usage, "p", 900, 400, "settled")


def test_what_the_provider_counted_stands_for_its_bytes() -> None:
    usage = {"input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 3}
    state = State.restore([{"role": "user", "content": "x" * 5_000}], [reply(usage)])
    assert state.input_bound(MODEL, 900) == 130
    before = state.size
    state.say("and now?")
    assert state.input_bound(MODEL, 900) == 130 + state.size - before


def test_without_a_count_each_byte_is_a_token() -> None:
    state = State([TASK])
    assert state.input_bound(MODEL, 900) == state.size + 900
    for usage in (None, {}, {"input_tokens": 0}):
        state = State.restore([TASK], [reply(usage)])
        assert state.input_bound(MODEL, 900) == state.size + 900


def test_what_another_model_counted_is_worth_nothing() -> None:
    """Another tokeniser may make more tokens of the same text."""
    state = State.restore([TASK], [reply(DEFAULT_USAGE, OTHER)])
    assert state.input_bound(MODEL, 900) == state.size + 900
    assert state.input_bound(OTHER, 900) == 120
    state.apply(reply(DEFAULT_USAGE))
    assert state.input_bound(OTHER, 900) == state.size + 900


def test_what_was_counted_of_an_attempt_that_broke_off_is_worth_nothing() -> None:
    """Its output is an estimate, and nobody said that its input was the whole of it."""
    cut = ModelFailed(
        "m2", 2, MODEL, "early_end", "cut", {"input_tokens": 1, "output_tokens": 1}, "p", 9, 4, "cut_stream"
    )
    state = State.restore([TASK], [cut])
    assert state.input_bound(MODEL, 900) == state.size + 900
    state = State.restore([TASK], [reply(DEFAULT_USAGE), cut])
    assert state.input_bound(MODEL, 900) == 120


def test_a_reply_that_is_taken_back_leaves_no_room_for_what_is_said_instead() -> None:
    state = State.restore([TASK], [reply({"input_tokens": 100, "output_tokens": 20}, text="x" * 1_000)])
    state.stop_reason = "refusal"
    state.reopen()
    state.say("y" * 1_000)
    assert state.input_bound(MODEL, 0) > 1_100
