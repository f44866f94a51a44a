"""Jobs that wait for batches: what their worker does with them, and who lets them go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_core import ModelError
from agent_core.claude import BatchStatus, MessageBatches
from agent_core.ports import Draft, Request
from agent_core.testing import DEFAULT_USAGE, ScriptedModel, says
from jobs import actions, keys
from jobs.batches import BatchWaits
from jobs.queue import queue_names
from jobs.stats import Stats
from jobs.store import JobStore
from tests.worker.conftest import TENANT, Bench
from worker import batches as watching
from worker.batches import BatchWatch
from worker.executor import Attempted, Executor

AGES = [(0.0, 2000), (100.0, 10_000), (86_400.0, 60_000)]
"""Seconds that a batch has existed, and ms until it is looked at again."""


class Batching(ScriptedModel):
    """Puts each call into the batch b1, which has the reply as soon as it has ended."""

    ended = False

    async def complete(self, request: Request, draft: Draft) -> None:
        self.requests.append(request)
        draft.batch_id = "b1"
        if request.batch_id and self.ended:
            draft.started, draft.content, draft.usage = True, [{"type": "text", "text": "done"}], DEFAULT_USAGE
            draft.stop_reason = "end_turn"


class Provider(MessageBatches):
    """Batches of which a test says how they are."""

    def __init__(self) -> None:
        self.found: dict[str, BatchStatus | Exception] = {}
        self.looks: list[str] = []
        self.cancelled: list[str] = []
        self.cancel_fault: ModelError | None = None

    async def status(self, batch_id: str) -> BatchStatus:
        self.looks.append(batch_id)
        found = self.found.get(batch_id, BatchStatus(ended=False, age=0.0))
        if isinstance(found, Exception):
            raise found
        return found

    async def cancel(self, batch_id: str) -> None:
        self.cancelled.append(batch_id)
        if self.cancel_fault:
            raise self.cancel_fault


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def watch(store: JobStore, provider: Provider) -> BatchWatch:
    return BatchWatch(BatchWaits(store.link), store, provider)


def fault(code: str) -> ModelError:
    return ModelError(code, "no", retryable=True)


async def attempt(bench: Bench, batch: ScriptedModel, standard: ScriptedModel | None = None) -> str:
    """Runs the next attempt on a worker with a model for each service; returns the job's id."""
    claim = await bench.claim()
    models: dict[Any, Any] = {"standard": standard, "batch": batch}
    agents = {f"x@{bench.agent.version}": bench.agent}
    executor = Executor(bench.store, bench.files, models, agents.get, Stats(), bench.folder / "work")
    await executor.execute(Attempted(claim))
    return claim.job_id


async def waiting(bench: Bench, model: Batching | None = None) -> str:
    """A job that waits for b1, which is to be looked at now."""
    await bench.submit(service="batch")
    job_id = await attempt(bench, model or Batching([]))
    await due_now(bench)
    return job_id


async def due_now(bench: Bench) -> None:
    await bench.store.link.command("ZADD", keys.BATCHES, "XX", 0, "b1")


async def tickets(bench: Bench) -> int:
    return sum((await bench.store.tickets.depths()).values())


async def redis_ms(bench: Bench) -> int:
    seconds, micros = await bench.store.link.command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def looked_at_in(bench: Bench, ms: float, since: int) -> bool:
    """Whether b1 is to be looked at so many ms after something that happened since a moment."""
    score = float(await bench.store.link.command("ZSCORE", keys.BATCHES, "b1"))
    return since <= score - ms <= await redis_ms(bench)


async def test_the_service_says_which_model_answers(bench: Bench) -> None:
    batch = ScriptedModel([says("in time")])
    standard = ScriptedModel([says("at once")])
    for service, output in (("standard", "at once"), ("batch", "in time")):
        await bench.submit(service=service)
        assert (await bench.job(await attempt(bench, batch, standard))).output == output


async def test_a_job_waits_without_a_worker_and_goes_on_with_the_reply(
    bench: Bench, watch: BatchWatch, provider: Provider
) -> None:
    model = Batching([])
    job_id = await waiting(bench, model)
    job = await bench.job(job_id)
    assert (job.status, job.token, await tickets(bench)) == ("queued", "", 0)
    reserved = job.counters["reserved"]
    assert reserved > 0
    await watch.sweep()
    assert await tickets(bench) == 0

    provider.found["b1"] = BatchStatus(ended=True, age=5.0)
    await due_now(bench)
    await watch.sweep()
    assert await tickets(bench) == 1
    model.ended = True
    assert await attempt(bench, model) == job_id
    job = await bench.job(job_id)
    assert (job.status, job.output, job.lost) == ("completed", "done", 0)
    assert job.counters["reserved"] == 0
    assert 0 < job.counters["cost"] <= reserved
    types = await bench.types(job_id)
    for type_ in ("model.started", "model.submitted", "model.completed"):
        assert types.count(type_) == 1
    assert len({request.call_id for request in model.requests}) == 1


async def test_a_job_that_asks_in_vain_waits_for_longer(bench: Bench, watch: BatchWatch, provider: Provider) -> None:
    model = Batching([])
    job_id = await waiting(bench, model)
    provider.found["b1"] = BatchStatus(ended=True, age=5.0)
    await watch.sweep()
    before = await redis_ms(bench)
    await attempt(bench, model)  # the batch has ended, and its results are not to be had
    assert (await bench.job(job_id)).status == "queued"
    assert await tickets(bench) == 0
    assert await looked_at_in(bench, 60_000, before)
    assert (await bench.types(job_id)).count("model.started") == 1


@pytest.mark.parametrize(("age", "wait"), AGES)
async def test_looks_grow_rarer_with_the_age_of_a_batch(
    bench: Bench, watch: BatchWatch, provider: Provider, age: float, wait: int
) -> None:
    await waiting(bench)
    provider.found["b1"] = BatchStatus(ended=False, age=age)
    before = await redis_ms(bench)
    await watch.sweep()
    assert await looked_at_in(bench, wait, before)


async def test_every_worker_watches_and_one_of_them_looks(bench: Bench, provider: Provider) -> None:
    await waiting(bench)
    watches = [BatchWatch(BatchWaits(bench.store.link), bench.store, provider) for _ in range(5)]
    await asyncio.gather(*(watch.sweep() for watch in watches))
    assert provider.looks == ["b1"]


@pytest.mark.parametrize("code", ["overloaded", "connection", "authentication"])
async def test_a_look_that_fails_is_repeated_and_changes_nothing(
    bench: Bench, watch: BatchWatch, provider: Provider, code: str
) -> None:
    await waiting(bench)
    provider.found["b1"] = fault(code)
    before = await redis_ms(bench)
    await watch.sweep()
    assert await tickets(bench) == 0
    assert await looked_at_in(bench, watching.HOLD_SECONDS * 1000, before)
    assert provider.cancelled == []


async def test_a_batch_that_is_gone_keeps_no_job_waiting(bench: Bench, watch: BatchWatch, provider: Provider) -> None:
    await waiting(bench)
    provider.found["b1"] = fault("not_found")
    await watch.sweep()
    assert await tickets(bench) == 1


@pytest.mark.parametrize("refused", [None, fault("invalid_request")])
async def test_a_batch_that_nobody_waits_for_is_cancelled_once(
    bench: Bench, watch: BatchWatch, provider: Provider, refused: ModelError | None
) -> None:
    provider.cancel_fault = refused
    ids = [await waiting(bench) for _ in range(2)]
    await actions.cancel(bench.store, TENANT, ids[0])
    await watch.sweep()
    assert provider.cancelled == []
    await actions.cancel(bench.store, TENANT, ids[1])
    for _ in range(2):
        await due_now(bench)
        await watch.sweep()
    assert provider.cancelled == ["b1"]


async def test_a_batch_that_does_not_answer_keeps_no_other_waiting(
    bench: Bench, watch: BatchWatch, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Provider):
        async def status(self, batch_id: str) -> BatchStatus:
            if batch_id == "b0":
                await asyncio.Event().wait()
            return await super().status(batch_id)

    monkeypatch.setattr(watching, "LONGEST_LOOK", 0.05)
    hanging = Hanging()
    hanging.found["b1"] = BatchStatus(ended=True, age=1.0)
    await waiting(bench)
    await BatchWaits(bench.store.link).wait("b0", "job_x", 0)
    await BatchWatch(BatchWaits(bench.store.link), bench.store, hanging).sweep()
    assert hanging.looks == ["b1"]
    assert await tickets(bench) == 1


async def test_a_watch_outlives_its_failures(bench: Bench, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SWEEP_SECONDS", 0.01)
    watch = BatchWatch(BatchWaits(bench.store.link), bench.store, provider)
    await waiting(bench)
    provider.found["b1"] = RuntimeError("a bug")
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(10):
        while not await tickets(bench):
            await asyncio.sleep(0.01)
            if provider.looks:
                provider.found["b1"] = BatchStatus(ended=True, age=1.0)
                await due_now(bench)
    running.cancel()
    assert [claim.job_id for claim in await claims(bench)]


async def claims(bench: Bench) -> list[Any]:
    version = f"x@{bench.agent.version}"
    return list(await bench.store.tickets.claim(queue_names(["default"]), [version], most=9, lease=9, worker="w"))
