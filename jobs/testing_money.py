"""The twin of `lua/money.lua` in memory: accounts, limits, reservations and settlements in plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from agent_core.errors import BudgetError, KilledError
from agent_core.outcomes import Refusal
from agent_core.types import AtLimit, Json, Unit

PERIODS = ("total", "month", "day")
WARNED = (80, 100)
BUSY = 1
Record = dict[str, str]
UNITS: tuple[tuple[Unit, str], ...] = (("usd", ""), ("tokens", "_tokens"))


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in one unit, with the meter that it is held against; `budget` names it as `scope|period`."""

    scope: str
    period: str
    budget: str
    at_limit: AtLimit
    unit: Unit
    most: int
    settled: int
    reserved: int

    @property
    def room(self) -> int:
        return self.most - self.settled - self.reserved

    def gravity(self, asked: int) -> int:
        """How grave it is that there is no room: not so much when open reservations alone are in the way."""
        if self.settled + asked <= self.most:
            return BUSY
        return BUSY + 1 if self.at_limit == "pause" else BUSY + 2


@dataclass(slots=True)
class MemoryAccounts:
    """All the money of a store: budgets by tenant and `scope|period`, meters by (tenant, scope, window)."""

    clock: Callable[[], int]
    records: dict[str, Record]
    budgets: dict[tuple[str, str], Json] = field(default_factory=dict)
    meters: defaultdict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    usage: defaultdict[tuple[str, str], Counter[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(Counter))
    switches: Container[str] = frozenset()
    open: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    """Reservations by job and call."""

    def reserve(self, job_id: str, call: Json) -> None:
        """Raises KilledError or BudgetError, and reserves nothing then."""
        if call["call_id"] in self.open[job_id]:
            return
        record, now = self.records[job_id], self.clock()
        for switch in ("global", f"tenant:{record['tenant']}", *_agents(record)):
            if switch in self.switches:
                raise KilledError(switch)
        day = _day(now)
        limits = [limit for limit in self._limits(record, day) if limit.at_limit != "warn"]
        asked: dict[Unit, int] = {"usd": call["reserved"], "tokens": call["tokens"]}
        refusing = [limit for limit in limits if asked[limit.unit] > limit.room]
        if refusing:
            tightest = max(refusing, key=lambda limit: limit.gravity(asked[limit.unit]))
            room = {unit: min((x.room for x in limits if x.unit == unit), default=None) for unit, _ in UNITS}
            raise BudgetError(
                Refusal(
                    tightest.scope,
                    tightest.period,
                    tightest.at_limit,
                    tightest.unit,
                    tightest.most,
                    tightest.room,
                    room["usd"],
                    room["tokens"],
                    tightest.budget,
                    _window_end(tightest.period, now),
                    tightest.gravity(asked[tightest.unit]) == BUSY,
                )
            )
        self._charge(record, day, "held", "reserved", call["reserved"], call["tokens"])
        _add(record, "reserved", call["reserved"])
        self.open[job_id][call["call_id"]] = {**call, "day": day}

    def submit(self, job_id: str, call: Json) -> None:
        """Notes that a batch has a call: its reservation outlives the attempt."""
        if call["call_id"] in self.open[job_id]:
            self.open[job_id][call["call_id"]]["batch_id"] = call["batch_id"]

    def settle(self, job_id: str, bill: Json) -> list[Json]:
        """Settles a reservation, once; returns the data of each budget.reached entry."""
        call, record = self.open[job_id].pop(bill["call_id"], None), self.records[job_id]
        if call is None:
            return []
        tokens: int = bill["tokens"] if "tokens" in bill else call["tokens"]
        before = list(self._limits(record, call["day"]))
        self._charge(record, call["day"], "held", "reserved", -call["reserved"], -call["tokens"])
        self._charge(record, call["day"], "spent", "settled", bill["settled"], tokens)
        _add(record, "reserved", -call["reserved"])
        _add(record, "cost", bill["settled"])
        about = (record["agent"], record["user"], bill["model"], bill["role"])
        counted = self.usage[record["tenant"], call["day"]]
        counted.update({(*about, "cost"): bill["settled"], (*about, "calls"): bill.get("calls", 1)})
        counted.update({(*about, name): amount for name, amount in bill["counters"].items()})
        more: dict[Unit, int] = {"usd": bill["settled"], "tokens": tokens}
        return [entry for limit in before for entry in _reached(limit, more[limit.unit])]

    def settle_open(self, job_id: str, *, ends: bool) -> tuple[list[tuple[str, Json]], list[Json]]:
        """Settles at the worst case what nobody will settle any more: the entries of it, and what it reached."""
        lost: list[tuple[str, Json]] = []
        reached: list[Json] = []
        for call in list(self.open[job_id].values()):
            if not ends and ("batch_id" in call or call["role"] == "tool"):
                continue
            bill = {"call_id": call["call_id"], "settled": call["reserved"], "model": call["model"]}
            reached += self.settle(job_id, {**bill, "role": call["role"], "counters": {}})
            data = {name: call[name] for name in ("call_id", "step", "price_version", "reserved")}
            data |= {"settled": call["reserved"], "reason": "worst_case"}
            if call["role"] == "tool":
                lost.append(("tool.charged", {**data, "name": call["model"]}))
                continue
            data |= {"model": call["model"], "role": call["role"], "usage": None}
            if call["role"] == "embedding":
                lost.append(("embedding.completed", data))
                continue
            _add(self.records[job_id], "model_calls", 1)
            data["code"] = "lost"
            data["message"] = "the worker was lost during the call; it is settled at its worst case"
            lost.append(("model.failed", data))
        return lost, reached

    def _charge(self, record: Record, day: str, in_job: str, in_meter: str, micros: int, tokens: int) -> None:
        for above in self._jobs(record):
            _add(above, in_job, micros)
            _add(above, f"{in_job}_tokens", tokens)
        for scope, _ in _scopes(record):
            for period in PERIODS:
                meter = self.meters[record["tenant"], scope, _window(period, day)]
                meter[in_meter] += micros
                meter[f"{in_meter}_tokens"] += tokens

    def _jobs(self, record: Record) -> list[Record]:
        above = [self.records[job_id] for job_id in record["ancestors"].split() if job_id in self.records]
        return [record, *above]

    def _limits(self, record: Record, day: str) -> Iterator[Limit]:
        for above in self._jobs(record):
            own: Json = {
                "micros": above["limit_micros"],
                "tokens": above["limit_tokens"],
                "at_limit": above["at_limit"],
            }
            used = Counter({name: int(above.get(name, 0)) for name in ("spent", "held", "spent_tokens", "held_tokens")})
            yield from _of("job", "total", "job|total", own, used, "spent", "held")
            if cap := self.budgets.get((record["tenant"], "job:*|total")):
                yield from _of("job:*", "total", "job:*|total", cap, used, "spent", "held")
        for scope, default in _scopes(record):
            for period in PERIODS:
                for name in (f"{scope}|{period}", f"{default}|{period}"):
                    if budget := self.budgets.get((record["tenant"], name)):
                        meter = self.meters[record["tenant"], scope, _window(period, day)]
                        yield from _of(scope, period, name, budget, meter, "settled", "reserved")
                        break


def _of(
    scope: str, period: str, name: str, budget: Json, used: Counter[str], settled: str, reserved: str
) -> Iterator[Limit]:
    for unit, suffix in UNITS:
        most = budget["micros" if unit == "usd" else "tokens"]
        if most not in (None, ""):
            amounts = used[settled + suffix], used[reserved + suffix]
            yield Limit(scope, period, name, budget["at_limit"], unit, int(most), *amounts)


def _reached(limit: Limit, more: int) -> Iterator[Json]:
    suffix = "_tokens" if limit.unit == "tokens" else ""
    for percent in WARNED:
        if limit.settled * 100 < limit.most * percent <= (limit.settled + more) * 100:
            yield {
                "scope": limit.scope, "period": limit.period, "percent": percent, "at_limit": limit.at_limit,
                f"spent{suffix}": limit.settled + more, f"limit{suffix}": limit.most,
            }  # fmt: skip


def _scopes(record: Record) -> list[tuple[str, str]]:
    """The scopes that have a meter, each with the name of its default."""
    scopes = [("tenant", "tenant"), (f"agent:{record['agent']}", "agent:*")]
    if record["user"]:
        scopes.append((f"user:{record['user']}", "user:*"))
    if record["session_id"]:
        scopes.append((f"session:{record['session_id']}", "session:*"))
    return scopes


def _agents(record: Record) -> list[str]:
    return [f"agent:{record['tenant']}:{agent}" for agent in record["agents"].split()]


def _add(record: Record, name: str, amount: int) -> None:
    record[name] = str(int(record.get(name, 0)) + amount)


def _date(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _day(ms: int) -> str:
    return _date(ms).isoformat()


def _window(period: str, day: str) -> str:
    return {"total": "total", "month": day[:7], "day": day}[period]


def _window_end(period: str, now: int) -> int | None:
    if period == "total":
        return None
    end = _date(now) + timedelta(days=1)
    while period == "month" and end.day != 1:
        end += timedelta(days=1)
    return int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1000
