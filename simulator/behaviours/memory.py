"""Looks a conversation through for what a user said of themselves, when it is asked to as platforms do it: with a tool
that changes memory, the memories that there are by small numbers, and who said what in tags.

It knows a few plain sentences, and quotes them word for word.
"""

from __future__ import annotations

import json
import re
from typing import Any

from simulator.conversation import text_of
from simulator.reply import Reply, call_tools
from simulator.script import MARK

Json = dict[str, Any]

TOOL = "change_memory"
SAID = re.compile(r"^<user>\n(.*?)\n</user>$", re.MULTILINE | re.DOTALL)
KNOWN = re.compile(r"^\[(\d+)\] (.*?)(?: \(slot ([^()]+)\))?$", re.MULTILINE)
SENTENCES: tuple[tuple[re.Pattern[str], str, str | None], ...] = tuple(
    (re.compile(rf"\b{said} ([^.!?;,\n]+)", re.IGNORECASE), text, slot)
    for said, text, slot in (
        ("my name is", "The user's name is {}.", "user.name"),
        ("I (?:now )?(?:live in|have moved to|moved to)", "The user lives in {}.", "user.city"),
        ("I work (?:for|at)", "The user works for {}.", "user.employer"),
        ("I (?:prefer|like)", "The user likes {}.", None),
    )
)
"""What a user says of themselves, how it is remembered, and the slot of what there is one of at a time."""


def reply(body: Json) -> Reply | None:
    """The operations; None when the request is another one."""
    if TOOL not in {tool["name"] for tool in body.get("tools") or []}:
        return None
    if body["messages"][-1] is not body["messages"][0]:  # what was refused once is not said again
        return call_tools("", (TOOL, {"operations": []}))
    shown, _, conversation = text_of(body["messages"][0]).partition("\n# Conversation\n")
    known = [(int(number), text, slot or None) for number, text, slot in KNOWN.findall(shown)]
    said = "\n".join(map(_without_script, SAID.findall(conversation)))
    found = [
        (match[0].strip(), text.format(match[1].strip()), slot)
        for sentence, text, slot in SENTENCES
        for match in sentence.finditer(said)
    ]
    return call_tools("", (TOOL, {"operations": [_operation(*each, known) for each in _newest(found)]}))


def _newest(found: list[tuple[str, str, str | None]]) -> list[tuple[str, str, str | None]]:
    """Of each slot what was said last, and each text once."""
    return list({slot or text: (quote, text, slot) for quote, text, slot in found}.values())


def _operation(quote: str, text: str, slot: str | None, known: list[tuple[int, str, str | None]]) -> Json:
    for number, remembered, _ in known:
        if remembered == text:
            return {"op": "noop", "id": number, "quote": quote}
    for number, _, taken in known:
        if slot is not None and taken == slot:
            return {"op": "supersede", "id": number, "text": text, "quote": quote}
    return {"op": "add", "text": text, "slot": slot, "quote": quote}


def _without_script(said: str) -> str:
    """What was said around a script, which is the platform's test and no word of the user's."""
    if (mark := MARK.search(said)) is None:
        return said
    try:
        _, length = json.JSONDecoder().raw_decode(said[mark.end() :])
    except (ValueError, RecursionError):  # it was too long to be shown whole
        return said[: mark.start()]
    return said[: mark.start()] + said[mark.end() + length :]
