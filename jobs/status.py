"""The one table of what may become of a job. Every script that writes `status` takes its rules from here.

scheduled -> queued -> running -> completed | failed | cancelled
               ^          |
               +----------+-> paused | requires_action -> queued
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from jobs.errors import ConflictError

Status = Literal[
    "scheduled", "queued", "running", "requires_action", "paused", "completed", "failed", "cancelled", "expired"
]
STATUSES: tuple[Status, ...] = get_args(Status)
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled", "expired"})
WAITING: frozenset[Status] = frozenset({"scheduled", "queued", "requires_action", "paused"})
"""Neither running nor ended: the job holds no worker."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A named move. `event` is the journal entry that the move writes."""

    name: str
    sources: frozenset[Status]
    target: Status
    event: str

    @property
    def ends(self) -> bool:
        return self.target in ENDED


def _move(name: str, sources: set[Status], target: Status, event: str) -> Transition:
    return Transition(name, frozenset(sources), target, event)


TRANSITIONS: dict[str, Transition] = {
    t.name: t
    for t in (
        # by the clock
        _move("due", {"scheduled"}, "queued", "job.queued"),
        _move("expire", {"scheduled", "queued", "requires_action", "paused"}, "expired", "job.expired"),
        # by the worker that owns the job
        _move("claim", {"queued"}, "running", "job.started"),
        _move("complete", {"running"}, "completed", "job.completed"),
        _move("fail", {"running"}, "failed", "job.failed"),
        _move("stop", {"running"}, "cancelled", "job.cancelled"),
        _move("park", {"running"}, "requires_action", "job.requires_action"),
        _move("suspend", {"running"}, "paused", "job.paused"),
        _move("hold", {"running"}, "paused", "job.paused"),
        _move("hand_back", {"running"}, "queued", "job.queued"),
        # by a reaper, for a worker that is gone
        _move("rescue", {"running"}, "queued", "job.rescued"),
        _move("bury", {"running"}, "failed", "job.failed"),
        # by a person or program through the API
        _move("cancel", {"scheduled", "queued", "requires_action", "paused"}, "cancelled", "job.cancelled"),
        _move("pause", {"scheduled", "queued"}, "paused", "job.paused"),
        _move("resume", {"paused"}, "queued", "job.resumed"),
        _move("decide", {"requires_action"}, "queued", "job.resumed"),
        _move("abandon", {"requires_action"}, "failed", "job.failed"),
        _move("retry", {"failed", "cancelled", "expired"}, "queued", "job.queued"),
    )
}


def refusal(job_id: str, status: str, action: str) -> ConflictError:
    """What is raised when a job's status does not allow a transition."""
    needed = " or ".join(sorted(TRANSITIONS[action].sources))
    return ConflictError(f"job {job_id} is {status}; {action} needs it to be {needed}", code=f"job_{status}")
