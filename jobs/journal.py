"""The journal: one append-only stream per job. It is the checkpoint, the event feed, the ledger and the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent_core.entries import Entry, entry_from_json
from agent_core.types import Json, Usage, usd
from jobs.errors import InvalidError
from jobs.records import rfc3339

EVENT_ID = re.compile(r"(?:evt_)?([0-9]{1,15})(?:-([0-9]{1,10}))?")
FIRST = "0-0"
LAST_EVENTS = frozenset({"job.completed", "job.failed", "job.cancelled", "job.expired"})
"""Event types after which a job's stream ends, unless it is retried."""
MONEY_FIELDS = {name: f"{name}_usd" for name in ("reserved", "settled", "spent", "left", "limit")}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal. `id` is the stream's, `attempt` is 0 for what no attempt wrote."""

    id: str
    type: str
    attempt: int
    data: Json

    @property
    def ms(self) -> int:
        return int(self.id.partition("-")[0])

    @property
    def position(self) -> tuple[int, int]:
        """The id as numbers, which compare as the stream orders them."""
        ms, _, number = self.id.partition("-")
        return int(ms), int(number or 0)

    def entry(self) -> Entry | None:
        """The loop's entry, or None when the line is not the loop's."""
        return entry_from_json(self.type, self.data)

    def to_event(self, job_id: str) -> Json:
        """The line as the API shows it; money becomes decimal strings."""
        data = {MONEY_FIELDS.get(k, k): usd(v) if k in MONEY_FIELDS else v for k, v in self.data.items()}
        return {
            "id": f"evt_{self.id}",
            "type": self.type,
            "job_id": job_id,
            "attempt": self.attempt,
            "created_at": rfc3339(self.ms),
            "data": data,
        }


def parse_line(item: Any) -> Line:
    """A line from an element of XRANGE's answer."""
    line_id, flat = item
    pairs = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    return Line(line_id.decode(), pairs[b"t"].decode(), int(pairs[b"a"]), json.loads(pairs[b"d"]))


def parse_event_id(text: str | None) -> str:
    """The stream id of an event id as clients send it back; the beginning for None.

    Raises InvalidError.
    """
    if not text:
        return FIRST
    match = EVENT_ID.fullmatch(text.strip())
    if match is None:
        raise InvalidError(
            f"{text[:80]!r} is no event id; expected one like evt_1700000000000-0", code="invalid_event_id"
        )
    return f"{match[1]}-{match[2] or 0}"


def dump(data: Json) -> str:
    """An entry's data as it is written."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def ledger_rows(job_id: str, lines: Iterable[Line]) -> list[Json]:
    """The money rows of a job: one for each attempt at a call of a model or an embedding model, and each call of a tool
    that has a price.

    An open reservation is a row too. A row is of the time of its reservation; `tokens` is what it counts for where
    tokens are limited. Lines of attempt 0 were copied by a fork and were paid for by another job.
    """
    rows: dict[str, Json] = {}
    newest: dict[str, str] = {}  # rows of calls that were made again after they had been paid for
    for line in lines:
        if line.attempt == 0 or "call_id" not in line.data:
            continue
        call_id: str = line.data["call_id"]
        row_id = newest.get(call_id, call_id)
        opened = rows.get(row_id, {})
        paid = opened.get("settled_usd") is not None
        match line.type:
            case "tool.requested" if paid:
                row_id = newest[call_id] = f"{row_id}.again"
                row = _tool_row(line, {})
            case _ if paid:  # a call is settled once: its first end has the money
                continue
            case "model.started" | "model.completed" | "model.failed":
                row = _model_row("model", line, opened)
            case "embedding.started" | "embedding.completed":
                row = _model_row("embedding", line, opened)
            case "tool.requested" | "tool.completed" | "tool.charged":
                row = _tool_row(line, opened)
            case "tool.reconciled" if line.data["decision"] == "not_happened":
                rows.pop(row_id, None)
                continue
            case _:
                continue
        if row:
            rows[row_id] = {"id": row_id, "job_id": job_id, "attempt": line.attempt, **row}
    return list(rows.values())


def _model_row(kind: str, line: Line, opened: Json) -> Json:
    data, closed = line.data, line.type != f"{kind}.started"
    used = Usage()
    used.count(data.get("usage"))
    reserved_tokens = opened.get("tokens", data.get("tokens", 0))
    return {
        "step": data["step"],
        "kind": kind,
        "role": data.get("role", "executor"),
        "model": data["model"],
        "usage": data.get("usage"),
        "tokens": used.tokens if closed and data["reason"] != "worst_case" else reserved_tokens,
        "price_version": data.get("price_version"),
        "reserved_usd": usd(data["reserved"]),
        "settled_usd": usd(data["settled"]) if closed else None,
        "reason": data["reason"] if closed else "reserved",
        "created_at": opened.get("created_at", rfc3339(line.ms)),
    }


def _tool_row(line: Line, opened: Json) -> Json:
    """The row of a tool's own price, empty without one. The tool's name stands where a model has its id."""
    data = line.data
    if line.type == "tool.requested":
        if not data.get("reserved"):
            return {}
        return {
            "step": data["step"],
            "kind": "tool",
            "role": "tool",
            "model": data["name"],
            "usage": None,
            "tokens": 0,
            "price_version": None,
            "reserved_usd": usd(data["reserved"]),
            "settled_usd": None,
            "reason": "reserved",
            "created_at": opened.get("created_at", rfc3339(line.ms)),  # open: an attempt goes on with another's call
        }
    if not opened:
        return {}
    return {**opened, "settled_usd": usd(data.get("settled", 0)), "reason": data.get("reason", "settled")}
