"""Prompt caching: which part of a prompt was written to the cache before, and what is written now.

A prompt is its tools, its system text and its messages, block by block. A block that carries `cache_control` is a
breakpoint, and the request's own `cache_control` makes the last block one. Each breakpoint writes the prompt up to it;
a later prompt that begins with the same bytes reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator import models

Json = dict[str, Any]

CHARS_PER_TOKEN = 4
LOOKBACK = 20
"""Blocks from a breakpoint back in which a prefix is looked for, the breakpoint's own among them."""
LIFETIMES = {"5m": 300.0, "1h": 3600.0}
"""Seconds from the last use."""
KEPT_PREFIXES = 100_000


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a block ends: the digest of all up to there and its tokens; `ttl` when it is a breakpoint."""

    digest: bytes
    tokens: int
    ttl: str | None


@dataclass(slots=True)
class PromptCache:
    """The prefixes that were written, the one used longest ago first, each with its last moment."""

    clock: Callable[[], float] = time.monotonic
    _ends: OrderedDict[bytes, float] = field(default_factory=OrderedDict)

    def count(self, body: Json) -> Json:
        """The input side of a request's `usage`; what the request has written is there for the next one."""
        marks = list(_marks(body))
        least = models.least_cached(body["model"])
        breakpoints = [place for place, mark in enumerate(marks) if mark.ttl and mark.tokens >= least]
        read = max((self._read(marks, place) for place in breakpoints), default=0)
        written = {ttl: max((marks[p].tokens for p in breakpoints if marks[p].ttl == ttl), default=0) for ttl in LIFETIMES}
        for place in breakpoints:
            self._write(marks[place])
        hour = max(0, written["1h"] - read)
        five = max(0, written["5m"] - max(read, written["1h"]))
        return _usage(marks[-1].tokens, read, five, hour)

    def reset(self) -> None:
        """Forgets everything."""
        self._ends.clear()
