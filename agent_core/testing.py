"""A scripted model for tests of agents: the real loop and the real tools without a server."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from agent_core.errors import ModelError
from agent_core.ports import Draft, Request
from agent_core.pricing import PUBLISHED
from agent_core.types import Json

DEFAULT_USAGE: Json = {"input_tokens": 100, "output_tokens": 20}


def says(text: str, stop_reason: str = "end_turn", usage: Json | None = None) -> Json:
    """A scripted reply that is a text."""
    return {"content": [{"type": "text", "text": text}], "stop_reason": stop_reason, "usage": usage or DEFAULT_USAGE}


def calls(*tools: tuple[str, Json], text: str = "", stop_reason: str = "tool_use") -> Json:
    """A scripted reply that calls tools, each given as (name, input)."""
    blocks: list[Json] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": "", "name": name, "input": args} for name, args in tools]
    return {"content": blocks, "stop_reason": stop_reason, "usage": DEFAULT_USAGE}


class ScriptedModel:
    """Answers turn n of a conversation with reply n of its script; an exception in the script is raised once.

    It is stateless but for those exceptions, so a run that is restored goes on where it was. `requests` keeps every
    request for assertions.
    """

    def __init__(self, script: Sequence[Json | ModelError]) -> None:
        self.replies = [r for r in script if not isinstance(r, ModelError)]
        self.faults: dict[int, list[ModelError]] = {}
        turn = 0
        for item in script:
            if isinstance(item, ModelError):
                self.faults.setdefault(turn, []).append(item)
            else:
                turn += 1
        self.requests: list[Request] = []

    async def complete(self, request: Request, draft: Draft) -> None:
        """See `ports.Model.complete`."""
        self.requests.append(copy.deepcopy(request))
        turn = self.turn(request)
        if self.faults.get(turn):
            raise self.faults[turn].pop(0)
        if turn >= len(self.replies):
            raise LookupError(f"the script has {len(self.replies)} replies, and one more was asked for")
        reply: dict[str, Any] = copy.deepcopy(self.replies[turn])
        for number, block in enumerate(reply["content"]):
            if block["type"] == "tool_use":
                block["id"] = f"toolu_{turn}_{number}"
            elif block["type"] == "text" and draft.on_text is not None:
                draft.on_text(block["text"])
        draft.started = True
        draft.content, draft.usage, draft.stop_reason = reply["content"], reply["usage"], reply["stop_reason"]

    def turn(self, request: Request) -> int:
        """Which reply a request gets, from 0."""
        return sum(1 for m in request.messages if m["role"] == "assistant")

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        return PUBLISHED.price(model, usage, extra)

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        return PUBLISHED.worst_case(model, input_tokens, max_tokens, extra)

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        return PUBLISHED.affordable(model, input_tokens, micros, extra)

    @property
    def price_version(self) -> str:
        return PUBLISHED.version
