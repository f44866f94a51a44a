"""A question to a person: the job waits for the answer without a worker, as it does for an approval."""

from __future__ import annotations

from typing import Annotated

from agent_core.errors import ToolError
from agent_core.tools import tool
from agent_core.types import Json


@tool(effect="read")
async def ask_human(
    question: Annotated[str, "The question, with all that the person must know to answer it"],
    choices: Annotated[list[str] | None, "The answers to choose from; leave it out for a free text"] = None,
) -> str:
    """Ask a person, and get the answer. It may take hours: use it only for what you cannot find out or decide."""
    raise ToolError("there is nobody to ask in this run; go on without an answer", code="nobody_to_ask")


def is_question(input: Json) -> bool:
    """Whether a person can make anything of the arguments."""
    question, choices = input.get("question"), input.get("choices")
    listed = choices is None or (isinstance(choices, list) and choices and all(isinstance(c, str) for c in choices))
    return isinstance(question, str) and bool(question.strip()) and bool(listed)
