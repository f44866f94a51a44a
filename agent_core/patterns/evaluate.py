"""Evaluator and optimiser: an answer is judged by criteria and improved until it passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed
from agent_core.patterns.base import VERDICT, verdict_of
from agent_core.state import State
from agent_core.types import Json

JUDGE = "Judge the answer above by these criteria alone, and list each that it does not meet yet:\n{criteria}"
IMPROVE = "Your answer was judged:\n{problems}\n\nGive a new final answer that mends all of this."


@dataclass(frozen=True)
class EvaluatorOptimiser:
    """The executor answers, the validator judges by `criteria`, at most `rounds` times. What came of the last round is
    the answer, whether it passed or not.
    """

    criteria: str
    rounds: int = 3

    def opening(self, schema: Json | None) -> StateChanged | None:
        return StateChanged("executing", why="phase", expects=schema)

    def after(self, state: State, answer: Any, schema: Json | None) -> StateChanged | Completed:
        if state.phase == "executing":
            if state.visits["validating"] >= self.rounds:
                return Completed(answer)
            say = JUDGE.format(criteria=self.criteria)
            return StateChanged("validating", state.step, "phase", say, "validator", False, VERDICT)
        verdict = verdict_of(answer)
        if verdict.ok:
            return Completed(state.answers["executing"])
        return StateChanged("executing", state.step, "phase", IMPROVE.format(problems=verdict.problems), expects=schema)

    def definition(self) -> Json:
        return {"name": "evaluator_optimiser", "criteria": self.criteria, "rounds": self.rounds}
