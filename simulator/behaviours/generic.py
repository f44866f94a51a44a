"""With tools it does not know, it calls those that look as if they only read, once each, and quotes what they gave."""

from __future__ import annotations

import re
from typing import Any

from simulator.behaviours.example import example_of
from simulator.behaviours.plain import NOTE
from simulator.conversation import Exchange, current_task, gist
from simulator.reply import Reply, answer, call_tools

Json = dict[str, Any]

MAX_CALLS = 3
QUOTED_CHARS = 500
READING = re.compile(
    r"(get|list|search|read|find|fetch|query|look_?up|describe|show|count|check|recall|retrieve|view|inspect|browse)"
    r"([_\-A-Z0-9]|$)"
)


def reply(body: Json, tools: list[Json]) -> Reply:
    """Calls the first tools that look like reading, then answers with their results."""
    task = current_task(body["messages"])
    if task.exchanges:
        return answer("\n\n".join([NOTE, *map(_quote, task.exchanges)]))
    reading = [tool for tool in tools if READING.match(tool["name"])][:MAX_CALLS]
    if not reading:
        names = ", ".join(tool["name"] for tool in tools)
        return answer(f"{NOTE} You wrote: “{gist(task.text)}”. None of the tools looks as if it only reads: {names}.")
    return call_tools("I will look that up.", *((tool["name"], _arguments(tool, task.text)) for tool in reading))


def forced(body: Json, tools: list[Json], name: str | None) -> Reply:
    """Calls the tool that `tool_choice` demands, or with none named the first that looks like reading."""
    text = current_task(body["messages"]).text
    wanted = (
        [tool for tool in tools if tool["name"] == name] if name else [t for t in tools if READING.match(t["name"])]
    )
    tool = (wanted or tools)[0]
    return call_tools("I will use a tool.", (tool["name"], _arguments(tool, text)))


def _arguments(tool: Json, text: str) -> Json:
    found = example_of(tool["input_schema"], text)
    return found if isinstance(found, dict) else {}


def _quote(exchange: Exchange) -> str:
    said = "failed with" if exchange.is_error else "returned"
    return f"The tool {exchange.name} {said}: {gist(exchange.text, QUOTED_CHARS) or '(nothing)'}"
