"""What a tool's reconcile function answers about a call that was interrupted between its intent and its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_core.types import Effect


@dataclass(frozen=True, slots=True)
class Happened:
    """The call had its effect. `result` is what the tool would have returned: the model gets to see it."""

    result: Any


@dataclass(frozen=True, slots=True)
class DidNotHappen:
    """The call had no effect and will have none: it may be run."""


def objection(reconcile: object, tool: Callable[..., Any], effect: Effect, idempotent: bool) -> str | None:
    """What is wrong with a tool's reconcile function, for the message of a DefinitionError."""
    if not callable(reconcile) or inspect.isgeneratorfunction(reconcile) or inspect.isasyncgenfunction(reconcile):
        return f"reconcile is {reconcile!r}; it must be a function, async or not"
    if effect == "read" or idempotent:
        return "reconcile has no use here: a tool that reads or is idempotent is simply run again"
    try:
        asked, run = _parameters(reconcile), _parameters(tool)
    except ValueError as exc:
        return f"reconcile has no signature: {exc}"
    if asked != run:
        return f"reconcile takes ({', '.join(asked)}); it must take what the tool takes ({', '.join(run)})"
    return None


def _parameters(function: Callable[..., Any]) -> dict[str, object]:
    return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
