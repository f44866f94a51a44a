"""What every pattern is, and the verdict that those with a validator ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed, Stopped
from agent_core.state import State
from agent_core.types import Json

VERDICT: Json = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "problems": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["ok", "problems"],
    "additionalProperties": False,
}
"""What a validator answers."""


@runtime_checkable
class Pattern(Protocol):
    """A way from a task to its answer. Patterns are frozen dataclasses, compared by their fields."""

    def opening(self, schema: Json | None) -> StateChanged | None:
        """The first phase; None to begin with the task as it is. `schema` is what the final answer has to be."""
        ...

    def after(self, state: State, answer: Any, schema: Json | None) -> StateChanged | Completed | Stopped:
        """What follows the answer of the phase that the state is in: the next phase, or the end."""
        ...

    def definition(self) -> Json:
        """The pattern as an agent's published definition has it."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A validator's answer."""

    ok: bool
    problems: str


def verdict_of(answer: Any) -> Verdict:
    """The verdict that fits `VERDICT`."""
    return Verdict(answer["ok"], "\n".join(f"- {problem}" for problem in answer["problems"]))
