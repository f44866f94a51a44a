"""Random lives of money. After each step every sum is that of the ledger's rows, and no use above a limit has grown.

One machine lives on the store in memory, whose clock can strike midnight; the other on both stores at once, whose books
must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent_core.entries import (
    Entry,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
)
from agent_core.errors import BudgetError, StaleAttemptError
from agent_core.outcomes import Refusal
from agent_core.types import AtLimit, Budget, Json, usd
from jobs import actions
from jobs.budgets import Period
from jobs.errors import JobsError
from jobs.link import RedisLink, connect
from jobs.moves import Attempt, Hold
from jobs.records import Job
from jobs.store import JobStore
from jobs.testing import MemoryStore
from tests.jobs.books import Books, as_held, lift, limit, prune, rows_of
from tests.jobs.driver import ENDED_LEASE, TENANT, Driver
from tests.jobs.spender import write

STEPS = 10_000
SCOPES = ["tenant", "user:u1", "user:u2", "user:*", "agent:clerk", "agent:*", "session:s1", "session:*", "job:*"]
UNITS = ("usd", "tokens")
PERIODS: list[Period] = ["total", "month", "day"]
LIMITS = st.sampled_from([None, 1, 60, 100, 250, 400])
TOKEN_LIMITS = st.sampled_from([None, None, 50, 300])
AT_LIMITS: list[AtLimit] = ["stop", "stop", "pause", "warn"]
MICROS = st.sampled_from([0, 1, 40, 60, 100])
TOKENS = st.sampled_from([0, 10, 60, 150])
LEAVING = ["complete", "fail", "stop", "hand_back", "park", "suspend", "hold"]
PEOPLE: dict[str, Callable[..., Awaitable[Any]]] = {
    "cancel": actions.cancel,
    "pause": actions.pause,
    "resume": actions.resume,
}


Meter = int | tuple[str, str]
"""What a limit may hold: a job by its number, or a scope in a window."""


@dataclass
class Side:
    """One store. Jobs and attempts are known by their numbers, the same on every side."""

    driver: Driver
    jobs: list[Job] = field(default_factory=list)
    attempts: list[tuple[int, Attempt]] = field(default_factory=list)
    pruned: dict[int, list[Json]] = field(default_factory=dict)
    """The rows of jobs that are forgotten: they count all the same."""
    rows: dict[int, list[Json]] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    now: list[Job | None] = field(default_factory=list)

    def number(self, job_id: str) -> int:
        return next(number for number, job in enumerate(self.jobs) if job.id == job_id)

    async def look(self) -> None:
        """Reads all rows, and asserts that they come to what the store holds."""
        self.now = await self.driver.store.get_many([job.id for job in self.jobs])
        found = await asyncio.gather(*(rows_of(self.driver, job) for job in self.jobs))
        self.rows = {number: self.pruned.get(number, rows) for number, rows in enumerate(found)}
        books = Books()
        for number, rows in self.rows.items():
            for row in rows:
                books.enter(self.jobs[number], row)
        for number in self.pruned:
            books.records.pop(self.jobs[number].id, None)
        self.books = await as_held(self.driver, self.jobs)
        assert self.books == books.without_nothing(), f"held: {self.books}\nby the rows: {books.without_nothing()}"

    def used(self, where: Meter, unit: str) -> int:
        """What is settled and reserved: of a job with those below it, or in a window of a scope."""
        suffix = "_tokens" if unit == "tokens" else ""
        if isinstance(where, int):
            record = self.books.records[self.jobs[where].id]
            return record[f"spent{suffix}"] + record[f"held{suffix}"]
        meter = self.books.meters[where]
        return meter[f"settled{suffix}"] + meter[f"reserved{suffix}"]

    def seen(self) -> Any:
        """All of it that has to be the same on both sides."""
        rows = {
            number: [{k: v for k, v in row.items() if k not in ("job_id", "created_at")} for row in rows]
            for number, rows in self.rows.items()
        }
        records = {self.number(job_id): record for job_id, record in self.books.records.items() if record}
        return rows, records, self.books.usage, {key: meter for key, meter in self.books.meters.items() if meter}


@dataclass(frozen=True)
class Call:
    attempt: int
    id: str
    micros: int
    tokens: int
    tool: bool


class Money(RuleBasedStateMachine):
    """Reserves, settles, loses workers, ends jobs, and sets limits, in any order."""

    steps: ClassVar[int] = 0
    jobs: ClassVar[Bundle[int]] = Bundle("jobs")
    attempts: ClassVar[Bundle[int]] = Bundle("attempts")
    calls: ClassVar[Bundle[int]] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.sides: list[Side] = []
        self.budgets: dict[tuple[str, Period], tuple[int | None, int | None, AtLimit]] = {}
        self.own: list[Budget] = []
        self.made: list[Call] = []
        self.batched: set[int] = set()
        self.undone: set[int] = set()
        self.written: dict[int, int] = {}
        self.before: dict[tuple[Meter, str], int] = {}

    def stores(self) -> Iterator[Any]:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.sides = [Side(Driver(store)) for store in self.stores()]

    def teardown(self) -> None:
        for side in self.sides:
            if isinstance(side.driver.store, JobStore):
                self.runner.run(side.driver.store.link.aclose())
        self.runner.close()

    def all(self, act: Callable[[Side], Awaitable[Any]]) -> Any:
        """Does the same on every side; the outcomes must be equal, refusals included."""

        async def outcome(side: Side) -> Any:
            try:
                return await act(side)
            except BudgetError as exc:
                return exc.refusal
            except (JobsError, StaleAttemptError) as exc:
                return type(exc).__name__, getattr(exc, "code", None)

        async def run() -> Any:
            outcomes = [await outcome(side) for side in self.sides]
            assert all(other == outcomes[0] for other in outcomes)
            return outcomes[0]

        return self.runner.run(run())

    async def write(self, side: Side, attempt: int, entry: Entry) -> int:
        number, held = side.attempts[attempt]
        return await write(side.driver.store, side.jobs[number].id, held.token, self.written[attempt] + 1, entry)

    def write_on_all(self, attempt: int, entry: Entry) -> Any:
        found = self.all(lambda side: self.write(side, attempt, entry))
        self.written[attempt] += isinstance(found, int)
        return found

    # ---- jobs and their attempts

    @rule(
        target=jobs,
        user=st.sampled_from([None, "u1", "u1", "u2"]),
        session=st.sampled_from([None, None, "s1"]),
        micros=LIMITS,
        tokens=TOKEN_LIMITS,
        at_limit=st.sampled_from(AT_LIMITS),
    )
    def submit(self, user, session, micros, tokens, at_limit) -> int:
        return self._submit(None, user, session, micros, tokens, at_limit)

    @rule(target=jobs, parent=jobs, user=st.sampled_from([None, "u1"]), micros=LIMITS)
    def submit_child(self, parent: int, user: str | None, micros: int | None) -> int:
        return self._submit(parent, user, None, micros, None, "stop")

    def _submit(
        self, parent: int | None, user: str | None, session: str | None, micros: Any, tokens: Any, at_limit: AtLimit
    ) -> int:
        budget = Budget(None if micros is None else usd(micros), tokens, at_limit=at_limit)

        async def act(side: Side) -> None:
            above = None if parent is None else side.jobs[parent]
            job = await side.driver.submit(budget=budget, parent=above, user=user, session_id=session)
            side.jobs.append(job)

        self.all(act)
        self.own.append(budget)
        return len(self.own) - 1

    @rule(target=attempts, lease=st.sampled_from([ENDED_LEASE, 60, 60]))
    def claim(self, lease: int) -> int:
        async def act(side: Side) -> list[int]:
            claims = await side.driver.claim(1, lease=lease)
            side.attempts += [(side.number(claim.job_id), Attempt(claim.token, claim.queue)) for claim in claims]
            return [side.number(claim.job_id) for claim in claims]

        self.all(act)
        self.written |= {n: 0 for n in range(len(self.sides[0].attempts)) if n not in self.written}
        return len(self.sides[0].attempts) - 1

    @rule(attempt=attempts, action=st.sampled_from(LEAVING))
    def leave(self, attempt: int, action: str) -> None:
        async def act(side: Side) -> bool:
            number, held = side.attempts[attempt]
            hold = Hold("tenant|total") if action == "hold" else None
            job = await side.driver.store.get(None, side.jobs[number].id)
            return await side.driver.end(job, held, action, hold=hold) is not None

        if attempt >= 0:
            self.all(act)

    @rule(bury=st.booleans())
    def leases_end(self, bury: bool) -> None:
        async def act(side: Side) -> list[int]:
            lost = (await side.driver.store.tickets.overdue()).lost
            for job_id, token, queue in sorted(lost, key=lambda found: side.number(found[0])):
                job, how = await side.driver.store.get(None, job_id), "bury" if bury else "rescue"
                await side.driver.store.move(job, how, attempt=Attempt(token, queue), if_lease_ended=True, lost=True)
            return sorted(side.number(job_id) for job_id, _, _ in lost)

        self.all(act)

    @rule(job=jobs, action=st.sampled_from(sorted(PEOPLE)))
    def act_as_a_person(self, job: int, action: str) -> None:
        async def act(side: Side) -> Any:
            return (await PEOPLE[action](side.driver.store, TENANT, side.jobs[job].id)).status

        self.all(act)

    @rule(job=jobs, action=st.sampled_from(["decide", "expire"]))
    def decide_or_expire(self, job: int, action: str) -> None:
        async def act(side: Side) -> bool:
            now = await side.driver.store.get(None, side.jobs[job].id)
            return await side.driver.store.move(now, action) is not None

        self.all(act)

    @rule(job=jobs, micros=LIMITS)
    def retry_with_another_limit(self, job: int, micros: int | None) -> None:
        changes = {"usd": None if micros is None else usd(micros)}

        async def act(side: Side) -> Any:
            return (await actions.retry(side.driver.store, TENANT, side.jobs[job].id, changes)).status

        if self.all(act) == "queued":
            self.own[job] = self.own[job].override(changes)

    @rule(job=jobs)
    def forget(self, job: int) -> None:
        async def act(side: Side) -> bool:
            ended = (await side.driver.store.get(None, side.jobs[job].id)).ended
            if ended:
                side.pruned[job] = await rows_of(side.driver, side.jobs[job])
                await prune(side.driver, side.jobs[job])
            return ended

        self.all(act)

    # ---- calls

    @rule(target=calls, attempt=attempts, micros=MICROS, tokens=TOKENS, tool=st.sampled_from([False, False, True]))
    def reserve(self, attempt: int, micros: int, tokens: int, tool: bool) -> int:
        if attempt < 0:
            return -1
        call = Call(attempt, f"c{len(self.made)}", micros, 0 if tool else tokens, tool)
        self.made.append(call)
        self.begin(call)
        return len(self.made) - 1

    def begin(self, call: Call) -> None:
        entry: Entry = ModelStarted(call.id, 1, "m", call.micros, call.tokens, 9, "p")
        if call.tool:
            entry = ToolRequested(call.id, 1, "search", {}, "write", reserved=call.micros)
        answer = self.write_on_all(call.attempt, entry)
        if isinstance(answer, Refusal):
            self.check_refusal(call, answer)

    def check_refusal(self, call: Call, refusal: Refusal) -> None:
        """A call is only refused when it does not fit by what the rows say."""
        side = self.sides[0]
        job = side.jobs[side.attempts[call.attempt][0]]
        asked = call.micros if refusal.unit == "usd" else call.tokens
        assert asked > refusal.left
        today = self.today()
        window = {"total": "total", "month": today[:7], "day": today}[refusal.period]
        held: list[Meter] = [(refusal.scope, window)]
        if refusal.scope in ("job", "job:*"):
            held = [side.number(payer) for payer in (job.id, *job.spec.ancestors)]
        assert refusal.left in [refusal.limit - side.used(meter, refusal.unit) for meter in held]

    @rule(call=calls, share=st.sampled_from([0.0, 0.5, 1.0, 1.0]), again=st.booleans())
    def settle(self, call: int, share: float, again: bool) -> None:
        """With the usage that the provider reports, which is never more than was reserved."""
        if call >= 0:
            made = self.made[call]
            tokens, settled = int(made.tokens * share), int(made.micros * share)
            usage = {"input_tokens": tokens, "output_tokens": 0}
            entry: Entry = ModelCompleted(made.id, 1, "m", [], "end_turn", usage, "p", made.micros, settled, "settled")
            if made.tool:
                entry = ToolCompleted(made.id, 1, "search", "found", False, settled=made.micros)
            for _ in range(1 + again):
                self.finish(call, entry)

    @rule(call=calls, billed=st.booleans())
    def fail(self, call: int, billed: bool) -> None:
        """Without a usage: at the worst case, or released. A tool's call is found out not to have happened."""
        if call >= 0:
            made = self.made[call]
            settled, reason = (made.micros, "worst_case") if billed else (0, "released")
            entry: Entry = ModelFailed(made.id, 1, "m", "cut", "", None, "p", made.micros, settled, reason)
            if made.tool:
                entry = ToolReconciled(made.id, 1, "search", "not_happened", "person")
                self.undone.add(call)
            self.finish(call, entry)

    @rule(call=calls)
    def begin_a_tool_again(self, call: int) -> None:
        """It was found out that it did not happen; its price may have been charged when its job ended."""
        if call >= 0 and self.made[call].tool and (call in self.undone or self.ended(call)):
            made = self.made[call]
            self.begin(Call(self.newest_attempt(made), made.id, made.micros, 0, tool=True))

    def finish(self, call: int, entry: Entry) -> None:
        """Records the end of a call that is open, or was settled when its worker was lost."""
        made = self.made[call]
        if not self.began(made):
            return
        outlives = made.tool or call in self.batched
        self.write_on_all(self.newest_attempt(made) if outlives else made.attempt, entry)

    def newest_attempt(self, call: Call) -> int:
        number = self.sides[0].attempts[call.attempt][0]
        return max(n for n, (job, _) in enumerate(self.sides[0].attempts) if job == number)

    def row(self, call: Call) -> Json | None:
        rows = self.sides[0].rows.get(self.sides[0].attempts[call.attempt][0], [])
        return next((row for row in reversed(rows) if row["id"].partition(".")[0] == call.id), None)

    def began(self, call: Call) -> bool:
        return self.row(call) is not None

    def ended(self, call: int) -> bool:
        row = self.row(self.made[call])
        return row is not None and row["settled_usd"] is not None

    @rule(call=calls)
    def a_batch_has_it(self, call: int) -> None:
        if call >= 0 and not self.made[call].tool and self.began(self.made[call]):
            made = self.made[call]
            if isinstance(self.write_on_all(made.attempt, ModelSubmitted(made.id, 1, "msgbatch_1")), int):
                self.batched.add(call)

    # ---- limits

    @rule(
        scope=st.sampled_from(SCOPES),
        period=st.sampled_from(PERIODS),
        micros=LIMITS,
        tokens=TOKEN_LIMITS,
        at_limit=st.sampled_from(AT_LIMITS),
    )
    def set_a_limit(self, scope: str, period: Period, micros: Any, tokens: Any, at_limit: AtLimit) -> None:
        period = "total" if scope == "job:*" else period
        self.all(lambda side: limit(side.driver, scope, micros, tokens, period=period, at_limit=at_limit))
        self.budgets[scope, period] = micros, tokens, at_limit

    @rule(scope=st.sampled_from(SCOPES), period=st.sampled_from(PERIODS))
    def lift_a_limit(self, scope: str, period: Period) -> None:
        self.all(lambda side: lift(side.driver, scope, period=period))
        self.budgets.pop((scope, period), None)

    # ---- what must always be so

    def today(self) -> str:
        return datetime.now(UTC).date().isoformat()

    @invariant()
    def every_sum_is_that_of_the_rows(self) -> None:
        type(self).steps += 1
        self.all(lambda side: side.look())
        assert all(side.seen() == self.sides[0].seen() for side in self.sides)

    @invariant()
    def no_use_above_a_limit_has_grown(self) -> None:
        """A limit may be set below what is used already; then that may only shrink."""
        if not self.sides:
            return
        used = {(meter, unit): self.sides[0].used(meter, unit) for meter in self.meters() for unit in UNITS}
        for meter, unit in used:
            for most in self.limits(meter, unit):
                assert used[meter, unit] <= max(most, self.before.get((meter, unit), 0)), (meter, unit)
        self.before = used

    def meters(self) -> list[Meter]:
        side = self.sides[0]
        return [*range(len(side.jobs)), *side.books.meters]

    def limits(self, meter: Meter, unit: str) -> Iterator[int]:
        """The limits that hold it, but for those that merely warn."""
        if isinstance(meter, int):
            own = self.own[meter]
            budgets = [(own.micros, own.tokens, own.at_limit), self.budgets.get(("job:*", "total"))]
        else:
            scope, window = meter
            period: Period = "total" if window == "total" else "month" if len(window) == 7 else "day"
            default = self.budgets.get((f"{scope.partition(':')[0]}:*", period))
            budgets = [self.budgets.get((scope, period), default)]
        for micros, tokens, at_limit in filter(None, budgets):
            most = micros if unit == "usd" else tokens
            if most is not None and at_limit != "warn":
                yield most


class Midnight(Money):
    """In memory, where the clock is ours."""

    @initialize()
    def open(self) -> None:
        self.now = datetime(2026, 12, 30, 23, 59, 59, tzinfo=UTC)
        super().open()

    def stores(self) -> Iterator[Any]:
        yield MemoryStore(lambda: int(self.now.timestamp() * 1000))

    @rule()
    def midnight(self) -> None:
        tomorrow = self.now.date() + timedelta(days=1)
        self.now = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC)

    def today(self) -> str:
        return self.now.date().isoformat()


class Both(Money):
    """On both stores at once."""

    url: str

    def stores(self) -> Iterator[Any]:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        yield MemoryStore()
        yield JobStore(RedisLink(connect(self.url)))


def live(machine: type[Money], examples: int, steps: int) -> None:
    how = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=how)


def both_on(url: str) -> type[Both]:
    return type("BothHere", (Both,), {"url": url})


def test_money_lives_through_midnight() -> None:
    live(Midnight, examples=15, steps=30)


def test_money_is_the_same_on_both_stores(redis_url: str) -> None:
    live(both_on(redis_url), examples=10, steps=25)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["midnight", "both"])
def test_money_holds_for_ten_thousand_steps(redis_url: str, where: str) -> None:
    machine = Midnight if where == "midnight" else both_on(redis_url)
    machine.steps = 0
    while machine.steps < STEPS:
        live(machine, examples=100, steps=50)
