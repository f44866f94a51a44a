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


FETCHED_TOKENS = 20_000
RESULT_TOKENS = 10_000
"""About what the results of one search have."""
BOUNDS: dict[str, tuple[int, int]] = {
    "code_execution": (RESULT_TOKENS, 50_000),
    "web_fetch": (5 * FETCHED_TOKENS, 0),
    "web_search": (5 * RESULT_TOKENS, 5 * 10_000),
}
"""What one request may spend on each: input tokens, and micro-dollars (an hour of a container, 0.01 USD a search)."""


def server_tools_bound(names: Sequence[str]) -> tuple[int, int]:
    """Input tokens and micro-dollars that a call with these tools may cost besides its own."""
    bounds = [BOUNDS[name] for name in names]
    return sum(tokens for tokens, _ in bounds), sum(micros for _, micros in bounds)


def server_tool_blocks(names: Sequence[str]) -> list[Json]:
    """What stands in a request's `tools` for these, sorted. Raises ValueError for a name that is none of them."""
    for name in names:
        if name not in SERVER_TOOLS:
            raise ValueError(f"{name!r} is no server tool; there are: {', '.join(SERVER_TOOLS)}")
    return [dict(SERVER_TOOLS[name]) for name in sorted(set(names))]
