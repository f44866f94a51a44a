"""Prompt caching: which part of a prompt is read from the cache, and which is written to it.

A prompt is its tools, its system text and its messages, block by block. A block that carries `cache_control` is a
breakpoint; the request's own `cache_control` makes the last block one. Each breakpoint writes the prompt up to it, and
a later prompt that begins with the same bytes reads that.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from simulator import models
from simulator.errors import ApiError

Json = dict[str, Any]

CHARS_PER_TOKEN = 4
MOST_BREAKPOINTS = 4
LOOKBACK = 20
"""Blocks, from a breakpoint back and with it, whose ends are looked up in the cache."""
LIFETIMES = {"5m": 300.0, "1h": 3600.0}
"""Seconds from the last use."""
KEPT_PREFIXES = 100_000


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a block: the digest and the tokens of the prompt up to it, and `ttl` when it is a breakpoint."""

    digest: bytes
    tokens: int
    ttl: str | None


class PromptCache:
    """The prefixes that were written, the longest unused one first, with how long each lives from use to use."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def count(self, body: Json) -> Json:
        """The input side of a request's `usage`. What the request writes is there for the next one.

        Raises ApiError with 400 for breakpoints that the Messages API would not take.
        """
        marks = list(_marks(body))
        found = [place for place, mark in enumerate(marks) if mark.ttl]
        if len(found) > MOST_BREAKPOINTS:
            problem = f"A maximum of {MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {len(found)}."
            raise ApiError(400, problem)
        breakpoints = [place for place in found if marks[place].tokens >= models.least_cached(body["model"])]
        read = max((self._read(marks[: place + 1]) for place in breakpoints), default=0)
        for place in breakpoints:
            self._keep(marks[place].digest, LIFETIMES[str(marks[place].ttl)])
        hour = max((marks[place].tokens for place in breakpoints if marks[place].ttl == "1h"), default=0)
        last = max((marks[place].tokens for place in breakpoints), default=0)
        return _usage(marks[-1].tokens, read, max(0, hour - read), max(0, last - max(read, hour)))

    def reset(self) -> None:
        """Forgets everything."""
        self._kept.clear()

    def _read(self, marks: list[Mark]) -> int:
        """The tokens of the longest prefix that is kept, which lives on by being read."""
        for mark in marks[: -LOOKBACK - 1 : -1]:
            end, lifetime = self._kept.get(mark.digest, (0.0, 0.0))
            if self._clock() < end:
                self._keep(mark.digest, lifetime)
                return mark.tokens
        return 0

    def _keep(self, digest: bytes, lifetime: float) -> None:
        now = self._clock()
        end, longer = self._kept.pop(digest, (0.0, 0.0))
        lifetime = max(lifetime, longer) if now < end else lifetime
        self._kept[digest] = (now + lifetime, lifetime)
        if len(self._kept) > KEPT_PREFIXES:
            self._kept.popitem(last=False)


def uncached(body: Json) -> Json:
    """The input side of the usage of a request that neither reads the cache nor writes to it."""
    return _usage([*_marks(body)][-1].tokens)


def _usage(total: int, read: int = 0, hour: int = 0, five: int = 0) -> Json:
    return {
        "input_tokens": total - read - hour - five,
        "cache_creation_input_tokens": hour + five,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "service_tier": "standard",
    }


def _marks(body: Json) -> Iterator[Mark]:
    digest, chars = hashlib.blake2b(body["model"].encode(), digest_size=16), 0
    blocks = list(_blocks(body))
    automatic = body.get("cache_control")
    for number, (place, block) in enumerate(blocks, 1):
        asked = block.get("cache_control") or (automatic if number == len(blocks) else None)
        text = json.dumps({key: value for key, value in block.items() if key != "cache_control"})
        digest.update(f"{json.dumps(place)}{text}".encode())
        chars += len(block["text"]) if block.get("type") == "text" else len(text)
        yield Mark(digest.digest(), math.ceil(chars / CHARS_PER_TOKEN), None if asked is None else _ttl(asked))


def _blocks(body: Json) -> Iterator[tuple[object, Json]]:
    """The prompt's blocks, each with what besides its content makes it the same as another."""
    for tool in body.get("tools") or []:
        yield "tools", tool
    for block in _listed(body.get("system") or []):
        yield "system", block
    for message in body["messages"]:
        for block in _listed(message["content"]):
            yield [message["role"], body.get("tool_choice"), body.get("thinking")], block


def _listed(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _ttl(asked: object) -> str:
    ttl = asked.get("ttl") or "5m" if isinstance(asked, dict) else None
    if ttl not in LIFETIMES:
        raise ApiError(400, f"cache_control.ttl: Input should be {' or '.join(repr(known) for known in LIFETIMES)}")
    return str(ttl)
