"""The twin of the kill switches in memory: `lua/switches.lua` and what turns a switch on and off, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from jobs.kill_switch import Switch, switches_of
from jobs.records import Job, JobSpec


class GiveBack(Protocol):
    """Of `jobs.testing_lanes.MemoryLanes`."""

    def __call__(self, lane: str, job_id: str, *, front: bool) -> None: ...


@dataclass(slots=True)
class MemorySwitches:
    """The switches that are on, by their names, and the tickets that each withholds, as (queue, job id) in order.

    `give_back` puts a ticket into its lane again.
    """

    give_back: GiveBack
    on: dict[str, Switch] = field(default_factory=dict)
    withheld: defaultdict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def over(self, tenant: str, spec: JobSpec) -> list[Switch]:
        """The switches that are on and stop a job."""
        return [self.on[name] for name in switches_of(tenant, spec) if name in self.on]

    def require_none(self, tenant: str, spec: JobSpec) -> None:
        """Raises StoppedError when a switch stops a job."""
        for switch in self.over(tenant, spec):
            raise switch.refusal()

    def withhold(self, queue: str, job: Job, *, front: bool = False) -> int | None:
        """Keeps the ticket of a stopped job: 1, 0 when it was kept before, None when no switch stops the job."""
        switches, ticket = self.over(job.tenant, job.spec), (queue.partition("@")[0], job.id)
        if not switches:
            return None
        if any(ticket in self.withheld[switch.name] for switch in switches):
            return 0
        tickets = self.withheld[switches[0].name]
        tickets.insert(0 if front else len(tickets), ticket)
        return 1

    def turn_on(self, name: str, since_ms: int = 0) -> None:
        """See `jobs.kill_switch.KillSwitches`."""
        self.on.setdefault(name, Switch(name, since_ms, by="memory", reason="", begun=0, refused=0))

    def turn_off(self, name: str) -> None:
        """See `jobs.kill_switch.KillSwitches`."""
        self.on.pop(name, None)
        for queue, job_id in reversed(self.withheld.pop(name, [])):
            self.give_back(queue, job_id, front=True)
