"""What can go wrong between a caller and a job. `api.errors` maps each class to one HTTP status.

JobsError
├── NotFoundError          no such job, agent, file or key, or it belongs to another tenant
├── ConflictError          the job's status does not allow the action
├── ForbiddenError         this caller may not, though another one may
├── GoneError              its time is over
├── IdempotencyError       an idempotency key was used before with another body
├── InvalidError           a request that is well formed and makes no sense
├── UnavailableError       Redis is away, full or loading
├── StoppedError           a kill switch is on
└── StaleAttemptError      (agent_core's) an attempt that no longer owns the job tried to write
"""

from __future__ import annotations

from agent_core.errors import StaleAttemptError


class JobsError(Exception):
    """Base of the errors of this package. `code` is stable; the message is for people."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class NotFoundError(JobsError):
    """There is no such thing for this tenant."""

    code = "not_found"


class ConflictError(JobsError):
    """The action does not fit the job's status."""

    code = "conflict"


class ForbiddenError(JobsError):
    """The key may act on such things, and not on this one."""

    code = "forbidden"


class GoneError(JobsError):
    """What was to be acted upon is over."""

    code = "gone"


class IdempotencyError(JobsError):
    """The idempotency key was used before with another body."""

    code = "idempotency_key_reused"


class InvalidError(JobsError):
    """The request asks for something that cannot be."""

    code = "invalid_request"


class UnavailableError(JobsError):
    """Redis does not answer, or refuses writes; nothing was half done."""

    code = "unavailable"


class StoppedError(JobsError):
    """A kill switch is on; nothing was half done."""

    code = "kill_switch"


__all__ = [
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "IdempotencyError",
    "InvalidError",
    "JobsError",
    "NotFoundError",
    "StaleAttemptError",
    "StoppedError",
    "UnavailableError",
]
