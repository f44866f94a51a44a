"""Ports that need nothing: a run with these lives and dies with its process."""

from __future__ import annotations

from agent_core.ports import Decision
from agent_core.types import Effect, Entry, Json


class MemoryJournal:
    """Keeps the entries in a list."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def record(self, *entries: Entry) -> None:
        self.entries.extend(entries)

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


class NoEvents:
    """Drops the live signals."""

    def text(self, step: int, delta: str) -> None:
        pass
