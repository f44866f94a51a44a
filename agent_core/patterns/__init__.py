"""Ways from a task to its answer, over the one loop. An agent names one: `Agent(pattern=Chain([...]))`.

A pattern decides on two occasions: how the run opens, and what follows an answer. It keeps nothing: what it has to know
stands in the state, which is the fold of the journal.
"""

from __future__ import annotations

from collections.abc import Callable

from agent_core.patterns.base import Pattern, Verdict, verdict_of
from agent_core.patterns.chain import Chain
from agent_core.patterns.evaluate import EvaluatorOptimiser
from agent_core.patterns.plan import PlanExecuteValidate
from agent_core.patterns.react import ReAct
from agent_core.patterns.router import Router
from agent_core.types import Json

__all__ = [
    "Chain",
    "EvaluatorOptimiser",
    "Pattern",
    "PlanExecuteValidate",
    "ReAct",
    "Router",
    "Verdict",
    "rebuilt",
    "verdict_of",
]

BUILT_IN: dict[str, Callable[..., Pattern]] = {
    "chain": Chain,
    "evaluator_optimiser": EvaluatorOptimiser,
    "plan_execute_validate": PlanExecuteValidate,
    "react": ReAct,
    "router": Router,
}


def rebuilt(published: Json, local: Pattern) -> Pattern:
    """The pattern of a published definition: `local` if it is that one, else a built-in one.

    Raises KeyError for one that is neither, TypeError and ValueError for fields that it does not take.
    """
    if published == local.definition():
        return local
    fields = dict(published)
    return BUILT_IN[fields.pop("name")](**fields)
