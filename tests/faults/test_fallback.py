"""The first target of an agent is down: every job ends well on the second, and the fleet learns it once."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent_core.types import Json
from jobs.audit import audit
from jobs.breaker import read
from jobs.journal import Line
from jobs.records import Job
from tests.faults.rig import Rig
from tests.integration.harness import TENANT, Simulator, WorkerProcess, eventually, says

FIRST = "claude-sonnet-5-5"
ATTEMPTS = 3
"""At one target in a turn."""


class Unreachable:
    """A port of loopback on which nobody listens, until a server of its own takes it."""

    def __init__(self) -> None:
        self._taken = socket.socket()
        self._taken.bind(("127.0.0.1", 0))
        self.port: int = self._taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def comes_back(self) -> Simulator:
        self._taken.close()
        command = [sys.executable, "-m", "simulator", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return Simulator(json.loads(self._process.stdout.readline())["url"])

    def close(self) -> None:
        self._taken.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
async def first() -> AsyncIterator[Unreachable]:
    server = Unreachable()
    yield server
    server.close()


async def start(rig: Rig, first: Unreachable) -> list[WorkerProcess]:
    """Two workers, for which the suite's simulated model is the second target."""
    second = f"second={rig.processes.simulator.url}"
    return [rig.start_worker(model_base_url=first.url, model_servers=second) for _ in range(2)]


async def submit(rig: Rig, number: int) -> str:
    """A job of three turns."""
    order = f"order-{number}"
    looks = [{"tool": "look", "input": {"folder": str(rig.folder), "order": f"{order}-{turn}"}} for turn in (1, 2)]
    return await rig.client.submit(order, *looks, says(f"found {order}"), agent="steadfast")


async def done(rig: Rig, job_ids: list[str]) -> tuple[list[Job], list[Line]]:
    """The jobs at their ends, and all of their lines."""
    jobs = [await rig.client.watch("fallback", job_id) for job_id in job_ids]
    assert {job["status"] for job in jobs} == {"completed"}, [job["error"] for job in jobs if job["error"]]
    lines = [line for job_id in job_ids for line in await attempts(rig, job_id)]
    found = await audit(rig.link, TENANT)
    assert found.exact, found.differences
    return [await rig.store.get(TENANT, job_id) for job_id in job_ids], lines


async def attempts(rig: Rig, job_id: str) -> list[Line]:
    """The job's lines; at no turn may they show more attempts at a target than there are to be."""
    lines = await rig.store.lines(job_id)
    asked = Counter((line.data["step"], line.data["server"]) for line in lines if line.type == "model.started")
    assert max(asked.values()) <= ATTEMPTS, asked
    return lines


def opened(workers: list[WorkerProcess]) -> int:
    """How often a worker says that it was the one that opened the breaker."""
    return sum(worker.log.read_text().count(f"circuit breaker of {FIRST} opened") for worker in workers)


def servers(lines: list[Line], type_: str = "model.completed") -> Counter[str]:
    """Which server gave the replies."""
    asked = {line.data["call_id"]: line.data["server"] for line in lines if line.type == "model.started"}
    return Counter(asked[line.data["call_id"]] for line in lines if line.type == type_)


async def test_with_the_first_target_down_every_job_ends_well_on_the_second(
    rig: Rig, first: Unreachable, report: Callable[..., None]
) -> None:
    workers, jobs = await start(rig, first), 20
    ids = await asyncio.gather(*(submit(rig, number) for number in range(jobs)))
    ended, lines = await done(rig, ids)
    assert [job.output for job in ended] == [f"found order-{number}" for number in range(jobs)]
    assert servers(lines) == {"second": 3 * jobs}
    assert len(await rig.processes.simulator.calls()) == 3 * jobs
    assert (opened(workers), (await read(rig.link))[FIRST].opened) == (1, 1)
    failed = servers(lines, "model.failed")[""]
    report("fallback", jobs=jobs, completed=jobs, breaker_opened=1, attempts_at_the_first_target=failed)


@pytest.mark.chaos
async def test_a_first_target_that_is_down_for_a_minute_is_asked_again_when_it_is_back(
    rig: Rig, first: Unreachable, report: Callable[..., None]
) -> None:
    down, jobs = 60.0, 100
    workers, begun, ids = await start(rig, first), time.monotonic(), []
    for number in range(jobs):
        ids.append(await submit(rig, number))
        await asyncio.sleep(max(0.0, (number + 1) * down / jobs - (time.monotonic() - begun)))
    _, lines = await done(rig, ids)
    assert servers(lines) == {"second": 3 * jobs}
    failed = servers(lines, "model.failed")[""]
    back = await asyncio.to_thread(first.comes_back)

    async def asked_again() -> list[Json]:
        await done(rig, [await submit(rig, len(ids) + int((time.monotonic() - begun) * 1000))])
        return await back.calls()

    await eventually(asked_again, "a call to the first target", within=60)
    took = time.monotonic() - begun - down
    more, lines = await done(rig, [await submit(rig, -number) for number in range(1, 11)])
    assert servers(lines)[""] == 3 * len(more), "it is the first again"
    assert opened(workers) == 1
    state = (await read(rig.link))[FIRST]
    assert (state.open, state.opened) == (False, 1)
    report(
        "fallback",
        down_seconds=down,
        jobs=jobs,
        completed=jobs,
        breaker_opened=1,
        attempts_at_the_first_target=failed,
        asked_again_after_seconds=round(took, 1),
    )
