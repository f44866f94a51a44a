"""What ended jobs leave for estimates of the next ones."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from agent_core import Budget
from agent_core.errors import ModelError
from agent_core.pricing import PUBLISHED
from agent_core.testing import calls, says
from agent_core.types import micros
from jobs.agents import AgentCatalogue
from jobs.estimate import Estimator, Sample, recall
from jobs.records import JobSpec
from tests.worker.conftest import TENANT, Bench
from worker.loader import published

LOOKUP = calls(("lookup", {"order_id": "A1"}))
REFUSED = ModelError("invalid_request", "the model answered 400: no", retryable=False)


async def samples(bench: Bench) -> list[Sample]:
    return await recall(bench.store.link, TENANT, JobSpec(agent="x", agent_version=bench.agent.version, input="go"))


@pytest.mark.parametrize(
    ("script", "budget", "reason"),
    [
        ([LOOKUP, says("fine")], Budget(), "end_turn"),
        ([LOOKUP], Budget(steps=1), "max_steps"),
        ([LOOKUP, says("no", "refusal")], Budget(), "refusal"),
    ],
)
async def test_an_ended_job_leaves_what_its_ledger_sums_up_to(bench: Bench, script: Any, budget: Budget, reason: str):
    await bench.submit(budget=budget, input="twelve bytes")
    job = await bench.run(script)
    assert job.counters["cost"] > 0
    assert await samples(bench) == [Sample(12, job.counters["cost"], reason)]


@pytest.mark.parametrize("script", [[LOOKUP, REFUSED], [calls(("erase", {}))]])
async def test_a_job_that_failed_by_a_fault_or_waits_leaves_nothing(bench: Bench, script: Any):
    await bench.submit()
    job = await bench.run(script)
    assert job.counters["cost"] > 0
    assert await samples(bench) == []


async def test_p90_of_two_hundred_jobs_covers_nine_in_ten(bench: Bench):
    """Each is estimated before it is submitted; what it comes to depends on its input, and on chance."""
    rng, catalogue = random.Random(7), AgentCatalogue(bench.store.link)
    await catalogue.publish([published(bench.agent)])
    estimator = Estimator(bench.store.link, catalogue, bench.files, PUBLISHED)
    covered: list[bool] = []
    for number in range(200):
        text = "x" * int(1500 * 10 ** rng.random())
        spec = JobSpec(agent="x", agent_version=bench.agent.version, input=text)
        estimate = (await estimator.estimate(TENANT, spec, Budget())).to_json()
        await bench.submit(input=text)
        usage = {"input_tokens": len(text) // 4, "output_tokens": int(len(text) / 10 * rng.lognormvariate(0, 0.5))}
        job = await bench.run([says("fine", usage=usage)])
        if estimate["based_on"]["method"] == "like_jobs":
            covered.append(job.counters["cost"] <= micros(estimate["p90_usd"]) <= micros(estimate["worst_case_usd"]))
        else:
            assert number < 40
    assert 0.85 <= statistics.fmean(covered) <= 0.95
