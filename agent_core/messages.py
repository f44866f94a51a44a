"""Messages of a conversation, as plain JSON of the Messages API: what is in one, and how one is changed."""

from __future__ import annotations

import json

from agent_core.types import Json

ATTACHED = frozenset({"image", "document"})
CLEARED = "[this result of {size:,} characters was taken out to make room; call the tool again if it is needed]"

EMPTY = "[nothing]"
"""Stands for a text that was emptied: the Messages API takes no empty one."""


def with_note(messages: list[Json], text: str) -> list[Json]:
    """The messages with a text of the user's added at the end; the ones given stay as they are."""
    *earlier, last = messages
    if last["role"] != "user":  # a reply that paused
        return [*messages, {"role": "user", "content": text}]
    return [*earlier, {**last, "content": [*blocks_of(last), {"type": "text", "text": text}]}]


def with_text(message: Json, text: str, *, every: bool) -> Json:
    """The message with a text in the place of its last one, or of every one."""
    blocks = blocks_of(message)
    texts = [number for number, block in enumerate(blocks) if block.get("type") == "text"]
    taken = set(texts if every else texts[-1:])
    fresh = {"type": "text", "text": text if text.strip() else EMPTY}
    return {**message, "content": [*(block for number, block in enumerate(blocks) if number not in taken), fresh]}


def tool_uses(message: Json) -> list[Json]:
    """The tool_use blocks of a message."""
    return [b for b in blocks_of(message) if b.get("type") == "tool_use"]


def text_of(message: Json) -> str:
    """The text blocks of a message, joined."""
    return "".join(b["text"] for b in blocks_of(message) if b.get("type") == "text")


def blocks_of(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def cleared(message: Json, call_ids: frozenset[str]) -> Json:
    """The message without the contents of those tool results."""
    if isinstance(message["content"], str):
        return message

    def clear(block: Json) -> Json:
        if block.get("type") != "tool_result" or block["tool_use_id"] not in call_ids:
            return block
        return {**block, "content": CLEARED.format(size=len(str(block["content"])))}

    return {**message, "content": [clear(block) for block in message["content"]]}


def is_blank(block: Json) -> bool:
    """Whether it is a text block without text: models send it now and then, and the Messages API takes none back."""
    return block.get("type") == "text" and not block["text"].strip()


def size_of(message: Json) -> int:
    """Bytes as JSON, without those of images and documents."""
    return len(json.dumps(without_attachments(message), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def without_blocks(message: Json, blocks: list[Json]) -> Json:
    """The message without those of its blocks."""
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [block for block in message["content"] if block not in blocks]}


def without_attachments(message: Json) -> Json:
    """The message with a word in the place of each image or document."""
    if isinstance(message["content"], str) or not any(b.get("type") in ATTACHED for b in message["content"]):
        return message
    told = ({"type": "text", "text": f"[{b['type']}]"} if b.get("type") in ATTACHED else b for b in message["content"])
    return {**message, "content": list(told)}
