"""Schedules: what submits jobs by the clock, and the slot ledger, which says what became of each time that came.

A slot is handled by one script: it moves the schedule's cursor past the slot, writes the slot's row, and notes that its
job is to be submitted. That job's id follows from the schedule and the slot, so to submit it again changes nothing, and
whoever dies in between leaves it to the next (`jobs.firing`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from agent_core.types import Json
from jobs import keys, stats
from jobs.cron import EVERY, clock, interval
from jobs.errors import ConflictError, InvalidError, NotFoundError
from jobs.journal import dump
from jobs.link import Arg, RedisLink
from jobs.records import new_id, rfc3339
from jobs.scripts import script
from jobs.slots import CatchUp, Look, Timing, upcoming
from jobs.status import ENDED
from jobs.templates import check_template

MOST_SCHEDULES = 1000
"""Schedules of one tenant."""
MOST_ROWS = 10_000
"""Slots that the ledger of one schedule keeps, the newest."""
MOST_WAITING = 100
"""Slots of one schedule that may wait for a run to end."""
RETRY_MS = 5_000
"""After so long without an end another scheduler submits the job of a slot."""
COUNTER = stats.field_name("schedule_slots_total", "")
ENDED_JSON = json.dumps(dict.fromkeys(sorted(ENDED), True))
Overlap = Literal["skip", "queue", "cancel_previous", "allow"]
State = Literal["active", "paused", "ended"]
TIMING = ("cron", "timezone", "jitter")
"""Fields without which the slots of a schedule would be others."""


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What was asked for. `job` is a submission without a time; `jitter` and `catch_up_window` are in seconds.

    At most `concurrency` runs are open before `overlap` says what happens to the next; `ends_at` is in ms.
    """

    cron: str
    job: Json
    name: str | None = None
    timezone: str = "UTC"
    overlap: Overlap = "skip"
    concurrency: int = 1
    catch_up: CatchUp = "last"
    catch_up_window: int = 86_400
    jitter: int = 0
    ends_at: int | None = None
    max_runs: int | None = None

    @classmethod
    def of(cls, given: Json) -> ScheduleSpec:
        """From one flat object: its own fields, and those of the job."""
        own = {name: given[name] for name in OWN_FIELDS if name in given}
        return cls(**own, job={name: value for name, value in given.items() if name not in OWN_FIELDS})

    def checked(self) -> ScheduleSpec:
        """Itself. Raises InvalidError for a clock or a template that cannot be read."""
        clock(self.cron, self.timezone, 0)
        if self.cron.startswith(EVERY) and self.jitter > interval(self.cron):
            text = f"jitter is {self.jitter} s, more than the interval of {self.cron}; expected less"
            raise InvalidError(text, code="invalid_jitter")
        check_template(self.job["input"])
        return self


OWN_FIELDS = frozenset(f.name for f in fields(ScheduleSpec)) - {"job"}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule at one moment. `cursor_ms` is the last slot handled; a `declared` one is an agents module's."""

    id: str
    tenant: str
    spec: ScheduleSpec
    state: State = "active"
    created_ms: int = 0
    cursor_ms: int = 0
    revision: int = 0
    runs: int = 0
    created_by: str | None = None
    declared: bool = False

    @property
    def timing(self) -> Timing:
        spec = self.spec
        return Timing(
            self.id,
            spec.cron,
            spec.timezone,
            self.created_ms,
            spec.jitter,
            spec.ends_at,
            spec.catch_up,
            spec.catch_up_window,
        )

    def next_runs(self, now: int, count: int = 10) -> list[int]:
        """The next times, in ms, at which a job would be submitted if nothing held it back."""
        spec = self.spec
        left = count if spec.max_runs is None else min(count, spec.max_runs - self.runs)
        return upcoming(self.timing, max(now, self.cursor_ms), left) if self.state == "active" else []

    def to_json(self, now: int) -> Json:
        """The schedule as the API shows it."""
        spec = asdict(self.spec)
        return {
            "id": self.id or None,
            "object": "schedule",
            **{name: spec[name] for name in ("name", "cron", "timezone")},
            "state": self.state,
            **{name: spec[name] for name in ("overlap", "concurrency", "catch_up", "catch_up_window", "jitter")},
            "ends_at": rfc3339(self.spec.ends_at),
            "max_runs": self.spec.max_runs,
            "runs": self.runs,
            "declared": self.declared,
            **self.spec.job,
            "next_runs": [rfc3339(at) for at in self.next_runs(now)],
            "created_at": rfc3339(self.created_ms) if self.id else None,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a slot; `job` is the id that its job has, or would have had. Times are in ms."""

    slot: str
    at: int
    due: int
    outcome: str
    job: str
    reason: str | None = None
    handled: int = field(default=0)

    def to_json(self) -> Json:
        """The row as the API shows it."""
        return {
            "slot": self.slot,
            "scheduled_at": rfc3339(self.at),
            "due_at": rfc3339(self.due),
            "handled_at": rfc3339(self.handled),
            "outcome": self.outcome,
            "reason": self.reason,
            "job_id": None if self.outcome in ("skipped", "waiting") else self.job,
        }


class Work(NamedTuple):
    """What a scheduler has to do: look at schedules, submit the jobs of (schedule, slot) that somebody else left; `now`
    and the time until the next look (None: nothing is planned) are in ms.
    """

    now: int
    schedules: list[str]
    left: list[tuple[str, str]]
    wait: int | None


def job_id_of(schedule_id: str, slot: str, at: int) -> str:
    """The id of a slot's job: like any other, but always the same."""
    digest = hashlib.sha256(f"{schedule_id} {slot}".encode()).hexdigest()
    return f"job_{at:012x}{digest[:20]}"


def declared_id(tenant: str, name: str) -> str:
    """The id of the schedule that an agents module declares under a name."""
    return f"sched_{hashlib.sha256(f'{tenant} {name}'.encode()).hexdigest()[:32]}"


class Schedules:
    """Schedules and their ledgers in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    # ---- as people see them

    async def now(self) -> int:
        """The clock of Redis, in ms."""
        seconds, micros = await self._link.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def create(self, tenant: str, spec: ScheduleSpec, by: str | None = None) -> Schedule:
        """Makes a schedule. Raises InvalidError, ConflictError when the tenant has as many as it may."""
        schedule_id = new_id("sched")
        await self._write(schedule_id, tenant, "new", {"spec": dump(asdict(spec.checked())), "by": by or ""})
        return await self.get(tenant, schedule_id)

    async def declare(self, tenant: str, spec: ScheduleSpec) -> None:
        """Makes or changes the schedule that an agents module declares, unless it is so already. Raises InvalidError,
        ConflictError.
        """
        assert spec.name is not None
        schedule_id, text = declared_id(tenant, spec.name), dump(asdict(spec.checked()))
        before = await self.find(schedule_id)
        if before is None or dump(asdict(before.spec)) != text:
            afresh = before is not None and _timing(before.spec) != _timing(spec)
            await self._write(schedule_id, tenant, "any", {"spec": text, "by": "", "declared": 1}, afresh=afresh)

    async def get(self, tenant: str, schedule_id: str) -> Schedule:
        """A schedule. Raises NotFoundError."""
        found = await self.find(schedule_id)
        if found is None or found.tenant != tenant:
            raise NotFoundError(f"there is no schedule {schedule_id[:80]!r}", code="schedule_not_found")
        return found

    async def find(self, schedule_id: str) -> Schedule | None:
        """A schedule of whatever tenant, for the platform's own processes."""
        return _parse(schedule_id, texts(await self._link.command("HGETALL", keys.schedule(schedule_id))))

    async def change(self, schedule: Schedule, changes: Mapping[str, Any]) -> Schedule:
        """Changes fields of what was asked for; one that had ended goes on. Raises InvalidError, ConflictError for a
        declared one, NotFoundError.
        """
        if schedule.declared:
            text = f"schedule {schedule.id} is declared in an agents module; change it there"
            raise ConflictError(text, code="schedule_declared")
        spec = ScheduleSpec(**{**asdict(schedule.spec), **changes}).checked()
        fields: dict[str, Arg] = {"spec": dump(asdict(spec))}
        if schedule.state == "ended":
            fields["state"] = "active"
        afresh = schedule.state == "ended" or _timing(spec) != _timing(schedule.spec)
        await self._write(schedule.id, schedule.tenant, "old", fields, afresh=afresh)
        return await self.get(schedule.tenant, schedule.id)

    async def pause(self, schedule: Schedule) -> Schedule:
        """Lets no slot come any more. Raises ConflictError when it has ended, NotFoundError."""
        return await self._turn(schedule, "paused")

    async def resume(self, schedule: Schedule) -> Schedule:
        """Lets slots come again from now on; those of the pause never were. Raises as `pause` does."""
        return await self._turn(schedule, "active")

    async def remove(self, schedule: Schedule) -> None:
        """Removes a schedule and its ledger. Its jobs go on."""
        await asyncio.gather(
            self._link.command("ZREM", keys.SCHEDULES, schedule.id),
            self._link.command("ZREM", keys.schedules(schedule.tenant), schedule.id),
            self._link.command(
                "DEL", keys.schedule(schedule.id), *_ledger(schedule.id), keys.slots(schedule.id, "waiting")
            ),
        )

    async def trigger(self, schedule: Schedule) -> Row:
        """A slot of this moment. Raises NotFoundError."""
        at, slot = await self.now(), f"trigger-{secrets.token_hex(8)}"
        trigger_keys = [keys.schedule(schedule.id), *_ledger(schedule.id), keys.FIRING]
        args: list[Arg] = [schedule.id, slot, job_id_of(schedule.id, slot, at), RETRY_MS]
        if not await self._link.script(script("trigger_slot"), trigger_keys, args, patient=False):
            raise NotFoundError(f"there is no schedule {schedule.id!r}", code="schedule_not_found")
        (row,) = await self.rows(schedule.id, [slot])
        assert row is not None
        return row

    async def rows(self, schedule_id: str, slots: Sequence[str]) -> list[Row | None]:
        """Rows of the ledger in the order of the slots, None for what it does not have."""
        if not slots:
            return []
        found = await self._link.command("HMGET", keys.slots(schedule_id, "rows"), *slots)
        return [None if text is None else Row(**json.loads(text)) for text in found]

    # ---- as schedulers see them

    async def due(self, most: int) -> Work:
        """What is to be done; at most so many of each."""
        due_keys = [keys.SCHEDULES, keys.FIRING]
        now, due, left, wait = await self._link.script(script("due_schedules"), due_keys, [most], patient=False)
        pairs = [tuple(one.decode().split(" ", 1)) for one in left]
        return Work(now, [one.decode() for one in due], pairs, None if wait < 0 else wait)

    async def handle(self, schedule: Schedule, look: Look) -> list[str]:
        """Writes due slots into the ledger, if they are still to be handled; the slots to submit, in order."""
        spec = schedule.spec
        rows = [_row(schedule.id, *decision) for decision in look.decisions]
        cursor = look.decisions[-1].slot.at if look.decisions else schedule.cursor_ms
        handle_keys = [
            keys.schedule(schedule.id),
            *_ledger(schedule.id),
            keys.slots(schedule.id, "waiting"),
            keys.FIRING,
            keys.SCHEDULES,
            keys.STATS,
        ]
        args: list[Arg] = [
            schedule.id,
            schedule.revision,
            schedule.cursor_ms,
            cursor,
            "" if look.next_due is None else look.next_due,
            spec.overlap,
            spec.concurrency,
            spec.max_runs or 0,
            json.dumps(rows),
            keys.JOB_PREFIX,
            ENDED_JSON,
            MOST_ROWS,
            MOST_WAITING,
            RETRY_MS,
            COUNTER,
        ]
        verdict, *more = await self._link.script(script("handle_slots"), handle_keys, args, patient=False)
        return [slot.decode() for slot in more[0]] if verdict == b"done" else []

    async def settle(self, schedule_id: str, slot: str, refused: str | None = None) -> None:
        """Takes down that a slot's job is submitted, or why it never will be."""
        settle_keys = [*_ledger(schedule_id), keys.FIRING, keys.STATS]
        await self._link.script(script("settle_slot"), settle_keys, [schedule_id, slot, refused or "", COUNTER])

    async def open_runs(self, schedule_id: str) -> dict[str, str]:
        """The jobs that had not ended when the schedule was last looked at, each with its slot."""
        return texts(await self._link.command("HGETALL", keys.slots(schedule_id, "open")))

    async def newest(self, schedule_id: str, count: int) -> list[Row]:
        """The newest rows of the ledger, the newest first."""
        slots = await self._link.command("ZREVRANGE", keys.slots(schedule_id, "index"), 0, count - 1)
        return [row for row in await self.rows(schedule_id, [slot.decode() for slot in slots]) if row is not None]

    # ---- in Redis

    async def _turn(self, schedule: Schedule, state: State) -> Schedule:
        if schedule.state == "ended":
            raise ConflictError(f"schedule {schedule.id} has ended; change its end first", code="schedule_ended")
        if schedule.state != state:
            await self._write(schedule.id, schedule.tenant, "old", {"state": state}, afresh=state == "active")
        return await self.get(schedule.tenant, schedule.id)

    async def _write(
        self, schedule_id: str, tenant: str, wanted: str, fields: Mapping[str, Arg], *, afresh: bool = False
    ) -> None:
        pairs = [word for pair in {"tenant": tenant, **fields}.items() for word in pair]
        write_keys = [keys.schedule(schedule_id), keys.schedules(tenant), keys.SCHEDULES]
        args: list[Arg] = [schedule_id, wanted, MOST_SCHEDULES, int(afresh), *pairs]
        verdict = await self._link.script(script("write_schedule"), write_keys, args)
        if verdict == b"full":
            text = f"the tenant has {MOST_SCHEDULES} schedules, and may have no more; remove one"
            raise ConflictError(text, code="too_many_schedules")
        if verdict == b"missing":
            raise NotFoundError(f"there is no schedule {schedule_id!r}", code="schedule_not_found")


def texts(raw: Any) -> dict[str, str]:
    """A hash as Redis answers it."""
    words: Sequence[bytes] = raw if not isinstance(raw, dict) else [word for pair in raw.items() for word in pair]
    return {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2], strict=True)}


def _ledger(schedule_id: str) -> list[str]:
    return [keys.slots(schedule_id, "index"), keys.slots(schedule_id, "rows"), keys.slots(schedule_id, "open")]


def _timing(spec: ScheduleSpec) -> tuple[Any, ...]:
    return tuple(getattr(spec, name) for name in TIMING)


def _row(schedule_id: str, slot: tuple[int, int], outcome: str, reason: str | None) -> Json:
    at, due = slot
    row = {"slot": str(at), "at": at, "due": due, "outcome": outcome, "job": job_id_of(schedule_id, str(at), at)}
    return row if reason is None else {**row, "reason": reason}


def _parse(schedule_id: str, raw: Mapping[str, str]) -> Schedule | None:
    if not raw:
        return None
    return Schedule(
        schedule_id,
        raw["tenant"],
        ScheduleSpec(**json.loads(raw["spec"])),
        raw["state"],  # type: ignore[arg-type]
        int(float(raw["created_ms"])),
        int(float(raw["cursor_ms"])),
        int(raw["revision"]),
        int(raw["runs"]),
        raw.get("by") or None,
        raw.get("declared") == "1",
    )
