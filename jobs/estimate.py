"""What a job would cost: likely, by what like jobs came to, and at most, by its limits."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent_core.errors import UnknownPriceError
from agent_core.pricing import Prices
from agent_core.types import Budget, Json, usd
from jobs import keys
from jobs.agents import AgentCatalogue, Published
from jobs.budgets import field_of
from jobs.errors import InvalidError
from jobs.files import FileStore
from jobs.link import RedisLink
from jobs.records import Job, JobSpec

MOST_SAMPLES = 500
KEPT_SECONDS = 90 * 86_400
LEAST_JOBS = 10
"""Fewer like jobs say nothing of what is likely. Below nine, the rank of the 90th percentile is beyond the dearest."""
LIKE = 4
"""Inputs are alike when neither is more than so many times as long as the other."""
SMALL = 1024
"""Bytes; shorter inputs are all alike, for what the agent is told weighs more."""
OTHER_VERSIONS = 5
LIMITS = frozenset({"budget_exceeded", "max_steps", "timeout"})
DEAREST: Json = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
"""Terms under which a token costs the most."""


class Sample(NamedTuple):
    """What a job came to: `cost` in micro-dollars, with that of its child jobs."""

    input_bytes: int
    cost: int
    stop_reason: str


class Bound(NamedTuple):
    """What a job cannot cost more than, in micro-dollars, and the budget that sees to it: `job` is the job's own."""

    micros: int
    budget: str


@dataclass(frozen=True, slots=True)
class Spread:
    """What like jobs came to, in micro-dollars, and from how many bytes to how many their inputs were."""

    p50: int
    p90: int
    jobs: int
    input_bytes: tuple[int, int]
    stopped_by_limit: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would cost. `alike` is how many like jobs are known of `version`, of whose costs `spread` tells."""

    agent: Published
    input_bytes: int
    bound: Bound | None
    version: str
    alike: int
    spread: Spread | None

    def to_json(self) -> Json:
        """The estimate as the API shows it."""
        spread, bound = self.spread, self.bound
        return {
            "agent": self.agent.name,
            "agent_version": self.agent.version,
            "input_bytes": self.input_bytes,
            "worst_case_usd": usd(bound.micros) if bound else None,
            "p50_usd": self._bounded(spread.p50) if spread else None,
            "p90_usd": self._bounded(spread.p90) if spread else None,
            "based_on": {
                "method": "like_jobs" if spread else "limits",
                "jobs": self.alike,
                "agent_version": self.version,
                "input_bytes": spread.input_bytes if spread else None,
                "stopped_by_limit": spread.stopped_by_limit if spread else None,
                "budget": bound.budget if bound else None,
                "detail": f"{self._of_the_worst()}; {self._of_the_likely()}",
            },
        }

    def _bounded(self, micros: int) -> str:
        return usd(min(micros, self.bound.micros) if self.bound else micros)

    def _of_the_worst(self) -> str:
        if self.bound is None:
            return "no budget stops it at an amount, and a limit of steps or seconds bounds no cost"
        return f"the budget {self.bound.budget} stops it at {usd(self.bound.micros)} USD"

    def _of_the_likely(self) -> str:
        if self.spread is None:
            return f"{self.alike} jobs like it are known, and it takes {LEAST_JOBS} to say what is likely"
        low, high = self.spread.input_bytes
        told = f"{self.alike} jobs with {low:,} to {high:,} bytes of input say what is likely"
        if self.version != self.agent.version:
            told += f"; they are of version {self.version}, for too few of {self.agent.version} are known"
        if self.spread.stopped_by_limit:
            told += f"; a limit stopped {self.spread.stopped_by_limit} of them, and without it they had cost more"
        return told


class Estimator:
    """Says what a submission would cost. It writes nothing."""

    def __init__(self, link: RedisLink, agents: AgentCatalogue, files: FileStore, prices: Prices) -> None:
        self._link = link
        self._agents = agents
        self._files = files
        self._prices = prices

    async def estimate(self, tenant: str, spec: JobSpec, budget: Budget) -> Estimate:
        """The estimate of a submission that was checked.

        Raises InvalidError when the price of a model is unknown, NotFoundError when a file is gone.
        """
        agent, size, outer = await asyncio.gather(
            self._agents.get(spec.agent, spec.agent_version),
            input_bytes(self._files, tenant, spec),
            self._outer_bounds(tenant, spec),
        )
        bound = min([*self._own_bounds(agent, budget), *outer], default=None)
        version, alike = await self._alike(tenant, spec, size)
        return Estimate(agent, size, bound, version, len(alike), spread_of(alike, size))

    async def _alike(self, tenant: str, spec: JobSpec, size: int) -> tuple[str, list[Sample]]:
        """The like jobs of the agent's version; where they are too few, those of the newest other that has enough."""
        own = like(await recall(self._link, tenant, spec), size)
        if len(own) < LEAST_JOBS:
            versions = [v for v in reversed(await self._agents.versions(spec.agent)) if v != spec.agent_version]
            others = [replace(spec, agent_version=version) for version in versions[:OTHER_VERSIONS]]
            known = await asyncio.gather(*(recall(self._link, tenant, other) for other in others))
            for other, samples in zip(others, known, strict=True):
                if len(alike := like(samples, size)) >= LEAST_JOBS:
                    return other.agent_version, alike
        return spec.agent_version, own

    def _own_bounds(self, agent: Published, budget: Budget) -> list[Bound]:
        """What the job's own limits let it cost. Steps bound nothing: a call that breaks off is made and paid again."""
        models = [agent.definition["model"], *agent.definition.get("models", {}).values()]
        tokens = budget.tokens or 0
        try:
            micros = max(self._prices.worst_case(model, tokens, tokens, DEAREST) for model in models)
        except UnknownPriceError as exc:
            raise InvalidError(str(exc), code="unknown_price") from None
        if budget.at_limit == "warn":
            return []
        fees = any(tool.get("price_usd") for tool in agent.definition["tools"])  # which no limit of tokens holds
        limits = [budget.micros, None if budget.tokens is None or fees else micros]
        return [Bound(limit, "job") for limit in limits if limit is not None]

    async def _outer_bounds(self, tenant: str, spec: JobSpec) -> list[Bound]:
        """What the budgets around the job leave it, but for those of a day or a month: the job may outlast these."""
        scopes = [("tenant", "tenant"), (f"agent:{spec.agent}", "agent:*")]
        scopes += [(f"user:{spec.user}", "user:*")] if spec.user else []
        scopes += [(f"session:{spec.session_id}", "session:*")] if spec.session_id else []
        names = [name for scope in scopes for name in scope]
        fields = [field_of(name, "total") for name in ("job:*", *names)]
        (each_job, *budgets), *settled = await asyncio.gather(
            self._link.command("HMGET", keys.budgets(tenant), *fields),
            *(self._link.command("HGET", keys.meter(tenant, scope, "total"), "settled") for scope, _ in scopes),
        )
        bounds = [_bound("job:*", each_job, 0)]
        for (scope, default), own, others, spent in zip(scopes, budgets[::2], budgets[1::2], settled, strict=True):
            bounds.append(_bound(scope if own else default, own or others, int(spent or 0)))
        return [bound for bound in bounds if bound is not None]


def _bound(name: str, text: bytes | None, spent: int) -> Bound | None:
    """What a budget leaves of what it allows. What is reserved may come free again, and so counts as left."""
    budget = json.loads(text) if text else {"micros": None}
    if budget["micros"] is None or budget["at_limit"] == "warn":
        return None
    return Bound(max(0, budget["micros"] - spent), name)


async def input_bytes(files: FileStore, tenant: str, spec: JobSpec) -> int:
    """How many bytes a job is given: its input and its files. Raises NotFoundError when a file is gone."""
    text = spec.input if isinstance(spec.input, str) else json.dumps(spec.input, ensure_ascii=False)
    records = await asyncio.gather(*(files.get(tenant, file_id) for file_id in spec.files))
    return len(text.encode("utf-8", "surrogatepass")) + sum(record.bytes for record in records)


# ---- samples


async def remember(link: RedisLink, files: FileStore, job: Job, stop_reason: str) -> None:
    """Keeps what a job came to that has just ended, unless that says nothing of its like.

    So it is with one that failed by a fault of the model or the platform, with one that a limit stopped before its
    first call, and with a fork, which has not paid for what it began with.
    """
    if stop_reason == "error" or job.spec.forked_from is not None:
        return
    size, spent = await asyncio.gather(
        input_bytes(files, job.tenant, job.spec), link.command("HGET", keys.job(job.id), "spent")
    )
    if stop_reason in LIMITS and not int(spent or 0):
        return
    key = _key(job.tenant, job.spec)
    sample = Sample(size, int(spent or 0), stop_reason)
    await asyncio.gather(
        link.command("LPUSH", key, json.dumps(sample, separators=(",", ":"))),
        link.command("LTRIM", key, 0, MOST_SAMPLES - 1),
        link.command("EXPIRE", key, KEPT_SECONDS),
    )


async def recall(link: RedisLink, tenant: str, spec: JobSpec) -> list[Sample]:
    """What the newest jobs of an agent's version came to, with the same service."""
    texts = await link.command("LRANGE", _key(tenant, spec), 0, -1)
    return [Sample(*json.loads(text)) for text in texts]


def like(samples: Sequence[Sample], size: int) -> list[Sample]:
    """Those whose input is like one of so many bytes."""
    least, most = max(size, SMALL) / LIKE, max(size, SMALL) * LIKE
    return [sample for sample in samples if least <= max(sample.input_bytes, SMALL) <= most]


def spread_of(alike: Sequence[Sample], size: int) -> Spread | None:
    """What a job with an input of `size` bytes would likely cost, or None when too few jobs like it are known.

    A line through the logarithms of size and cost takes out how cost grows with size; of what remains, the percentiles
    are the ranks ceil((n + 1) * q) of split conformal prediction, so that each holds for its share of new jobs whatever
    their distribution (Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-Free Predictive Inference for
    Regression", 2018). The line is not drawn beyond the sizes that are known.
    """
    if len(alike) < LEAST_JOBS:
        return None
    sizes = [_scale(sample.input_bytes) for sample in alike]
    costs = [math.log(max(1, sample.cost)) for sample in alike]
    slope = statistics.linear_regression(sizes, costs).slope if max(sizes) > min(sizes) else 0.0
    here = min(max(_scale(size), min(sizes)), max(sizes))
    moved = sorted(cost + slope * (here - there) for there, cost in zip(sizes, costs, strict=True))
    p50, p90 = (round(math.exp(moved[-(-(len(moved) + 1) * tenths // 10) - 1])) for tenths in (5, 9))
    given = [sample.input_bytes for sample in alike]
    stopped = sum(sample.stop_reason in LIMITS for sample in alike)
    return Spread(p50, p90, len(alike), (min(given), max(given)), stopped)


def _key(tenant: str, spec: JobSpec) -> str:
    return keys.samples(tenant, spec.agent, spec.agent_version, spec.service)


def _scale(size: int) -> float:
    return math.log(max(size, SMALL))
