"""Turns a reply into what goes over the wire: ids, token counts, the message as JSON, the stream's events as bytes.

Ids and counts are worked out from the request alone, so the same request gets the same answer, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from simulator.reply import Reply

Json = dict[str, Any]

PIECE_CHARS = 24
CHARS_PER_TOKEN = 4
WORDS = re.compile(r"\S+\s*|\s+")
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STREAM_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@dataclass(frozen=True, slots=True)
class Message:
    """A reply with its ids and its usage, ready to be written out whole or as events."""

    id: str
    model: str
    content: list[Json]
    stop_reason: str
    usage: Json | None

    def to_json(self) -> Json:
        """The message as the Messages API returns it without streaming."""
        body = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "stop_details": _stop_details(self.stop_reason),
        }
        return body if self.usage is None else {**body, "usage": self.usage}


def compose(body: Json, reply: Reply, counted: Json) -> Message:
    """The message that answers the request `body`, cut to its `max_tokens` like a model's would be.

    `counted` is the input side of its usage.
    """
    messages = json.dumps(body["messages"])
    digest = hashlib.blake2b(messages.encode(), digest_size=12).hexdigest()
    reply = _fit(reply, body["max_tokens"])
    content = [
        {"type": "tool_use", "id": f"toolu_sim_{digest}_{index}", "name": block["name"], "input": block["input"]}
        if block["type"] == "tool_use"
        else block
        for index, block in enumerate(reply.content)
    ]
    usage = None
    if reply.usage is not None:
        usage = {**counted, "output_tokens": _output_tokens(reply.content), **reply.usage}
    return Message(f"msg_sim_{digest}", body["model"], content, reply.stop_reason, usage)


def events(message: Message, chunks: int | None = None, *, malformed_tool_json: bool = False) -> list[bytes]:
    """The events of a stream, each as its bytes, in the order in which the Messages API sends them."""
    start = {**message.to_json(), "content": [], "stop_reason": None, "stop_details": None}
    if message.usage is not None:
        start["usage"] = {**message.usage, "output_tokens": 1}
    out = [event("message_start", {"message": start})]
    for index, block in enumerate(message.content):
        out += _block_events(index, block, chunks, malformed_tool_json)
    ending: Json = {
        "delta": {
            "stop_reason": message.stop_reason,
            "stop_sequence": None,
            "stop_details": _stop_details(message.stop_reason),
        }
    }
    if message.usage is not None:
        ending["usage"] = {k: v for k, v in message.usage.items() if k not in ("cache_creation", "service_tier")}
    return [*out, event("message_delta", ending), STREAM_END]


def event(type_: str, data: Json) -> bytes:
    """One server-sent event."""
    return f"event: {type_}\ndata: {json.dumps({'type': type_, **data})}\n\n".encode()


def _block_events(index: int, block: Json, chunks: int | None, malformed: bool) -> list[bytes]:
    opened: Json
    if block["type"] == "text":
        opened, kind, key = {"type": "text", "text": ""}, "text_delta", "text"
        pieces = _pieces(block["text"], chunks)
    else:
        opened, kind, key = {**block, "input": {}}, "input_json_delta", "partial_json"
        text = json.dumps(block["input"])
        pieces = ["", *_slices(text[:-1] + ",,}" if malformed else text)]
    head = f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},"delta":'
    deltas = [f'{head}{{"type":"{kind}","{key}":{json.dumps(piece)}}}}}\n\n'.encode() for piece in pieces]
    out = [event("content_block_start", {"index": index, "content_block": opened})]
    if index == 0:
        out.append(PING)
    return [*out, *deltas, event("content_block_stop", {"index": index})]


def _pieces(text: str, chunks: int | None) -> list[str]:
    words = WORDS.findall(text)
    if chunks is not None:
        size = max(1, math.ceil(len(words) / chunks))
        return ["".join(words[i : i + size]) for i in range(0, len(words), size)]
    pieces: list[str] = []
    for word in words:
        if pieces and len(pieces[-1]) < PIECE_CHARS:
            pieces[-1] += word
        else:
            pieces.append(word)
    return pieces


def _slices(text: str) -> list[str]:
    size = max(PIECE_CHARS, len(text) // 32)
    return [text[i : i + size] for i in range(0, len(text), size)]


def _fit(reply: Reply, max_tokens: int) -> Reply:
    """The reply as far as `max_tokens` goes; the block that is cut off is the last one, and a cut call is left out."""
    room = max_tokens * CHARS_PER_TOKEN
    kept: list[Json] = []
    for block in reply.content:
        size = _size(block)
        if size <= room:
            kept.append(block)
            room -= size
            continue
        if block["type"] == "text" and room > 0:
            kept.append({**block, "text": block["text"][:room]})
        return replace(reply, content=kept, stop_reason="max_tokens")
    return reply


def _size(block: Json) -> int:
    return len(block["text"]) if block["type"] == "text" else len(block["name"]) + len(json.dumps(block["input"]))


def _output_tokens(content: list[Json]) -> int:
    return max(1, _tokens(sum(_size(block) for block in content)))


def _tokens(chars: int) -> int:
    return math.ceil(chars / CHARS_PER_TOKEN)


def _stop_details(stop_reason: str) -> Json | None:
    if stop_reason != "refusal":
        return None
    return {"type": "refusal", "category": None, "explanation": "The simulated model was told to decline."}
