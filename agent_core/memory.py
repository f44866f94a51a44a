"""What an agent has of its users' long-term memory, as plain data: the memory itself is the worker's."""

from __future__ import annotations

from dataclasses import dataclass

from agent_core.errors import DefinitionError

MOST_RECALLED = 100


@dataclass(frozen=True, slots=True)
class UserMemory:
    """Long-term memory of the user that a job is for. Raises DefinitionError at once when a field is wrong.

    When a job begins, up to `k` memories of at most `tokens` tokens together that fit its input are put before it.
    `shared` memories are those of all agents; without it, the agent reads and writes its own alone. With `learns`, what
    the user said is looked through for lasting facts when a job has completed.
    """

    k: int = 8
    tokens: int = 1_000
    shared: bool = True
    learns: bool = True

    def __post_init__(self) -> None:
        for name, most in (("k", MOST_RECALLED), ("tokens", 100_000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise DefinitionError(f"UserMemory: {name} is {value!r}; expected a whole number from 1 to {most:,}")
        for name in ("shared", "learns"):
            if not isinstance(getattr(self, name), bool):
                raise DefinitionError(f"UserMemory: {name} is {getattr(self, name)!r}; expected True or False")
