"""Circuit breakers over several links to a real Redis, each a worker's: they open and close once for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import keys
from jobs.breaker import FleetBreakers, Rules, read
from jobs.link import RedisLink, connect

TARGET = "claude-sonnet-5-5@first"
RULES = Rules(failures=3, window=60, cooldown=30, lease=10)
HOUR_MS = 3_600_000


class Call:
    """A call to the target by a worker: a task that asks, waits to be told how the call ends, and reports that."""

    def __init__(self, breakers: FleetBreakers) -> None:
        self._end: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(breakers))

    async def _run(self, breakers: FleetBreakers) -> None:
        allowed = await breakers.allows(TARGET)
        self._told.set_result(allowed)
        if allowed:
            code = await self._end
            await breakers.report(TARGET, code is None, code or "")

    async def allowed(self) -> bool:
        return await self._told

    async def ends(self, code: str | None = None) -> None:
        self._end.set_result(code)
        await self.task

    async def dies(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class Fleet:
    """Workers with a view and a link each, and the clock of Redis as far as rows go by it."""

    def __init__(self, links: list[RedisLink], rules: Rules) -> None:
        self.links = links
        self.workers = [FleetBreakers(link, rules) for link in links]

    async def call(self, worker: int = 0) -> Call:
        call = Call(self.workers[worker])
        await call.allowed()
        return call

    async def fail(self, worker: int = 0, code: str = "overloaded") -> None:
        await (await self.call(worker)).ends(code)

    async def look(self) -> None:
        """Every worker's duty has run."""
        for worker, link in zip(self.workers, self.links, strict=True):
            await worker.refresh(link)

    async def row(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.links[0].command("HGET", keys.BREAKERS, TARGET))
        return found

    async def pass_time(self, ms: int = HOUR_MS) -> None:
        """Moves all that the row remembers into the past, and lets every worker look."""
        row = await self.row()
        row["until_ms"] -= ms
        row["failed"] = [at - ms for at in row["failed"] or []]
        await self.links[0].command("HSET", keys.BREAKERS, TARGET, json.dumps(row))
        await self.look()

    async def open(self) -> None:
        for number in range(RULES.failures):
            await self.fail(number % len(self.workers))
        await self.look()


@asynccontextmanager
async def fleet_of(url: str, size: int = 3, rules: Rules = RULES) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        links = [RedisLink(connect(url)) for _ in range(size)]
        for link in links:
            stack.push_async_callback(link.aclose)
        await links[0].command("DEL", keys.BREAKERS)
        yield Fleet(links, rules)


@pytest.fixture
async def fleet(redis_url: str) -> AsyncIterator[Fleet]:
    async with fleet_of(redis_url) as fleet:
        yield fleet


async def test_failures_of_the_whole_fleet_open_it_once_for_all(fleet: Fleet) -> None:
    begun = [await fleet.call(number % 3) for number in range(30)]
    for call in begun:
        await call.ends("overloaded")
    await fleet.look()
    assert [await worker.allows(TARGET) for worker in fleet.workers] == [False] * 3
    assert (await fleet.row())["opened"] == 1


async def test_a_success_between_failures_starts_the_count_again(fleet: Fleet) -> None:
    await fleet.fail(0)
    await fleet.fail(1)
    await fleet.look()
    await (await fleet.call(2)).ends()
    await fleet.fail(0)
    await fleet.fail(1)
    assert (await fleet.row())["state"] == "closed"
    await fleet.fail(2)
    assert (await fleet.row())["state"] == "open"


async def test_failures_that_lie_far_apart_do_not_count_together(fleet: Fleet) -> None:
    await fleet.fail()
    await fleet.fail()
    await fleet.pass_time(61_000)
    await fleet.fail()
    await fleet.fail()
    assert (await fleet.row())["state"] == "closed"


@pytest.mark.parametrize("code", ["invalid_request", "authentication", "refused", "context_window"])
async def test_a_refusal_is_an_answer(fleet: Fleet, code: str) -> None:
    for _ in range(5):
        await fleet.fail(code=code)
    assert await fleet.links[0].command("EXISTS", keys.BREAKERS) == 0


async def test_exactly_one_probe_and_its_success_closes(fleet: Fleet) -> None:
    await fleet.open()
    assert not await (await fleet.call()).allowed()
    await fleet.pass_time()
    calls = [Call(worker) for worker in fleet.workers for _ in range(5)]
    allowed = [call for call in calls if await call.allowed()]
    assert len(allowed) == 1
    await allowed[0].ends()
    await fleet.look()
    assert [await (await fleet.call(n)).allowed() for n in range(3)] == [True] * 3
    assert (await fleet.row())["opened"] == 1


async def test_a_failed_probe_keeps_it_open_and_does_not_count_as_opening(fleet: Fleet) -> None:
    await fleet.open()
    for _ in range(3):
        await fleet.pass_time()
        await (await fleet.call(1)).ends("server_error")
        await fleet.look()
        assert not await (await fleet.call(2)).allowed()
    assert (await fleet.row())["opened"] == 1


async def test_a_probe_that_takes_long_keeps_its_lease_and_one_that_died_loses_it(fleet: Fleet) -> None:
    await fleet.open()
    await fleet.pass_time()
    probe = await fleet.call(0)
    assert await probe.allowed()
    until = (await fleet.row())["until_ms"]
    await fleet.pass_time(9_000)  # of its lease of 10 s; the duties look
    assert (await fleet.row())["until_ms"] > until - 9_000
    assert not await (await fleet.call(1)).allowed()
    await probe.dies()
    await fleet.pass_time()
    assert await (await fleet.call(1)).allowed()


async def test_the_probes_own_task_may_try_again(fleet: Fleet) -> None:
    await fleet.open()
    await fleet.pass_time()
    worker = fleet.workers[0]
    assert await worker.allows(TARGET)
    assert await worker.allows(TARGET)
    await worker.report(TARGET, ok=True)
    assert (await fleet.row())["state"] == "closed"


async def test_late_news_of_calls_begun_before_it_opened_change_nothing(fleet: Fleet) -> None:
    late = [await fleet.call(0), await fleet.call(1)]
    await fleet.open()
    before = await fleet.row()
    await late[0].ends()
    await late[1].ends("connection")
    assert await fleet.row() == before


async def test_a_target_that_answers_costs_no_round_trip(fleet: Fleet) -> None:
    asked = await fleet.links[0].command("INFO", "commandstats")
    for _ in range(50):
        await (await fleet.call()).ends()
    assert evals(await fleet.links[0].command("INFO", "commandstats")) == evals(asked)


def evals(info: bytes | dict[str, Any]) -> object:
    if isinstance(info, dict):
        return info.get("cmdstat_evalsha")
    return [line.split(b",")[0] for line in info.splitlines() if line.startswith(b"cmdstat_evalsha")]


async def test_without_redis_the_view_decides(fleet: Fleet) -> None:
    await fleet.fail()
    await fleet.links[0].aclose()
    await fleet.fail(0)
    assert await fleet.workers[0].allows(TARGET)


async def test_the_fleets_view(fleet: Fleet) -> None:
    await fleet.open()
    ((target, seen),) = (await read(fleet.links[0])).items()
    assert (target, seen.open, seen.opened) == (TARGET, True, 1)


async def test_transitions_are_logged(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="jobs.breaker"):
        await fleet.open()
        await fleet.pass_time()
        await (await fleet.call(1)).ends("timeout")
        await fleet.pass_time()
        await (await fleet.call(1)).ends()
    verbs = ["opened", "lets a probe", "stays open", "lets a probe", "closed"]
    assert len(caplog.messages) == len(verbs)
    assert all(verb in message for verb, message in zip(verbs, caplog.messages, strict=True))


# ---- whatever happens in whatever order

Step = tuple[str, int]
names = ["call", "call", "call", "ok", "fail", "fail", "refuse", "die", "look", "time"]
steps = st.lists(st.tuples(st.sampled_from(names), st.integers(0, 2)), min_size=5, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), steps)
def test_any_interleaving_has_one_probe_and_counts_openings(redis_url: str, was_open: bool, steps: list[Step]) -> None:
    asyncio.run(_interleave(redis_url, was_open, steps))


async def _interleave(url: str, was_open: bool, steps: list[Step]) -> None:
    async with fleet_of(url) as fleet:
        life = Life(fleet)
        if was_open:
            await fleet.open()
            await fleet.pass_time()
            life.failures = RULES.failures
        for name, number in steps:
            await getattr(life, name)(number)
            assert len([probe for probe in life.probes if probe in life.going]) <= 1
        opened = (await fleet.row())["opened"] if await life.used() else 0
        assert opened * RULES.failures <= life.failures
        for call in life.going:
            await call.dies()


class Life:
    """What may happen to a fleet; `number` says to which worker, or to which of the calls that go on."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.going: list[Call] = []
        self.probes: list[Call] = []
        self.failures = 0

    async def used(self) -> bool:
        return bool(await self.fleet.links[0].command("EXISTS", keys.BREAKERS))

    async def call(self, number: int) -> None:
        seen = self.fleet.workers[number]._view.get(TARGET)
        call = await self.fleet.call(number)
        if await call.allowed():
            self.going.append(call)
            if seen is not None and seen.open and (await self.fleet.row())["state"] == "open":
                self.probes.append(call)

    async def ok(self, number: int) -> None:
        await self._end(number, None)

    async def refuse(self, number: int) -> None:
        await self._end(number, "invalid_request")

    async def fail(self, number: int) -> None:
        if self.going:
            self.failures += 1
        await self._end(number, "overloaded")

    async def die(self, number: int) -> None:
        if self.going:
            await self.going.pop(number % len(self.going)).dies()

    async def look(self, _: int) -> None:
        await self.fleet.look()

    async def time(self, _: int) -> None:
        if await self.used():
            await self.fleet.pass_time()

    async def _end(self, number: int, code: str | None) -> None:
        if self.going:
            await self.going.pop(number % len(self.going)).ends(code)
