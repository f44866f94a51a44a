"""Submits a second against a bare FastAPI route that does one XADD."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from bench.http import CONNECTIONS, load, submit_many
from bench.process import Process
from bench.report import Goal, Section
from bench.stack import Stack

REQUESTS = 5_000
ROUNDS = 3
BODY = '{"agent": "bench", "input": "hello"}'


class Round(NamedTuple):
    """The load generator's figures and the server's CPU, all in seconds."""

    seconds: float
    p50: float
    p95: float
    cpu: float


def measure(stack: Stack, scale: float) -> Section:
    """Rounds of both in turns; both servers run all the time, and no worker does once the agent is published."""
    requests = int(REQUESTS * scale)
    publisher = stack.worker(1)
    publisher.stop()
    api, api_url = stack.api()
    bare, bare_url = stack.bare_route()
    rounds = max(1, round(ROUNDS * scale))
    ours: list[Round] = []
    theirs: list[Round] = []
    for _ in range(1 + rounds):
        ours.append(_round(api, lambda: submit_many(stack, api_url, requests, "hello")))
        theirs.append(_round(bare, lambda: load(f"{bare_url}/jobs", BODY, requests)))
    del ours[0], theirs[0]  # they warmed both up
    section = Section(
        "submit",
        f"POST /v1/jobs over {CONNECTIONS} keep-alive connections, {requests:,} in each of {rounds} rounds after one "
        "to warm up, no worker running. Ours authenticates, validates, resolves the agent's version and answers after "
        "job, journal and ticket are in Redis. The bare route validates two fields and does one XADD; same uvicorn, "
        "one process, uvloop, httptools, same load generator. Median of the rounds.",
    )
    rate, bare_rate = (requests / median(r.seconds for r in rounds) for rounds in (ours, theirs))
    section.add("rate against the bare route", rate / bare_rate, "×", Goal(">=", 0.5))
    section.add("ours", rate, "submits/s")
    section.add("bare route", bare_rate, "requests/s")
    section.add("ours, p50", 1000 * median(r.p50 for r in ours), "ms")
    section.add("ours, p95", 1000 * median(r.p95 for r in ours), "ms")
    section.add("bare route, p50", 1000 * median(r.p50 for r in theirs), "ms")
    section.add("ours, CPU of the server", median(r.cpu for r in ours) / requests * 1e6, "µs a submit")
    section.add("bare route, CPU of the server", median(r.cpu for r in theirs) / requests * 1e6, "µs a request")
    return section


def _round(server: Process, run: Callable[[], dict[str, Any]]) -> Round:
    before = server.cpu()
    answer = run()
    return Round(answer["seconds"], answer["p50"], answer["p95"], server.cpu() - before)
