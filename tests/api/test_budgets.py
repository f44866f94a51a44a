"""Budgets over HTTP."""

from __future__ import annotations

import pytest

from tests.api.conftest import client_of, submitted
from tests.jobs.spender import Spender

BODY = {"scope": "user:u1", "usd": "0.25", "tokens": None, "period": "day", "at_limit": "pause"}


async def test_a_budget_is_set_listed_and_lifted(api):
    answer = await api.put("/v1/budgets", json=BODY)
    assert answer.status_code == 200
    shown = answer.json()
    assert {name: shown[name] for name in BODY} == BODY
    assert (shown["spent_usd"], shown["reserved_usd"], shown["remaining_usd"]) == ("0", "0", "0.25")
    assert (await api.get("/v1/budgets")).json() == {"data": [shown], "has_more": False, "next_cursor": None}
    lifted = {"scope": "user:u1", "period": "day"}
    assert (await api.delete("/v1/budgets", params=lifted)).status_code == 204
    assert (await api.get("/v1/budgets")).json()["data"] == []
    gone = await api.delete("/v1/budgets", params=lifted)
    assert (gone.status_code, gone.json()["code"]) == (404, "budget_not_found")


async def test_what_is_left_out_is_the_total_and_stops(api):
    shown = (await api.put("/v1/budgets", json={"scope": "tenant", "tokens": 5})).json()
    assert (shown["period"], shown["window"], shown["at_limit"], shown["usd"]) == ("total", "total", "stop", None)
    assert (await api.delete("/v1/budgets", params={"scope": "tenant"})).status_code == 204


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scope": "team:x"}, "invalid_scope"),
        ({"scope": "job:*"}, "invalid_scope"),
        ({"usd": None}, "no_limit"),
        ({"usd": "-1"}, "invalid_fields"),
        ({"usd": "0.0000001"}, "invalid_fields"),
        ({"tokens": 0}, "invalid_fields"),
        ({"period": "week"}, "invalid_fields"),
        ({"at_limit": "explode"}, "invalid_fields"),
        ({"scope": None}, "invalid_fields"),
        ({"steps": 3}, "invalid_fields"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused_and_not_kept(api, change, code):
    answer = await api.put("/v1/budgets", json={**BODY, **change})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await api.get("/v1/budgets")).json()["data"] == []


async def test_who_may_read_may_not_set_and_no_tenant_sees_anothers(api, url):
    await api.put("/v1/budgets", json=BODY)
    reader = (await api.post("/v1/keys", json={"name": "r", "scopes": ["jobs:read"]})).json()
    async with client_of(url, reader["secret"]) as client:
        assert len((await client.get("/v1/budgets")).json()["data"]) == 1
        for answer in (
            await client.put("/v1/budgets", json=BODY),
            await client.delete("/v1/budgets", params={"scope": "user:u1", "period": "day"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    other = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    async with client_of(url, other["secret"]) as client:
        assert (await client.get("/v1/budgets")).json()["data"] == []
        lifted = await client.delete("/v1/budgets", params={"scope": "user:u1", "period": "day"})
        assert lifted.status_code == 404


async def held(api, worker, store, **body) -> tuple[dict, Spender]:
    """A job that a budget of its own or of its user holds."""
    job = await submitted(api, user="u1", **body)
    claim = await worker.claim()
    spender = Spender(store, claim.job, worker.attempt(claim))
    await spender.hold(await spender.refused())
    shown = (await api.get(f"/v1/jobs/{job['id']}")).json()
    assert (shown["status"], shown["stop_reason"]) == ("paused", "budget_exceeded")
    return job, spender


async def test_a_raised_budget_lets_the_jobs_go_on_that_it_held(api, echo, worker, store):
    await api.put("/v1/budgets", json={**BODY, "usd": "0.0001"})
    job, _ = await held(api, worker, store)
    await api.put("/v1/budgets", json=BODY)
    assert await worker.run() == job["id"]


async def test_a_job_that_its_own_budget_holds_is_resumed_with_a_higher_one(api, echo, worker, store):
    job, _ = await held(api, worker, store, budget={"usd": "0.0001", "at_limit": "pause"})
    assert job["budget"]["at_limit"] == "pause"
    path = f"/v1/jobs/{job['id']}/resume"
    assert (await api.post(path, json={"budget": {"usd": "lots"}})).status_code == 422
    resumed = (await api.post(path, json={"budget": {"usd": "0.01"}})).json()
    assert (resumed["status"], resumed["budget"]) == ("queued", {**job["budget"], "usd": "0.01"})
    claim = await worker.claim()
    await Spender(store, claim.job, worker.attempt(claim)).spend()


async def test_a_resume_without_a_body_leaves_the_limits(api, echo, worker, store):
    job, _ = await held(api, worker, store, budget={"usd": "0.0001", "at_limit": "pause"})
    resumed = (await api.post(f"/v1/jobs/{job['id']}/resume")).json()
    assert (resumed["status"], resumed["budget"]) == ("queued", job["budget"])
    claim = await worker.claim()
    assert (await Spender(store, claim.job, worker.attempt(claim)).refused()).held_by == "job|total"
