"""What a behaviour decides on: the content of a reply, and how it is to be delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulator.script import Fault

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a reply goes out. None leaves it to the server's options. Times are in seconds."""

    latency: float | None = None
    chunk_delay: float | None = None
    chunks: int | None = None
    faults: tuple[Fault, ...] = ()
    always: bool = False
    attempts_key: str = ""
    """Under what the attempts at this reply are counted."""
    script_key: str = ""
    turn: int | None = None
    """Which turn of a script the reply is, from 0; None when no script is played."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the model, without the ids and counts that are worked out from the request.

    `content` holds `{"type": "text", "text": …}` and `{"type": "tool_use", "name": …, "input": …}`.
    `usage` replaces token counts; None reports none.
    """

    content: list[Json]
    stop_reason: str
    usage: Json | None = field(default_factory=dict)
    delivery: Delivery = Delivery()


def answer(text: str) -> Reply:
    """A final answer."""
    return Reply([text_block(text)], "end_turn")


def call_tools(text: str, *tools: tuple[str, Json]) -> Reply:
    """A word about what comes next, and the tool calls."""
    return Reply([text_block(text), *(tool_block(name, given) for name, given in tools)], "tool_use")


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


def tool_block(name: str, given: Json) -> Json:
    return {"type": "tool_use", "name": name, "input": given}
