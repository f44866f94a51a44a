"""A tool for agents whose tools return much: it reads on in what the conversation had no room for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent_core.errors import ToolError
from agent_core.results import READER
from agent_core.tools import tool, tool_context

MOST_CHARS = 15_000


@tool(effect="read", name=READER)
async def read_artifact(
    name: Annotated[str, "the artifact's name, as a result gave it"],
    offset: Annotated[int, Field(ge=0, description="the first character to read")] = 0,
    length: Annotated[int, Field(ge=1, le=MOST_CHARS, description="how many characters")] = 10_000,
) -> str:
    """Read a part of a text that an earlier tool call of this job kept as an artifact."""
    try:
        data = await tool_context().load_artifact(name)
    except FileNotFoundError:
        raise ToolError(f"this job has no artifact {name[:80]!r}", code="not_found") from None
    text = data.decode("utf-8", "replace")
    part = text[offset : offset + length]
    return f"[characters {offset:,} to {offset + len(part):,} of {len(text):,}]\n{part}"
