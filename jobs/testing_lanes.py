"""The twin of `lua/lanes.lua` in memory: whose turn it is, and what the limits of running jobs hold back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jobs.lanes import scopes_of
from jobs.records import Job


@dataclass(slots=True)
class MemoryLanes:
    """Lanes and their turns. `queues` are the lists of tickets by the names of queues and lanes; `count` tells how many
    jobs of a lane run. `limits` are those of a tenant by the field of their hash.
    """

    queues: dict[str, list[str]]
    count: Callable[[str], int]
    limits: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    rotation: defaultdict[str, dict[str, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    running: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    held: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    tickets: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    waiting: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    turns: int = 0

    # ---- turns

    def push(self, lane: str, job_id: str, *, front: bool = False) -> None:
        """Puts a ticket into a lane, which then takes part."""
        tickets = self.queues.setdefault(lane, [])
        tickets.insert(0 if front else len(tickets), job_id)
        self.join(lane)

    def join(self, lane: str) -> None:
        """Lets a lane that has tickets take part."""
        if "~" in lane:
            self.queues.setdefault(queue_of(lane), [])
            self.queues.setdefault(lane, [])
            if lane not in (lanes := self.rotation[queue_of(lane)]):
                lanes[lane] = self._place(lane)

    def leave_or_stay(self, lane: str, *, served: bool) -> None:
        """What remains to be done once a lane has lost a ticket or had its turn."""
        lanes = self.rotation[queue_of(lane)]
        if not self.queues[lane] and not any(self.held[lane].values()):
            lanes.pop(lane, None)
        elif served and lane in lanes:
            lanes[lane] = self._place(lane)

    def order(self, queue: str) -> list[str]:
        """The lanes of a queue as they are served."""
        lanes = self.rotation[queue]
        return sorted(lanes, key=lanes.__getitem__)

    def _turn(self) -> int:
        self.turns += 1
        return self.turns

    def _place(self, lane: str) -> tuple[int, int]:
        return self.count(lane), self._turn()

    # ---- limits

    def is_full(self, tenant: str) -> bool:
        """Whether as many jobs of a tenant run as may."""
        return self._is_full(tenant, "tenant", self.limits[tenant].get("running"))

    def _is_full(self, tenant: str, scope: str, most: int | None) -> bool:
        return most is not None and len(self.running[tenant, scope]) >= most

    def held_by(self, job: Job) -> str | None:
        """The scope, if any, whose limit holds a job back, beside that of its tenant."""
        most = {f"agent:{job.spec.agent}": self.limits[job.tenant].get(f"running:agent:{job.spec.agent}")}
        if job.spec.concurrency is not None:
            most[f"key:{job.spec.concurrency['key']}"] = job.spec.concurrency["limit"]
        return next((scope for scope in scopes_of(job.spec) if self._is_full(job.tenant, scope, most[scope])), None)

    def hold(self, tenant: str, scope: str, lane: str, job_id: str, *, front: bool) -> None:
        """Keeps a ticket until a scope has room."""
        tickets = self.tickets[lane, scope]
        tickets.insert(0 if front else len(tickets), job_id)
        self.held[lane][scope] = 0
        self.waiting[tenant, scope].add(lane)

    def close(self, tenant: str, lane: str) -> None:
        """Takes a lane out of its turn until its tenant has room."""
        self.rotation[queue_of(lane)].pop(lane)
        self.waiting[tenant, "tenant"].add(lane)

    def ready(self, lane: str) -> list[str]:
        """The scopes that held tickets of a lane back and had room since."""
        held = self.held[lane]
        return sorted((scope for scope, turn in held.items() if turn), key=held.__getitem__)

    def occupy(self, job: Job) -> None:
        """Takes the slots of a job that runs."""
        for scope in _slots(job):
            self.running[job.tenant, scope].add(job.id)

    def vacate(self, job: Job, lane: str) -> None:
        """Gives back the slots of a job that runs no more, and its lane the turn that it has for it."""
        for scope in _slots(job):
            self.running[job.tenant, scope].discard(job.id)
            self.reopen(job.tenant, scope)
        if "~" in lane and lane in (lanes := self.rotation[queue_of(lane)]):
            lanes[lane] = self.count(lane), lanes[lane][1]

    def reopen(self, tenant: str, scope: str) -> None:
        """Opens the lanes that wait for a scope."""
        for lane in sorted(self.waiting.pop((tenant, scope), ())):
            if scope != "tenant":
                turn = self._turn()
                if scope in self.held[lane]:
                    self.held[lane][scope] = turn
            self.join(lane)

    def sweep(self, runs: Callable[[str], bool], key_limit: Callable[[str], int | None]) -> int:
        """See `jobs.queue.Tickets.sweep_limits`; `runs` tells of a job whether it has a lease."""
        opened = 0
        for tenant, scope in [waits for waits, lanes in self.waiting.items() if lanes]:
            running = self.running[tenant, scope]
            running -= {job_id for job_id in running if not runs(job_id)}
            field_name = "running" if scope == "tenant" else f"running:{scope}"
            most = self.limits[tenant].get(field_name)
            if scope.startswith("key:"):
                lane = min(self.waiting[tenant, scope])
                most = key_limit(self.tickets[lane, scope][0])
            if not self._is_full(tenant, scope, most):
                self.reopen(tenant, scope)
                opened += 1
        return opened

    def depths(self) -> dict[str, int]:
        """Tickets of each queue, with those that limits hold back."""
        found: dict[str, int] = {}
        for name, tickets in sorted(self.queues.items()):
            held = sum(len(self.tickets[name, scope]) for scope in self.held[name])
            found[queue_of(name)] = found.get(queue_of(name), 0) + len(tickets) + held
        return dict(sorted(found.items()))


def queue_of(lane: str) -> str:
    """The queue that a lane belongs to; a queue that is no lane itself."""
    base, at, side = lane.partition("@")
    return base.partition("~")[0] + at + side


def _slots(job: Job) -> Iterator[str]:
    yield "tenant"
    yield from reversed(scopes_of(job.spec))
