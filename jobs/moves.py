"""What is given to the store with a submission or a move, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.records import Job


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key for a submission and the fingerprint of its body."""

    digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Child:
    """The id of a job that is made once, and the token of the parent's attempt that makes it."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job of a submission; `replayed` when an earlier one with the same idempotency key made it."""

    job: Job
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who may write: the token of the attempt and the queue it was claimed from."""

    token: str
    queue: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The budget that a paused job waits for, as `scope|period`, and the ms at which its window ends (None: never)."""

    budget: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A transition that was made. `following` is the next job of the session, when this one's end lets it run."""

    entry_id: str
    following: str | None = None
