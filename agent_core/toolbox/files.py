"""Tools for the files of the job's workspace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent_core.context import tool_context
from agent_core.errors import ToolError
from agent_core.toolbox import workspace
from agent_core.tools import tool
from agent_core.types import Json

MOST_READ_BYTES = 10_000_000
MOST_WRITTEN_BYTES = 1_000_000
MOST_CHARS = 15_000
MOST_FILES = 1_000


@tool(effect="read", timeout=30)
def read_file(
    path: Annotated[str, "the file, as list_files names it"],
    offset: Annotated[int, Field(ge=0, description="the first character to read")] = 0,
    length: Annotated[int, Field(ge=1, le=MOST_CHARS, description="how many characters")] = 10_000,
) -> str:
    """Read a part of a text file of the workspace."""
    text = text_of(path, workspace.read(tool_context().workspace, path, MOST_READ_BYTES))
    part = text[offset : offset + length]
    return f"[characters {offset:,} to {offset + len(part):,} of {len(text):,}]\n{part}"


@tool(effect="write", idempotent=True, timeout=30)
def write_file(
    path: Annotated[str, "the file; directories above it are made"],
    content: Annotated[str, f"the whole new content, up to {MOST_WRITTEN_BYTES:,} bytes"],
) -> Json:
    """Make a text file in the workspace, or replace one."""
    data = content.encode("utf-8", "replace")
    if len(data) > MOST_WRITTEN_BYTES:
        message = f"the content has {len(data):,} bytes; at most {MOST_WRITTEN_BYTES:,} can be written"
        raise ToolError(message, code="too_large")
    workspace.write(tool_context().workspace, path, data)
    return {"path": path, "bytes": len(data)}


@tool(effect="read", timeout=30)
def list_files(path: Annotated[str, "a directory; the whole workspace when it is left out"] = "") -> Json:
    """List the files of the workspace, or of one of its directories, with their sizes in bytes."""
    found: list[Json] = []
    for file in workspace.files(tool_context().workspace, path):
        if len(found) == MOST_FILES:
            return {"files": found, "truncated": True}
        found.append({"path": file.path, "bytes": file.bytes})
    return {"files": found, "truncated": False}


def text_of(path: str, data: bytes) -> str:
    """The text of a file. Raises ToolError for one that is not text in UTF-8."""
    try:
        if b"\0" not in data:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise ToolError(f"{path!r} is not text in UTF-8 but binary ({len(data):,} bytes)", code="binary")
