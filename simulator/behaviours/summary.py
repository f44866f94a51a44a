"""Sums up a conversation that has become too long, when it is asked to under the headings that platforms use for that.

It keeps every line that starts with `FACT`, and how many turns of a script were played.
"""

from __future__ import annotations

import re
from typing import Any

from simulator.behaviours.plain import NOTE
from simulator.conversation import fact_lines, text_blocks
from simulator.reply import Reply, answer
from simulator.script import find_script

Json = dict[str, Any]

ASKED = re.compile(".*".join(rf"^## {name}:" for name in ("Facts", "Decisions", "Done", "Open", "Next")), re.M | re.S)


def is_asked(body: Json) -> bool:
    """Whether the last thing that the user says is the request for a summary."""
    said = text_blocks(body["messages"][-1])
    return bool(said) and ASKED.search(said[-1]) is not None


def reply(body: Json) -> Reply:
    """The summary. Raises ApiError with 400 for a bad script."""
    messages = body["messages"]
    found = find_script(messages)
    played = 0 if found is None else found[2]
    sections = {
        "Facts": fact_lines(messages) or ["- none"],
        "Decisions": ["- none"],
        "Done": [f"- {NOTE}", f"- messages summed up: {len(messages)}", f"- scripted turns played: {played}"],
        "Open": ["- nothing"],
        "Next": ["- go on with the task"],
    }
    return answer("\n".join(line for name, lines in sections.items() for line in (f"## {name}", *lines)))
