"""Model calls by their parts: whole, and only their two records in the journal, with the money in them and without."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import uuid
from typing import Any

import redis
import uvloop

from agent_core.claude import ClaudeModel
from agent_core.entries import Entry, ModelCompleted, ModelStarted, entry_to_json
from agent_core.ports import Draft, Request
from agent_core.types import Budget, Json
from bench.agents import INSTRUCTIONS, MAX_TOKENS, MODEL, bench, lookup_order
from bench.stack import TENANT
from jobs.budgets import Budgets, Period, ScopeBudget
from jobs.link import RedisLink, connect
from jobs.money import NO_MONEY, money_of
from jobs.queue import Tickets, queue_names
from jobs.records import JobSpec
from jobs.stats import Stats
from jobs.store import JobStore
from worker.durable import DurableJournal, LiveText

ROUNDS = 5
"""How often the kinds take turns, so that a change of the machine's mood meets all of them."""
KINDS = ("whole", "records with money", "records without")
SCOPES: tuple[tuple[str, Period], ...] = (
    ("tenant", "month"), ("agent:*", "day"), ("user:*", "day"), ("session:*", "total"), ("job:*", "total"),
)  # fmt: skip
ENOUGH = 10**12
INPUT_TOKENS = 2000
USAGE = {"input_tokens": 100, "output_tokens": 20}
TOOLS = [lookup_order.to_json()]
REPLY = "The order A-1042 is shipped. " * 40
"""Some 300 tokens, streamed."""
MESSAGES: list[Json] = [{"role": "user", "content": f"#sim {json.dumps({'turns': [{'text': REPLY}]})}"}]


class Caller:
    """A running job that makes one call after another."""

    def __init__(self, model: ClaudeModel, journal: DurableJournal) -> None:
        self._model = model
        self._journal = journal

    async def call(self, kind: str) -> None:
        paid, call_id = kind != "records without", uuid.uuid4().hex
        reserved = self._model.worst_case(MODEL, INPUT_TOKENS, MAX_TOKENS) if paid else 0
        tokens = INPUT_TOKENS + MAX_TOKENS
        await self._write(ModelStarted(call_id, 1, MODEL, reserved, tokens, MAX_TOKENS, "p"), paid)
        draft = Draft(content=[{"type": "text", "text": REPLY}], usage=dict(USAGE))
        if kind == "whole":
            draft = Draft()
            await self._model.complete(Request(MODEL, INSTRUCTIONS, MESSAGES, TOOLS, MAX_TOKENS), draft)
        settled = self._model.price(MODEL, draft.usage or USAGE) if paid else 0
        ended = (draft.content, "end_turn", draft.usage, "p", reserved, settled, "settled")
        await self._write(ModelCompleted(call_id, 1, MODEL, *ended), paid)

    async def _write(self, entry: Entry, paid: bool) -> None:
        money = money_of([entry]) if paid else NO_MONEY
        await self._journal.append({}, [(entry.TYPE, entry_to_json(entry))], money)


async def callers(link: RedisLink, model: ClaudeModel, jobs: int, limited: bool) -> list[Caller]:
    """Running jobs with a limit of their own; `limited` ones have users and sessions too, and budgets of every kind."""
    store, tickets = JobStore(link), Tickets(link)
    for scope, period in SCOPES if limited else ():
        await Budgets(store).put(TENANT, ScopeBudget(scope, period, ENOUGH, ENOUGH))
    for number in range(jobs):
        about: dict[str, Any] = {"user": f"u{number}", "session_id": f"s{number}"} if limited else {}
        spec = JobSpec(agent=bench.name, agent_version=bench.version, input="", **about)
        await store.submit(TENANT, spec, Budget(usd="1000000"))
    version = f"{bench.name}@{bench.version}"
    claims = await tickets.claim(queue_names(["default"]), [version], most=jobs, lease=3600, worker="bench")
    running = [(claim.job, claim.token) for claim in claims if claim.job is not None]
    assert len(running) == jobs
    return [
        Caller(model, DurableJournal(store, job, token, Stats(), LiveText(store, job), lambda: None))
        for job, token in running
    ]


async def measure(url: str, model_url: str, calls: int, jobs: int, limited: bool) -> Json:
    """CPU seconds of a call of each kind, ours and Redis's together, and the round trips of a call's records."""
    link = RedisLink(connect(url))
    model = ClaudeModel.connect(api_key="none", base_url=model_url)
    cpu = dict.fromkeys(KINDS, 0.0)
    with connect(url) as db:
        try:
            known = await callers(link, model, jobs, limited)
            each = max(1, calls // ROUNDS // jobs)
            for kind in KINDS:
                await together(known, kind, 1)  # scripts, connections and caches are there from now on
            for _ in range(ROUNDS):
                for kind in KINDS:
                    before = cpu_seconds(db)
                    await together(known, kind, each)
                    cpu[kind] += (cpu_seconds(db) - before) / (ROUNDS * each * jobs)
            trips = await round_trips(db, known[0], calls // ROUNDS)
        finally:
            await link.aclose()
            await model.aclose()
    return {"cpu": cpu, "round_trips": trips}


async def together(known: list[Caller], kind: str, each: int) -> None:
    """Makes so many calls of each job, the jobs' at the same time."""

    async def one(caller: Caller) -> None:
        for _ in range(each):
            await caller.call(kind)

    await asyncio.gather(*map(one, known))


async def round_trips(db: redis.Redis, caller: Caller, calls: int) -> float:
    """Those of a call's records, of one call after another; nobody else may use this Redis meanwhile."""
    before = reads(db)
    for _ in range(calls):
        await caller.call("records with money")
    return (reads(db) - before - 1) / calls


def cpu_seconds(db: redis.Redis) -> float:
    ours, its = resource.getrusage(resource.RUSAGE_SELF), db.info("cpu")
    return float(ours.ru_utime + ours.ru_stime + its["used_cpu_user"] + its["used_cpu_sys"])


def reads(db: redis.Redis) -> int:
    """How often Redis has read from a socket: once for each round trip, this one included."""
    return int(db.info("stats")["total_reads_processed"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--model-url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--limited", action="store_true")
    args = parser.parse_args()
    print(json.dumps(uvloop.run(measure(args.redis_url, args.model_url, args.calls, args.jobs, args.limited))))


if __name__ == "__main__":
    main()
