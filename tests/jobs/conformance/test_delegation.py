"""A job and the children that it started: who is told of what, who is woken when, and what the end of one does to the
others.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from agent_core.errors import StaleAttemptError
from agent_core.types import Budget
from jobs import actions, keys
from jobs.errors import StoppedError
from jobs.link import milliseconds
from jobs.moves import Attempt, Child
from jobs.records import Job
from jobs.status import ENDED
from jobs.store import JobStore
from tests.jobs.books import prune
from tests.jobs.driver import ENDED_LEASE, HOUR_MS, SPEC, TENANT, Driver, attempt_of, turn

FAR = HOUR_MS
"""For how long a parent waits unless its children wake it."""


async def bear(driver: Driver, parent: Job, name: str, **spec: object) -> Job:
    """A child of a running job. The same name is the same child."""
    child = Child(f"job_{parent.id[4:]}{name}", parent.token)
    asked = replace(SPEC, **spec).under(parent)  # type: ignore[arg-type]
    return (await driver.store.submit(TENANT, asked, Budget(), child=child)).job


async def parent_of(driver: Driver, *names: str, lease: int = 60) -> tuple[Job, Attempt, list[Job]]:
    """A running parent and its queued children."""
    parent, attempt = await driver.start(lease=lease)
    return parent, attempt, [await bear(driver, parent, name) for name in names]


async def wait(driver: Driver, parent: Job, attempt: Attempt) -> None:
    await driver.store.move(parent, "hand_back", attempt=attempt, due_ms=-FAR, for_children=True)


async def run_one(driver: Driver) -> tuple[Job, Attempt]:
    claim = await driver.claim_one()
    assert claim.job is not None
    return claim.job, attempt_of(claim)


async def told(driver: Driver, parent: Job) -> list[tuple[str, str]]:
    """What the parent's journal says of its children."""
    lines = await driver.store.lines(parent.id)
    return [(line.type, line.data["job_id"]) for line in lines if line.type.startswith("child.")]


async def orphans(driver: Driver) -> list[str]:
    return (await driver.store.tickets.overdue()).orphans


# ---- a child is born


async def test_a_child_is_made_once_and_its_parent_told_once(driver: Driver) -> None:
    parent, attempt, (child,) = await parent_of(driver, "a")
    again = await driver.store.submit(TENANT, SPEC.under(parent), Budget(), child=Child(child.id, attempt.token))
    assert (again.replayed, again.job) == (True, child)
    assert await driver.store.children(parent.id) == [child.id]
    lines = [line for line in await driver.store.lines(parent.id) if line.type == "child.started"]
    assert [(line.attempt, line.data) for line in lines] == [(1, {"job_id": child.id, "agent": "clerk"})]
    assert await driver.tickets() == 1


@pytest.mark.parametrize("end", [True, False])
async def test_an_attempt_that_lost_its_job_starts_no_child(driver: Driver, end: bool) -> None:
    """Its successor would not know of it; and who would end it, when the job has ended?"""
    parent, attempt, _ = await parent_of(driver)
    await driver.store.move(parent, "complete" if end else "hand_back", attempt=attempt)
    with pytest.raises(StaleAttemptError):
        await bear(driver, parent, "late")
    if not end:
        successor, _ = await run_one(driver)
        with pytest.raises(StaleAttemptError):
            await bear(driver, parent, "late")
        await bear(driver, successor, "late")
    else:
        await prune(driver, parent)
        with pytest.raises(StaleAttemptError):
            await bear(driver, parent, "late")
    assert len(await driver.store.children(parent.id)) == (not end)


async def test_the_kill_switch_of_an_agent_stops_all_below_it(driver: Driver) -> None:
    parent, _, (child,) = await parent_of(driver, "a")
    running, _ = await run_one(driver)
    assert running.id == child.id
    grandchild = await bear(driver, running, "aa", agent="scribe")
    await turn(driver, f"agent:{TENANT}:clerk", on=True)
    with pytest.raises(StoppedError):
        await bear(driver, running, "ab", agent="scribe")
    assert await driver.claim(versions=["scribe@1"]) == []
    await turn(driver, f"agent:{TENANT}:clerk", on=False)
    (claim,) = await driver.claim(versions=["scribe@1"])
    assert claim.job_id == grandchild.id
    assert parent.spec.ancestors == []


# ---- the parent waits


async def test_the_parent_goes_on_when_its_last_child_has_ended_and_not_before(driver: Driver) -> None:
    parent, attempt, children = await parent_of(driver, "a", "b", "c")
    await wait(driver, parent, attempt)
    for count, action in enumerate(("complete", "fail", "stop"), 1):
        child, held = await run_one(driver)
        assert child.id != parent.id
        await driver.store.move(child, action, attempt=held)
        assert await driver.tickets() == 3 - count + (count == 3)
    assert (await driver.claim_one()).job_id == parent.id
    ids = [child.id for child in children]
    assert await told(driver, parent) == [(t, i) for t in ("child.started", "child.completed") for i in ids]
    ends = [line.data["status"] for line in await driver.store.lines(parent.id) if line.type == "child.completed"]
    assert ends == ["completed", "failed", "cancelled"]


async def test_a_parent_whose_children_were_faster_waits_for_nothing(driver: Driver) -> None:
    parent, attempt, _ = await parent_of(driver, "a")
    child, held = await run_one(driver)
    await driver.store.move(child, "complete", attempt=held)
    await wait(driver, parent, attempt)
    assert (await driver.claim_one()).job_id == parent.id


async def test_a_parent_that_was_woken_otherwise_is_not_woken_again(driver: Driver) -> None:
    """Paused and resumed meanwhile, it looks for itself, and may wait for a time that is none of its children's."""
    parent, attempt, _ = await parent_of(driver, "a")
    await wait(driver, parent, attempt)
    await actions.pause(driver.store, TENANT, parent.id)
    child, held = await run_one(driver)
    await driver.store.move(child, "complete", attempt=held)
    assert await driver.tickets() == 0
    await actions.resume(driver.store, TENANT, parent.id)
    again, held = await run_one(driver)
    await driver.store.move(again, "hand_back", attempt=held, due_ms=-FAR)
    assert await driver.tickets() == 0


async def test_a_sweep_wakes_the_parent_when_who_ended_the_last_child_could_not(driver: Driver) -> None:
    """The time it waits for has come; only its ticket is missing."""
    parent, attempt, _ = await parent_of(driver, "a")
    await driver.store.move(parent, "hand_back", attempt=attempt, due_ms=milliseconds() - 1, for_children=True)
    assert [claim.job_id for claim in await driver.claim(9)] != [parent.id]
    await driver.sweep()
    assert (await driver.claim_one()).job_id == parent.id


@pytest.mark.parametrize("seed", range(6))
async def test_in_whatever_order_things_happen_the_parent_is_woken_once(driver: Driver, seed: int) -> None:
    chance = random.Random(seed)
    parent, attempt, children = await parent_of(driver, *(str(n) for n in range(5)))
    claims = {claim.job_id: claim for claim in await driver.claim(5)}

    async def end(child: Job) -> None:
        how = chance.choice(["complete", "fail", "stop"])
        await driver.store.move(child, how, attempt=attempt_of(claims[child.id]))

    acts = [wait(driver, parent, attempt), *map(end, children)]
    chance.shuffle(acts)
    early = chance.randrange(len(acts))
    for act in acts[:early]:
        await act
    await asyncio.gather(*acts[early:])
    (claim,) = await driver.claim(9)
    assert (claim.job_id, await driver.tickets()) == (parent.id, 0)
    journal = await told(driver, parent)
    assert sorted(journal) == sorted((t, c.id) for t in ("child.started", "child.completed") for c in children)


# ---- the end of the parent


async def test_children_that_are_left_are_cancelled_to_the_last_generation(driver: Driver) -> None:
    parent, attempt, (first, second) = await parent_of(driver, "a", "b")
    running, held = await run_one(driver)
    assert running.id == first.id
    grandchild = await bear(driver, running, "aa")
    await wait(driver, running, held)
    await driver.store.move(parent, "complete", attempt=attempt)
    assert await orphans(driver) == [parent.id]
    await actions.cancel_children(driver.store, await driver.get(parent))
    assert [await driver.status(job) for job in (first, second, grandchild)] == ["cancelled"] * 3
    assert await orphans(driver) == []
    assert (await driver.types(parent))[-1] == "job.completed", "its last word stays the last"


async def test_a_running_child_stays_an_orphan_until_its_attempt_has_heard_of_it(driver: Driver) -> None:
    parent, attempt, _ = await parent_of(driver, "a")
    child, held = await run_one(driver)
    await driver.store.move(parent, "fail", attempt=attempt)
    for _ in range(2):
        await actions.cancel_children(driver.store, await driver.get(parent))
        assert (await driver.get(child)).flag == "cancel"
        assert await orphans(driver) == [parent.id]
    await driver.store.move(child, "stop", attempt=held)
    assert await orphans(driver) == []


async def test_children_of_a_lost_attempt_are_its_successors(driver: Driver) -> None:
    parent, attempt, (child,) = await parent_of(driver, "a", lease=ENDED_LEASE)
    assert await driver.rescue(parent.id, attempt) is not None
    assert (await orphans(driver), await driver.store.children(parent.id)) == ([], [child.id])


async def test_nothing_of_a_family_outlives_it(driver: Driver) -> None:
    parent, attempt, _ = await parent_of(driver, "a", "b")
    await driver.store.move(parent, "complete", attempt=attempt)
    for _ in range(2):
        child, held = await run_one(driver)
        await driver.store.move(child, "complete", attempt=held)
    assert await orphans(driver) == []
    if isinstance(driver.store, JobStore):
        assert await driver.store.link.command("EXISTS", keys.children(parent.id), keys.ORPHANS) == 0


# ---- again


async def test_a_child_that_is_retried_is_waited_for_again(driver: Driver) -> None:
    """Else its parent, which finds it open, would ask for it over and over without a wait."""
    parent, attempt, _ = await parent_of(driver, "a")
    child, held = await run_one(driver)
    await driver.store.move(child, "fail", attempt=held)
    await actions.retry(driver.store, TENANT, child.id)
    await wait(driver, parent, attempt)
    again, held = await run_one(driver)
    assert again.id == child.id
    assert await driver.tickets() == 0
    await driver.store.move(again, "complete", attempt=held)
    assert (await driver.claim_one()).job_id == parent.id
    assert [type_ for type_, _ in await told(driver, parent)] == ["child.started", "child.completed"] * 2


async def test_a_child_that_is_retried_after_its_parents_end_is_nobodys_orphan(driver: Driver) -> None:
    parent, attempt, (child,) = await parent_of(driver, "a")
    await driver.store.move(parent, "fail", attempt=attempt)
    await actions.cancel_children(driver.store, await driver.get(parent))
    await actions.retry(driver.store, TENANT, child.id)
    assert await orphans(driver) == []
    assert (await driver.types(parent))[-1] == "job.failed"
    again, held = await run_one(driver)
    await driver.store.move(again, "complete", attempt=held)
    assert (await driver.types(parent))[-1] == "job.failed"


async def test_a_parent_that_is_retried_keeps_the_children_that_are_left(driver: Driver) -> None:
    parent, attempt, (child,) = await parent_of(driver, "a")
    await driver.store.move(parent, "fail", attempt=attempt)
    await actions.retry(driver.store, TENANT, parent.id)
    assert (await orphans(driver), await driver.store.children(parent.id)) == ([], [child.id])
    claims = {claim.job_id: claim for claim in await driver.claim(2)}
    await wait(driver, await driver.get(parent), attempt_of(claims[parent.id]))
    await driver.store.move(child, "complete", attempt=attempt_of(claims[child.id]))
    assert (await driver.claim_one()).job_id == parent.id


async def test_a_fork_of_a_child_is_a_job_of_its_own(driver: Driver) -> None:
    parent, _, (child,) = await parent_of(driver, "a")
    fork = (await actions.fork(driver.store, TENANT, child.id, step=0, changes={})).job
    assert (fork.spec.parent_id, fork.spec.ancestors, fork.spec.ancestor_agents) == (None, [], [])
    assert await driver.store.children(parent.id) == [child.id]
    assert {job.status for job in await driver.store.get_many([parent.id, child.id]) if job}.isdisjoint(ENDED)
