"""The target against real HTTP: the simulated model for what a provider does, a stand for what it should not do."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from agent_core import ClaudeModel, Completed, ModelError, ToolError, run_agent, tool
from agent_core.defaults import MemoryJournal
from agent_core.entries import ModelCompleted, ModelFailed
from agent_core.outcomes import Deferred
from agent_core.ports import Draft, Request
from agent_core.pricing import Prices
from agent_core.state import State
from agent_core.types import Json
from simulator.server import create_app
from tests.agent_core.harness import AT_ONCE, MODEL, make_agent, make_ports, play

DONE: Json = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
STOP: Json = {"type": "message_stop"}
NUMBERS = itertools.count()
pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """The application on a loopback port; its URL."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated() -> AsyncIterator[ClaudeModel]:
    """A target behind which the simulated model answers."""
    async with serve(create_app()) as url:
        model = ClaudeModel.connect(api_key="test", base_url=url)
        yield model
        await model.aclose()


class Stand:
    """A server that answers as a test wants it, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self.stream()

    def stream(self, *events: Json) -> None:
        """The next answers are these events."""
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)

    def fail(self, status: int, error: Json | bytes, **headers: str) -> None:
        """The next answers are this error."""
        self.status, self.headers = status, {"content-type": "application/json", **headers}
        self.body = error if isinstance(error, bytes) else json.dumps({"type": "error", "error": error}).encode()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        return web.Response(status=self.status, headers=self.headers, body=self.body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_stand() -> AsyncIterator[tuple[Stand, ClaudeModel]]:
    stand, app = Stand(), web.Application()
    app.router.add_post("/v1/messages", stand.answer)
    async with serve(app) as url:
        model = ClaudeModel.connect(api_key="test", base_url=url)
        yield stand, model
        await model.aclose()


@pytest.fixture
def stand(the_stand: tuple[Stand, ClaudeModel]) -> tuple[Stand, ClaudeModel]:
    """A stand that was asked nothing yet, and a target behind which it answers."""
    the_stand[0].asked.clear()
    return the_stand


def request(text: str = "hi", **changes: Any) -> Request:
    fields = {
        "model": MODEL,
        "system": "",
        "messages": [{"role": "user", "content": text}],
        "tools": [],
        "max_tokens": 500,
    }
    return Request(**{**fields, **changes})


def script(*turns: Json, **options: Any) -> str:
    """A script for the simulated model, the only one of its kind: attempts at equal ones are counted together."""
    return "#sim " + json.dumps({"turns": turns, "key": str(next(NUMBERS)), **options})


async def complete(model: ClaudeModel, asked: Request) -> Draft:
    draft = Draft()
    await model.complete(asked, draft)
    return draft


async def fail(model: ClaudeModel, asked: Request) -> tuple[ModelError, Draft]:
    draft = Draft()
    with pytest.raises(ModelError) as caught:
        await model.complete(asked, draft)
    return caught.value, draft


def start(**usage: int | None) -> Json:
    return {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": usage}}


def block(index: int, content: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def call_block(index: int, *partial: str) -> list[Json]:
    opened = {"type": "tool_use", "id": f"toolu_{index}", "name": "look", "input": {}}
    return block(index, opened, *({"type": "input_json_delta", "partial_json": piece} for piece in partial))


# ---- whole replies


async def test_text_comes_in_pieces_and_whole(simulated: ClaudeModel) -> None:
    heard: list[str] = []
    draft = Draft(on_text=heard.append)
    await simulated.complete(
        request(script({"text": "one two three four", "usage": {"output_tokens": 9}}, chunks=4)), draft
    )
    assert heard == ["one ", "two ", "three ", "four"]
    assert draft.content == [{"type": "text", "text": "one two three four"}]
    assert (draft.stop_reason, draft.started) == ("end_turn", True)
    assert draft.usage is not None
    assert draft.usage["output_tokens"] == 9
    assert draft.usage["input_tokens"] > 0
    assert draft.usage["service_tier"] == "standard"  # said by the first event only


async def test_tool_calls_have_their_input_as_objects(simulated: ClaudeModel) -> None:
    turn = {"text": "so", "tools": [{"name": "look", "input": {"at": [1, {"é": None}]}}, {"name": "sing"}]}
    draft = await complete(
        simulated, request(script(turn), tools=[{"name": "look", "input_schema": {"type": "object"}}])
    )
    assert draft.stop_reason == "tool_use"
    assert [(b["type"], b.get("name"), b.get("input")) for b in draft.content] == [
        ("text", None, None),
        ("tool_use", "look", {"at": [1, {"é": None}]}),
        ("tool_use", "sing", {}),
    ]
    assert all(b.keys() == {"type", "id", "name", "input"} for b in draft.content[1:])


async def test_a_whole_run_with_a_real_tool(simulated: ClaudeModel) -> None:
    @tool(effect="read")
    async def add(a: int, b: int) -> int:
        """Adds two numbers."""
        if a < 0:
            raise ToolError("a must not be negative")
        return a + b

    turns = [{"tool": "add", "input": {"a": -2, "b": 2}}, {"tool": "add", "input": {"a": 2, "b": 2}}]
    task = script(*turns, {"text": "It is {{last_tool_result}}."})
    result = await run_agent(make_agent([add], instructions="Add. " * 500), task, model=simulated)
    assert result.outcome == Completed("It is 4.")
    assert result.usage.model_calls == 3
    assert result.usage.cache_write_tokens > 0
    assert result.usage.cache_read_tokens > result.usage.cache_write_tokens
    assert result.usage.cost > 0


async def test_the_request_asks_for_caching_and_streaming(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    server.stream(start(input_tokens=1), DONE, STOP)
    asked = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    await complete(model, request("hi", system="Be brief.", tools=[asked], extra={"thinking": {"type": "adaptive"}}))
    assert server.asked == [
        {
            "model": MODEL,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [asked],
            "max_tokens": 500,
            "stream": True,
            "cache_control": {"type": "ephemeral"},
            "thinking": {"type": "adaptive"},
        }
    ]
    await complete(model, request())
    assert server.asked[1].keys() == {"model", "messages", "max_tokens", "stream", "cache_control"}


async def test_thinking_keeps_its_signature_and_unknown_blocks_are_kept(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    redacted = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    new = {"type": "hologram", "angles": [1, 2], "nested": {"a": None}}
    citation = {"type": "char_location", "cited_text": "x", "document_index": 0}
    server.stream(
        start(input_tokens=5),
        *block(0, {"type": "thinking", "thinking": "", "signature": ""},
               {"type": "thinking_delta", "thinking": "Let me "}, {"type": "thinking_delta", "thinking": "see."},
               {"type": "signature_delta", "signature": "EqQB"}),
        *block(1, redacted),
        {"type": "ping"},
        *block(2, new, {"type": "hologram_delta", "angle": 3}),
        *block(3, {"type": "text", "text": ""}, {"type": "text_delta", "text": "So."},
               {"type": "citations_delta", "citation": citation}),
        {"type": "an_event_of_a_later_api", "x": 1},
        DONE,
        STOP,
    )  # fmt: skip
    draft = await complete(model, request())
    assert draft.content == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"},
        redacted,
        new,
        {"type": "text", "text": "So.", "citations": [citation]},
    ]


async def test_the_usage_of_both_events_is_merged(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    last = {**DONE, "usage": {"output_tokens": 9, "input_tokens": None, "cache_read_input_tokens": 7}}
    server.stream(start(input_tokens=5, output_tokens=1, cache_read_input_tokens=0), last, STOP)
    assert (await complete(model, request())).usage == {
        "input_tokens": 5,
        "output_tokens": 9,
        "cache_read_input_tokens": 7,
    }


async def test_no_usage_reported_is_none(simulated: ClaudeModel) -> None:
    draft = await complete(simulated, request(script({"text": "free", "usage": None})))
    assert (draft.usage, draft.content) == (None, [{"type": "text", "text": "free"}])


async def test_lone_surrogates_are_replaced_and_pairs_kept(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a\ud800b 😀"})
    server.stream(
        start(input_tokens=1), *text, *call_block(1, '{"at": "\\ud8', '00 \\ud83d\\ude00 \\\\ud800"}'), DONE, STOP
    )
    draft = await complete(model, request())
    assert draft.content[0]["text"] == "a?b 😀"
    assert draft.content[1]["input"] == {"at": "? 😀 \\ud800"}
    await complete(model, request(messages=[{"role": "assistant", "content": draft.content}]))


# ---- replies that were cut off, and calls that are no calls


async def test_a_cut_off_reply_keeps_what_came(simulated: ClaudeModel) -> None:
    draft = await complete(simulated, request(script({"text": "far too long" * 300}), max_tokens=5))
    assert draft.stop_reason == "max_tokens"
    assert len(draft.content[0]["text"]) == 20


@pytest.mark.parametrize("stop_reason", ["max_tokens", "refusal", "model_context_window_exceeded"])
async def test_half_a_tool_call_is_no_fault_of_a_reply_that_was_cut_off(
    stand: tuple[Stand, ClaudeModel], stop_reason: str
) -> None:
    server, model = stand
    end = {**DONE, "delta": {"stop_reason": stop_reason}}
    server.stream(start(input_tokens=1), *call_block(0, '{"at": 1}'), *call_block(1, '{"at": '), end, STOP)
    draft = await complete(model, request())
    assert [b["input"] for b in draft.content] == [{"at": 1}, {}]
    assert all("partial_json" not in b for b in draft.content)


@pytest.mark.parametrize("sent", ['{"at": ', "[1]", '"at"'])
async def test_a_tool_call_whose_input_is_no_object_is_tried_again(stand: tuple[Stand, ClaudeModel], sent: str) -> None:
    server, model = stand
    end = {**DONE, "delta": {"stop_reason": "tool_use"}}
    server.stream(start(input_tokens=1), *call_block(0, sent), end, STOP)
    fault, draft = await fail(model, request())
    assert (fault.code, fault.retryable) == ("malformed_tool_input", True)
    assert draft.usage == {"input_tokens": 1, "output_tokens": 9}  # it is paid all the same


async def test_malformed_tool_input_from_the_simulated_model(simulated: ClaudeModel) -> None:
    turn = {"tool": "look", "input": {"at": 1}, "faults": [{"malformed_tool_json": True}]}
    asked = request(script(turn), tools=[{"name": "look", "input_schema": {"type": "object"}}])
    fault, draft = await fail(simulated, asked)
    assert (fault.code, fault.retryable, draft.stop_reason) == ("malformed_tool_input", True, "tool_use")
    assert (await complete(simulated, asked)).content[0]["input"] == {"at": 1}


# ---- failures


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "invalid_request", False),
        (401, "authentication", False),
        (402, "refused", False),
        (403, "permission", False),
        (404, "not_found", False),
        (408, "refused", True),
        (409, "refused", True),
        (413, "request_too_large", False),
        (418, "refused", False),
        (429, "rate_limited", True),
        (500, "server_error", True),
        (503, "server_error", True),
        (529, "overloaded", True),
    ],
)
async def test_each_status_is_classified(simulated: ClaudeModel, status: int, code: str, retryable: bool) -> None:
    fault, draft = await fail(simulated, request(script({"text": "hi", "faults": [{"status": status}]})))
    assert (fault.code, fault.retryable, fault.retry_after) == (code, retryable, None)
    assert str(fault) == f"the model answered {status}: simulated fault"
    assert (draft.started, draft.usage, draft.content, fault.billed) == (False, None, [], False)


async def test_the_sdk_does_not_try_again_by_itself(simulated: ClaudeModel) -> None:
    asked = request(script({"text": "hi", "faults": [{"status": 529}]}))
    await fail(simulated, asked)
    assert (await complete(simulated, asked)).stop_reason == "end_turn"  # this was the second attempt


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2.5", 2.5), ("0", 0.0), ("-3", 0.0), ("inf", None), ("nan", None), ("Fri, 20 Nov 2026", None)],
)
async def test_retry_after_is_read(stand: tuple[Stand, ClaudeModel], header: str, seconds: float | None) -> None:
    server, model = stand
    server.fail(429, {"type": "rate_limit_error", "message": "slow down"}, **{"retry-after": header})
    fault, _ = await fail(model, request())
    assert (fault.code, fault.retry_after) == ("rate_limited", seconds)


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 200136 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000",
    ],
)
async def test_a_conversation_that_is_too_long_is_told_from_other_wrong_requests(
    stand: tuple[Stand, ClaudeModel], message: str
) -> None:
    server, model = stand
    server.fail(400, {"type": "invalid_request_error", "message": message})
    fault, _ = await fail(model, request())
    assert (fault.code, fault.retryable, fault.billed) == ("context_window", False, False)


async def test_a_spent_limit_is_no_passing_failure(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    details = {"error_code": "enforced_spend_limit_reached"}
    server.fail(429, {"type": "rate_limit_error", "message": "the limit is reached", "details": details})
    fault, _ = await fail(model, request())
    assert (fault.code, fault.retryable) == ("spend_limit", False)


async def test_an_error_that_is_not_in_the_apis_shape(stand: tuple[Stand, ClaudeModel]) -> None:
    server, model = stand
    server.fail(502, b"<html>bad gateway</html>", **{"content-type": "text/html"})
    fault, _ = await fail(model, request())
    assert (fault.code, fault.retryable) == ("server_error", True)
    assert fault.billed  # the gateway may have lost an answer that exists
    assert "502" in str(fault)


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("overloaded_error", "overloaded", True),
        ("rate_limit_error", "rate_limited", True),
        ("timeout_error", "timeout", True),
        ("api_error", "server_error", True),
        ("invalid_request_error", "invalid_request", False),
    ],
)
async def test_an_error_within_the_stream_is_classified(
    simulated: ClaudeModel, kind: str, code: str, retryable: bool
) -> None:
    fault, draft = await fail(simulated, request(script({"text": "hello there", "faults": [{"error_event": kind}]})))
    assert (fault.code, fault.retryable) == (code, retryable)
    assert str(fault) == "the model broke off: simulated fault"
    assert draft.started
    assert fault.billed
    assert draft.stop_reason is None


@pytest.mark.parametrize("fault", [{"drop": True}, {"cut": 0.6}, {"hang": 0, "after": 0.6}])
async def test_a_connection_that_breaks(simulated: ClaudeModel, fault: Json) -> None:
    found, draft = await fail(simulated, request(script({"text": "one two three four", "faults": [fault]}, chunks=4)))
    assert (found.code, found.retryable, found.billed) == ("connection", True, True)
    assert draft.started is ("drop" not in fault)
    assert draft.stop_reason is None
    if draft.started:
        assert draft.content[0]["text"].startswith("one")


async def test_nobody_is_listening() -> None:
    async with serve(web.Application()) as url:
        pass
    model = ClaudeModel.connect(api_key="test", base_url=url)
    fault, draft = await fail(model, request())
    assert (fault.code, fault.retryable, draft.started) == ("connection", True, False)
    assert not fault.billed
    await model.aclose()


async def test_silence_that_is_too_long(simulated: ClaudeModel) -> None:
    impatient = ClaudeModel.connect(api_key="test", base_url=str(simulated.client.base_url), timeout=0.1)
    fault, draft = await fail(impatient, request(script({"text": "hi", "faults": [{"hang": 600, "after": 0.5}]})))
    assert (fault.code, fault.retryable, draft.stop_reason) == ("connection", True, None)
    assert fault.billed
    await impatient.aclose()


async def test_a_stream_that_ends_early(simulated: ClaudeModel) -> None:
    fault, draft = await fail(simulated, request(script({"text": "hello there", "faults": [{"early_end": True}]})))
    assert (fault.code, fault.retryable) == ("early_end", True)
    assert draft.content == [{"type": "text", "text": "hello there"}]


@pytest.mark.parametrize(
    "body",
    [
        b"event: message_start\ndata: {oops\n\n",
        b'event: message_start\ndata: {"type": "message_start"}\n\n',
        b'event: content_block_delta\ndata: {"index": 3, "delta": {"type": "text_delta", "text": "x"}}\n\n',
        b'event: message_delta\ndata: {"delta": null}\n\n',
        b"event: message_start\ndata: [1]\n\n",
        b'event: message_start\ndata: {"x": "\xff"}\n\n',
    ],
)
async def test_a_malformed_stream(stand: tuple[Stand, ClaudeModel], body: bytes) -> None:
    server, model = stand
    server.stream()
    server.body = body
    fault, _ = await fail(model, request())
    assert (fault.code, fault.retryable, fault.billed) == ("malformed_stream", True, True)


async def test_cancelling_a_call_hangs_up(simulated: ClaudeModel) -> None:
    begun = asyncio.Event()
    draft = Draft(on_text=lambda _: begun.set())
    asked = request(script({"text": "one two three four", "faults": [{"hang": 600, "after": 0.7}]}, chunks=4))
    task = asyncio.create_task(simulated.complete(asked, draft))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert draft.started
    assert draft.stop_reason is None


# ---- the loop on top


async def test_a_run_through_faults_settles_every_attempt(simulated: ClaudeModel) -> None:
    faults = [{"cut": 0.7}, {"status": 529}]
    journal = MemoryJournal()
    state = State([{"role": "user", "content": script({"text": "here at last", "faults": faults})}])
    outcome = await play(make_agent(), make_ports(simulated, journal, backoff=AT_ONCE), state)
    assert outcome == Completed("here at last")
    cut, refused = (e for e in journal.entries if isinstance(e, ModelFailed))
    assert (cut.reason, refused.reason, refused.settled) == ("cut_stream", "released", 0)
    assert cut.settled > 0
    whole = journal.entries[-1]
    assert isinstance(whole, ModelCompleted)
    assert state.usage.cost == cut.settled + whole.settled


async def test_a_run_that_is_told_to_come_back_in_an_hour(simulated: ClaudeModel) -> None:
    task = script({"text": "hi", "faults": [{"status": 429, "retry_after": 3600}]})
    result = await run_agent(make_agent(), task, model=simulated)
    assert isinstance(result.outcome, Deferred)
    assert (result.outcome.code, result.usage.cost) == ("rate_limited", 0)
    assert result.outcome.delay >= 3600


async def test_prices_come_from_the_bundled_list(simulated: ClaudeModel) -> None:
    assert simulated.price(MODEL, {"input_tokens": 100, "output_tokens": 20}) == 400
    assert simulated.affordable(MODEL, 0, simulated.worst_case(MODEL, 0, 500)) == 500
    assert simulated.price_version.startswith("genai-prices/")


async def test_a_target_may_have_prices_of_its_own() -> None:
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    prices = Prices.from_json('{"llama-9": {"input": 1, "output": 2, "cache_write_1h": 4}}')
    model = ClaudeModel.connect(api_key="test", base_url="http://127.0.0.1:9", prices=prices)
    written = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 100}
    assert (model.price("llama-9", written), model.price("llama-9", written, hour)) == (120, 420)
    assert model.worst_case("llama-9", 0, 10, hour) > model.worst_case("llama-9", 0, 10)
    assert model.affordable("llama-9", 0, model.worst_case("llama-9", 0, 10, hour), hour) == 10
    assert model.price_version == prices.version
    await model.aclose()
