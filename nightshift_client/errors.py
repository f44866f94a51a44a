"""What can go wrong between a program and the platform.

ClientError
├── ApiError          the platform refused the request; `code` is stable, `detail` is for people
├── UnreachableError  no answer, or one that broke off
└── WebhookError      a request that is no webhook of the platform
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of everything that this package raises of its own."""


class ApiError(ClientError):
    """The platform's refusal. `errors` has the `field` and `message` of each wrong field, `detail` all of them in one
    sentence; `request_id` is what the platform's log has it under.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code") or "error")
        self.errors = [error for error in problem.get("errors") or [] if isinstance(error, dict)]
        self.detail = _sentence(self.errors) or str(problem.get("detail") or problem.get("title") or "no reason given")
        self.request_id: str | None = problem.get("request_id")
        super().__init__(f"{self.detail} ({status} {self.code}, request {self.request_id})")


class UnreachableError(ClientError):
    """The platform gave no whole answer for as long as the client was patient; `__cause__` says why."""


class WebhookError(ClientError):
    """Not signed with the secret, too old, or no webhook at all. Answer it with 400 and do nothing."""


def _sentence(errors: list[dict[str, Any]]) -> str:
    return "; ".join(": ".join(str(e[name]) for name in ("field", "message") if e.get(name)) for e in errors)
