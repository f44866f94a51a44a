"""What it costs that no model call overspends: reserve before it and settle after it, against the call itself."""

from __future__ import annotations

from typing import Any

from bench.process import run_peer
from bench.report import Goal, Section
from bench.stack import Stack

CALLS = 2_500
JOBS = 50


def measure(stack: Stack, scale: float) -> Section:
    """Jobs with a limit of their own, and jobs under a budget of every kind."""
    calls = int(CALLS * scale)
    section = Section(
        "money",
        f"{calls:,} model calls of {JOBS} jobs at once, each with a streamed reply of some 300 tokens; CPU is that of "
        "the caller and of Redis, the simulated model's is not in it. Reserve and settle ride on the two records that "
        "a call writes anyway: their share is what those cost more than the same records without money, pricing "
        "included. With all limits, each job has a user and a session, and every kind of scope a budget. Round trips "
        "are counted by Redis, for one job alone.",
    )
    for name, options in (("", ()), (", with all limits", ("--limited",))):
        found = _run(stack, calls, *options)
        whole, paid, unpaid = (found["cpu"][kind] for kind in ("whole", "records with money", "records without"))
        share = (paid - unpaid) / whole * 100
        section.add(f"reserve and settle, of a model call's CPU{name}", share, "%", Goal("<=", 5))
        section.add(f"round trips of reserve and settle{name}", found["round_trips"], "a call", Goal("<=", 2))
        section.add(f"a model call{name}", whole * 1e6, "µs CPU")
        section.add(f"its two records, with money{name}", paid * 1e6, "µs CPU")
        section.add(f"its two records, without{name}", unpaid * 1e6, "µs CPU")
    return section


def _run(stack: Stack, calls: int, *options: str) -> dict[str, Any]:
    parts = ("--redis-url", stack.redis_url, "--model-url", stack.simulator(0))
    found = run_peer("bench.peers.money_alone", *parts, "--calls", calls, "--jobs", JOBS, *options)
    stack.reset()
    return found
