"""Tools that the provider of the model runs on its own servers: what a request says to have them."""

from __future__ import annotations

from collections.abc import Sequence

from agent_core.types import Json

SERVER_TOOLS: dict[str, Json] = {
    "code_execution": {"type": "code_execution_20260521", "name": "code_execution"},
    "web_fetch": {"type": "web_fetch_20260318", "name": "web_fetch", "max_uses": 5, "max_content_tokens": 20_000},
    "web_search": {"type": "web_search_20260318", "name": "web_search", "max_uses": 5},
}
"""Each with its limits: what one request may spend on it has a bound."""


def server_tool_blocks(names: Sequence[str]) -> list[Json]:
    """What stands in a request's `tools` for these, sorted. Raises ValueError for a name that is none of them."""
    for name in names:
        if name not in SERVER_TOOLS:
            raise ValueError(f"{name!r} is no server tool; there are: {', '.join(SERVER_TOOLS)}")
    return [dict(SERVER_TOOLS[name]) for name in sorted(set(names))]
