"""Ports that need nothing: a run with these lives and dies with its process."""

from __future__ import annotations

from collections import Counter

from agent_core.entries import Entry, ModelCompleted, ModelFailed, ModelStarted
from agent_core.errors import BudgetError
from agent_core.outcomes import Refusal
from agent_core.ports import Decision
from agent_core.types import Budget, Effect, Json, Unit, Usage


class MemoryJournal:
    """Keeps the entries in a list, and holds the run to the dollars and tokens of a budget."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.entries: list[Entry] = []
        self._budget = budget or Budget(usd=None)
        self._used = Counter[str]()
        self._tokens: dict[str, int] = {}

    def kept(self, entry: Entry) -> Entry:
        """See `ports.Journal`."""
        return entry

    async def record(self, *entries: Entry) -> None:
        """See `ports.Journal`."""
        for entry in entries:
            match entry:
                case ModelStarted():
                    if refusal := self._refusal(entry):
                        raise BudgetError(refusal)
                    self._tokens[entry.call_id] = entry.tokens
                case ModelCompleted() | ModelFailed():
                    usage = Usage()
                    usage.count(entry.usage)
                    reserved = self._tokens.pop(entry.call_id, 0)
                    tokens = reserved if entry.reason == "worst_case" else usage.tokens
                    self._used.update(usd=entry.settled, tokens=tokens)
                case _:
                    pass
        self.entries.extend(entries)

    def _refusal(self, call: ModelStarted) -> Refusal | None:
        limits: dict[Unit, int | None] = {"usd": self._budget.micros, "tokens": self._budget.tokens}
        room = {unit: None if limit is None else limit - self._used[unit] for unit, limit in limits.items()}
        asked: dict[Unit, int] = {"usd": call.reserved, "tokens": call.tokens}
        for unit, limit in limits.items():
            left = room[unit]
            if limit is not None and left is not None and asked[unit] > left and self._budget.at_limit != "warn":
                return Refusal("job", "total", self._budget.at_limit, unit, limit, left, room["usd"], room["tokens"])
        return None

    def pause_requested(self) -> bool:
        return False


class RefuseDestructive:
    """Runs `read` and `write` calls and denies `destructive` ones: there is no person to ask."""

    def decide(self, name: str, input: Json, effect: Effect, call_id: str) -> Decision:
        return "deny" if effect == "destructive" else "run"


class AskForDestructive:
    """Runs `read` and `write` calls and asks a person about `destructive` ones."""

    def decide(self, name: str, input: Json, effect: Effect, call_id: str) -> Decision:
        return "ask" if effect == "destructive" else "run"


class AlwaysClosed:
    """Lets every call through."""

    async def allows(self, target: str) -> bool:
        return True

    async def report(self, target: str, ok: bool, code: str = "") -> None:
        pass


class NoEvents:
    """Drops the live signals."""

    def text(self, step: int, delta: str) -> None:
        pass
