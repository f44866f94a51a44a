"""What a job would cost: the percentiles hold what they say, the worst case is one, and the samples stay in bounds."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.pricing import PUBLISHED, Prices
from agent_core.types import Budget, micros
from jobs import keys
from jobs.agents import AgentCatalogue, Published
from jobs.budgets import Budgets, ScopeBudget
from jobs.errors import InvalidError
from jobs.estimate import (
    KEPT_SECONDS,
    LEAST_JOBS,
    LIKE,
    MOST_SAMPLES,
    SMALL,
    Estimator,
    Sample,
    like,
    recall,
    remember,
    spread_of,
)
from jobs.files import FileStore
from jobs.link import RedisLink
from jobs.records import Job, JobSpec
from jobs.store import JobStore

MODEL = "claude-sonnet-5-5"
DEFINITION = {"name": "a", "pool": "default", "budget": Budget().to_json(), "model": MODEL, "tools": []}
A = JobSpec(agent="a", agent_version="v1", input="go")


# ---- the percentiles

Draw = Callable[[random.Random], Sample]


def job_of(size: float, cost: float) -> Sample:
    return Sample(int(size), int(cost), "end_turn")


def short(rng: random.Random) -> Sample:
    """Inputs of a sentence; the cost has nothing to do with them."""
    return job_of(rng.randint(5, 800), 20_000 * rng.lognormvariate(0, 0.4))


def growing(rng: random.Random) -> Sample:
    """The cost is a share of the size, over three orders of magnitude, and hardly varies."""
    size = 3000 * 10 ** (3 * rng.random())
    return job_of(size, 0.3 * size * rng.lognormvariate(0, 0.1))


def flat(rng: random.Random) -> Sample:
    """Sizes differ, and cost all the same; a few jobs cost many times as much as most."""
    return job_of(3000 * 10 ** (2 * rng.random()), 20_000 * rng.lognormvariate(0, 1))


def based(rng: random.Random) -> Sample:
    """A sum that each job costs, and a share of the size."""
    size = 3000 * 10 ** (3 * rng.random())
    return job_of(size, (20_000 + 0.3 * size) * rng.lognormvariate(0, 0.4))


def of_two_kinds(rng: random.Random) -> Sample:
    """Jobs that give up soon, and jobs that go the whole way."""
    size = 3000 * 10 ** (2 * rng.random())
    return job_of(size, size * (0.3 if rng.random() < 0.6 else 2) * rng.lognormvariate(0, 0.4))


def coverage(draw: Draw, seed: int, jobs: int = 200) -> tuple[float, float]:
    """The shares of jobs that cost no more than p50 and p90, each estimated from the jobs before it."""
    rng, within = random.Random(seed), []
    known: list[Sample] = []
    for _ in range(jobs):
        job = draw(rng)
        if spread := spread_of(like(known, job.input_bytes), job.input_bytes):
            within.append((job.cost <= spread.p50, job.cost <= spread.p90))
        known.append(job)
    assert len(within) > jobs / 2
    return statistics.fmean(half for half, _ in within), statistics.fmean(most for _, most in within)


@pytest.mark.parametrize("draw", [short, growing, flat, based, of_two_kinds])
def test_p90_covers_nine_jobs_in_ten(draw: Draw):
    covered = [coverage(draw, seed) for seed in range(8)]
    assert 0.45 <= statistics.fmean(p50 for p50, _ in covered) <= 0.58
    assert all(0.85 <= p90 <= 0.95 for _, p90 in covered), covered


def test_p90_of_a_few_jobs_covers_nine_in_ten_as_well():
    """On average over histories: one history of so few may be far off."""
    covered = []
    for seed in range(400):
        rng = random.Random(seed)
        spread = spread_of([short(rng) for _ in range(LEAST_JOBS)], 100)
        assert spread is not None
        covered.append(statistics.fmean(short(rng).cost <= spread.p90 for _ in range(50)))
    assert 0.88 <= statistics.fmean(covered) <= 0.94


def test_an_estimate_follows_the_size():
    rng = random.Random(1)
    known = [growing(rng) for _ in range(200)]
    for size in (10_000, 100_000, 1_000_000):
        spread = spread_of(like(known, size), size)
        assert spread is not None
        assert spread.p50 == pytest.approx(0.3 * size, rel=0.08)
        assert spread.p90 == pytest.approx(0.3 * size * math.exp(1.28 * 0.1), rel=0.1)


def test_beyond_the_known_sizes_nothing_is_made_up():
    known = [job_of(10_000 + n, 1000 * 2**n) for n in range(12)]
    largest, beyond = (spread_of(like(known, size), size) for size in (10_011, 39_000))
    assert largest is not None
    assert largest == beyond


def test_too_few_like_jobs_say_nothing():
    known = [job_of(5000, 100)] * (LEAST_JOBS - 1)
    assert spread_of(known, 5000) is None
    assert spread_of([*known, known[0]], 5000) is not None


@pytest.mark.parametrize(
    ("size", "alike"), [(5000, True), (5000 * LIKE, True), (5000 * LIKE + 99, False), (1250, True), (1200, False)]
)
def test_like_is_a_matter_of_size(size: int, alike: bool):
    assert bool(like([job_of(size, 1)], 5000)) is alike


def test_small_inputs_are_all_alike():
    assert len(like([job_of(0, 1), job_of(SMALL, 1)], 3)) == 2


def test_jobs_that_a_limit_stopped_are_told_of():
    known = [job_of(1, 100)] * 10 + [Sample(1, 90, reason) for reason in ("budget_exceeded", "max_steps", "refusal")]
    spread = spread_of(known, 1)
    assert spread is not None
    assert (spread.jobs, spread.stopped_by_limit) == (13, 2)


SAMPLES = st.builds(Sample, st.integers(0, 10**9), st.integers(0, 10**10), st.just("end_turn"))


@given(st.lists(SAMPLES, max_size=60), st.integers(0, 10**9))
def test_percentiles_are_in_order_and_of_like_jobs(samples: list[Sample], size: int):
    alike = like(samples, size)
    spread = spread_of(alike, size)
    assert (spread is None) == (len(alike) < LEAST_JOBS)
    if spread is not None:
        assert 0 < spread.p50 <= spread.p90
        assert spread.input_bytes == (min(s.input_bytes for s in alike), max(s.input_bytes for s in alike))


@given(st.lists(st.integers(1, 10**10), min_size=LEAST_JOBS, max_size=60), st.integers(0, 10**9))
def test_of_one_size_they_are_costs_that_jobs_have_had(costs: list[int], size: int):
    spread = spread_of([Sample(size, cost, "end_turn") for cost in costs], size)
    assert spread is not None
    for percentile, share in ((spread.p50, 0.5), (spread.p90, 0.9)):
        assert any(percentile == pytest.approx(cost, abs=0.5, rel=1e-9) for cost in costs)
        assert sum(cost <= percentile + 1 for cost in costs) >= share * len(costs)


# ---- samples


@pytest.fixture
def files(link: RedisLink, tmp_path: Any) -> FileStore:
    return FileStore(link, f"file://{tmp_path}")


async def ended(store: JobStore, place: FileStore, cost: int, stop_reason: str = "end_turn", **spec: Any) -> Job:
    """A job of version v1 that has just ended with a cost."""
    fields = {"agent": "a", "agent_version": "v1", "input": "go", **spec}
    job = (await store.submit("t", JobSpec(**fields), Budget())).job
    await store.link.command("HSET", keys.job(job.id), "spent", cost)
    await remember(store.link, place, job, stop_reason)
    return job


async def test_a_job_is_remembered_by_what_it_was_given_and_came_to(store: JobStore, files: FileStore):
    upload = await files.save("t", "a.csv", b"x" * 5000)
    await ended(store, files, 700, input={"q": "ä"}, files=[upload.id])
    await ended(store, files, 800, "max_steps")
    found = await recall(store.link, "t", A)
    assert found == [Sample(2, 800, "max_steps"), Sample(5000 + len('{"q": "ä"}') + 1, 700, "end_turn")]
    assert await recall(store.link, "other", A) == []
    assert await recall(store.link, "t", replace(A, agent_version="v2")) == []
    assert await recall(store.link, "t", replace(A, service="batch")) == []


@pytest.mark.parametrize(
    ("cost", "stop_reason", "spec"),
    [(700, "error", {}), (0, "budget_exceeded", {}), (700, "end_turn", {"forked_from": {"job_id": "j", "step": 1}})],
)
async def test_what_says_nothing_of_its_like_is_not_remembered(store, files, cost, stop_reason, spec):
    await ended(store, files, cost, stop_reason, **spec)
    assert await recall(store.link, "t", A) == []


async def test_a_job_that_costs_nothing_is_remembered(store: JobStore, files: FileStore):
    await ended(store, files, 0)
    assert await recall(store.link, "t", A) == [Sample(2, 0, "end_turn")]


async def test_the_newest_are_kept_until_nobody_adds_to_them(store: JobStore, files: FileStore):
    key = keys.samples("t", "a", "v1", "standard")
    await store.link.command("RPUSH", key, *(json.dumps([1, n, "end_turn"]) for n in range(MOST_SAMPLES)))
    await ended(store, files, 700)
    found = await recall(store.link, "t", A)
    assert (len(found), found[0].cost, found[-1].cost) == (MOST_SAMPLES, 700, MOST_SAMPLES - 2)
    assert KEPT_SECONDS - 5 <= await store.link.command("TTL", key) <= KEPT_SECONDS


# ---- the estimate


class Desk:
    """An estimator, and what it looks at."""

    def __init__(self, store: JobStore, files: FileStore) -> None:
        self.store = store
        self.link = store.link
        self.catalogue = AgentCatalogue(self.link)
        self.budgets = Budgets(store)
        self.estimator = Estimator(self.link, self.catalogue, files, PUBLISHED)

    async def publish(self, version: str, **fields: Any) -> None:
        await self.catalogue.publish([Published("a", version, {**DEFINITION, **fields})])

    async def know(self, version: str, *costs: int, size: int = 2, service: str = "standard") -> None:
        """Makes jobs of a version known."""
        texts = [json.dumps(Sample(size, cost, "end_turn")) for cost in costs]
        await self.link.command("LPUSH", keys.samples("t", "a", version, service), *texts)

    async def limit(self, scope: str, usd: str | None, period: Any = "total", **fields: Any) -> None:
        amount = None if usd is None else micros(usd)
        await self.budgets.put("t", ScopeBudget(scope, period, amount, **{"tokens": None, **fields}))

    async def estimate(self, version: str = "v1", budget: Budget | None = None, **spec: Any) -> dict[str, Any]:
        fields = {"agent": "a", "agent_version": version, "input": "go", **spec}
        return (await self.estimator.estimate("t", JobSpec(**fields), budget or Budget())).to_json()


@pytest.fixture
async def desk(store: JobStore, files: FileStore) -> Desk:
    desk = Desk(store, files)
    await desk.publish("v1")
    return desk


async def test_without_like_jobs_there_is_the_worst_case_alone(desk: Desk):
    await desk.know("v1", *[500] * (LEAST_JOBS - 1))
    await desk.know("v1", *[500] * 20, size=10_000)
    found = await desk.estimate()
    assert (found["worst_case_usd"], found["p50_usd"], found["p90_usd"]) == ("1", None, None)
    assert found["based_on"] == {
        "method": "limits",
        "jobs": 9,
        "agent_version": "v1",
        "input_bytes": None,
        "stopped_by_limit": None,
        "budget": "job",
        "detail": "the budget job stops it at 1 USD; 9 jobs like it are known, and it takes 10 to say what is likely",
    }


async def test_like_jobs_say_what_is_likely(desk: Desk):
    await desk.know("v1", *range(1000, 20_000, 1000))
    found = await desk.estimate()
    assert (found["p50_usd"], found["p90_usd"]) == ("0.01", "0.018")
    assert found["input_bytes"] == 2
    based_on = found["based_on"]
    assert (based_on["method"], based_on["jobs"], based_on["agent_version"]) == ("like_jobs", 19, "v1")
    assert list(based_on["input_bytes"]) == [2, 2]
    assert "19 jobs with 2 to 2 bytes of input" in based_on["detail"]


async def test_a_batch_is_like_batches(desk: Desk):
    await desk.know("v1", *[1000] * 20)
    await desk.know("v1", *[500] * 20, service="batch")
    assert [(await desk.estimate(service=s))["p90_usd"] for s in ("standard", "batch")] == ["0.001", "0.0005"]


async def test_the_likely_cost_is_within_the_worst(desk: Desk):
    await desk.know("v1", *range(1000, 20_000, 1000))
    found = await desk.estimate(budget=Budget(usd="0.0125"))
    assert (found["p50_usd"], found["p90_usd"], found["worst_case_usd"]) == ("0.01", "0.0125", "0.0125")


async def test_another_version_stands_in_and_is_named(desk: Desk):
    for number, version in enumerate(("v0", "v2", "v3")):
        await desk.publish(version)
        await desk.link.command("ZADD", keys.agent_versions("a"), number, version)
    await desk.know("v0", *[111] * 20)
    await desk.know("v2", *[222] * 20)
    await desk.know("v3", *[333] * 3)
    await desk.know("v1", *[444] * 9)
    found = await desk.estimate()
    assert (found["p90_usd"], found["agent_version"], found["based_on"]["agent_version"]) == ("0.000222", "v1", "v2")
    assert "they are of version v2, for too few of v1 are known" in found["based_on"]["detail"]
    await desk.know("v1", 444)
    assert (await desk.estimate())["based_on"]["agent_version"] == "v1"


async def test_the_tightest_limit_is_the_worst_case(desk: Desk):
    spec: dict[str, Any] = {"user": "u1", "session_id": "s1"}
    assert (await desk.estimate(**spec))["worst_case_usd"] == "1"
    for scope, usd in (
        ("tenant", "0.9"),
        ("agent:a", "0.8"),
        ("user:*", "0.7"),
        ("session:*", "0.6"),
        ("job:*", "0.5"),
    ):
        await desk.limit(scope, usd)
        found = await desk.estimate(**spec)
        assert (found["worst_case_usd"], found["based_on"]["budget"]) == (usd, scope)
    found = await desk.estimate(budget=Budget(usd="0.4"), **spec)
    assert (found["worst_case_usd"], found["based_on"]["budget"]) == ("0.4", "job")


async def test_a_budget_of_its_own_stands_in_for_the_default(desk: Desk):
    await desk.limit("user:*", "0.1")
    await desk.limit("user:u1", "0.5")
    assert (await desk.estimate(user="u1"))["worst_case_usd"] == "0.5"
    assert (await desk.estimate(user="u2"))["worst_case_usd"] == "0.1"
    assert (await desk.estimate())["worst_case_usd"] == "1"


async def test_what_a_scope_has_spent_is_gone_and_what_it_has_reserved_is_not(desk: Desk):
    await desk.limit("user:*", "0.5")
    meter = keys.meter("t", "user:u1", "total")
    await desk.link.command("HSET", meter, "settled", 200_000, "reserved", 100_000)
    assert (await desk.estimate(user="u1"))["worst_case_usd"] == "0.3"
    await desk.link.command("HSET", meter, "settled", 600_000)
    assert (await desk.estimate(user="u1"))["worst_case_usd"] == "0"


async def test_what_does_not_stop_a_job_is_no_worst_case(desk: Desk):
    await desk.limit("tenant", "0.1", "day")
    await desk.limit("agent:a", "0.1", at_limit="warn")
    await desk.limit("job:*", None, tokens=5)
    found = await desk.estimate(budget=Budget(usd=None))
    assert (found["worst_case_usd"], found["based_on"]["budget"]) == (None, None)
    assert found["based_on"]["detail"].startswith("no budget stops it")
    assert (await desk.estimate(budget=Budget(at_limit="warn")))["worst_case_usd"] is None


@given(
    plain=st.integers(0, 100_000), read=st.integers(0, 100_000), hour=st.integers(0, 100_000), out=st.integers(0, 9999)
)
def test_tokens_bound_the_cost_of_every_call_within_them(plain: int, read: int, hour: int, out: int):
    tokens = plain + read + hour + out
    usage = {
        "input_tokens": plain,
        "output_tokens": out,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": hour,
        "cache_creation": {"ephemeral_1h_input_tokens": hour},
        "inference_geo": "us",
    }
    prices = Prices.from_json('{"own": {"input": 1, "output": 1, "cache_write_1h": 9}}')
    estimator = Estimator(None, None, None, prices)  # type: ignore[arg-type]
    listed: list[dict[str, Any]] = [{"model": MODEL, "models": {"planner": "claude-haiku-4-5"}}, {"model": "own"}]
    for models in listed:
        agent = Published("a", "v1", {**DEFINITION, **models})
        [bound] = estimator._own_bounds(agent, Budget(usd=None, tokens=max(1, tokens)))
        used = [models["model"], *models.get("models", {}).values()]
        assert max(prices.price(model, usage) for model in used) <= bound.micros


async def test_the_tokens_of_a_job_bound_it_where_its_dollars_do_not(desk: Desk):
    found = await desk.estimate(budget=Budget(usd=None, tokens=1000))
    assert found["based_on"]["budget"] == "job"
    assert 0 < micros(found["worst_case_usd"]) < 100_000
    assert (await desk.estimate(budget=Budget(usd="0.001", tokens=1000)))["worst_case_usd"] == "0.001"


async def test_tokens_do_not_bound_what_tools_cost_by_themselves(desk: Desk):
    await desk.publish("v1", tools=[{"name": "free"}, {"name": "search", "price_usd": "0.01"}])
    assert (await desk.estimate(budget=Budget(usd=None, tokens=1000)))["worst_case_usd"] is None
    assert (await desk.estimate(budget=Budget(usd="0.5", tokens=1000)))["worst_case_usd"] == "0.5"


@pytest.mark.parametrize("fields", [{"model": "nobodys-model"}, {"models": {"planner": "nobodys-model"}}])
async def test_an_unknown_price_is_refused(desk: Desk, fields: dict[str, Any]):
    await desk.publish("v1", **fields)
    with pytest.raises(
        InvalidError, match=r"no price is known for model 'nobodys-model'.*NIGHTSHIFT_PRICES"
    ) as refused:
        await desk.estimate()
    assert refused.value.code == "unknown_price"
