"""What the halves of `jobs.testing` share: the records, journals and lists that Redis would hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from agent_core.types import Json
from jobs.journal import Line, dump
from jobs.queue import CLAIM
from jobs.records import Job, parse_record
from jobs.testing_lanes import MemoryLanes
from jobs.testing_money import MemoryAccounts
from jobs.testing_switches import MemorySwitches

Record = dict[str, str]
Clock = Callable[[], int]


@dataclass(slots=True)
class Shelf:
    """What the two halves of the store share. Times are ms of `clock`; a lease's key is its queue and `job:token`.

    Big entries stand in their journal too: in memory nothing is gained by a blob.
    """

    clock: Clock
    records: dict[str, Record] = field(default_factory=dict)
    journals: dict[str, list[Line]] = field(default_factory=dict)
    sessions: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    queued: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    expiring: dict[str, int] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    leases: dict[tuple[str, str], int] = field(default_factory=dict)
    held: dict[str, int | None] = field(default_factory=dict)
    dead_letters: set[str] = field(default_factory=set)
    children: dict[str, set[str]] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    lanes: MemoryLanes = field(init=False)
    switches: MemorySwitches = field(init=False)
    accounts: MemoryAccounts = field(init=False)

    def __post_init__(self) -> None:
        self.lanes = MemoryLanes(self.queues, count=lambda lane: sum(name == lane for name, _ in self.leases))
        self.switches = MemorySwitches(self.lanes.push)
        self.accounts = MemoryAccounts(self.clock, self.records, switches=self.switches.on)

    def job(self, job_id: str) -> Job | None:
        """The job of a record, read back as from Redis."""
        record = self.records.get(job_id)
        if record is None:
            return None
        end = next((line.data for line in self.journals[job_id] if line.id == record.get("end_id")), None)
        return parse_record({name.encode(): value.encode() for name, value in record.items()}, end)

    def append(self, job_id: str, type_: str, data: Json, attempt: int | str = 0) -> str:
        """Appends a line to a journal; returns its id, which is above the last one's whatever the clock says."""
        lines = self.journals.setdefault(job_id, [])
        ms, number = self.clock(), 0
        if lines and lines[-1].position >= (ms, 0):
            ms, number = lines[-1].position[0], lines[-1].position[1] + 1
        lines.append(Line(f"{ms}-{number}", type_, int(attempt), json.loads(dump(data))))
        return lines[-1].id

    def tell_parent(self, parent: str, type_: str, data: Json) -> None:
        """Notes in a parent's journal what became of a child."""
        if "ended_ms" not in self.records.get(parent, {"ended_ms": ""}):
            self.append(parent, type_, data, self.records[parent].get("attempt", 0))

    def join_parent(self, parent: str, job_id: str, data: Json) -> None:
        """Counts a job among the children that its parent has to wait for."""
        self.children.setdefault(parent, set()).add(job_id)
        self.tell_parent(parent, "child.started", data)

    def go_on(self, job: Job) -> None:
        """Undoes what the end of a job was: its children are no orphans, and its parent has one more to wait for."""
        self.orphans.discard(job.id)
        if job.spec.parent_id in self.records:
            self.join_parent(job.spec.parent_id, job.id, _told(job, "queued"))

    def end(self, job: Job, status: str) -> str | None:
        """Takes an ended job off its parent; returns the parent when it waited for this child alone."""
        if self.children.get(job.id):
            self.orphans.add(job.id)
        parent = job.spec.parent_id or ""
        siblings = self.children.get(parent, set())
        if job.id not in siblings:
            return None
        siblings.remove(job.id)
        self.tell_parent(parent, "child.completed", _told(job, status))
        if not siblings:
            self.orphans.discard(parent)
        return parent if not siblings and "awaits_children" in self.records.get(parent, {}) else None

    def line_of(self, record: Record) -> list[str]:
        """The session's jobs, in the order in which they run."""
        return self.sessions[record["tenant"], record["session_id"]]

    def may_run(self, job_id: str) -> bool:
        """Whether a job may have a ticket: queued, due, and the first of its session."""
        record = self.records.get(job_id)
        if record is None or record["status"] not in CLAIM.sources or job_id in self.due:
            return False
        if not record["session_id"]:
            return True
        line = self.line_of(record)
        while line and line[0] != job_id and line[0] in self.dead_letters:
            line.pop(0)
        return line[:1] == [job_id]

    def lease_end(self, seconds: int) -> int:
        """When a lease that begins now ends; Redis counts from the beginning of the second."""
        return (self.clock() // 1000 + seconds) * 1000


def _told(job: Job, status: str) -> Json:
    """What a parent's journal says of a child's end, or of its undoing."""
    return {"job_id": job.id, "agent": job.spec.agent, "status": status}


def asked(record: Record) -> int:
    """What was asked of a running attempt: 0 nothing, 1 to cancel, 2 to pause."""
    return 1 if "cancel" in record else 2 if "pause" in record else 0
