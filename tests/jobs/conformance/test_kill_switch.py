"""What a kill switch stops, and what becomes of it when the switch goes off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent_core.types import Budget
from jobs import actions
from jobs.errors import StoppedError
from jobs.moves import Idempotency
from jobs.queue import queue_names
from jobs.records import Job
from tests.jobs.driver import SPEC, TENANT, Driver, attempt_of, lose_tickets, turn

SWITCHES = ["global", "tenant:acme", "agent:acme:clerk"]
CLERK = "agent:acme:clerk"
VERSIONS = ("clerk@1", "clerk@2", "boss@1", "typist@1")


async def submit_under(driver: Driver, parents: Sequence[str], agent: str = "clerk", **fields: Any) -> Job:
    """A job of an agent under a job of each of some other agents."""
    spec = replace(SPEC, agent=agent, ancestor_agents=list(parents), **fields)
    return (await driver.store.submit(TENANT, spec, Budget())).job


async def claimed(driver: Driver, most: int = 10) -> list[str]:
    return [claim.job_id for claim in await driver.claim(most, versions=VERSIONS)]


# ---- submit


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_submission_is_refused_and_leaves_nothing_behind(driver: Driver, switch: str) -> None:
    await turn(driver, switch, on=True)
    key = Idempotency("digest", "print")
    with pytest.raises(StoppedError, match="is on since"):
        await driver.submit(key=key)
    with pytest.raises(StoppedError):
        await driver.submit(run_at=1)
    assert await driver.tickets() == 0
    assert (await driver.store.tickets.overdue(unticketed_ms=-1000)).unticketed == []
    await turn(driver, switch, on=False)
    job = await driver.submit(key=key)
    assert await driver.status(job) == "queued"


async def test_the_answer_to_what_was_submitted_before_is_given_again(driver: Driver) -> None:
    key = Idempotency("digest", "print")
    job = await driver.submit(key=key)
    await turn(driver, "global", on=True)
    assert (await driver.submit(key=key)).id == job.id


async def test_what_is_not_covered_is_accepted_and_runs(driver: Driver) -> None:
    for switch in ("tenant:other", "agent:acme:other", "agent:other:clerk"):
        await turn(driver, switch, on=True)
    job = await driver.submit()
    assert await claimed(driver) == [job.id]


async def test_a_fork_is_refused(driver: Driver) -> None:
    job = await driver.into("completed")
    await turn(driver, CLERK, on=True)
    with pytest.raises(StoppedError):
        await actions.fork(driver.store, TENANT, job.id, step=0, changes={})


# ---- claim


@pytest.mark.parametrize("switch", SWITCHES)
async def test_nothing_that_is_covered_is_claimed(driver: Driver, switch: str) -> None:
    jobs = [await driver.submit(priority=priority) for priority in ("default", "high", "low")]
    await turn(driver, switch, on=True)
    assert await claimed(driver) == []
    assert await driver.tickets() == (3 if switch == "global" else 0)
    assert {await driver.status(job) for job in jobs} == {"queued"}
    await turn(driver, switch, on=False)
    assert await claimed(driver) == [jobs[1].id, jobs[0].id, jobs[2].id]
    assert await claimed(driver) == []


@pytest.mark.parametrize("switch", ["tenant:acme", CLERK])
async def test_a_ticket_that_is_stopped_leaves_its_queue(driver: Driver, switch: str) -> None:
    for _ in range(3):
        await driver.submit()
    theirs = await driver.store.submit("other", replace(SPEC, agent="boss"), Budget())
    await turn(driver, switch, on=True)
    assert await claimed(driver, 1) == [theirs.job.id]
    assert await driver.tickets() == 0


async def test_children_are_stopped_with_the_agents_of_the_jobs_above_them(driver: Driver) -> None:
    child = await submit_under(driver, ["boss", "clerk"], "typist")
    other = await submit_under(driver, ["boss"], "typist")
    await turn(driver, CLERK, on=True)
    assert await claimed(driver) == [other.id]
    with pytest.raises(StoppedError, match="agent:clerk"):
        await submit_under(driver, ["clerk", "clerk"], "typist")
    await turn(driver, CLERK, on=False)
    assert await claimed(driver) == [child.id]


@pytest.mark.parametrize("switch", SWITCHES)
async def test_jobs_come_back_in_their_order_before_what_came_since(driver: Driver, switch: str) -> None:
    running = [await driver.submit() for _ in range(2)]
    attempts = [attempt_of(claim) for claim in await driver.claim(2)]
    waiting = [await driver.submit() for _ in range(3)]
    await turn(driver, switch, on=True)
    assert await claimed(driver) == []
    for job, attempt in zip(running, attempts, strict=True):
        await driver.end(job, attempt, "hand_back")
    assert await claimed(driver) == []
    await turn(driver, switch, on=False)
    late = await driver.submit()
    assert await claimed(driver) == [job.id for job in (*reversed(running), *waiting, late)]


async def test_a_job_that_is_handed_back_is_not_claimed_again_while_it_is_stopped(driver: Driver) -> None:
    job, attempt = await driver.start()
    await turn(driver, CLERK, on=True)
    await driver.end(job, attempt, "hand_back")
    assert await driver.tickets() == 0
    assert await claimed(driver) == []
    await turn(driver, CLERK, on=False)
    assert await claimed(driver) == [job.id]


async def test_a_job_in_a_side_queue_is_stopped_and_comes_back(driver: Driver) -> None:
    job = await driver.submit(agent_version="2")
    assert await driver.claim() == []
    side = "default.default@clerk@2"
    await turn(driver, CLERK, on=True)
    queues = [side, *queue_names(["default"])]
    assert await driver.claim(queues=queues, versions=VERSIONS) == []
    assert (await driver.store.tickets.depths())[side] == 0
    assert not await driver.store.release(job.id)
    await turn(driver, CLERK, on=False)
    assert [claim.job_id for claim in await driver.claim(queues=queues, versions=VERSIONS)] == [job.id]


async def test_a_session_waits_for_its_job_that_is_stopped(driver: Driver) -> None:
    first = await driver.submit(session_id="s")
    second = await submit_under(driver, [], "boss", session_id="s")
    await turn(driver, CLERK, on=True)
    assert await claimed(driver) == []
    await actions.cancel(driver.store, TENANT, first.id)
    assert await claimed(driver) == [second.id]


# ---- tickets while a switch is on


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("found", [True, False])
async def test_a_reaper_gives_a_stopped_job_no_second_ticket(driver: Driver, switch: str, found: bool) -> None:
    """Whether a worker has come across its first ticket yet or not."""
    job = await driver.submit()
    await turn(driver, switch, on=True)
    for _ in range(3):
        assert not found or await claimed(driver) == []
        assert not await driver.store.release(job.id)
    await turn(driver, switch, on=False)
    assert await driver.tickets() == 1


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_stopped_job_that_lost_its_ticket_gets_one(driver: Driver, switch: str) -> None:
    job = await driver.submit()
    await turn(driver, switch, on=True)
    await lose_tickets(driver, "default.default")
    assert [await driver.store.release(job.id) for _ in range(2)] == [True, False]
    await turn(driver, switch, on=False)
    assert await claimed(driver) == [job.id]


async def test_a_job_that_two_switches_stop_waits_for_both(driver: Driver) -> None:
    job = await driver.submit()
    await turn(driver, CLERK, on=True)
    assert await claimed(driver) == []
    await turn(driver, "tenant:acme", on=True)
    assert not await driver.store.release(job.id)
    await turn(driver, CLERK, on=False)
    assert await claimed(driver) == []
    await turn(driver, "tenant:acme", on=False)
    assert await claimed(driver) == [job.id]
    assert await driver.tickets() == 0


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_stopped_job_can_be_cancelled(driver: Driver, switch: str) -> None:
    job = await driver.submit()
    await turn(driver, switch, on=True)
    assert await claimed(driver) == []
    await actions.cancel(driver.store, TENANT, job.id)
    await turn(driver, switch, on=False)
    assert await claimed(driver) == []
    assert await driver.status(job) == "cancelled"


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_stopped_job_can_be_paused_and_resumed(driver: Driver, switch: str) -> None:
    job = await driver.submit()
    await turn(driver, switch, on=True)
    assert await claimed(driver) == []
    for _ in range(2):
        assert (await actions.pause(driver.store, TENANT, job.id)).status == "paused"
        assert (await actions.resume(driver.store, TENANT, job.id)).status == "queued"
    await turn(driver, switch, on=False)
    assert await driver.tickets() == 1
    assert await claimed(driver) == [job.id]


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_job_that_comes_due_while_it_is_stopped_waits(driver: Driver, switch: str) -> None:
    job = await driver.submit(run_at=1, pool="fresh")
    await turn(driver, switch, on=True)
    await driver.sweep()
    queues = queue_names(["fresh"])
    assert await driver.status(job) == "queued"
    assert await driver.claim(queues=queues) == []
    await turn(driver, switch, on=False)
    assert await driver.store.tickets.depths() == {"fresh.default": 1}
    assert [claim.job_id for claim in await driver.claim(queues=queues)] == [job.id]


async def test_turning_a_switch_twice_is_no_error(driver: Driver) -> None:
    job = await driver.submit()
    for _ in range(2):
        await turn(driver, CLERK, on=True)
        assert await claimed(driver) == []
    for _ in range(2):
        await turn(driver, CLERK, on=False)
    assert await driver.tickets() == 1
    assert await claimed(driver) == [job.id]
