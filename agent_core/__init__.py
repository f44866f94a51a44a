"""The agent loop, alone: an agent, its tools, a model and a budget. Needs no Redis and no HTTP server.

Names load on first use: a process that only needs the plain types does not pay for the model's SDK.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_core.agent import Agent
    from agent_core.approvals import Ask, ask
    from agent_core.artifacts import read_artifact
    from agent_core.claude import ClaudeModel
    from agent_core.errors import (
        AgentError,
        BudgetError,
        DefinitionError,
        ModelError,
        StaleAttemptError,
        ToolError,
        UnknownPriceError,
        Veto,
    )
    from agent_core.guardrails import Allow, AskPerson, Block, Redact, input_check, output_check
    from agent_core.memory import UserMemory
    from agent_core.outcomes import Completed, Outcome, Stopped, Suspended
    from agent_core.reconcile import DidNotHappen, Happened
    from agent_core.registry import ToolCall
    from agent_core.schedule import Schedule
    from agent_core.standalone import Result, run_agent
    from agent_core.tools import Tool, ToolContext, tool, tool_context
    from agent_core.types import Budget, Usage, usd

_HOMES = {
    "agent": ("Agent",),
    "approvals": ("Ask", "ask"),
    "artifacts": ("read_artifact",),
    "claude": ("ClaudeModel",),
    "errors": (
        "AgentError",
        "BudgetError",
        "DefinitionError",
        "ModelError",
        "StaleAttemptError",
        "ToolError",
        "UnknownPriceError",
        "Veto",
    ),
    "guardrails": ("Allow", "AskPerson", "Block", "Redact", "input_check", "output_check"),
    "memory": ("UserMemory",),
    "outcomes": ("Completed", "Outcome", "Stopped", "Suspended"),
    "registry": ("ToolCall",),
    "reconcile": ("DidNotHappen", "Happened"),
    "schedule": ("Schedule",),
    "standalone": ("Result", "run_agent"),
    "tools": ("Tool", "ToolContext", "tool", "tool_context"),
    "types": ("Budget", "Usage", "usd"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentError",
    "Allow",
    "Ask",
    "AskPerson",
    "Block",
    "Budget",
    "BudgetError",
    "ClaudeModel",
    "Completed",
    "DefinitionError",
    "DidNotHappen",
    "Happened",
    "ModelError",
    "Outcome",
    "Redact",
    "Result",
    "Schedule",
    "StaleAttemptError",
    "Stopped",
    "Suspended",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "UnknownPriceError",
    "Usage",
    "UserMemory",
    "Veto",
    "ask",
    "input_check",
    "output_check",
    "read_artifact",
    "run_agent",
    "tool",
    "tool_context",
    "usd",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"agent_core.{_HOME_OF[name]}"), name)
