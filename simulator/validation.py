"""Refuses what the Messages API refuses: above all a history in which tool calls and their results do not pair up."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from simulator.errors import ApiError

Json = dict[str, Any]

ROLES = ("user", "assistant", "system")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


async def read_json(request: web.BaseRequest) -> Any:
    """The JSON value of a request's body. Raises ApiError with 400 when it is none."""
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as exc:
        raise _invalid(f"the body is not valid JSON: {exc}") from exc


def check_request(body: object, *, counting: bool = False) -> Json:
    """The body, if the Messages API would take it. `counting`: of a count_tokens request. Raises ApiError with 400."""
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _invalid("model: Field required")
    if not counting:
        _check_max_tokens(body)
    _check_tools(body.get("tools"))
    _check_messages(body.get("messages"))
    return body


def _invalid(message: str) -> ApiError:
    return ApiError(400, message)


def _check_max_tokens(body: Json) -> None:
    if "max_tokens" not in body:
        raise _invalid("max_tokens: Field required")
    limit = body["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise _invalid("max_tokens: Input should be an integer greater than or equal to 1")


def _check_tools(tools: object) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _invalid("tools: Input should be a valid list")
    names: set[str] = set()
    for number, tool in enumerate(tools):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise _invalid(f"tools.{number}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in names:
            raise _invalid("tools: Tool names must be unique.")
        names.add(name)


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages: at least one message is required")
    for number, message in enumerate(messages):
        last = number == len(messages) - 1
        _check_message(message, f"messages.{number}", may_be_empty=last)
    if messages[0]["role"] != "user":
        raise _invalid('messages: first message must use the "user" role')
    _check_pairs(messages)


def _check_message(message: object, where: str, *, may_be_empty: bool) -> None:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise _invalid(f"{where}.role: Input should be 'user', 'assistant' or 'system'")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise _invalid(f"{where}.content: Input should be a string or a list of content blocks")
    if not content and not (may_be_empty and message["role"] == "assistant"):
        raise _invalid(f"{where}: all messages must have non-empty content except for the optional final assistant one")
    if isinstance(content, list):
        for number, block in enumerate(content):
            _check_block(block, message["role"], f"{where}.content.{number}")


def _check_block(block: object, role: str, where: str) -> None:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise _invalid(f"{where}.type: Field required")
    kind = block["type"]
    if kind == "text" and (not isinstance(block.get("text"), str) or not block["text"]):
        raise _invalid(f"{where}: text content blocks must be non-empty")
    if kind == "tool_use":
        _check_tool_use(block, role, where)
    if kind == "tool_result" and (role != "user" or not isinstance(block.get("tool_use_id"), str)):
        raise _invalid(f"{where}: `tool_result` blocks belong in user messages and need a tool_use_id")


def _check_tool_use(block: Json, role: str, where: str) -> None:
    if role != "assistant":
        raise _invalid(f"{where}: `tool_use` blocks can only be in assistant messages")
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise _invalid(f"{where}: `tool_use` blocks need an id and a name")
    if not isinstance(block.get("input"), dict):
        raise _invalid(f"{where}.input: Input should be a valid dictionary")


def _check_pairs(messages: list[Json]) -> None:
    """Each tool_use has exactly one tool_result in the very next message, and no tool_result comes from nowhere."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for number, message in enumerate(messages):
        _check_results(message, open_calls, f"messages.{number}")
        open_calls = [b["id"] for b in _blocks(message) if b["type"] == "tool_use"]
        if len(set(open_calls)) < len(open_calls) or seen.intersection(open_calls):
            raise _invalid(f"messages.{number}: `tool_use` ids must be unique")
        seen.update(open_calls)
    if open_calls:
        raise _without_result(f"messages.{len(messages) - 1}", open_calls)


def _check_results(message: Json, open_calls: list[str], where: str) -> None:
    blocks = _blocks(message)
    results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
    if missing := [call for call in open_calls if call not in results]:
        raise _without_result(where, missing)
    for id_ in results:
        if id_ not in open_calls:
            raise _invalid(
                f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {id_}. Each `tool_result` block "
                "must have a corresponding `tool_use` block in the previous message."
            )
    if len(set(results)) < len(results):
        raise _invalid(f"{where}: each `tool_use` must have a single result. Found multiple `tool_result` blocks.")
    if any(b["type"] != "tool_result" for b in blocks[: len(results)]):
        raise _invalid(f"{where}: `tool_result` blocks must come first in the content of a message")


def _without_result(where: str, calls: list[str]) -> ApiError:
    return _invalid(
        f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(calls)}. "
        "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _blocks(message: Json) -> list[Json]:
    content = message["content"]
    return content if isinstance(content, list) else []
