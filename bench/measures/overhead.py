"""CPU a job of the whole platform against an agent loop over the bare SDK."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.http import client, script, submit_many
from bench.process import BenchError, run_peer
from bench.report import Goal, Section
from bench.stack import Stack

JOBS = 1_000
IN_FLIGHT = 200
CALLS = 5
LATENCY = 0.2


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU in ms a job, by process, and the seconds from the first submit to the last end."""

    api: float
    worker: float
    redis: float
    makespan: float

    @property
    def total(self) -> float:
        return self.api + self.worker + self.redis


def measure(stack: Stack, scale: float) -> Section:
    """The floor before and after ours, so that a change of the machine's mood shows."""
    jobs = int(JOBS * scale)
    latency = LATENCY * scale
    model_url = stack.simulator(latency)
    floor = [_loop(model_url, jobs)]
    stream = _loop(model_url, jobs, "--stream")
    ours = _ours(stack, model_url, jobs)
    aiohttp = _loop(model_url, jobs, "--client", "aiohttp", "--uvloop")
    floor.append(_loop(model_url, jobs))
    cpu, seconds = (sum(column) / 2 for column in zip(*floor, strict=True))
    section = Section(
        "overhead",
        f"{jobs:,} jobs of {CALLS} model calls of {latency * 1000:g} ms and {CALLS - 1} trivial tool calls, "
        f"{IN_FLIGHT} in flight. Ours: single POST /v1/jobs, one API, one worker, Redis with its append-only file; CPU "
        "is user and system of the three, the simulated model's is not in it. The bare loop is AsyncAnthropic with its "
        "default client and `messages.create`; the ratio is against that.",
    )
    section.add("ours against the bare SDK loop", ours.total / cpu, "×", Goal("<=", 1.5, aim=1.0))
    section.add("ours", ours.total, "CPU ms a job")
    section.add("· worker", ours.worker, "CPU ms a job")
    section.add("· API", ours.api, "CPU ms a job")
    section.add("· Redis", ours.redis, "CPU ms a job")
    section.add("bare loop, default client", cpu, "CPU ms a job")
    section.add("bare loop, default client, streaming", stream[0], "CPU ms a job")
    section.add("bare loop, aiohttp and uvloop", aiohttp[0], "CPU ms a job")
    section.add("ours against the streaming loop", ours.total / stream[0], "×")
    section.add("ours against the loop on aiohttp and uvloop", ours.total / aiohttp[0], "×")
    section.add("bare loop, the two runs apart", abs(floor[0][0] - floor[1][0]) / cpu * 100, "%")
    section.add("makespan, ours", ours.makespan, "s")
    section.add("makespan, bare loop", seconds, "s")
    section.add("makespan, bare loop on aiohttp and uvloop", aiohttp[1], "s")
    return section


def _loop(model_url: str, jobs: int, *options: str) -> tuple[float, float]:
    """CPU ms a job, and seconds for all."""
    answer = run_peer(
        "bench.peers.sdk_loop", "--url", model_url, "--jobs", jobs, "--in-flight", IN_FLIGHT, "--text", script(CALLS),
        *options,
    )  # fmt: skip
    if answer["calls"] != jobs * CALLS:
        raise BenchError(f"the bare loop made {answer['calls']} model calls instead of {jobs * CALLS}")
    return answer["cpu"] / jobs * 1000, answer["seconds"]


def _ours(stack: Stack, model_url: str, jobs: int) -> Spent:
    api, api_url = stack.api()
    worker = stack.worker(IN_FLIGHT, model_url)
    processes = (api, worker, stack.redis)
    before, begun = [process.cpu() for process in processes], time.perf_counter()
    submit_many(stack, api_url, jobs, script(CALLS))
    stack.until_completed(jobs, seconds=300)
    makespan = time.perf_counter() - begun
    of_api, of_worker, of_redis = ((p.cpu() - b) / jobs * 1000 for p, b in zip(processes, before, strict=True))
    _check(stack, api_url)
    worker.stop()
    api.stop()
    return Spent(of_api, of_worker, of_redis, makespan)


def _check(stack: Stack, api_url: str) -> None:
    """The last job did all of its work."""
    with client(stack, api_url) as http:
        usage = http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["usage"]
    if (usage["model_calls"], usage["tool_calls"]) != (CALLS, CALLS - 1):
        raise BenchError(f"a job did not do its work: {usage}")
