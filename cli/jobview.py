"""How jobs, their ledger and their artifacts look to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from cli import approvalview, output
from cli.invocation import command

Json = dict[str, Any]
USAGE = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}
"""The token counts of a job's usage, and their names in a ledger row, which keeps the provider's."""


def print_jobs(jobs: Sequence[Json]) -> None:
    """The table of `nightshift jobs`."""
    rows = [
        (
            job["id"],
            job["agent"],
            job["status"] if job["status"] != "failed" else f"failed: {job['stop_reason']}",
            _local(job["created_at"]),
            took(job),
            f"${Decimal(job['usage']['cost_usd']):.4f}",
            output.one_line(job["input"], 48),
        )
        for job in jobs
    ]
    output.print_table(("job", "agent", "status", "created", "took", "cost", "input"), rows)


def print_job(job: Json) -> None:
    """The job on `nightshift show`: a line for each field that holds something, then its output."""
    usage = job["usage"]
    tokens = sum(usage[name] for name in USAGE)
    status = job["status"] + (f" ({job['stop_reason']})" if job["stop_reason"] else "")
    limits = {name: value for name, value in job["budget"].items() if value is not None}
    at_limit = limits.pop("at_limit", "stop")
    budget = ", ".join(f"{value} {name}" for name, value in limits.items())
    if at_limit != "stop":
        budget += f" (at the limit: {at_limit})"
    fields = [
        ("job", job["id"]),
        ("agent", f"{job['agent']} {job['agent_version']}"),
        ("status", status),
        ("attempts", job["attempts"]),
        ("input", output.one_line(job["input"], 200)),
        ("files", ", ".join(job["files"])),
        ("session", job["session_id"]),
        ("user", job["user"]),
        ("tags", ", ".join(job["tags"])),
        ("priority", job["priority"]),
        ("service", job["service"]),
        ("created", job["created_at"]),
        ("started", job["started_at"]),
        ("ended", job["ended_at"]),
        ("took", took(job)),
        ("usage", f"{usage['model_calls']} model calls, {usage['tool_calls']} tool calls, {tokens:,} tokens"),
        ("cost", _cost(usage)),
        ("budget", budget),
        ("error", _error(job)),
    ]
    output.print_fields((name, output.one_line(str(value), 400)) for name, value in fields if value not in (None, ""))
    print_output(job)


def print_explanation(explanation: Json) -> None:
    """The gate that holds a job in a sentence, then a line for each thing that is known about it."""
    status, gate = explanation["status"], explanation["gate"]
    output.line(f"{status if gate == status else f'{status}, {gate}'}: {explanation['detail']}")
    told = ("job_id", "status", "gate", "detail", "calls", "stop_reason", "doing")
    fields = [(name, value) for name, value in explanation.items() if name not in told and value is not None]
    if doing := explanation.get("doing"):
        fields.append(("doing", doing["what"] + (f" since {doing['since']}" if doing["since"] else "")))
    output.print_fields((name, output.one_line(value, 300)) for name, value in fields)


def print_waiting(explanation: Json) -> None:
    """The calls that a person has to decide about, and how."""
    calls = explanation.get("calls") or []
    if not calls:
        return
    output.line("")
    if all("approval_id" in call for call in calls):
        approvalview.print_waiting(calls)
        return
    rows = [(call["call_id"], call["tool"], output.one_line(call["input"], 120), call.get("key", "")) for call in calls]
    output.print_table(("waiting call", "tool", "input", "idempotency key"), rows)
    if explanation.get("stop_reason") == "needs_reconcile":
        job = explanation["job_id"]
        output.say(f"decide with: {command('reconcile')} {job} CALL --happened RESULT | --not-happened | --stop")


def print_output(job: Json) -> None:
    """What the job came to: its text, or its data as JSON; the partial result of one that did not complete."""
    if job["output"] is None:
        return
    output.line("")
    if isinstance(job["output"], str):
        output.print_text(job["output"])
    else:
        output.print_json(job["output"])


def ending(job: Json) -> str:
    """One line about how a job ended, and what it took."""
    usage = job["usage"]
    cost = f"{usage['model_calls']} model calls, {usage['tool_calls']} tool calls, {_cost(usage)}"
    why = f": {job['stop_reason']}" if job["stop_reason"] and job["status"] != "completed" else ""
    error = _error(job)
    return f"{job['id']} {job['status']}{why} after {took(job)} ({cost})" + (f": {error}" if error else "")


def _cost(usage: Json) -> str:
    own, total = usage["cost_usd"], usage.get("total_cost_usd", usage["cost_usd"])
    return f"${own}" if own == total else f"${own}, with its child jobs ${total}"


def print_ledger(rows: Sequence[Json]) -> None:
    """The money rows of a job, their totals last."""
    cells = [
        (row["step"], row["model"], *_tokens(row), row["reserved_usd"], row["settled_usd"], row["reason"])
        for row in rows
    ]
    totals = ledger_totals(rows)
    cells.append(("total", f"{len(rows)} calls", *(totals[name] for name in USAGE), "", totals["cost_usd"], ""))
    columns = ("step", "model", "input", "output", "cache read", "cache write", "reserved $", "settled $", "why")
    output.print_table(columns, cells, totals=True)
    if prompt := sum(totals[name] for name in USAGE if name != "output_tokens"):
        output.say(f"cache: {100 * totals['cache_read_tokens'] / prompt:.0f} % of the input was read from it")


def ledger_totals(rows: Iterable[Json]) -> Json:
    """The sums of the rows under the names that a job's usage has; `cost_usd` is a Decimal."""
    listed = list(rows)
    totals: Json = {name: sum(_tokens(row)[index] for row in listed) for index, name in enumerate(USAGE)}
    return {**totals, "cost_usd": sum((Decimal(row["settled_usd"] or 0) for row in listed), Decimal(0))}


def agrees(usage: Json, totals: Json) -> bool:
    """Whether the ledger's totals are what the job says that it used."""
    return Decimal(usage["cost_usd"]) == totals["cost_usd"] and all(usage[name] == totals[name] for name in USAGE)


def print_artifacts(artifacts: Sequence[Json]) -> None:
    """The files that a job has saved."""
    output.print_table(("artifact", "bytes", "id"), [(a["name"], f"{a['bytes']:,}", a["id"]) for a in artifacts])


def took(job: Json) -> str:
    """How long the job ran, or "" for one that has not ended."""
    if not job["started_at"] or not job["ended_at"]:
        return ""
    return output.duration((_time(job["ended_at"]) - _time(job["started_at"])).total_seconds())


def _tokens(row: Json) -> list[int]:
    usage = row["usage"] or {}
    return [int(usage.get(provider) or 0) for provider in USAGE.values()]


def _error(job: Json) -> str | None:
    error = job["error"]
    return str(error.get("message") or error) if isinstance(error, dict) else error


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _local(text: str) -> str:
    return _time(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
