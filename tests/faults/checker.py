"""Holds the evidence of an experiment against what is promised. Each check gives what it found wrong, one line each.

A run in which hardly anything succeeded proves nothing, so `check` finds that wrong too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agent_core.types import micros
from jobs.journal import LAST_EVENTS, Line, ledger_rows
from jobs.status import ENDED
from tests.faults.evidence import Evidence

CLOCK_SECONDS = 0.005
"""By how much two readings of the machine's clock may seem to be in the wrong order."""
OF_THE_LOOP = ("model.", "tool.", "approval.requested", "state.")
ONCE = ("wire", "refund")
"""Tools that know no key: a second effect of theirs is a duplicate."""


def check(evidence: Evidence, *, least_completed: int) -> list[str]:
    """All that is wrong, and whether enough jobs completed for the rest to mean anything."""
    faults = [*accepted(evidence), *observed(evidence), *calls(evidence), *payments(evidence)]
    for job_id, lines in evidence.journals.items():
        for look in (endings, steps, owners, ambiguities):
            faults += (f"{job_id}: {fault}" for fault in look(lines))
        faults += (f"{job_id}: {fault}" for fault in money(evidence, job_id))
    completed = sum(job.status == "completed" for job in evidence.jobs.values())
    if completed < least_completed:
        faults.append(f"only {completed} jobs completed, of which {least_completed} would prove something")
    return faults


def accepted(evidence: Evidence) -> Iterator[str]:
    """Accepted is written down once, and reaches an end."""
    ids = evidence.history.accepted()
    for order in evidence.history.orders - set(ids):
        yield f"{order} was never accepted"
    for order, found in ids.items():
        if len(found) > 1:
            yield f"{order} was accepted as {len(found)} jobs"
        for job_id in found - set(evidence.jobs):
            yield f"{order}: {job_id} was accepted and is lost"
    for job_id, job in evidence.jobs.items():
        if job_id not in evidence.orders:
            yield f"{job_id} is nobody's: a duplicate, or never acknowledged"
        if job.status not in ENDED:
            yield f"{job_id} is stranded as {job.status} ({job.stop_reason})"


def observed(evidence: Evidence) -> Iterator[str]:
    """What a client saw as the end is the end."""
    for job_id, statuses in evidence.history.seen().items():
        ends = [status for status in statuses if status in ENDED]
        last = evidence.jobs[job_id].status if job_id in evidence.jobs else "gone"
        if any(status != last for status in ends):
            yield f"{job_id} was seen as {ends}, and is {last}"


def endings(lines: list[Line]) -> Iterator[str]:
    """One terminal event for each time the job was queued by a person or program."""
    ended = False
    for line in lines:
        if line.type == "job.queued" and line.data.get("retry"):
            ended = False
        elif ended:
            yield f"{line.type} after its end"
        elif line.type in LAST_EVENTS:
            ended = True


def steps(lines: list[Line]) -> Iterator[str]:
    """No recorded step runs again."""
    replied: set[int] = set()
    results: set[str] = set()
    for line in lines:
        match line.type:
            case "model.started" | "model.completed" if line.data["step"] in replied:
                yield f"{line.type} of step {line.data['step']}, which has its reply"
            case "model.completed":
                replied.add(line.data["step"])
            case "tool.requested" | "tool.completed" if line.data["call_id"] in results:
                yield f"{line.type} of {line.data['call_id']}, which has its result"
            case "tool.completed":
                results.add(line.data["call_id"])
            case _:
                pass


def owners(lines: list[Line]) -> Iterator[str]:
    """Only the attempt that owns the job writes."""
    owner = None
    for line in lines:
        if line.type == "job.started":
            owner = line.attempt
        elif line.type.startswith("job."):
            owner = None
        elif line.type.startswith(OF_THE_LOOP) and line.attempt != owner:
            yield f"{line.type} by attempt {line.attempt} while {owner or 'nobody'} owns the job"


def ambiguities(lines: list[Line]) -> Iterator[str]:
    """A call that can neither be repeated nor looked up, and was interrupted, waits for a person before all else."""
    begun: set[str] = set()
    unclear: set[str] = set()
    for line in lines:
        match line.type:
            case "tool.requested" if line.data["name"] == "wire":
                if line.data["call_id"] in unclear:
                    yield f"{line.data['call_id']} was begun again, and nobody knows what became of it"
                begun.add(line.data["call_id"])
            case "tool.completed":
                begun.discard(line.data["call_id"])
            case "job.rescued" | "job.queued":
                unclear |= begun
                begun.clear()
            case "job.requires_action":
                waiting = {call["call_id"] for call in line.data["calls"]}
                if waiting - unclear:
                    yield f"parked for {sorted(waiting - unclear)}, which were not interrupted"
                unclear -= waiting
            case "job.completed" if unclear:
                yield f"completed, and nobody was asked about {sorted(unclear)}"
            case _:
                pass


def money(evidence: Evidence, job_id: str) -> Iterator[str]:
    """The ledger's rows come to what the record counted, and a completed job has nothing reserved."""
    job, rows = evidence.jobs[job_id], ledger_rows(job_id, evidence.journals[job_id])
    open_rows = [row for row in rows if row["settled_usd"] is None]
    closed = sum(micros(row["settled_usd"]) for row in rows if row["settled_usd"] is not None)
    reserved = sum(micros(row["reserved_usd"]) for row in open_rows)
    tools = sum(line.type == "tool.completed" for line in evidence.journals[job_id])
    counted = {name: job.counters.get(name, 0) for name in ("cost", "reserved", "model_calls", "tool_calls")}
    summed = {"cost": closed, "reserved": reserved, "model_calls": len(rows) - len(open_rows), "tool_calls": tools}
    if counted != summed:
        yield f"the record counted {counted}, and its journal comes to {summed}"
    if job.status == "completed" and reserved:
        yield f"{reserved} micro-dollars are still reserved"


def calls(evidence: Evidence) -> Iterator[str]:
    """The model is asked for no turn whose reply is recorded, and never without a reservation."""
    made = Counter((call["script_key"], call["turn"]) for call in evidence.calls)
    started: Counter[tuple[str, int]] = Counter()
    replied: dict[tuple[str, int], float] = {}
    for job_id, lines in evidence.journals.items():
        for line in lines:
            if line.type in ("model.started", "model.completed"):
                turn = (evidence.orders.get(job_id, job_id), line.data["step"] - 1)
                if line.type == "model.started":
                    started[turn] += 1
                else:
                    replied[turn] = line.ms / 1000
    for call in evidence.calls:
        turn = (call["script_key"], call["turn"])
        if call["started_at"] > replied.get(turn, float("inf")) + CLOCK_SECONDS:
            yield f"the model was asked for {turn} again after its reply was recorded"
    for turn, count in (made - started).items():
        yield f"{count} calls for {turn} were made without a reservation"


def payments(evidence: Evidence) -> Iterator[str]:
    """One key for one payment, one effect where there is no key, none after the result, none missing."""
    paid = evidence.paid()
    for (way, order), found in paid.items():
        if len({payment.key for payment in found}) > 1:
            yield f"{way} {order} was sent under {len({p.key for p in found})} keys"
        if way in ONCE and len(found) > 1:
            yield f"{way} {order} happened {len(found)} times"
    for job_id, lines in evidence.journals.items():
        order = evidence.orders.get(job_id, job_id)
        for line in lines:
            if line.type == "tool.completed" and not line.data["is_error"]:
                found = paid.get((line.data["name"], order), [])
                if not found:
                    yield f"{line.data['name']} {order} has a result and never happened"
                if any(p.at > line.ms / 1000 + CLOCK_SECONDS for p in found if p.way != "charge"):
                    yield f"{line.data['name']} {order} happened after its result was recorded"
