"""Ways from a task to its answer, over the one loop. An agent names one: `Agent(pattern=Chain([...]))`.

A pattern decides on two occasions: how the run opens, and what follows an answer. It keeps nothing: what it has to know
stands in the state, which is the fold of the journal.
"""

from agent_core.patterns.base import Pattern, Verdict, verdict_of
from agent_core.patterns.chain import Chain
from agent_core.patterns.evaluate import EvaluatorOptimiser
from agent_core.patterns.plan import PlanExecuteValidate
from agent_core.patterns.react import ReAct
from agent_core.patterns.router import Router

__all__ = [
    "Chain",
    "EvaluatorOptimiser",
    "Pattern",
    "PlanExecuteValidate",
    "ReAct",
    "Router",
    "Verdict",
    "verdict_of",
]
