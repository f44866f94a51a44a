"""Plan, execute, validate; when the validator objects, plan again with what it said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed, Stopped
from agent_core.patterns.base import VERDICT, verdict_of
from agent_core.state import State
from agent_core.types import Json

PLAN = "Before anything else: write a short numbered plan of how to do this. Do not carry it out yet."
EXECUTE = "Carry out the plan now, step by step, and then give the final answer to the task."
VALIDATE = (
    "Check the final answer above against the task, as a strict reviewer who did not write it. Say whether it is "
    "complete and right, and list each problem that must be mended."
)
LOOK = " Do not take its word for it: use the tools to see for yourself, and change nothing."
REPLAN = "The answer was checked and did not pass:\n{problems}\n\nWrite a new short numbered plan that mends this."


@dataclass(frozen=True)
class PlanExecuteValidate:
    """The planner plans, the executor works with the tools, the validator checks. After `replans` new plans that did
    not pass either, the job ends with `validation_failed` and keeps the last answer. With `validator_tools` the
    validator has the agent's tools too.
    """

    replans: int = 2
    validator_tools: bool = False

    def opening(self, schema: Json | None) -> StateChanged | None:
        return StateChanged("planning", why="phase", say=PLAN, role="planner", tools=False)

    def after(self, state: State, answer: Any, schema: Json | None) -> StateChanged | Completed | Stopped:
        match state.phase:
            case "planning":
                return StateChanged("executing", state.step, "phase", EXECUTE, expects=schema)
            case "executing":
                say = VALIDATE + LOOK if self.validator_tools else VALIDATE
                return StateChanged("validating", state.step, "phase", say, "validator", self.validator_tools, VERDICT)
        verdict = verdict_of(answer)
        if verdict.ok:
            return Completed(state.answers["executing"])
        if state.visits["planning"] > self.replans:
            detail = f"the answer did not pass its check {self.replans + 1} times: {verdict.problems}"
            return Stopped("validation_failed", detail, state.answers["executing"])
        say = REPLAN.format(problems=verdict.problems)
        return StateChanged("planning", state.step, "phase", say, "planner", tools=False)

    def definition(self) -> Json:
        later = {"validator_tools": True} if self.validator_tools else {}
        return {"name": "plan_execute_validate", "replans": self.replans, **later}
