"""Which events webhooks can be told of, as `outbox.lua` reads it, which notes deliveries with the events themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from agent_core.types import Json
from jobs import keys
from jobs.status import TRANSITIONS

NAMES = json.dumps(keys.outbox_names())
TEST = "webhook.test"
DISABLED = "webhook_endpoint.disabled"
ROUTINE = (
    *dict.fromkeys(move.event for move in TRANSITIONS.values()),
    "approval.requested",
    "approval.decided",
    "budget.reached",
    "child.started",
    "child.completed",
)
"""The events that who names none is told of: those of a job's life, and what somebody may have to act upon."""
DETAILS = ("model.started", "model.completed", "model.failed", "tool.requested", "tool.completed", "state.changed")
"""Events that are told to those alone who name them: a job has hundreds."""
EVENTS = (*ROUTINE, *DETAILS)
"""Every event of a job that can be told."""


def wanted(events: Iterable[str] | None, *more: str) -> str:
    """What a listener is told of, as the scripts read it: each type between blanks. None is all of `ROUTINE`, `more`
    included.
    """
    return f" {' '.join([*ROUTINE, *more] if events is None else events)} "


def own_webhook(tenant: str, webhook: Json | None) -> str:
    """A submission's `webhook` as the job's record has it, '' for none.

    The webhooks of a tenant's jobs share a lane if they lead to the same server: one that is slow is slow for all.
    """
    if webhook is None:
        return ""
    parts = urlsplit(webhook["url"])
    return json.dumps({"lane": f"{tenant} {parts.scheme}://{parts.netloc}", "events": wanted(webhook.get("events"))})
