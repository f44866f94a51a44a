"""Deliveries are noted in the step that writes the event, for who listens, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.entries import ApprovalDecided
from agent_core.types import Budget
from jobs import keys, outbox
from jobs.approvals import Request
from jobs.deliveries import Deliveries, Delivery
from jobs.link import RedisLink
from jobs.moves import Child
from jobs.store import JobStore
from jobs.webhooks import Endpoint, Webhooks
from tests.jobs.books import limit
from tests.jobs.driver import SPEC, TENANT, Driver
from tests.jobs.spender import Spender

URL = "https://example.com/hook"
HOOK = {"url": "https://jobs.example.com/hook?x=1", "events": None}
SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdCwgMzIgYnl0ZXMgbG9uZw=="


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


@pytest.fixture
def webhooks(link: RedisLink) -> Webhooks:
    return Webhooks(link)


async def make(webhooks: Webhooks, events: list[str] | None = None, tenant: str = TENANT) -> Endpoint:
    return await webhooks.create(tenant, URL, events, None, SECRET)


async def noted(link: RedisLink, owner: str) -> list[Delivery]:
    """The deliveries of an owner, in the order of their sequence numbers."""
    ids = await link.command("ZRANGE", keys.deliveries(owner), 0, -1)
    found = await Deliveries(link).get_many([one.decode() for one in ids])
    return sorted((one for one in found if one is not None), key=lambda one: one.sequence)


async def told(link: RedisLink, owner: str) -> list[str]:
    return [one.type for one in await noted(link, owner)]


async def life(driver: Driver, **spec: Any) -> str:
    """The id of a job that was submitted, started and completed."""
    job, attempt = await driver.start(**spec)
    await driver.end(job, attempt, "complete", {"output": "done"})
    return job.id


LIFE = ["job.queued", "job.started", "job.completed"]


async def test_who_does_not_listen_costs_nothing(link: RedisLink, driver: Driver, webhooks: Webhooks) -> None:
    await make(webhooks, tenant="another")
    await life(driver)
    names = [name.decode() for name in await link.command("KEYS", f"{keys.PREFIX}*")]
    traces = (keys.DELIVERY_PREFIX, keys.DELIVERIES_PREFIX, keys.LANE_PREFIX, keys.LANES, keys.SETTLED)
    assert not [name for name in names if name.startswith(traces)]


async def test_an_endpoint_is_told_of_the_lives_of_all_jobs(
    link: RedisLink, driver: Driver, webhooks: Webhooks
) -> None:
    endpoint = await make(webhooks)
    ids = [await life(driver), await life(driver)]
    found = await noted(link, endpoint.id)
    assert [(one.job_id, one.type) for one in found] == [(job_id, type_) for job_id in ids for type_ in LIFE]
    assert [one.sequence for one in found] == [1, 2, 3, 4, 5, 6]
    assert len({one.id for one in found}) == 6
    journal = [(line.id, line.type) for job_id in ids for line in await driver.store.lines(job_id)]
    assert [(one.entry, one.type) for one in found] == journal


async def test_events_are_chosen(link: RedisLink, driver: Driver, webhooks: Webhooks) -> None:
    ends, details = await make(webhooks, ["job.completed"]), await make(webhooks, ["state.changed", "job.queued"])
    job, attempt = await driver.start()
    await driver.store.record(job.id, attempt.token, 1, {}, [("state.changed", {"n": 1}), ("model.started", {})])
    await driver.end(job, attempt, "complete", {"output": "done"})
    assert await told(link, ends.id) == ["job.completed"]
    assert await told(link, details.id) == ["job.queued", "state.changed"]


async def test_a_jobs_own_webhook_hears_of_that_job_alone(link: RedisLink, driver: Driver) -> None:
    await life(driver)
    job_id = await life(driver, webhook=HOOK)
    await life(driver, webhook={**HOOK, "events": ["job.completed"]})
    found = await noted(link, f"jobs:{TENANT}")
    assert sorted(one.type for one in found) == sorted([*LIFE, "job.completed"])
    assert [one.sequence for one in found if one.job_id == job_id] == [1, 2, 3]
    assert {one.lane for one in found} == {f"{TENANT} https://jobs.example.com"}
    assert await Deliveries(link).target(found[0]) == HOOK["url"]


async def test_every_kind_of_move_is_told(link: RedisLink, driver: Driver, webhooks: Webhooks, store: JobStore) -> None:
    endpoint = await make(webhooks)
    job, attempt = await driver.start()
    await store.move(job, "suspend", {}, attempt=attempt)
    paused = await driver.get(job)
    await store.move(paused, "resume", {})
    await store.move(await driver.get(job), "cancel", {}, stop_reason="cancelled")
    await store.move(await driver.get(job), "retry", {})
    expected = ["job.queued", "job.started", "job.paused", "job.resumed", "job.cancelled", "job.queued"]
    assert await told(link, endpoint.id) == expected


async def test_approvals_are_told(link: RedisLink, driver: Driver, store: JobStore) -> None:
    job, attempt = await driver.start(webhook={**HOOK, "events": ["approval.requested", "approval.decided"]})
    request = Request("c1", "refund", {"amount": 7})
    await store.move(job, "park", {}, attempt=attempt, stop_reason="approval", asks=[request])
    found = await store.approvals.get(TENANT, request.approval_id)
    await store.approvals.rule(found, "approved", ApprovalDecided(found.id, "c1", "refund", "approve", "key_1"))
    assert await told(link, f"jobs:{TENANT}") == ["approval.requested", "approval.decided"]


async def test_children_are_told_to_who_listens_to_the_parent(link: RedisLink, driver: Driver, store: JobStore) -> None:
    parent, attempt = await driver.start(webhook={**HOOK, "events": ["child.started", "child.completed"]})
    made = await store.submit(TENANT, SPEC.under(parent), Budget(), child=Child(f"{parent.id}c", attempt.token))
    await store.move(made.job, "cancel", {}, stop_reason="cancelled")
    found = await noted(link, f"jobs:{TENANT}")
    assert [(one.type, one.job_id) for one in found] == [("child.started", parent.id), ("child.completed", parent.id)]
    event = await Deliveries(link).event(found[1])
    assert event is not None
    assert (event["data"]["job_id"], event["data"]["child_id"]) == (parent.id, made.job.id)


async def test_reached_budgets_are_told(link: RedisLink, driver: Driver, webhooks: Webhooks, store: JobStore) -> None:
    endpoint = await make(webhooks, ["budget.reached"])
    spending = await Spender.start(store, budget=Budget(usd=None), user="u1", session_id="s1")
    await limit(driver, "user:u1", 1000, period="day")
    await spending.end(await spending.begin(reserved=900), settled=900, reserved=900)
    (found,) = await noted(link, endpoint.id)
    event = await Deliveries(link).event(found)
    assert event is not None
    assert {name: event["data"][name] for name in ("percent", "spent_usd", "scope")} == {
        "percent": 80, "spent_usd": "0.0009", "scope": "user:u1"
    }  # fmt: skip


async def test_what_is_told_is_small_and_says_where_the_rest_is(
    link: RedisLink, driver: Driver, webhooks: Webhooks
) -> None:
    endpoint = await make(webhooks, ["job.completed"])
    job, attempt = await driver.start(user="u")
    await driver.end(job, attempt, "complete", {"output": "long " * 40_000, "stop_reason": "end_turn"})
    (delivery,) = await noted(link, endpoint.id)
    event = await Deliveries(link).event(delivery)
    line = (await driver.store.lines(job.id))[-1].to_event(job.id)
    assert event == {
        "type": "job.completed",
        "timestamp": line["created_at"],
        "data": {
            "status": "completed",
            "stop_reason": "end_turn",
            "job_id": job.id,
            "agent": SPEC.agent,
            "attempt": 1,
            "event_id": line["id"],
            "sequence": 1,
            "url": f"/v1/jobs/{job.id}",
        },
    }


def test_details_are_told_to_those_alone_who_name_them() -> None:
    assert not set(outbox.ROUTINE) & set(outbox.DETAILS)
    assert outbox.wanted(None) == f" {' '.join(outbox.ROUTINE)} "
    assert outbox.wanted(["job.failed"], outbox.DISABLED) == " job.failed "
    assert outbox.own_webhook(TENANT, None) == ""


async def test_an_endpoint_that_is_disabled_or_removed_is_told_nothing(
    link: RedisLink, driver: Driver, webhooks: Webhooks
) -> None:
    off, gone = await make(webhooks), await make(webhooks)
    await webhooks.change(TENANT, off.id, {"enabled": False})
    await webhooks.remove(TENANT, gone.id)
    await life(driver)
    assert await told(link, off.id) == await told(link, gone.id) == []
    assert (await webhooks.get(TENANT, off.id)).disabled_reason == "by_request"
    await webhooks.change(TENANT, off.id, {"enabled": True, "events": ["job.completed"]})
    await life(driver)
    assert await told(link, off.id) == ["job.completed"]
