"""Lists of approvals, what is left of them when their job is pruned, and rulings in any order at once."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import actions, keys
from jobs.approvals import Approval, Approvals, Request
from jobs.errors import GoneError, InvalidError, JobsError
from jobs.files import FileStore
from jobs.link import RedisLink, connect
from jobs.listing import list_approvals
from jobs.retention import Retention
from jobs.rulings import Ruling, decide, expire, go_on
from jobs.store import JobStore
from tests.jobs.driver import TENANT, Driver, attempt_of


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


async def park(driver: Driver, *calls: str, **spec: Any) -> list[str]:
    """Parks a job with some calls; the ids of its approvals, in their order."""
    job = await driver.submit(**spec)
    claim = await driver.claim_one()
    asks = [Request(call, "refund", {"amount": 7}) for call in calls]
    await driver.store.move(job, "park", attempt=attempt_of(claim), stop_reason="approval", asks=asks)
    return [request.approval_id for request in asks]


async def listed(driver: Driver, tenant: str = TENANT, **filters: Any) -> list[str]:
    """The ids of all pages."""
    assert isinstance(driver.store, JobStore)
    found: list[Approval] = []
    after, link = None, driver.store.link
    while True:
        page, after = await list_approvals(link, tenant, **{"limit": 2, **filters}, after=after)
        found += page
        if after is None:
            return [approval.id for approval in found]


async def test_pages_the_newest_first(driver: Driver) -> None:
    jobs = [await park(driver, "c1", "c2"), await park(driver, "c1"), await park(driver, "c1", "c2")]
    ids = [one for job in jobs for one in job]
    found = await listed(driver)
    assert set(found) == set(ids)
    assert len(found) == 5
    records = await Approvals(driver.store.link).get_many(found)  # type: ignore[attr-defined]
    times = [record.requested_ms for record in records if record]
    assert times == sorted(times, reverse=True)


async def test_filters(driver: Driver) -> None:
    first, second, third = await park(driver, "c1", "c2", "c3")
    (other,) = await park(driver, "c1")
    (foreign,) = await park(driver, "c1", tenant="rival")
    await decide(driver.store, TENANT, first, Ruling("approve"), "k")
    await decide(driver.store, TENANT, second, Ruling("deny"), "k")
    assert set(await listed(driver, status="pending")) == {third, other}
    assert await listed(driver, status="approved") == [first]
    assert await listed(driver, status="denied", limit=1) == [second]
    job_id = (await driver.store.approvals.get(TENANT, first)).job_id
    assert set(await listed(driver, job_id=job_id)) == {first, second, third}
    assert await listed(driver, job_id=job_id, status="pending") == [third]
    theirs = (await driver.store.approvals.get(None, foreign)).job_id
    assert await listed(driver, job_id=theirs) == await listed(driver, job_id="job_1") == []
    assert await listed(driver, tenant="rival") == [foreign]


async def test_a_cursor_that_is_none(driver: Driver) -> None:
    with pytest.raises(InvalidError):
        await list_approvals(driver.store.link, TENANT, limit=1, after=base64.b64encode(b"x").decode())  # type: ignore[attr-defined]


async def test_they_go_with_their_job(driver: Driver, link: RedisLink, tmp_path: Any) -> None:
    (first, _), kept = await park(driver, "c1", "c2"), await park(driver, "c1")
    job_id = (await driver.store.approvals.get(TENANT, first)).job_id
    await decide(driver.store, TENANT, first, Ruling("approve"), "k")
    await actions.cancel(driver.store, TENANT, job_id)
    assert (await Retention(link, FileStore(link, f"file://{tmp_path}"), keep_ms=-1).sweep()).jobs == 1
    assert await link.command("ZRANGE", keys.approvals(TENANT), 0, -1) == [kept[0].encode()]
    left = {key.decode() for key in await link.command("KEYS", f"{keys.PREFIX}*approval*")}
    (job,) = await link.command("ZRANGE", keys.all_jobs(TENANT), 0, -1)
    assert left == {
        keys.approval(kept[0]),
        keys.job_approvals(job.decode()),
        keys.approvals(TENANT),
        keys.PENDING_APPROVALS,
    }


ACTS = st.lists(
    st.tuples(st.sampled_from(["approve", "deny", "expire", "sweep", "cancel"]), st.integers(0, 2)), max_size=12
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS, expired=st.booleans())
def test_whatever_comes_at_once_each_is_decided_once_and_the_job_goes_on_once(
    redis_url: str, acts: list[tuple[str, int]], expired: bool
) -> None:
    asyncio.run(decide_at_once(redis_url, acts, expired))


async def decide_at_once(url: str, acts: list[tuple[str, int]], expired: bool) -> None:
    link = RedisLink(connect(url))
    driver = Driver(JobStore(link))
    try:
        await link.command("FLUSHALL")
        ids = await park(driver, "c1", "c2", "c3")
        job_id = (await driver.store.approvals.get(TENANT, ids[0])).job_id
        if expired:
            await link.command("HSET", keys.approval(ids[0]), "expires_ms", 1)
        won: Counter[str] = Counter()
        refused: set[str] = set()

        async def act(what: str, number: int) -> None:
            try:
                if what == "cancel":
                    await actions.cancel(driver.store, TENANT, job_id)
                elif what == "sweep":
                    await go_on(driver.store, job_id)
                elif what == "expire":
                    done = await expire(driver.store, ids[number])
                    won[ids[number]] += done
                else:
                    await decide(driver.store, TENANT, ids[number], Ruling(what), "k")  # type: ignore[arg-type]
                    won[ids[number]] += 1
            except GoneError:
                assert (expired, number) == (True, 0)
            except JobsError as exc:
                refused.add(exc.code)

        await asyncio.gather(*(act(*one) for one in acts))
        assert refused <= {"already_decided", "withdrawn", "job_cancelled"}
        lines = await driver.store.lines(job_id)
        decided = Counter(line.data["approval_id"] for line in lines if line.type == "approval.decided")
        assert decided == +won
        assert max(decided.values(), default=1) == 1
        status = (await driver.store.get(TENANT, job_id)).status
        resumed = sum(line.type == "job.resumed" for line in lines)
        assert resumed <= (len(decided) == 3)
        if all(what != "cancel" for what, _ in acts):
            assert resumed == (len(decided) == 3)
            assert status == ("queued" if len(decided) == 3 else "requires_action")
        pending = await link.command("ZRANGE", keys.PENDING_APPROVALS, 0, -1)
        assert bool(pending) == (status == "requires_action")
    finally:
        await link.aclose()
