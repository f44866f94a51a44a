"""ReAct: think, act, observe, until there is an answer (Yao et al., "ReAct: Synergizing Reasoning and Acting in
Language Models", 2022). The loop does all of it; this pattern adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed
from agent_core.state import State
from agent_core.types import Json


@dataclass(frozen=True)
class ReAct:
    """The first answer is the final one."""

    def opening(self, schema: Json | None) -> StateChanged | None:
        return None

    def after(self, state: State, answer: Any, schema: Json | None) -> Completed:
        return Completed(answer)

    def definition(self) -> Json:
        return {"name": "react"}
