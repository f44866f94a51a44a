"""What the server remembers of the calls that came in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import anthropic
import pytest

from simulator.calls import CallLog
from simulator.server import SimulatorOptions

ASK: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


async def until(condition):
    """Waits for a condition that the server brings about by itself."""
    async with asyncio.timeout(10):
        value = await condition()
        while not value:
            await asyncio.sleep(0.01)
            value = await condition()
    return value


async def test_a_finished_call_is_recorded(client, fetch):
    before = time.time()
    await client.messages.create(**ASK)
    [call] = await fetch("/_sim/calls")
    assert before <= call["started_at"] <= call["ended_at"] <= time.time()
    assert call.pop("usage")["output_tokens"] > 0
    times = ("started_at", "ended_at")
    assert {k: v for k, v in call.items() if k not in times} == {
        "n": 1,
        "outcome": "completed",
        "model": "claude-sonnet-5-5",
        "messages": 1,
        "closed_at": None,
        "script_key": "",
        "turn": None,
        "batch_id": None,
    }


@pytest.mark.parametrize("turn", [{"text": "hi", "latency": 60}, {"text": "a b c", "chunks": 3, "chunk_delay": 60}])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_is_recorded(client, scripted, fetch, turn, stream):
    async def ask():
        async with client.messages.with_streaming_response.create(**scripted(turn), stream=stream) as response:
            await response.read()

    asking = asyncio.create_task(ask())
    await until(lambda: running(fetch))
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    [call] = await until(lambda: ended(fetch))
    assert call["outcome"] == "client_closed"
    assert call["closed_at"] == pytest.approx(call["ended_at"], abs=0.5)
    assert (await fetch("/_sim/stats"))["outcomes"] == {"client_closed": 1}


async def running(fetch):
    return (await fetch("/_sim/stats"))["in_flight"]


async def ended(fetch):
    calls = await fetch("/_sim/calls")
    return calls if all(call["ended_at"] for call in calls) else None


async def test_stats_count_outcomes_and_what_ran_at_once(client, scripted, fetch, http):
    slow = scripted({"text": "hi", "latency": 60})
    asking = [asyncio.create_task(client.messages.create(**slow)) for _ in range(3)]

    async def all_there():
        return await running(fetch) == 3

    await until(all_there)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await until(lambda: ended(fetch))
    with pytest.raises(anthropic.OverloadedError):
        await client.messages.create(**scripted({"text": "hi", "faults": [{"status": 529}]}))
    stats = await fetch("/_sim/stats")
    assert stats["outcomes"] == {"client_closed": 3, "failed:529": 1}
    assert (stats["calls"], stats["in_flight"], stats["max_concurrent"]) == (4, 0, 3)
    assert stats["open_connections"] == 1

    async with http.delete("/_sim/calls"):
        pass
    stats = await fetch("/_sim/stats")
    assert (stats["calls"], stats["outcomes"], stats["max_concurrent"]) == (0, {}, 0)
    assert await fetch("/_sim/calls") == []


@pytest.mark.parametrize("options", [SimulatorOptions(recorded_calls=2)])
async def test_only_the_last_calls_are_remembered(client, fetch):
    for _ in range(3):
        await client.messages.create(**ASK)
    assert [call["n"] for call in await fetch("/_sim/calls")] == [2, 3]
    assert (await fetch("/_sim/stats"))["calls"] == 3


def test_a_fault_of_the_server_itself_is_recorded():
    log = CallLog(10)
    with pytest.raises(ZeroDivisionError), log.record():
        raise ZeroDivisionError
    assert log.to_json()[0]["outcome"] == "failed:500"


async def test_the_front_page_says_that_it_is_simulated(fetch):
    page = await fetch("/")
    assert page["simulated"] is True
    assert page["billed"] is False
