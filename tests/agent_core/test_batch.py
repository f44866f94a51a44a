"""Calls by way of batches: the simulated model for what the API does, a stand for what it should not do."""

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

from agent_core import ClaudeModel, ModelError, batch
from agent_core.batch import BatchModel
from agent_core.claude import MessageBatches
from agent_core.ports import Draft, Request
from agent_core.pricing import PUBLISHED
from agent_core.types import Json
from simulator.server import create_app
from tests.agent_core.harness import MODEL

NUMBERS = itertools.count()
SOON = 0.01
NEVER = 600.0
DONE: Json = {"content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn", "usage": {"output_tokens": 9}}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def target(app: web.Application) -> AsyncIterator[ClaudeModel]:
    """A target behind which the application answers, on a loopback port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    model = ClaudeModel.connect(api_key="test", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield model
    finally:
        await model.aclose()
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated() -> AsyncIterator[ClaudeModel]:
    async with target(create_app()) as model:
        yield model


class Stand:
    """A batch API that answers as a test wants it: with a status and a body for each kind of request."""

    def __init__(self) -> None:
        self.reset()
        self.app = web.Application()
        self.app.router.add_post("/v1/messages/batches", self.create)
        self.app.router.add_get("/v1/messages/batches/{id}", self.get)
        self.app.router.add_get("/v1/messages/batches/{id}/results", self.results)

    def reset(self) -> None:
        self.created: tuple[int, Any] = (200, {"id": "msgbatch_1"})
        self.status: tuple[int, Any] = (200, None)
        self.lines: tuple[int, str] = (200, "")
        self.asked: list[str] = []
        self.creating, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    def fail(self, status: int) -> tuple[int, Any]:
        return status, {"type": "error", "error": {"type": "api_error", "message": "not now"}}

    async def create(self, request: web.Request) -> web.Response:
        self.asked.append("create")
        self.creating.set()
        await self.go_on.wait()
        return web.json_response(self.created[1], status=self.created[0])

    async def get(self, request: web.Request) -> web.Response:
        self.asked.append("get")
        url = f"{request.url}/results"
        body = {
            "id": request.match_info["id"], "type": "message_batch", "processing_status": "ended",
            "created_at": "2026-11-20T08:30:00Z", "results_url": url,
        }  # fmt: skip
        return web.json_response(body if self.status[1] is None else self.status[1], status=self.status[0])

    async def results(self, request: web.Request) -> web.Response:
        self.asked.append("results")
        return web.Response(text=self.lines[1], status=self.lines[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_stand() -> AsyncIterator[tuple[Stand, ClaudeModel]]:
    stand = Stand()
    async with target(stand.app) as model:
        yield stand, model


@pytest.fixture
def stand(the_stand: tuple[Stand, ClaudeModel]) -> tuple[Stand, BatchModel]:
    """A stand that was asked nothing yet, and a target behind which it answers."""
    the_stand[0].reset()
    return the_stand[0], BatchModel(the_stand[1], SOON)


def request(*turns: Json, batch_id: str | None = None, call_id: str = "", **script: Any) -> Request:
    number = next(NUMBERS)
    text = f"#sim {json.dumps({'turns': turns or [{'text': f'reply {number}'}], 'key': str(number), **script})}"
    asked = [{"role": "user", "content": text}]
    return Request(MODEL, "", asked, [], 500, {}, call_id or f"call-{number}", batch_id)


def later(asked: Request, draft: Draft) -> Request:
    """The same call, asked for again by whoever has the job next."""
    assert draft.batch_id is not None
    assert draft.stop_reason is None
    return Request(MODEL, "", asked.messages, [], 500, {}, asked.call_id, draft.batch_id)


async def submit(model: BatchModel, asked: Request) -> Draft:
    draft = Draft()
    await model.complete(asked, draft)
    return draft


async def reply(model: BatchModel, asked: Request, draft: Draft, into: Draft | None = None) -> Draft:
    """The reply of a call that is with a batch, once it is there."""
    found = into or Draft()
    async with asyncio.timeout(10):
        await model.complete(later(asked, draft), found)
        while found.stop_reason is None:
            await asyncio.sleep(SOON)
            await model.complete(later(asked, draft), found)
    return found


async def fault(model: BatchModel, asked: Request, draft: Draft) -> tuple[ModelError, Draft]:
    found = Draft()
    with pytest.raises(ModelError) as caught:
        await reply(model, asked, draft, found)
    return caught.value, found


async def in_flight(model: BatchModel, asked: Request) -> tuple[asyncio.Task[None], Draft]:
    draft = Draft()
    task = asyncio.create_task(model.complete(asked, draft))
    await asyncio.sleep(0)
    return task, draft


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- into a batch


async def test_calls_that_come_together_share_a_batch_and_each_gets_its_reply(simulated: ClaudeModel) -> None:
    model = BatchModel(simulated, SOON)
    calls = [request() for _ in range(5)]
    drafts = await asyncio.gather(*(submit(model, asked) for asked in calls))
    assert len({draft.batch_id for draft in drafts}) == 1
    assert not any(draft.started or draft.unsent for draft in drafts)
    replies = await asyncio.gather(*(reply(model, *pair) for pair in zip(calls, drafts, strict=True)))
    texts = [draft.content[0]["text"] for draft in replies]
    assert texts == [json.loads(asked.messages[0]["content"][5:])["turns"][0]["text"] for asked in calls]
    assert {draft.usage["service_tier"] for draft in replies if draft.usage} == {"batch"}
    assert {draft.stop_reason for draft in replies} == {"end_turn"}


async def test_another_process_fetches_the_reply(simulated: ClaudeModel) -> None:
    asked = request()
    draft = await submit(BatchModel(simulated, SOON), asked)
    assert (await reply(BatchModel(simulated, SOON), asked, draft)).content


async def test_a_full_batch_is_sent_at_once(simulated: ClaudeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_CALLS", 2)
    model = BatchModel(simulated, NEVER)
    drafts = await asyncio.gather(*(submit(model, request()) for _ in range(4)))
    assert [draft.batch_id for draft in drafts].count(drafts[0].batch_id) == 2


async def test_a_batch_holds_no_more_bytes_than_it_may(simulated: ClaudeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_BYTES", 500)
    model = BatchModel(simulated, SOON)
    drafts = await asyncio.gather(*(submit(model, request({"text": "x" * 300})) for _ in range(3)))
    assert len({draft.batch_id for draft in drafts}) == 3


async def test_a_call_that_is_cancelled_in_time_is_in_no_batch(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    task, draft = await in_flight(model, request())
    assert draft.unsent
    await cancel(task)
    assert draft.unsent
    assert draft.batch_id is None
    kept = await submit(model, request())  # gathered with it
    assert (kept.batch_id, server.asked) == ("msgbatch_1", ["create"])


async def test_a_batch_of_which_nothing_is_left_is_not_made(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    task, _ = await in_flight(model, request())
    await cancel(task)
    await asyncio.sleep(3 * SOON)
    await submit(model, request())
    assert server.asked == ["create"]


async def test_a_call_that_is_cancelled_while_its_batch_is_made_learns_of_it(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    server.go_on.clear()
    task, draft = await in_flight(model, request())
    await server.creating.wait()
    assert not draft.unsent
    task.cancel()
    await asyncio.sleep(0)
    server.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert draft.batch_id == "msgbatch_1"


@pytest.mark.parametrize(("status", "unsent"), [(529, True), (502, False)])
async def test_whether_a_cancelled_call_may_be_billed_follows_from_what_became_of_its_batch(
    stand: tuple[Stand, BatchModel], status: int, unsent: bool
) -> None:
    server, model = stand
    server.go_on.clear()
    server.created = server.fail(status)
    task, draft = await in_flight(model, request())
    await server.creating.wait()
    task.cancel()
    await asyncio.sleep(0)
    server.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (draft.batch_id, draft.unsent) == (None, unsent)


@pytest.mark.parametrize(
    ("status", "code", "retryable", "billed"),
    [(529, "overloaded", True, False), (400, "invalid_request", False, False), (504, "server_error", True, True)],
)
async def test_a_batch_that_cannot_be_made_fails_all_its_calls(
    stand: tuple[Stand, BatchModel], status: int, code: str, retryable: bool, billed: bool
) -> None:
    server, model = stand
    server.created = server.fail(status)
    found = await asyncio.gather(*(submit(model, request()) for _ in range(3)), return_exceptions=True)
    for exc in found:
        assert isinstance(exc, ModelError)
        assert (exc.code, exc.retryable, exc.billed) == (code, retryable, billed)
    assert server.asked == ["create"]


@pytest.mark.parametrize("answer", [{}, [], "made"])
async def test_an_answer_without_a_batch_is_malformed_and_may_be_billed(
    stand: tuple[Stand, BatchModel], answer: Any
) -> None:
    server, model = stand
    server.created = (200, answer)
    with pytest.raises(ModelError, match="malformed") as caught:
        await submit(model, request())
    assert (caught.value.code, caught.value.retryable, caught.value.billed) == ("malformed_answer", True, True)


# ---- out of a batch


async def test_there_is_no_reply_before_the_end(simulated: ClaudeModel) -> None:
    model = BatchModel(simulated, SOON)
    asked = request(latency=NEVER)
    draft = await submit(model, asked)
    again = await submit(model, later(asked, draft))
    assert (again.batch_id, again.stop_reason, again.started) == (draft.batch_id, None, False)
    assert draft.batch_id is not None
    await MessageBatches(simulated.client).cancel(draft.batch_id)
    exc, _ = await fault(model, asked, draft)
    assert (exc.code, exc.retryable, exc.billed) == ("batch_canceled", True, False)


@pytest.mark.parametrize(
    ("faults", "code", "retryable"),
    [
        ([{"result": "expired"}], "batch_expired", True),
        ([{"result": "canceled"}], "batch_canceled", True),
        ([{"status": 529}], "overloaded", True),
        ([{"status": 500}], "server_error", True),
        ([{"status": 400}], "invalid_request", False),
        ([{"status": 404}], "not_found", False),
    ],
)
async def test_what_was_not_processed_is_a_failure_that_costs_nothing(
    simulated: ClaudeModel, faults: list[Json], code: str, retryable: bool
) -> None:
    model = BatchModel(simulated, SOON)
    asked = request({"text": "x", "faults": faults})
    exc, draft = await fault(model, asked, await submit(model, asked))
    assert (exc.code, exc.retryable, exc.billed) == (code, retryable, False)
    assert not draft.started


async def test_a_reply_that_is_not_whole_is_a_failure_that_may_be_billed(simulated: ClaudeModel) -> None:
    model = BatchModel(simulated, SOON)
    asked = request({"text": "x", "faults": [{"early_end": True}]})
    exc, draft = await fault(model, asked, await submit(model, asked))
    assert (exc.code, exc.retryable, exc.billed) == ("early_end", True, True)
    assert draft.started
    assert draft.usage


def line(custom_id: str, result: Json) -> str:
    return json.dumps({"custom_id": custom_id, "result": result}) + "\n"


async def test_results_are_fetched_once_for_all_calls_of_a_batch(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    named = [f"c{n}" for n in range(3)]
    server.lines = (200, "".join(line(name, {"type": "succeeded", "message": DONE}) for name in named))
    for name in named:
        draft = await submit(model, request(call_id=name, batch_id="msgbatch_1"))
        assert draft.content == DONE["content"]
    assert server.asked == ["get", "get", "results"]  # whether it has ended, and the SDK once more


async def test_the_provider_s_json_is_kept_as_it_is(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    block = {"type": "of_a_later_version", "lines": "a\u2028b", "half": "\ud800"}
    server.lines = (200, line("c", {"type": "succeeded", "message": {**DONE, "content": [block]}}))
    draft = await submit(model, request(call_id="c", batch_id="msgbatch_1"))
    assert draft.content == [{**block, "half": "?"}]


@pytest.mark.parametrize("where", ["status", "lines"])
@pytest.mark.parametrize("status", [401, 429, 529])
async def test_a_batch_that_does_not_tell_has_the_reply_all_the_same(
    stand: tuple[Stand, BatchModel], where: str, status: int
) -> None:
    server, model = stand
    setattr(server, where, server.fail(status) if where == "status" else (status, "{}"))
    asked = request(call_id="c", batch_id="msgbatch_1")
    assert (await submit(model, asked)).stop_reason is None
    server.status = (200, None)
    server.lines = (200, line("c", {"type": "succeeded", "message": DONE}))
    assert (await submit(model, asked)).stop_reason == "end_turn"


@pytest.mark.parametrize("gone", ["batch", "result"])
async def test_a_reply_that_nobody_has_any_more_is_paid_for_and_asked_for_anew(
    stand: tuple[Stand, BatchModel], gone: str
) -> None:
    server, model = stand
    if gone == "batch":
        server.status = server.fail(404)
    with pytest.raises(ModelError, match="msgbatch_1") as caught:
        await submit(model, request(call_id="c", batch_id="msgbatch_1"))
    assert (caught.value.code, caught.value.retryable, caught.value.billed) == ("batch_lost", True, True)


async def test_a_kind_of_result_that_nobody_knows_is_a_failure_that_may_be_billed(
    stand: tuple[Stand, BatchModel],
) -> None:
    server, model = stand
    server.lines = (200, line("c", {"type": "postponed"}))
    with pytest.raises(ModelError, match="postponed") as caught:
        await submit(model, request(call_id="c", batch_id="msgbatch_1"))
    assert (caught.value.retryable, caught.value.billed) == (True, True)


@pytest.mark.parametrize(
    "result", [{}, {"type": "succeeded"}, {"type": "succeeded", "message": {}}, {"type": "errored"}, None, 7]
)
async def test_a_result_that_cannot_be_read_is_a_failure_that_may_be_billed(
    stand: tuple[Stand, BatchModel], result: Any
) -> None:
    server, model = stand
    server.lines = (200, line("c", result))
    with pytest.raises(ModelError, match="malformed") as caught:
        await submit(model, request(call_id="c", batch_id="msgbatch_1"))
    assert (caught.value.code, caught.value.billed) == ("malformed_answer", True)


async def test_a_tool_call_without_an_object_is_a_failure(stand: tuple[Stand, BatchModel]) -> None:
    server, model = stand
    block = {"type": "tool_use", "id": "t", "name": "look", "input": "{"}
    server.lines = (200, line("c", {"type": "succeeded", "message": {**DONE, "content": [block]}}))
    with pytest.raises(ModelError, match="not a JSON object") as caught:
        await submit(model, request(call_id="c", batch_id="msgbatch_1"))
    assert (caught.value.code, caught.value.billed) == ("malformed_tool_input", True)


# ---- prices


async def test_a_batch_costs_half(simulated: ClaudeModel) -> None:
    model = BatchModel(simulated)
    usage = {"input_tokens": 1000, "output_tokens": 500}
    assert model.price(MODEL, usage) * 2 == PUBLISHED.price(MODEL, usage)
    assert model.price(MODEL, {**usage, "service_tier": "batch"}) * 2 == PUBLISHED.price(MODEL, usage)
    assert 0 <= model.worst_case(MODEL, 10_000, 2000) * 2 - PUBLISHED.worst_case(MODEL, 10_000, 2000) <= 1
    micros = model.worst_case(MODEL, 10_000, 2000)
    assert model.affordable(MODEL, 10_000, micros) == 2000
    assert PUBLISHED.affordable(MODEL, 10_000, micros) == 0
    assert model.price_version == simulated.price_version
