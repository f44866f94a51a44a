"""The same random life on both stores at once: each step must have the same outcome, and leave the same jobs, journals
and tickets behind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent_core.errors import StaleAttemptError
from jobs import actions, keys, queue_keys, stats
from jobs.errors import JobsError
from jobs.journal import LAST_EVENTS
from jobs.link import RedisLink, connect, milliseconds
from jobs.moves import Attempt, Idempotency
from jobs.queue import queue_names
from jobs.records import Job
from jobs.status import TRANSITIONS
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.driver import (
    ENDED_LEASE,
    HOUR_MS,
    TENANT,
    VERSION,
    Driver,
    attempt_of,
    limit,
    lose_tickets,
    push_raw,
    turn,
)

WORKER_MOVES = ["complete", "fail", "stop", "park", "suspend", "hand_back"]
SWITCHES = ["global", f"tenant:{TENANT}", f"agent:{TENANT}:clerk", f"agent:{TENANT}:other"]
OTHER = "clerk@2"
KEYS = {"k": 1, "l": 2}
"""What jobs name, and how many of them may run."""
SCOPES = ["tenant", "agent:clerk", "key:k", "key:l"]
BOTH_VERSIONS = [*queue_names(["default"]), *(f"{name}@{OTHER}" for name in queue_names(["default"]))]


@dataclass
class Side:
    """One of the two stores. Jobs and attempts are known by their numbers, the same on both."""

    driver: Driver
    jobs: list[str] = field(default_factory=list)
    attempts: list[tuple[str, Attempt]] = field(default_factory=list)

    def number(self, job_id: str) -> int:
        return self.jobs.index(job_id)

    async def job(self, number: int) -> Job:
        return await self.driver.store.get(TENANT, self.jobs[number])

    async def journal(self, number: int) -> list[tuple[str, int, Any]]:
        lines = await self.driver.store.lines(self.jobs[number])
        return [(line.type, line.attempt, self.without_ids(line.data)) for line in lines]

    def without_ids(self, data: dict[str, Any]) -> dict[str, Any]:
        origin = data.get("forked_from")
        return {**data, "forked_from": self.number(origin["job_id"])} if origin else data

    async def queues(self) -> dict[str, list[int]]:
        """The jobs of the tickets in each queue, in order."""
        store = self.driver.store
        if isinstance(store, MemoryStore):
            held = {f"{lane}|{scope}": ids for (lane, scope), ids in store.shelf.lanes.tickets.items()}
            found = {**store.shelf.queues, **held}
        else:
            assert isinstance(store, JobStore)
            found = {}
            for name in await store.tickets.names():
                lists = {name: queue_keys.queue(name)}
                for scope in await store.link.command("ZRANGE", queue_keys.HELD_BACK_PREFIX + name, 0, -1):
                    lists[f"{name}|{scope.decode()}"] = queue_keys.held_back(name, scope.decode())
                for place, key in lists.items():
                    ids = await store.link.command("LRANGE", key, 0, -1)
                    found[place] = [job_id.decode() for job_id in ids]
        return {name: [self.number(job_id) for job_id in ids] for name, ids in found.items() if ids}

    async def slots(self) -> dict[str, set[int]]:
        """The jobs that count for each scope."""
        store, found = self.driver.store, dict[str, set[int]]()
        for scope in SCOPES:
            if isinstance(store, MemoryStore):
                ids = store.shelf.lanes.running[TENANT, scope]
            else:
                assert isinstance(store, JobStore)
                raw = await store.link.command("SMEMBERS", queue_keys.running(TENANT, scope))
                ids = {job_id.decode() for job_id in raw}
            found[scope] = {self.number(job_id) for job_id in ids}
        return found

    async def withheld(self) -> dict[str, list[tuple[str, int]]]:
        """The tickets that each kill switch withholds, in order."""
        store = self.driver.store
        if isinstance(store, MemoryStore):
            found = dict(store.shelf.switches.withheld)
        else:
            assert isinstance(store, JobStore)
            found = {}
            for switch in SWITCHES:
                members = await store.link.command("ZRANGE", keys.stopped(switch), 0, -1)
                found[switch] = [tuple(member.decode().split("|")) for member in members]
        return {
            switch: [(queue, self.number(job_id)) for queue, job_id in tickets]
            for switch, tickets in found.items()
            if tickets
        }

    async def waiting(self) -> tuple[set[int], dict[str, list[int]]]:
        """Jobs that wait for a time, and each session's jobs in order."""
        store = self.driver.store
        sessions: dict[str, list[str]]
        if isinstance(store, MemoryStore):
            due = list(store.shelf.due)
            sessions = {session: ids for (_, session), ids in store.shelf.sessions.items()}
        else:
            assert isinstance(store, JobStore)
            command = store.link.command
            due = [job_id.decode() for job_id in await command("ZRANGE", keys.DUE, 0, -1)]
            sessions = {}
            for session in ("s1", "s2"):
                ids = await command("LRANGE", keys.session_jobs(TENANT, session), 0, -1)
                sessions[session] = [job_id.decode() for job_id in ids]
        numbered = {session: [self.number(job_id) for job_id in ids] for session, ids in sessions.items() if ids}
        return {self.number(job_id) for job_id in due}, numbered

    async def endings(self) -> Counter[str]:
        store = self.driver.store
        if isinstance(store, MemoryStore):
            return store.endings
        assert isinstance(store, JobStore)
        return Counter({name: int(n) for name, n in (await stats.read(store.link)).items()})


class Lives(RuleBasedStateMachine):
    """Submits, claims, writes, moves, loses workers and tickets, and lets people act, in any order."""

    url: str
    jobs: Bundle[int] = Bundle("jobs")
    attempts: Bundle[int] = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.written: Counter[int] = Counter()
        self.limits: dict[str, int | None] = {}
        self.switches: set[str] = set()
        self.accepted: dict[int, list[str]] = {}

    @initialize()
    def connect(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.link = RedisLink(connect(self.url))
        self.sides = [Side(Driver(MemoryStore())), Side(Driver(JobStore(self.link)))]

    def teardown(self) -> None:
        self.runner.run(self.link.aclose())
        self.runner.close()

    def both(self, act: Callable[[Side], Awaitable[Any]]) -> Any:
        """Does the same on both sides; the outcomes must be equal, errors and their codes included."""

        async def outcome(side: Side) -> Any:
            try:
                return await act(side)
            except (JobsError, StaleAttemptError) as exc:
                return type(exc).__name__, getattr(exc, "code", None)

        async def run() -> Any:
            first, second = [await outcome(side) for side in self.sides]
            assert first == second
            return first

        return self.runner.run(run())

    # ---- what callers do

    @rule(
        target=jobs,
        session=st.sampled_from([None, "s1", "s1", "s2"]),
        priority=st.sampled_from(["high", "default", "low"]),
        version=st.sampled_from(["1", "1", "1", "2"]),
        run_at=st.sampled_from([None, None, None, 1, HOUR_MS]),
        expires_at=st.sampled_from([None, None, None, 1, HOUR_MS]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        concurrency=st.sampled_from([None, None, *KEYS]),
    )
    def submit(self, session, priority, version, run_at, expires_at, key, concurrency) -> int:
        idempotency = Idempotency(key, version) if key else None
        run_at, expires_at = (milliseconds() + t if t == HOUR_MS else t for t in (run_at, expires_at))

        async def act(side: Side) -> int:
            job = await side.driver.submit(
                key=idempotency,
                session_id=session,
                priority=priority,
                agent_version=version,
                run_at=run_at,
                expires_at=expires_at,
                concurrency=concurrency and {"key": concurrency, "limit": KEYS[concurrency]},
            )
            if job.id not in side.jobs:
                side.jobs.append(job.id)
            return side.number(job.id)

        found = self.both(act)
        return found if isinstance(found, int) else 0

    @rule(job=jobs, action=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def act_as_a_person(self, job: int, action: str) -> None:
        act = getattr(actions, action)

        async def do(side: Side) -> Any:
            return (await act(side.driver.store, TENANT, side.jobs[job])).status

        if job < len(self.sides[0].jobs):
            self.both(do)

    @rule(job=jobs, action=st.sampled_from(["decide", "abandon"]))
    def decide(self, job: int, action: str) -> None:
        async def act(side: Side) -> None:
            await side.driver.store.move(await side.job(job), action)

        if job < len(self.sides[0].jobs):
            self.both(act)

    @rule(target=jobs, job=jobs)
    def fork(self, job: int) -> int:
        async def act(side: Side) -> int:
            store = side.driver.store
            forked = await actions.fork(store, TENANT, side.jobs[job], step=0, changes={"priority": "high"})
            side.jobs.append(forked.job.id)
            return side.number(forked.job.id)

        found = self.both(act) if job < len(self.sides[0].jobs) else 0
        return found if isinstance(found, int) else 0  # a kill switch refuses it

    # ---- what workers do

    @rule(target=attempts, most=st.integers(1, 3), lease=st.sampled_from([ENDED_LEASE, 60]), all_=st.booleans())
    def claim(self, most: int, lease: int, all_: bool) -> int:
        async def act(side: Side) -> list[Any]:
            versions, queues = ((VERSION, OTHER), BOTH_VERSIONS) if all_ else ((VERSION,), None)
            claims = await side.driver.claim(most, lease=lease, versions=versions, queues=queues)
            for claim in claims:
                side.attempts.append((claim.job_id, Attempt(claim.token, claim.queue)))
            return [(side.number(c.job_id), c.queue, c.job and (c.job.attempts, c.job.status)) for c in claims]

        self.both(act)
        return max(0, len(self.sides[0].attempts) - 1)

    @rule(attempt=attempts, repeat=st.booleans())
    def write(self, attempt: int, repeat: bool) -> None:
        if attempt >= len(self.sides[0].attempts):
            return
        if not repeat or not self.written[attempt]:
            self.written[attempt] += 1
        text = f"{attempt}:{self.written[attempt]}"

        async def act(side: Side) -> int:
            job_id, held = side.attempts[attempt]
            lines = [("state.changed", {"state": text})]
            return await side.driver.store.record(job_id, held.token, self.written[attempt], {"cost": 1}, lines)

        if isinstance(self.both(act), int):
            number = self.sides[0].number(self.sides[0].attempts[attempt][0])
            accepted = self.accepted.setdefault(number, [])
            accepted += [] if text in accepted else [text]

    @rule(attempt=attempts, action=st.sampled_from(WORKER_MOVES), later=st.booleans())
    def move(self, attempt: int, action: str, later: bool) -> None:
        async def act(side: Side) -> int | None:
            job_id, held = side.attempts[attempt]
            due = -HOUR_MS if later and action == "hand_back" else 0
            job = await side.driver.store.get(TENANT, job_id)
            moved = await side.driver.end(job, held, action, due_ms=due)
            return None if moved is None or moved.following is None else side.number(moved.following)

        if attempt < len(self.sides[0].attempts):
            self.both(act)

    @rule(attempt=attempts)
    def beat(self, attempt: int) -> None:
        async def act(side: Side) -> list[int]:
            job_id, held = side.attempts[attempt]
            return await side.driver.store.tickets.beat([(job_id, held.token, held.queue)], 60)

        if attempt < len(self.sides[0].attempts):
            self.both(act)

    # ---- what reapers do, and what befalls the queues

    @rule(bury=st.booleans())
    def reap(self, bury: bool) -> None:
        async def act(side: Side) -> list[int]:
            store = side.driver.store
            lost = sorted((await store.tickets.overdue()).lost, key=lambda found: side.number(found[0]))
            for job_id, token, queue in lost:
                job, how = await store.get(None, job_id), "bury" if bury else "rescue"
                held = Attempt(token, queue)
                assert await store.move(job, how, attempt=held, if_lease_ended=True, lost=True) is not None
            return [side.number(job_id) for job_id, _, _ in lost]

        self.both(act)

    @rule()
    def rescue_what_lives(self) -> None:
        async def act(side: Side) -> list[bool]:
            moved = []
            for job_id, held in side.attempts:
                job = await side.driver.store.get(None, job_id)
                lost = {found[1] for found in (await side.driver.store.tickets.overdue()).lost}
                if job.token == held.token and held.token not in lost:
                    moved.append(await side.driver.rescue(job_id, held) is None)
            return moved

        assert all(self.both(act))

    @rule()
    def sweep(self) -> None:
        self.both(lambda side: side.driver.sweep())

    @rule()
    def lose_all_tickets_of_a_queue_and_sweep(self) -> None:
        async def act(side: Side) -> None:
            if "default.default" in await side.driver.store.tickets.depths():
                await lose_tickets(side.driver, "default.default")
            # Ids differ on the two sides, and with them the order among jobs queued in the same ms.
            for job_id in side.jobs:
                await side.driver.store.release(job_id)

        self.both(act)

    @rule(scope=st.sampled_from(["tenant", "clerk"]), most=st.sampled_from([None, None, 1, 2]))
    def limit_what_runs(self, scope: str, most: int | None) -> None:
        self.both(lambda side: limit(side.driver, **{scope: most}))
        self.limits["tenant" if scope == "tenant" else f"agent:{scope}"] = most

    @rule()
    def claim_until_nothing_may_run(self) -> None:
        """What then still has a ticket that no switch withholds waits for a limit that is full."""

        async def act(side: Side) -> list[int]:
            await side.driver.store.tickets.sweep_limits()
            idle = 0
            while idle <= len(side.jobs):
                claims = await side.driver.claim(100, versions=(VERSION, OTHER), queues=BOTH_VERSIONS)
                side.attempts += [(claim.job_id, attempt_of(claim)) for claim in claims]
                idle = 0 if claims else idle + 1
            slots, stuck = await side.slots(), list[int]()
            for number in {number for numbers in (await side.queues()).values() for number in numbers}:
                job = await side.job(number)
                key = job.spec.concurrency["key"] if job.spec.concurrency else None
                limits = {**self.limits, f"key:{key}": KEYS.get(key or "")}
                scopes = ("tenant", "agent:clerk", f"key:{key}")
                if not any((most := limits.get(scope)) is not None and len(slots[scope]) >= most for scope in scopes):
                    stuck.append(number)
            return stuck

        stuck = self.both(act)
        assert not stuck or "global" in self.switches

    @rule()
    def sweep_the_limits(self) -> None:
        self.both(lambda side: side.driver.store.tickets.sweep_limits())

    @rule(switch=st.sampled_from(SWITCHES), on=st.sampled_from([True, False, False]))
    def turn_a_kill_switch(self, switch: str, on: bool) -> None:
        self.both(lambda side: turn(side.driver, switch, on=on))
        (self.switches.add if on else self.switches.discard)(switch)

    @rule(job=jobs)
    def a_ticket_comes_once_more(self, job: int) -> None:
        async def act(side: Side) -> None:
            await push_raw(side.driver, await side.job(job))

        if job < len(self.sides[0].jobs):
            self.both(act)

    # ---- what must always be so

    @invariant()
    def both_hold_the_same(self) -> None:
        async def everything(side: Side) -> Any:
            jobs = [await side.job(n) for n in range(len(side.jobs))]
            seen = [(j.status, j.attempts, j.lost, j.flag, j.stop_reason, j.counters["cost"], j.queue) for j in jobs]
            journals = [await side.journal(n) for n in range(len(side.jobs))]
            tickets = side.driver.store.tickets
            found = await tickets.overdue()
            overdue = [sorted(map(side.number, ids)) for ids in (found.due, found.expired)]
            return (seen, journals, await side.queues(), await side.waiting(), await side.withheld(), overdue,
                    await tickets.running(), await side.endings(), await side.slots())  # fmt: skip

        if hasattr(self, "sides"):
            self.seen = self.both(everything)

    @invariant()
    def every_ending_is_told_once(self) -> None:
        for (status, *_), journal in self.lives():
            endings = [type_ for type_, _, _ in journal if type_ in LAST_EVENTS]
            retries = [data for type_, _, data in journal if type_ == "job.queued" and data.get("retry")]
            assert len(endings) == len(retries) + (status in {t.target for t in TRANSITIONS.values() if t.ends})

    @invariant()
    def a_ticket_makes_one_attempt(self) -> None:
        for (_, attempts, *_), journal in self.lives():
            started = [attempt for type_, attempt, _ in journal if type_ == "job.started"]
            assert started == list(range(1, attempts + 1))

    @invariant()
    def only_accepted_writes_are_seen_each_once(self) -> None:
        for number, (_, journal) in enumerate(self.lives()):
            states = [data["state"] for type_, _, data in journal if type_ == "state.changed"]
            assert states == self.accepted.get(number, [])

    @invariant()
    def a_queued_job_has_a_ticket_or_a_reason(self) -> None:
        if not hasattr(self, "seen"):
            return
        jobs, _, queues, (due, sessions), withheld, *_ = self.seen
        ticketed = {number for numbers in queues.values() for number in numbers}
        ticketed |= {number for tickets in withheld.values() for _, number in tickets}
        behind = {number for line in sessions.values() for number in line[1:]}
        for number, (status, *_) in enumerate(jobs):
            assert status != "queued" or number in ticketed | due | behind

    @invariant()
    def what_runs_counts_for_the_limits_and_nothing_else_does(self) -> None:
        if hasattr(self, "seen"):
            running = {number for number, (status, *_) in enumerate(self.seen[0]) if status == "running"}
            slots = self.seen[-1]
            assert slots["tenant"] == slots["agent:clerk"] == running
            for key, most in KEYS.items():
                assert slots[f"key:{key}"] <= running
                assert len(slots[f"key:{key}"]) <= most

    @invariant()
    def one_job_of_a_session_at_a_time(self) -> None:
        if hasattr(self, "seen"):
            jobs, _, _, (_, sessions), *_ = self.seen
            for line in sessions.values():
                assert all(jobs[number][0] != "running" for number in line[1:])

    def lives(self) -> list[tuple[Any, Any]]:
        return list(zip(self.seen[0], self.seen[1], strict=True)) if hasattr(self, "seen") else []


def test_both_stores_live_the_same_life(redis_url: str) -> None:
    class LivesHere(Lives):
        url = redis_url

    run_state_machine_as_test(LivesHere, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
