"""What long-term memory costs a job: the same jobs of the same agent with it and without, in turns."""

from __future__ import annotations

import time
from statistics import median

import httpx2

from agent_core.types import Json
from bench.agents import bench, remembering
from bench.http import client, script
from bench.measures.memory import FEW, peer
from bench.peers.recalls import USERS, scope, sentence
from bench.process import BenchError
from bench.report import Goal, Section
from bench.stack import Stack

JOBS = 200
IDLE_SECONDS = 0.03
READ = ("input_tokens", "cache_read_tokens", "cache_write_tokens")


def measure(stack: Stack, scale: float) -> Section:
    """BM25 alone, which is the default, over 10,000 points of 20 users. What is learnt is another job, afterwards."""
    jobs, points = int(JOBS * scale), int(FEW * scale)
    memory = stack.memory()
    peer(*memory, "fill", 0, points)
    model_url = stack.simulator(0)
    _, api_url = stack.api()
    stack.worker(200, model_url, memory=memory)
    taken: dict[str, list[float]] = {bench.name: [], remembering.name: []}
    tokens: dict[str, list[int]] = {bench.name: [], remembering.name: []}
    recalled = []
    with client(stack, api_url) as http:
        for number in range(jobs + 1):
            for agent in (bench, remembering):
                time.sleep(IDLE_SECONDS)
                begun = time.perf_counter()
                job = _run(http, agent.name, sentence(USERS * number))
                taken[agent.name].append(1000 * (time.perf_counter() - begun))
                tokens[agent.name].append(sum(job["usage"][name] for name in READ))
                # what is learnt is a job of its own
                stack.until_completed(3 * number + 1 if agent is bench else 3 * number + 3, seconds=30)
            events = http.get(f"/v1/jobs/{job['id']}/events").json()["data"]
            recalled += [event["data"] for event in events if event["type"] == "memory.recalled"]
    if len(recalled) != jobs + 1 or not all(each["memories"] for each in recalled):
        raise BenchError(f"of {jobs + 1} jobs with memory, {len(recalled)} recalled something")
    extra = [after - before for before, after in zip(*taken.values(), strict=True)][1:]
    section = Section(
        "memory_cost",
        f"{jobs} jobs of one model call each with memory and {jobs} without, in turns: from the HTTP submit to the "
        f"answer that it is done; {points:,} points of 20 users in the embedded memory.",
    )
    section.add("a job without memory, p50", median(taken[bench.name][1:]), "ms")
    section.add("more with memory, p50", median(extra), "ms", Goal("<=", 10))
    section.add("of that the recall, p50", median(each["ms"] for each in recalled[1:]), "ms")
    more = [after - before for before, after in zip(*tokens.values(), strict=True)]
    section.add("more input tokens with memory, most", max(more), "tokens", Goal("<=", 1000))
    section.add("p50", median(more), "tokens")
    return section


def _run(http: httpx2.Client, agent: str, about: str) -> Json:
    answer = http.post("/v1/run", json={"agent": agent, "user": scope(0).user, "input": f"{about}\n{script(1)}"})
    if answer.status_code != 200 or answer.json()["status"] != "completed":
        raise BenchError(f"POST /v1/run answered {answer.status_code}: {answer.text[:500]}")
    job: Json = answer.json()
    return job
