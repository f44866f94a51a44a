"""What journal entries mean for the account of their job: reservations and settlements, as `money.lua` takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent_core.entries import (
    Entry,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
)
from agent_core.outcomes import Refusal
from agent_core.types import USAGE_FIELDS, Json, Usage
from jobs import keys

FIRST_LOOK_MS = 2000
"""How long after its making a batch is looked at first."""


@dataclass(frozen=True, slots=True)
class Money:
    """The calls that are to be reserved, at most one in a write, those that a batch has, and those that are settled."""

    reserve: list[Json] = field(default_factory=list)
    submit: list[Json] = field(default_factory=list)
    settle: list[Json] = field(default_factory=list)

    def dump(self) -> str:
        """For the script; empty when nothing moves."""
        moves = {"reserve": self.reserve, "submit": self.submit, "settle": self.settle}
        return json.dumps(moves, ensure_ascii=False) if any(moves.values()) else ""


NO_MONEY = Money()
TOOL = "tool"
"""The role of a tool's own price. Its reservation outlives a lease: the next attempt has the same call still open."""
EMBEDDING = "embedding"
"""The role of a call of an embedding model."""
NAMES = json.dumps(keys.money_names())


def money_of(entries: Iterable[Entry]) -> Money:
    """What the entries reserve, hand to a batch and settle."""
    money = Money()
    for entry in entries:
        match entry:
            case ModelStarted():
                money.reserve.append(_reservation(entry))
            case ModelSubmitted(call_id=call_id, batch_id=batch_id):
                money.submit.append({"call_id": call_id, "batch_id": batch_id, "look_ms": FIRST_LOOK_MS})
            case ModelCompleted() | ModelFailed():
                money.settle.append(_bill(entry))
            case ToolRequested(reserved=price) if price:
                money.reserve.append(_fee(entry, reserved=price))
            case ToolCompleted(settled=price) if price:
                money.settle.append(_fee(entry, settled=price, counters={}))
            case ToolReconciled(decision="not_happened"):
                money.settle.append(_fee(entry, settled=0, counters={}, calls=0))
            case _:
                pass
    return money


def refusal_from(text: str) -> Refusal:
    """The refusal as `record.lua` answers it."""
    data = json.loads(text)
    until = data.pop("until_ms")
    return Refusal(**data, until_ms=None if until == "+inf" else int(until))


def reached(refusal: Refusal) -> Json:
    """The data of the budget.reached entry of a limit that had no room for the next call."""
    suffix = "_tokens" if refusal.unit == "tokens" else ""
    left = max(0, refusal.left)
    return {
        "scope": refusal.scope,
        "period": refusal.period,
        "at_limit": refusal.at_limit,
        "refused": True,
        f"left{suffix}": left,
        f"limit{suffix}": refusal.limit,
    }


def _reservation(call: ModelStarted) -> Json:
    return {
        "call_id": call.call_id,
        "step": call.step,
        "model": call.model,
        "role": call.role,
        "reserved": call.reserved,
        "tokens": call.tokens,
        "price_version": call.price_version,
    }


def _fee(entry: ToolRequested | ToolCompleted | ToolReconciled, **amounts: Any) -> Json:
    """A tool's own price: it has no tokens, and stands in the usage by the tool's name where a model has its id."""
    about = {"call_id": entry.call_id, "step": entry.step, "model": entry.name, "role": TOOL, "tokens": 0}
    return {**about, "price_version": TOOL, **amounts}


def _bill(entry: ModelCompleted | ModelFailed) -> Json:
    usage = Usage()
    usage.count(entry.usage)
    bill: Json = {
        "call_id": entry.call_id,
        "settled": entry.settled,
        "model": entry.model,
        "role": entry.role,
        "counters": {name: getattr(usage, name) for name, _ in USAGE_FIELDS},
    }
    # without a usage that could be read, the tokens too are those of the worst case
    return bill if entry.reason == "worst_case" else {**bill, "tokens": usage.tokens}
