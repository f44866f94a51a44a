"""Picks the behaviour that answers a request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from simulator.behaviours import analyst, code_fixer, generic, memory, plain, research, scripted, summary, support_desk
from simulator.behaviours.example import example_of
from simulator.conversation import current_task
from simulator.reply import Reply, text_block
from simulator.script import find_script

Json = dict[str, Any]

EXAMPLES = (code_fixer.reply, research.reply, support_desk.reply)
"""Behaviours that know their agent's requests, and what form its answers have."""


def reply_to(body: Json) -> Reply:
    """The reply to a request that `check_request` let through. Raises ApiError with 400 for a bad script."""
    if summary.is_asked(body):
        return summary.reply(body)
    if (learnt := memory.reply(body)) is not None:  # whatever scripts the conversation has that it is shown
        return learnt
    if (found := find_script(body["messages"])) is not None:
        script, _, turn = found
        reply = scripted.reply(body, *found)
        return reply if turn < len(script.turns) else _as_asked(body, reply)
    played = filter(None, (play(body) for play in EXAMPLES))
    return next(played, None) or _as_asked(body, _behave(body))


def _behave(body: Json) -> Reply:
    tools = offered_tools(body)
    choice = body.get("tool_choice") or {}
    if choice.get("type") in ("any", "tool") and tools:
        return generic.forced(body, tools, choice.get("name"))
    if not tools:
        return plain.reply(body)
    if analyst.TOOLS.issubset(tool["name"] for tool in tools):
        return analyst.reply(body)
    return generic.reply(body, tools)


def offered_tools(body: Json) -> list[Json]:
    """The tools that the caller runs itself and that may be called now."""
    if (body.get("tool_choice") or {}).get("type") == "none":
        return []
    return [tool for tool in body.get("tools") or [] if isinstance(tool.get("input_schema"), dict)]


def _as_asked(body: Json, reply: Reply) -> Reply:
    """A final answer in the JSON schema that the request asks for, if it asks for one."""
    wanted = (body.get("output_config") or {}).get("format") or {}
    if reply.stop_reason != "end_turn" or wanted.get("type") != "json_schema":
        return reply
    value = example_of(wanted.get("schema") or {}, current_task(body["messages"]).text)
    return replace(reply, content=[text_block(json.dumps(value, ensure_ascii=False))])
