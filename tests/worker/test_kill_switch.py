"""What a worker does when a kill switch covers what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from agent_core.ports import Draft, Request
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Budget
from jobs import keys
from jobs.errors import UnavailableError
from jobs.kill_switch import KillSwitches
from jobs.queue import Claim
from jobs.records import JobSpec
from tests.worker.conftest import TENANT, WORKER, Bench
from worker.executor import Attempted
from worker.kill_switch import obey_kill_switches


@pytest.fixture
def switches(bench: Bench) -> KillSwitches:
    return KillSwitches(bench.store.link)


async def claimed(bench: Bench, spec: JobSpec) -> Attempted:
    """An attempt of a job, as another agent's worker would have it."""
    await bench.store.submit(TENANT, spec, Budget())
    version = f"{spec.agent}@{spec.agent_version}"
    (claim,) = await bench.store.tickets.claim(["default.default"], [version], most=1, lease=60, worker=WORKER)
    return Attempted(claim)


class Stopped:
    """The jobs that a duty was told to stop, each once."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.heard = asyncio.Event()

    def __call__(self, attempted: Attempted) -> None:
        self.ids.add(attempted.claim.job_id)
        self.heard.set()


class Looks:
    """Gives what runs, and says when it was asked for it: with no switch on, nobody asks."""

    def __init__(self, running: Iterable[Attempted]) -> None:
        self.running = list(running)
        self.asked = asyncio.Event()

    def __call__(self) -> list[Attempted]:
        self.asked.set()
        return self.running


SPEC = JobSpec(agent="clerk", agent_version="1", input="go")


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("global", {"own", "child", "other"}),
        (f"tenant:{TENANT}", {"own", "child", "other"}),
        (f"agent:{TENANT}:clerk", {"own", "child"}),
        (f"agent:{TENANT}:typist", {"child"}),
        ("agent:elsewhere:clerk", set()),
    ],
)
async def test_what_is_covered_is_stopped_and_nothing_else(
    bench: Bench, switches: KillSwitches, monkeypatch: pytest.MonkeyPatch, switch: str, expected: set[str]
):
    monkeypatch.setattr("worker.kill_switch.LOOK_SECONDS", 0)
    specs = {
        "own": SPEC,
        "child": replace(SPEC, agent="typist", ancestor_agents=["clerk"]),
        "other": replace(SPEC, agent="boss"),
    }
    attempts = {name: await claimed(bench, spec) for name, spec in specs.items()}
    damaged = Attempted(Claim("job_damaged", "token", "default.default", None))
    looks, stopped = Looks([damaged, *attempts.values()]), Stopped()
    await switches.turn_on(switch, "key_1")
    duty = asyncio.create_task(obey_kill_switches(switches, looks, stopped))
    await asyncio.wait_for(looks.asked.wait(), 10)
    assert stopped.ids == {attempts[name].claim.job_id for name in expected}
    duty.cancel()


async def test_the_duty_outlives_an_outage_and_hears_of_a_switch_that_is_turned_on_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.kill_switch.LOOK_SECONDS", 0)
    looked = asyncio.Event()

    class Shaky(KillSwitches):
        outages = 2

        async def names(self) -> set[str]:
            looked.set()
            if self.outages:
                self.outages -= 1
                raise UnavailableError("away")
            return await super().names()

    attempted, stopped, switches = await claimed(bench, SPEC), Stopped(), Shaky(bench.store.link)
    duty = asyncio.create_task(obey_kill_switches(switches, Looks([attempted]), stopped))
    await asyncio.wait_for(looked.wait(), 10)
    assert stopped.ids == set()
    await switches.turn_on("global", "key_1")
    await asyncio.wait_for(stopped.heard.wait(), 10)
    assert stopped.ids == {attempted.claim.job_id}
    duty.cancel()


class SlowModel(ScriptedModel):
    """Says that a call is under way, and answers when it is let; it knows how many calls were cut off."""

    def __init__(self, *script: dict[str, object]) -> None:
        super().__init__(list(script))
        self.called = asyncio.Event()
        self.answer = asyncio.Event()
        self.cut = 0

    async def complete(self, request: Request, draft: Draft) -> None:
        self.called.set()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cut += 1
            raise
        await super().complete(request, draft)


async def test_a_call_is_cut_off_settled_and_made_again_when_the_switch_is_off(bench: Bench, switches: KillSwitches):
    job_id, model = await bench.submit(), SlowModel(says("done"))
    claim = await bench.claim()
    attempted = Attempted(claim)
    attempted.task = asyncio.create_task(bench.executor(model).execute(attempted))
    await asyncio.wait_for(model.called.wait(), 10)
    switch = await switches.turn_on(f"agent:{TENANT}:x", "key_1")
    assert (await switches.evidence(switch)).open == 1
    attempted.interrupt("killed")
    await attempted.task
    job, last = await bench.job(job_id), (await bench.store.lines(job_id))[-1]
    assert (job.status, job.counters["reserved"], job.lost, model.cut) == ("queued", 0, 0, 1)
    assert (last.type, last.data["why"]) == ("job.queued", "the kill switch is on")
    assert (await switches.evidence(switch)).open == 0
    assert await bench.store.tickets.depths() == {"default.default": 0}
    await switches.turn_off(switch.name)
    model.answer.set()
    assert (await bench.run(model)).output == "done"
    assert [line.type for line in await bench.store.lines(job_id)].count("model.started") == 2


async def test_a_job_between_two_calls_goes_back_when_the_next_is_refused(bench: Bench, switches: KillSwitches):
    job_id, model = await bench.submit(), ScriptedModel([calls(("lookup", {"order_id": "A1"})), says("done")])
    claim = await bench.claim()
    switch = await switches.turn_on("global", "key_1")
    await bench.executor(model).execute(Attempted(claim))
    job = await bench.job(job_id)
    assert (job.status, job.counters["model_calls"], len(model.requests)) == ("queued", 0, 0)
    assert (await bench.store.lines(job_id))[-1].data["why"] == "the kill switch of global is on"
    assert (await switches.evidence(switch)).refused == 1
    await switches.turn_off("global")
    assert (await bench.run(model)).output == "done"
    assert await bench.store.link.command("EXISTS", keys.KILL_SWITCH) == 0
