"""Kill switches in Redis: who turned one on, when and why, and the evidence that it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_core.errors import KilledError
from agent_core.types import Budget, Json
from jobs.errors import StoppedError
from jobs.kill_switch import KillSwitches, switch_name, switches_of
from jobs.money import Money
from jobs.store import JobStore
from tests.jobs.driver import SPEC, TENANT, Driver, attempt_of

CLERK = "agent:acme:clerk"
ALL = ("global", "tenant:acme", CLERK)


@pytest.fixture
def driver(store: JobStore) -> Driver:
    return Driver(store)


@pytest.fixture
def switches(store: JobStore) -> KillSwitches:
    return KillSwitches(store.link)


class Calls:
    """The model calls of one running job."""

    def __init__(self, driver: Driver, job_id: str, token: str) -> None:
        self._store = driver.store
        self._job_id = job_id
        self._token = token
        self._number = 0

    @classmethod
    async def of_the_next_job(cls, driver: Driver, version: str = "clerk@1") -> Calls:
        claim = await driver.claim_one(versions=[version])
        return cls(driver, claim.job_id, attempt_of(claim).token)

    async def begin(self, call_id: str) -> None:
        call = {"call_id": call_id, "step": 1, "model": "m", "role": "executor", "reserved": 5, "tokens": 9}
        await self._write(Money(reserve=[{**call, "price_version": "1"}]))

    async def end(self, call_id: str) -> None:
        bill: Json = {"call_id": call_id, "settled": 2, "tokens": 3, "model": "m", "role": "executor", "counters": {}}
        await self._write(Money(settle=[bill]))

    async def _write(self, money: Money) -> None:
        self._number += 1
        await self._store.record(self._job_id, self._token, self._number, {}, [], money)


async def test_a_switch_that_is_on_stays_as_it_was(switches: KillSwitches) -> None:
    first = await switches.turn_on(CLERK, "key_1", 'it said "no"')
    assert (first.scope, first.tenant, first.by, first.reason) == ("agent:clerk", "acme", "key_1", 'it said "no"')
    assert await switches.turn_on(CLERK, "key_2", "another") == first
    assert await switches.on() == {CLERK: first}
    assert await switches.names() == {CLERK}
    await switches.turn_off(CLERK)
    assert await switches.get(CLERK) is None
    assert (await switches.turn_on(CLERK, "key_2")).by == "key_2"


async def test_a_refusal_says_which_since_when_why_and_what_to_do(driver: Driver, switches: KillSwitches) -> None:
    await switches.turn_on("tenant:acme", "key_1", "too dear")
    with pytest.raises(StoppedError) as refused:
        await driver.submit()
    text = str(refused.value)
    assert text.startswith("the kill switch of the tenant is on since 20")
    assert "(too dear)" in text
    assert "nightshift kill-switch off --scope tenant" in text


@pytest.mark.parametrize("scope", ["global", "tenant", "agent:clerk"])
def test_a_scope_is_the_tenants_word_for_a_switch(scope: str) -> None:
    assert switch_name(TENANT, scope) in switches_of(TENANT, SPEC)
    assert switch_name("other", "agent:clerk") not in switches_of(TENANT, SPEC)


def test_a_job_is_under_each_agent_above_it_once() -> None:
    spec = replace(SPEC, ancestor_agents=["boss", "clerk", "boss"])
    assert switches_of(TENANT, spec) == ["global", "tenant:acme", "agent:acme:boss", CLERK]


@pytest.mark.parametrize("name", ALL)
async def test_no_call_is_begun_and_the_evidence_says_so(driver: Driver, switches: KillSwitches, name: str) -> None:
    await driver.submit()
    calls = await Calls.of_the_next_job(driver)
    for call_id in ("a", "b", "c"):
        await calls.begin(call_id)
    await calls.end("a")
    switch = await switches.turn_on(name, "key_1")
    with pytest.raises(KilledError) as refused:
        await calls.begin("d")
    assert refused.value.switch == name
    found = await switches.evidence(switch)
    assert (found.open, found.begun, found.refused) == (2, 0, 1)
    assert found.last_began_ms is not None
    assert found.last_began_ms <= switch.since_ms
    await calls.end("b")
    await calls.end("c")
    found = await switches.evidence(switch)
    assert (found.open, found.begun) == (0, 0)
    assert found.last_ended_ms is not None
    assert found.last_ended_ms >= switch.since_ms


async def test_the_evidence_counts_from_when_the_switch_was_turned_on(driver: Driver, switches: KillSwitches) -> None:
    await driver.submit()
    calls = await Calls.of_the_next_job(driver)
    await switches.turn_on(CLERK, "key_1")
    with pytest.raises(KilledError):
        await calls.begin("a")
    first = await switches.turn_on(CLERK, "key_1")
    await switches.turn_off(CLERK)
    await calls.begin("b")
    again = await switches.turn_on(CLERK, "key_1")
    assert (await switches.evidence(again)).refused == 0
    assert (await switches.evidence(first)).begun == 1, "a call that began all the same would be seen"


async def test_the_evidence_of_an_agent_has_the_calls_of_the_jobs_under_its_jobs(
    driver: Driver, switches: KillSwitches
) -> None:
    await driver.store.submit(TENANT, replace(SPEC, agent="typist", ancestor_agents=["clerk", "clerk"]), Budget())
    calls = await Calls.of_the_next_job(driver, "typist@1")
    await calls.begin("a")
    switch = await switches.turn_on(CLERK, "key_1")
    assert (await switches.evidence(switch)).open == 1
    with pytest.raises(KilledError, match=CLERK):
        await calls.begin("b")


async def test_a_call_that_its_worker_took_along_is_no_longer_open(driver: Driver, switches: KillSwitches) -> None:
    job = await driver.submit()
    claim = await driver.claim_one()
    calls = Calls(driver, claim.job_id, claim.token)
    await calls.begin("a")
    switch = await switches.turn_on("global", "key_1")
    assert (await switches.evidence(switch)).open == 1
    await driver.end(job, attempt_of(claim), "hand_back")
    assert (await switches.evidence(switch)).open == 0
