"""A router: one cheap question decides what kind of task it is, and so with which instructions it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_core.entries import StateChanged
from agent_core.outcomes import Completed
from agent_core.state import State
from agent_core.types import Json

ROUTE = "Which of these does the task call for? Do not do the task yet.\n{routes}"


@dataclass(frozen=True)
class Router:
    """The router's model picks one of `routes`, each a name with the instructions for that kind of task."""

    routes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.routes) < 2 or not all(isinstance(text, str) and text.strip() for text in self.routes.values()):
            raise ValueError(f"Router: routes is {self.routes!r}; expected at least two names with instructions")

    def opening(self, schema: Json | None) -> StateChanged | None:
        say = ROUTE.format(routes="\n".join(f"- {name}: {text}" for name, text in self.routes.items()))
        choice: Json = {
            "type": "object",
            "properties": {"route": {"type": "string", "enum": list(self.routes)}},
            "required": ["route"],
            "additionalProperties": False,
        }
        return StateChanged("routing", why="phase", say=say, role="router", tools=False, expects=choice)

    def after(self, state: State, answer: Any, schema: Json | None) -> StateChanged | Completed:
        if state.phase == "routing":
            return StateChanged("executing", state.step, "phase", self.routes[answer["route"]], expects=schema)
        return Completed(answer)

    def definition(self) -> Json:
        return {"name": "router", "routes": dict(self.routes)}
