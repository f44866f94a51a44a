"""The Message Batches API, by the real SDK."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anthropic
import pytest

from simulator import batches
from simulator.batches import check_batch
from simulator.errors import ApiError

ASK: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def requests(**params):
    return [{"custom_id": custom_id, "params": asked} for custom_id, asked in params.items()]


async def until(look, found):
    """What `look` gives once it is as wanted: the server brings that about by itself."""
    async with asyncio.timeout(10):
        value = await look()
        while not found(value):
            await asyncio.sleep(0.01)
            value = await look()
    return value


async def ended(client, batch_id):
    return await until(lambda: client.messages.batches.retrieve(batch_id), lambda b: b.processing_status == "ended")


async def results(client, batch_id):
    return {line.custom_id: line.result async for line in await client.messages.batches.results(batch_id)}


async def run(client, asked):
    """The batch after its end, and its results."""
    batch = await client.messages.batches.create(requests=asked)
    return await ended(client, batch.id), await results(client, batch.id)


async def test_each_request_is_answered_as_if_it_had_been_sent_alone(client, scripted):
    asked = {"plain": ASK, "tool": scripted({"tool": "look", "input": {"id": 7}})}
    batch, found = await run(client, requests(**asked))
    counts = batch.request_counts
    assert (counts.succeeded, counts.processing, counts.errored) == (2, 0, 0)
    assert batch.type == "message_batch"
    assert batch.ended_at >= batch.created_at
    assert (batch.expires_at - batch.created_at).total_seconds() == 24 * 3600
    for name, params in asked.items():
        alone = await client.messages.create(**params)
        expected = alone.to_dict(mode="json")
        expected["usage"]["service_tier"] = "batch"
        assert found[name].type == "succeeded"
        assert found[name].message.to_dict(mode="json") == expected


async def one_is_done(fetch):
    await until(lambda: fetch("/_sim/calls"), lambda calls: "completed" in [call["outcome"] for call in calls])


async def test_nothing_is_known_before_the_end(client, scripted, fetch):
    batch = await client.messages.batches.create(requests=requests(slow=scripted({"text": "x"}, latency=60), fast=ASK))
    await one_is_done(fetch)
    batch = await client.messages.batches.retrieve(batch.id)
    assert batch.processing_status == "in_progress"
    assert (batch.request_counts.processing, batch.request_counts.succeeded) == (2, 0)
    assert batch.ended_at is batch.results_url is batch.cancel_initiated_at is None
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        await client.messages.batches.results(batch.id)
    with pytest.raises(anthropic.NotFoundError, match="has no results"):
        await client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=object)


async def test_the_latency_of_its_slowest_request_is_that_of_a_batch(client, scripted):
    begun = time.time()
    batch, _ = await run(client, requests(a=scripted({"text": "x"}, latency=0.2), b=ASK))
    assert batch.ended_at.timestamp() - begun >= 0.2


@pytest.mark.parametrize(
    ("fault", "type_"),
    [
        ({"status": 529}, "overloaded_error"),
        ({"status": 400}, "invalid_request_error"),
        ({"error_event": "rate_limit_error"}, "rate_limit_error"),
        ({"hang": 0.01}, "api_error"),
        ({"cut": 0.5}, "api_error"),
    ],
)
async def test_a_fault_is_an_errored_result_and_the_next_attempt_succeeds(client, scripted, fault, type_):
    asked = scripted({"text": "at last", "faults": [fault]})
    batch, found = await run(client, requests(it=asked))
    assert batch.request_counts.errored == 1
    assert found["it"].error.error.type == type_
    _, found = await run(client, requests(it=asked))
    assert found["it"].message.content[0].text == "at last"


@pytest.mark.parametrize("result", ["expired", "canceled"])
async def test_a_request_can_be_left_unprocessed(client, scripted, result):
    asked = scripted({"text": "at last", "faults": [{"result": result}]})
    batch, found = await run(client, requests(it=asked, other=ASK))
    assert found["it"].type == result
    assert found["other"].type == "succeeded"
    assert getattr(batch.request_counts, result) == 1
    with pytest.raises(anthropic.BadRequestError, match="for a request of a batch"):
        await client.messages.create(**scripted({"text": "x", "faults": [{"result": result}]}, key=result))


async def test_an_early_end_is_a_message_without_a_stop_reason(client, scripted):
    _, found = await run(client, requests(it=scripted({"text": "x", "faults": [{"early_end": True}]})))
    assert found["it"].message.stop_reason is None


async def test_params_are_looked_at_when_the_batch_is_processed(client):
    bad = {**ASK, "messages": []}
    _, found = await run(client, requests(bad=bad, streamed={**ASK, "stream": True}, good=ASK))
    assert found["bad"].error.error.type == "invalid_request_error"
    assert "at least one message" in found["bad"].error.error.message
    assert "stream" in found["streamed"].error.error.message
    assert found["good"].type == "succeeded"


async def test_a_cancelled_batch_keeps_what_was_done(client, scripted, fetch):
    asked = requests(slow=scripted({"text": "x"}, latency=60), fast=ASK)
    batch = await client.messages.batches.create(requests=asked)
    await one_is_done(fetch)
    cancelled = await client.messages.batches.cancel(batch.id)
    assert cancelled.processing_status == "canceling"
    assert cancelled.cancel_initiated_at is not None
    batch = await ended(client, batch.id)
    found = await results(client, batch.id)
    assert (found["slow"].type, found["fast"].type) == ("canceled", "succeeded")
    assert (batch.request_counts.canceled, batch.request_counts.succeeded) == (1, 1)
    with pytest.raises(anthropic.BadRequestError, match="has ended"):
        await client.messages.batches.cancel(batch.id)


async def test_the_calls_of_a_batch_are_recorded(client, scripted, fetch):
    asked = requests(a=scripted({"text": "x"}, key="k"), b=scripted({"text": "x", "faults": [{"result": "expired"}]}))
    batch, _ = await run(client, asked)
    calls = await fetch("/_sim/calls")
    assert [(c["batch_id"], c["outcome"], c["script_key"]) for c in calls] == [
        (batch.id, "completed", "k"),
        (batch.id, "expired", ""),
    ]
    assert (await fetch("/_sim/stats"))["outcomes"] == {"completed": 1, "expired": 1}


async def test_batches_are_listed_newest_first_and_in_pages(client):
    ids = [(await client.messages.batches.create(requests=requests(a=ASK))).id for _ in range(5)]
    newest = ids[::-1]
    assert [b.id async for b in client.messages.batches.list(limit=2)] == newest
    page = await client.messages.batches.list(limit=2)
    assert ([b.id for b in page.data], page.has_more) == (newest[:2], True)
    page = await client.messages.batches.list(limit=2, before_id=newest[3])
    assert ([b.id for b in page.data], page.has_more) == (newest[1:3], True)
    page = await client.messages.batches.list(after_id=newest[4])
    assert (page.data, page.has_more, page.first_id) == ([], False, None)
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        await client.messages.batches.list(limit=1001)
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.list(after_id="msgbatch_unknown")


async def test_an_unknown_batch_is_not_found(client):
    for call in (client.messages.batches.retrieve, client.messages.batches.cancel):
        with pytest.raises(anthropic.NotFoundError, match="msgbatch_1"):
            await call("msgbatch_1")


async def test_the_oldest_batches_are_forgotten(client, monkeypatch):
    monkeypatch.setattr(batches, "KEPT_BATCHES", 2)
    ids = [(await client.messages.batches.create(requests=requests(a=ASK))).id for _ in range(3)]
    assert [b.id async for b in client.messages.batches.list()] == [ids[2], ids[1]]


async def test_a_batch_may_be_larger_than_a_message(client, options):
    many = {f"r{n}": {**ASK, "system": "x" * (options.max_body_bytes // 4)} for n in range(5)}
    batch, _ = await run(client, requests(**many))
    assert batch.request_counts.succeeded == 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "requests: Input should be a list"),
        ({"requests": []}, "1 to 100000 requests"),
        ({"requests": [{"custom_id": "a"}]}, r"requests\.0\.params"),
        ({"requests": [{"custom_id": "a b", "params": {}}]}, r"requests\.0\.custom_id"),
        ({"requests": [{"custom_id": "x" * 65, "params": {}}]}, r"requests\.0\.custom_id"),
        ({"requests": [{"custom_id": "a", "params": {}}] * 2}, r"requests\.1\.custom_id: a is not unique"),
    ],
)
def test_what_is_no_batch_is_refused(body, message):
    with pytest.raises(ApiError, match=message) as caught:
        check_batch(body)
    assert caught.value.status == 400
