"""What `nightshift reconcile` sends: the words of the command line as the API takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli.errors import UsageError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was given on the command line."""

    call: str | None
    happened: str | None
    not_happened: bool
    decisions: str | None
    stop: bool
    reason: str | None


def body(choice: Choice, explain: Callable[[], Json]) -> Json:
    """The request's body; `explain` fetches which calls wait, if it has to be known. Raises UsageError."""
    given = [choice.happened is not None, choice.not_happened, choice.decisions is not None, choice.stop]
    if sum(given) != 1:
        raise UsageError("give one of --happened RESULT, --not-happened, --decisions JSON and --stop")
    if choice.reason is not None and not choice.stop:
        raise UsageError("--reason goes with --stop")
    if choice.stop:
        return {"stop": True, **({"reason": choice.reason} if choice.reason else {})}
    if choice.decisions is not None:
        return {"decisions": _parsed(choice.decisions)}
    call_id = choice.call or _only_call(explain())
    if choice.happened is not None:
        return {"decisions": [{"call_id": call_id, "decision": "happened", "result": choice.happened}]}
    return {"decisions": [{"call_id": call_id, "decision": "not_happened"}]}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise UsageError(f"--decisions is no JSON: {exc}") from None


def _only_call(explanation: Json) -> str:
    """The id of the call that the job waits for."""
    calls = explanation.get("calls") or []
    if not calls:
        raise UsageError(f"job {explanation['job_id']} is {explanation['status']} and waits for no decision")
    if len(calls) > 1:
        ids = ", ".join(call["call_id"] for call in calls)
        raise UsageError(f"{len(calls)} calls wait: {ids}; decide about all of them with --decisions")
    return str(calls[0]["call_id"])
