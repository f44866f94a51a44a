"""Server tools, held against the types of the installed SDK."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from anthropic.types import ToolUnionParam

from agent_core.server_tools import SERVER_TOOLS, server_tool_blocks


def literal(hint: Any) -> str:
    """The first text of a Literal, however it is wrapped; "" for another type."""
    while arguments := get_args(hint):
        hint = arguments[0]
    return hint if isinstance(hint, str) else ""


def newest_of_the_sdk() -> dict[str, str]:
    """The latest type of each tool that the SDK knows by name."""
    newest: dict[str, str] = {}
    for param in get_args(ToolUnionParam):
        hints = get_type_hints(param)
        name, kind = literal(hints.get("name")), literal(hints.get("type"))
        newest[name] = max(newest.get(name, ""), kind)
    return newest


def test_they_are_the_newest_that_the_sdk_knows() -> None:
    newest = newest_of_the_sdk()
    assert {name: block["type"] for name, block in SERVER_TOOLS.items()} == {
        name: newest[name] for name in SERVER_TOOLS
    }


def test_blocks_are_sorted_copies() -> None:
    blocks = server_tool_blocks(["web_search", "code_execution", "web_search"])
    assert [block["name"] for block in blocks] == ["code_execution", "web_search"]
    blocks[1]["max_uses"] = 1_000
    assert SERVER_TOOLS["web_search"]["max_uses"] == 5
    assert server_tool_blocks([]) == []


def test_a_name_that_is_none() -> None:
    with pytest.raises(
        ValueError, match="'web_surf' is no server tool; there are: code_execution, web_fetch, web_search"
    ):
        server_tool_blocks(["web_surf"])
