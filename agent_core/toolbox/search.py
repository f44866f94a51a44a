"""A tool that searches the files of the job's workspace.

Expressions are matched by RE2, which takes time that grows with the text alone and lets other threads run meanwhile:
there is no expression by which a model, or a file that talks it into one, could hold up a worker.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import re2

from agent_core.context import tool_context
from agent_core.errors import ToolError
from agent_core.toolbox import workspace
from agent_core.tools import tool
from agent_core.types import Json

MOST_MATCHES = 200
MOST_FILE_BYTES, MOST_BYTES = 10_000_000, 200_000_000
MOST_LINE_CHARS = 300
LONGEST_PATTERN = 1_000
EXPRESSION_BYTES = 8 << 20
"""Memory that a compiled expression may take."""
SECONDS = 10.0
LOOK_EVERY = 1_000
"""Lines between two looks at the clock."""


@tool(effect="read", timeout=30)
def search_files(
    pattern: Annotated[str, "what to look for in each line"],
    glob: Annotated[str, "paths to search, like *.py or docs/*; * stands for / too"] = "*",
    regex: Annotated[
        bool, "whether the pattern is a regular expression (RE2: no look-around, no backreferences)"
    ] = False,
    ignore_case: Annotated[bool, "whether upper and lower case are the same"] = False,
) -> Json:
    """Search the text files of the workspace, line by line. Returns paths, line numbers and lines."""
    return found_in(tool_context().workspace, compiled(pattern, regex=regex, ignore_case=ignore_case), glob)


def compiled(pattern: str, *, regex: bool, ignore_case: bool) -> Any:
    """The pattern as RE2 has it. Raises ToolError when it takes none like it."""
    if not 0 < len(pattern) <= LONGEST_PATTERN or "\n" in pattern:
        message = f"the pattern must have 1 to {LONGEST_PATTERN:,} characters and no line break: lines are searched"
        raise ToolError(message, code="bad_pattern")
    options = re2.Options()
    options.literal, options.case_sensitive = not regex, not ignore_case
    options.log_errors, options.max_mem = False, EXPRESSION_BYTES
    try:
        return re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as exc:
        why = exc.args[0].decode("utf-8", "replace") if exc.args and isinstance(exc.args[0], bytes) else "not RE2"
        raise ToolError(f"the pattern is no regular expression that RE2 takes: {why}", code="bad_pattern") from None


def found_in(root: Path, expression: Any, glob: str, *, seconds: float = SECONDS) -> Json:
    """The matching lines of a directory's files. What was left out or cut short is said."""
    matches: list[Json] = []
    skipped, left, deadline = 0, MOST_BYTES, time.monotonic() + seconds
    for file in workspace.files(root):
        if not fnmatch.fnmatchcase(file.path, glob):
            continue
        data = _content(root, file)
        if data is None:
            skipped += 1
            continue
        left -= len(data)
        if left < 0:
            return _answer(matches, skipped, f"stopped after {MOST_BYTES:,} bytes; narrow the glob")
        for number, line in _lines(data, expression, deadline):
            if number < 0:
                return _answer(matches, skipped, f"stopped after {seconds:g} seconds; narrow the glob or the pattern")
            if len(matches) == MOST_MATCHES:
                return _answer(
                    matches, skipped, f"stopped after {MOST_MATCHES} matches; narrow the glob or the pattern"
                )
            matches.append({"path": file.path, "line": number, "text": line})
    return _answer(matches, skipped, None)


def _content(root: Path, file: workspace.Found) -> bytes | None:
    """The bytes of a text file; None for a binary or large one, and one that is gone."""
    try:
        data = workspace.read(root, file.path, MOST_FILE_BYTES)
    except ToolError:
        return None
    return None if b"\0" in data else data


def _lines(data: bytes, expression: Any, deadline: float) -> Iterator[tuple[int, str]]:
    """The numbers and texts of matching lines; number -1 when the time is over."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if number % LOOK_EVERY == 0 and time.monotonic() > deadline:
            yield -1, ""
            return
        if match := expression.search(line):
            yield number, _around(line.rstrip(b"\r").decode("utf-8", "replace"), match.start())


def _around(line: str, start: int) -> str:
    """The line, or the part of a long one in which the match is."""
    if len(line) <= MOST_LINE_CHARS:
        return line
    first = max(0, min(start - MOST_LINE_CHARS // 3, len(line) - MOST_LINE_CHARS))
    return f"…{line[first : first + MOST_LINE_CHARS]}…"


def _answer(matches: list[Json], skipped: int, stopped: str | None) -> Json:
    answer: Json = {"matches": matches, "skipped_files": skipped}
    return {**answer, "stopped": stopped} if stopped else answer
