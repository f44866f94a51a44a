"""What `agent_core` exports, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import agent_core

EXPORTS = [
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
HEAVY = ("anthropic", "fastapi", "genai_prices", "pydantic", "redis", "rq", "uvicorn")


def test_exports_exactly_these() -> None:
    assert sorted(agent_core.__all__, key=str.lower) == sorted(EXPORTS, key=str.lower)


@pytest.mark.parametrize("name", EXPORTS)
def test_each_export_is_that_of_its_module(name: str) -> None:
    exported = getattr(agent_core, name)
    homes = [
        importlib.import_module(f"agent_core.{home}") for home, names in agent_core._HOMES.items() if name in names
    ]
    assert [getattr(home, name) for home in homes] == [exported]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        agent_core.Agnet  # noqa: B018


def loaded_by(statement: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says after the statement: the heavy modules that it loaded."""
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)


@pytest.mark.parametrize("module", ["agent_core", "agent_core.types", "agent_core.errors", "agent_core.ports"])
def test_the_plain_modules_load_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}").stdout == "[]\n"


def test_no_module_prints_or_loads_a_server() -> None:
    modules = "agent, claude, defaults, errors, loop, ports, pricing, standalone, state, testing, tools, turn, types"
    found = loaded_by(f"from agent_core import {modules}")
    assert found.stdout == "['anthropic', 'genai_prices', 'pydantic']\n"
    assert found.stderr == ""
