"""A prompt chain: fixed steps, each with the answer of the one before in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed
from agent_core.state import State
from agent_core.types import Json


@dataclass(frozen=True)
class Chain:
    """What the model is told, step by step; the answer to the last step is the final one."""

    steps: tuple[str, ...]

    def __init__(self, steps: list[str] | tuple[str, ...]) -> None:
        if not steps or isinstance(steps, str) or not all(isinstance(step, str) and step.strip() for step in steps):
            raise ValueError(f"Chain: steps is {steps!r}; expected a list of texts")
        object.__setattr__(self, "steps", tuple(steps))

    def opening(self, schema: Json | None) -> StateChanged | None:
        return self._step(0, 0, schema)

    def after(self, state: State, answer: Any, schema: Json | None) -> StateChanged | Completed:
        done = state.visits["executing"]
        return Completed(answer) if done == len(self.steps) else self._step(done, state.step, schema)

    def _step(self, number: int, step: int, schema: Json | None) -> StateChanged:
        last = number == len(self.steps) - 1
        say = f"Step {number + 1} of {len(self.steps)}: {self.steps[number]}"
        return StateChanged("executing", step, "phase", say, expects=schema if last else None)

    def definition(self) -> Json:
        return {"name": "chain", "steps": list(self.steps)}
