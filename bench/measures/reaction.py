"""From a submit to the first model call, on a platform that has nothing else to do."""

from __future__ import annotations

import time

from bench.agents import bench
from bench.http import client, script
from bench.process import BenchError
from bench.report import Goal, Section, percentile
from bench.stack import Stack

JOBS = 100
IDLE_SECONDS = 0.03


def measure(stack: Stack, scale: float) -> Section:
    """One job after another, each after the last one's end and a moment of rest."""
    jobs = int(JOBS * scale)
    model_url = stack.simulator(0)
    _, api_url = stack.api()
    stack.worker(200, model_url)
    sent: list[float] = []
    with client(stack, api_url) as http, client(stack, model_url) as simulator:
        body = {"agent": bench.name, "input": script(1)}
        for number in range(jobs + 1):
            time.sleep(IDLE_SECONDS)
            sent.append(time.time())
            answer = http.post("/v1/jobs", json=body)
            if answer.status_code != 202:
                raise BenchError(f"POST /v1/jobs answered {answer.status_code}: {answer.text[:500]}")
            stack.until_completed(number + 1, seconds=30)
        calls = [call["started_at"] for call in simulator.get("/_sim/calls").json()]
    # The first job opens the connections.
    delays = [1000 * (called - at) for at, called in zip(sent[1:], calls[1:], strict=True)]
    section = Section(
        "reaction",
        f"{jobs} jobs one after another on an idle platform: from before the HTTP request is sent to the moment at "
        "which the model's server has the call; one clock.",
    )
    section.add("submit → first model call, p50", percentile(delays, 0.5), "ms", Goal("<=", 20))
    section.add("p95", percentile(delays, 0.95), "ms")
    section.add("longest", max(delays), "ms")
    return section
