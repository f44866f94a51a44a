"""Reserve and settle ride on the two records that a model call writes anyway."""

from __future__ import annotations

from agent_core.claude import ClaudeModel
from bench.peers.money_alone import callers, round_trips
from jobs.link import RedisLink, connect


async def test_reserve_and_settle_are_two_round_trips_under_any_number_of_limits(redis_url: str) -> None:
    link, model = RedisLink(connect(redis_url)), ClaudeModel.connect(api_key="none", base_url="http://127.0.0.1:1")
    try:
        [caller] = await callers(link, model, 1, limited=True)
        await caller.call("records with money")  # loads the script
        with connect(redis_url) as db:
            assert await round_trips(db, caller, 10) == 2
    finally:
        await link.aclose()
        await model.aclose()
