from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator

import httpx2
import pytest

from jobs import keys
from tests.api.conftest import serving, submitted, until

STREAM = {"Accept": "text/event-stream"}


def model_started(number: int) -> dict:
    return {"call_id": f"c{number}", "step": number, "model": "m", "reserved": 2_000_000}


def model_completed(number: int) -> dict:
    return {
        **model_started(number),
        "content": [{"type": "text", "text": "line one\nline two\r\u2028"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "price_version": "p1",
        "settled": 12_300,
        "reason": "usage",
    }


async def parsed(response: httpx2.Response) -> AsyncIterator[dict]:
    """The events of a stream: the fields of each, comments as {"comment": ...}."""
    event: dict = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(":")
            assert name not in event, "a field stands on one line"
            event[name] = value.strip()
        elif event:
            yield event
            event = {}


@contextlib.asynccontextmanager
async def streamed(api: httpx2.AsyncClient, job_id: str, **headers: str) -> AsyncIterator[AsyncIterator[dict]]:
    async with api.stream("GET", f"/v1/jobs/{job_id}/events", headers={**STREAM, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parsed(response)


async def everything(api: httpx2.AsyncClient, job_id: str) -> list[dict]:
    return (await api.get(f"/v1/jobs/{job_id}/events", params={"limit": 1000})).json()["data"]


# ---- pages


async def test_pages_cover_every_event_once_in_order(api, echo, worker):
    job = await submitted(api)
    claim = await worker.claim()
    for number in range(7):
        await worker.record(claim, "state.changed", {"n": number})
    await worker.end(claim)
    pages, after = [], None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = (await api.get(f"/v1/jobs/{job['id']}/events", params=params)).json()
        pages += page["data"]
        after = page["next_cursor"]
        assert page["has_more"] == (after is not None)
        if after is None:
            break
    assert pages == await everything(api, job["id"])
    types = [event["type"] for event in pages]
    assert types == ["job.queued", "job.started", *["state.changed"] * 7, "job.completed"]
    assert [event["data"]["n"] for event in pages[2:-1]] == list(range(7))
    assert set(pages[0]) == {"id", "type", "job_id", "attempt", "created_at", "data"}


@pytest.mark.parametrize("point", ["x", "evt_", "evt_1-2-3", "-1", "evt_99999999999999999999"])
async def test_a_point_that_is_no_event_id_is_refused(api, echo, point):
    job = await submitted(api)
    for given in ({"params": {"after": point}}, {"headers": {"Last-Event-ID": point}}):
        answer = await api.get(f"/v1/jobs/{job['id']}/events", **given)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_event_id")


async def test_a_point_that_was_trimmed_is_gone(api, echo, worker, link):
    job = await submitted(api)
    claim = await worker.claim()
    for number in range(5):
        await worker.record(claim, "state.changed", {"n": number})
    events = await everything(api, job["id"])
    await link.command("XTRIM", keys.journal(job["id"]), "MAXLEN", 3)
    path = f"/v1/jobs/{job['id']}/events"
    for accept in ("application/json", "text/event-stream"):
        answer = await api.get(path, params={"after": events[2]["id"]}, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (410, "events_trimmed")
    kept = await api.get(path, params={"after": events[4]["id"]})
    assert kept.json()["data"] == events[5:]


# ---- streams


async def test_a_stream_gives_what_the_pages_give_and_ends_with_the_job(api, echo, worker):
    job = await submitted(api)
    async with streamed(api, job["id"]) as events:
        seen = [await anext(events)]
        claim = await worker.claim()
        await worker.record(claim, "model.started", model_started(1))
        await worker.record(claim, "model.completed", model_completed(1))
        await worker.end(claim, output="done")
        seen += [event async for event in events]
    assert [json.loads(event["data"]) for event in seen] == await everything(api, job["id"])
    assert [(event["id"], event["event"]) for event in seen] == [
        (event["id"], event["type"]) for event in await everything(api, job["id"])
    ]


async def test_a_client_that_is_cut_off_a_hundred_times_sees_every_event_once_in_order(api, echo, worker):
    """The writer appends while the client is away, while it connects and while it reads."""
    dice = random.Random(20261120)
    job = await submitted(api)
    claim = await worker.claim()
    wanted = 250

    async def write() -> None:
        for number in range(wanted):
            await worker.record(claim, "state.changed", {"n": number})
            for _ in range(dice.randrange(40)):
                await asyncio.sleep(0)
        await worker.end(claim)

    writing = asyncio.create_task(write())
    seen: list[dict] = []
    cuts = 0
    while not seen or seen[-1]["event"] != "job.completed":
        most = dice.randrange(1, 4) if cuts < 100 else 1000
        headers = {"Last-Event-ID": seen[-1]["id"]} if seen else {}
        async with streamed(api, job["id"], **headers) as events:
            async for event in events:
                seen.append(event)
                if len(seen) % most == 0:
                    break
        cuts += 1
    await writing
    assert cuts > 100
    assert [json.loads(event["data"]) for event in seen] == await everything(api, job["id"])
    assert len(seen) == wanted + 3


async def test_what_the_model_says_passes_live_without_an_id(api, echo, worker, link):
    job = await submitted(api)
    claim = await worker.claim()
    async with streamed(api, job["id"]) as events:
        assert [(await anext(events))["event"] for _ in range(2)] == ["job.queued", "job.started"]
        delta = {"type": "message.delta", "job_id": job["id"], "attempt": 1, "data": {"step": 1, "text": "he\nllo"}}
        await link.command("PUBLISH", keys.channel(job["id"]), json.dumps(delta))
        live = await anext(events)
        assert "id" not in live
        assert live["event"] == "message.delta"
        assert json.loads(live["data"]).items() >= delta.items()
        await worker.record(claim, "model.completed", model_completed(1))
        assert (await anext(events))["event"] == "model.completed"
    assert "message.delta" not in [event["type"] for event in await everything(api, job["id"])]


async def test_the_stream_of_a_retried_job_goes_on_past_its_first_end(api, echo, worker):
    job = await submitted(api)
    await worker.end(await worker.claim(), "fail", "error")
    await api.post(f"/v1/jobs/{job['id']}/retry")
    async with streamed(api, job["id"]) as events:
        first = [await anext(events) for _ in range(4)]
        await worker.run()
        rest = [event async for event in events]
    types = [event["event"] for event in first + rest]
    assert types == ["job.queued", "job.started", "job.failed", "job.queued", "job.started", "job.completed"]


async def test_a_client_that_has_seen_the_last_event_is_told_not_to_come_again(api, echo, worker):
    job = await submitted(api)
    await worker.run()
    last = (await everything(api, job["id"]))[-1]["id"]
    answer = await api.get(f"/v1/jobs/{job['id']}/events", headers={**STREAM, "Last-Event-ID": last})
    assert answer.status_code == 204


async def test_the_stream_of_a_job_that_is_pruned_meanwhile_ends(api, echo, worker, link):
    job = await submitted(api)
    async with streamed(api, job["id"]) as events:
        assert (await anext(events))["event"] == "job.queued"
        await link.command("DEL", keys.job(job["id"]), keys.journal(job["id"]))
        await link.command("PUBLISH", keys.channel(job["id"]), "")
        assert await anext(events, None) is None
    assert (await api.get(f"/v1/jobs/{job['id']}/events", headers=STREAM)).status_code == 404


async def test_a_stream_that_meets_an_entry_whose_blob_was_pruned_ends(api, echo, worker, link):
    job = await submitted(api)
    claim = await worker.claim()
    async with streamed(api, job["id"]) as events:
        assert [(await anext(events))["event"] for _ in range(2)] == ["job.queued", "job.started"]
        entry = ("t", "state.changed", "a", 1, "d", json.dumps({"blob": "0" * 64, "bytes": 5}))
        await link.command("XADD", keys.journal(job["id"]), "*", *entry)
        await link.command("PUBLISH", keys.channel(job["id"]), "")
        assert await anext(events, None) is None
    await worker.end(claim)


async def test_streams_end_when_the_server_stops(settings, echo, api, worker):
    job = await submitted(api)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(settings) as url:
            path = f"{url}/v1/jobs/{job['id']}/events"
            response = await stack.enter_async_context(api.stream("GET", path, headers=STREAM))
            events = parsed(response)
            assert (await anext(events))["event"] == "job.queued"
        assert await anext(events, None) is None


# ---- ledger


async def test_the_ledger_has_a_row_for_each_call_open_ones_included(api, echo, worker):
    job = await submitted(api)
    claim = await worker.claim()
    await worker.record(claim, "model.started", model_started(1))
    await worker.record(claim, "model.completed", model_completed(1))
    await worker.record(claim, "model.started", model_started(2))
    page = (await api.get(f"/v1/jobs/{job['id']}/ledger")).json()
    assert [(row["step"], row["reserved_usd"], row["settled_usd"]) for row in page["data"]] == [
        (1, "2", "0.0123"),
        (2, "2", None),
    ]
    assert page["has_more"] is False
    assert page["data"][0]["usage"] == {"input_tokens": 3, "output_tokens": 4}


async def test_a_stream_outlives_the_loss_of_its_subscription(api, echo, worker, link):
    job = await submitted(api)
    channel = keys.channel(job["id"])
    claim = await worker.claim()
    async with streamed(api, job["id"]) as events:
        assert [(await anext(events))["event"] for _ in range(2)] == ["job.queued", "job.started"]
        assert await link.command("CLIENT", "KILL", "TYPE", "pubsub") > 0
        await worker.record(claim, "state.changed", {"n": 1})
        assert (await anext(events))["event"] == "state.changed"
        delta = json.dumps({"type": "message.delta", "data": {"step": 1, "text": "hello"}})
        await until(lambda: link.command("PUBLISH", channel, delta))
        assert (await anext(events))["event"] == "message.delta"
        for nonsense in ("{", "[]", '{"type":1}'):
            await link.command("PUBLISH", channel, nonsense)
        await worker.end(claim)
        assert [event["event"] async for event in events] == ["job.completed"]
