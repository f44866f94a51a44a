"""Reads a conversation: what the user asked last, which tools ran since, and what they gave back."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
MEMORIES = "<memories>\n"
"""With this begins the block of what a platform remembers, which no user wrote."""
MEMORY = re.compile(r"<memory [^>]*>(.*)</memory>")
FRAME = re.compile(r'<data from="[^"]*">\n(.*)\n</data>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A tool call with the text of its result."""

    name: str
    input: Json
    text: str
    is_error: bool

    def data(self) -> Json | None:
        """The result as a JSON object, or None when it is an error or anything else."""
        try:
            found = None if self.is_error else json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Task:
    """The newest thing that the user asked for, and what was done about it so far."""

    text: str
    exchanges: list[Exchange]

    def of(self, name: str) -> list[Exchange]:
        """The calls of one tool, oldest first."""
        return [e for e in self.exchanges if e.name == name]


def current_task(messages: list[Json]) -> Task:
    """What the newest message that a user wrote (and not a tool) asks for."""
    start = max((i for i, m in enumerate(messages) if _is_written(m)), default=0)
    calls = {b["id"]: b for m in messages[start:] for b in _blocks(m, "tool_use")}
    results = [b for m in messages[start:] for b in _blocks(m, "tool_result")]
    exchanges = [
        Exchange(call["name"], call["input"], result_text(block), bool(block.get("is_error")))
        for block in results
        if (call := calls.get(block["tool_use_id"])) is not None
    ]
    return Task(text_of(messages[start]), exchanges)


def text_of(message: Json) -> str:
    """The text of a message without its tool results, and without what the platform remembers."""
    return "\n".join(text_blocks(message))


def text_blocks(message: Json) -> list[str]:
    """The texts of a message without its tool results, and without what the platform remembers."""
    content = message["content"]
    texts = [content] if isinstance(content, str) else [b["text"] for b in _blocks(message, "text")]
    return [text for text in texts if not text.startswith(MEMORIES)]


def remembered(messages: list[Json]) -> list[str]:
    """What the newest block of memories says."""
    blocks = [b["text"] for m in messages for b in _blocks(m, "text") if b["text"].startswith(MEMORIES)]
    return [html.unescape(text) for text in MEMORY.findall(blocks[-1])] if blocks else []


def fact_lines(messages: list[Json]) -> list[str]:
    """Every line of a conversation that starts with `FACT`, once each, in the order of their coming."""
    texts = (text for m in messages for text in [*map(result_text, _blocks(m, "tool_result")), *text_blocks(m)])
    return list(dict.fromkeys(line for text in texts for line in text.splitlines() if line.startswith("FACT")))


def result_text(block: Json) -> str:
    """The text of a tool_result block."""
    content = block.get("content") or ""
    if isinstance(content, str):
        return _unframed(content)
    return "\n".join(str(b.get("text", "")) for b in content if isinstance(b, dict) and b.get("type") == "text")


def _unframed(text: str) -> str:
    """A result without the frame by which a platform marks it as data."""
    found = FRAME.fullmatch(text)
    return found[1].replace("&lt;/data", "</data") if found else text


def last_tool_result(messages: list[Json]) -> str:
    """The text of the newest tool result; empty when there is none."""
    blocks = [b for m in messages for b in _blocks(m, "tool_result")]
    return result_text(blocks[-1]) if blocks else ""


def gist(text: str, limit: int = 300) -> str:
    """The text on one line and not longer than `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _is_written(message: Json) -> bool:
    return message["role"] == "user" and not any(_blocks(message, "tool_result")) and bool(text_of(message))


def _blocks(message: Json, kind: str) -> Iterator[Json]:
    content = message["content"]
    return iter(()) if isinstance(content, str) else (b for b in content if b["type"] == kind)
