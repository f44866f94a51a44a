"""What a job is doing, folded from its events: the state behind the live view and the plain lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from cli.invocation import command
from cli.output import one_line

Json = dict[str, Any]
TOKENS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)


@dataclass(slots=True)
class ToolCall:
    """One call of a tool; `seconds` is None while it runs."""

    name: str
    input: str
    seconds: float | None = None
    failed: bool = False


@dataclass(slots=True)
class Progress:
    """The state of one job as its events tell it. `cost` is in US dollars, `tokens` counts all kinds."""

    status: str = "queued"
    now: str = "waits for a worker"
    step: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    started: datetime | None = None
    ended: datetime | None = None
    saying: str = ""
    calls: dict[str, ToolCall] = field(default_factory=dict)

    def apply(self, event: Json) -> None:
        """Takes the next event into account."""
        type_, data = event["type"], event.get("data") or {}
        if type_.startswith("job."):
            self._job(event, data)
        elif type_ == "message.delta":
            self.saying += data.get("text", "")
            self.now = "the model writes"
        elif type_ == "model.started":
            self.step, self.saying = data["step"], ""
            self.now = f"asks {data['model']}"
        elif type_ in ("model.completed", "model.failed"):
            self._model(event, data)
        elif type_ == "tool.requested":
            self.calls[data["call_id"]] = ToolCall(data["name"], one_line(_argument(data["input"]), 200))
            self.now = f"runs {data['name']}"
        elif type_ == "tool.completed":
            call = self.calls.setdefault(data["call_id"], ToolCall(data["name"], ""))
            call.seconds, call.failed = data.get("seconds", 0.0), bool(data.get("is_error"))
            running = [c.name for c in self.calls.values() if c.seconds is None]
            self.now = f"runs {', '.join(running)}" if running else "has the results"
        elif type_ == "tool.reconciled":
            self.now = f"knows what became of {data['name']}"
        elif type_ == "approval.requested":
            self.now = f"waits for a person to decide about {data['name']}"
        elif type_ == "approval.decided":
            self.now = f"{data['name']}: a person said {data['decision']}"

    def _job(self, event: Json, data: Json) -> None:
        self.status = str(data.get("status", self.status))
        at = datetime.fromisoformat(event["created_at"])
        if event["type"] == "job.started":
            self.started = self.started or at
            self.ended = None
        elif self.status in ("completed", "failed", "cancelled", "expired"):
            self.ended = at
        self.now = "waits for its batch" if "batch_id" in data else JOB_WORDS.get(event["type"], self.status)

    def _model(self, event: Json, data: Json) -> None:
        self.saying = ""
        if event.get("attempt"):  # what a fork copied was paid for by another job
            usage = data.get("usage") or {}
            self.tokens += sum(int(usage.get(name) or 0) for name in TOKENS)
            self.cost += Decimal(data.get("settled_usd") or 0)
        self.now = f"the model failed: {data.get('code')}" if event["type"] == "model.failed" else "has a reply"


JOB_WORDS = {
    "job.queued": "waits for a worker",
    "job.started": "starts",
    "job.rescued": "its worker is gone; waits for another",
    "job.requires_action": "waits for a person",
    "job.paused": "paused",
    "job.resumed": "waits for a worker",
    "job.completed": "done",
    "job.failed": "failed",
    "job.cancelled": "cancelled",
    "job.expired": "expired before it could end",
}


def _argument(arguments: Json) -> Any:
    """What to show of a tool's input: the only argument bare, else all as JSON."""
    return next(iter(arguments.values())) if len(arguments) == 1 else arguments


# ---- the plain lines


def describe(event: Json) -> str:
    """One line for an event: when, its type, what matters of it."""
    detail = DETAILS.get(event["type"], _default)(event, event.get("data") or {})
    time = str(event.get("created_at") or "")[11:19]
    return f"{time} {event['type']:<16} {detail}".rstrip()


def _default(event: Json, data: Json) -> str:
    return one_line(data, 160) if data else ""


def _ended(event: Json, data: Json) -> str:
    error = data.get("error")
    reason = data.get("stop_reason") or ""
    return f"{reason}: {one_line(error.get('message', error), 300)}" if isinstance(error, dict) else str(reason)


def _started(event: Json, data: Json) -> str:
    return f"attempt {event.get('attempt', 1)}"


def _requires_action(event: Json, data: Json) -> str:
    calls = ", ".join(f"{call['tool']} ({call['call_id']})" for call in data.get("calls") or [])
    if data.get("stop_reason") != "needs_reconcile":
        return f"{data.get('stop_reason') or ''}: {calls}"
    return f"did it happen? {calls}; say so with {command('reconcile')} {event['job_id']}"


def _resumed(event: Json, data: Json) -> str:
    said = ", ".join(f"{made['call_id']} {made['decision']}" for made in data.get("decisions") or [])
    return f"{data['by']} says: {said}" if said else ""


def _state_changed(event: Json, data: Json) -> str:
    say = data.get("say")
    return f"{data['state']}: {one_line(say, 160)}" if say else str(data["state"])


def _tool_reconciled(event: Json, data: Json) -> str:
    words = "happened" if data["decision"] == "happened" else "did not happen"
    source = "a person" if data["by"] == "person" else "its reconcile function"
    return f"step {data['step']}: {data['name']} {words}, says {source}"


def _model_started(event: Json, data: Json) -> str:
    return f"step {data['step']}: {data['model']}, up to ${data['reserved_usd']} reserved"


def _model_submitted(event: Json, data: Json) -> str:
    return f"step {data['step']}: with the batch {data['batch_id']}"


def _model_completed(event: Json, data: Json) -> str:
    usage = data.get("usage") or {}
    tokens = ", ".join(f"{usage[name]} {name.removesuffix('_tokens')}" for name in TOKENS if usage.get(name))
    took = f"${data['settled_usd']}, {data.get('seconds', 0):.1f} s"
    return f"step {data['step']}: {data['stop_reason']}, {tokens} tokens, {took}"


def _model_failed(event: Json, data: Json) -> str:
    return f"step {data['step']}: {data['code']}: {one_line(data['message'], 200)} (${data['settled_usd']})"


def _tool_requested(event: Json, data: Json) -> str:
    return f"step {data['step']}: {data['name']} {one_line(data['input'], 200)}"


def _tool_completed(event: Json, data: Json) -> str:
    outcome = "error" if data.get("is_error") else "ok"
    took = f"{outcome} in {data.get('seconds', 0):.2f} s"
    return f"step {data['step']}: {data['name']} {took}: {one_line(data['content'], 160)}"


DETAILS: dict[str, Callable[[Json, Json], str]] = {
    "job.queued": lambda event, data: "",
    "job.started": _started,
    "job.requires_action": _requires_action,
    "job.resumed": _resumed,
    "job.completed": _ended,
    "job.failed": _ended,
    "job.cancelled": _ended,
    "job.expired": _ended,
    "state.changed": _state_changed,
    "model.started": _model_started,
    "model.submitted": _model_submitted,
    "model.completed": _model_completed,
    "model.failed": _model_failed,
    "tool.requested": _tool_requested,
    "tool.completed": _tool_completed,
    "tool.reconciled": _tool_reconciled,
}
