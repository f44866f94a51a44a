"""Session memory: the conversation that several jobs share, a Redis list that lives on for 24 hours after its last use.

A message has an absolute offset, which it keeps for good: the first one ever said has 0. When a summary takes the place
of the oldest messages, it stands at the offset of the last of them (the `base` of what is left), and the conversation's
generation goes up by one. Every write names the end or the generation that it was made for, so that a write that comes
late changes nothing, and one that comes twice is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent_core.errors import StaleAttemptError
from agent_core.types import Json

TTL_SECONDS = 24 * 3600
STALE = -2
SCANNED_AT_ONCE = 1_000
GLOB = re.compile(r"[\\\[\]*?^-]")
LUA = Path(__file__).parent / "lua"
APPEND = (LUA / "append.lua").read_text(encoding="utf-8")
COMPACT = (LUA / "compact.lua").read_text(encoding="utf-8")
READ = (LUA / "read.lua").read_text(encoding="utf-8")


class Commands(Protocol):
    """What session memory needs of a Redis client: one awaited command."""

    def command(self, *args: str | int | float | bytes) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class SessionScope:
    """Whose conversation: every key is made of it, so no caller can reach another tenant's."""

    tenant: str
    session_id: str

    @property
    def key(self) -> str:
        """List: the messages that are left, the oldest first."""
        return f"ns:session:{self.tenant}:{self.session_id}:messages"

    @property
    def about_key(self) -> str:
        """Hash: base and generation, once a summary took the place of messages; `user:…` of each whose jobs spoke."""
        return f"ns:session:{self.tenant}:{self.session_id}:about"


@dataclass(frozen=True, slots=True)
class Fence:
    """Who may write: the `field` of the hash at `key` must hold `value` at the moment of the write."""

    key: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as they were read, the first of them at the offset `start`.

    `length` counts all that were ever said. `generation` is how often a summary took the place of the oldest ones: from
    1 on, the message at the offset `base` is such a summary. `kept_ms` is for how long the session is still kept.
    """

    messages: list[Json]
    start: int = 0
    length: int = 0
    base: int = 0
    generation: int = 0
    kept_ms: int = 0

    @property
    def end(self) -> int:
        """The offset after the last of `messages`."""
        return self.start + len(self.messages)


class SessionMemory:
    """Reads, extends and compacts conversations."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis

    async def read(self, scope: SessionScope, length: int | None = None) -> Conversation:
        """The first `length` messages that were ever said, all for None, the oldest perhaps as a summary.

        Reading keeps the session alive for another 24 hours.
        """
        if length == 0:
            return Conversation([])
        return await self._read(scope, 0, -1 if length is None else length, -1, TTL_SECONDS)

    async def look(self, scope: SessionScope, start: int, most: int) -> Conversation:
        """Up to `most` messages from the offset `start` on; one of length 0 when there is no such session.

        Looking keeps nothing alive.
        """
        return await self._read(scope, start, -1, most, 0)

    async def append(
        self,
        scope: SessionScope,
        length: int,
        messages: Sequence[Json],
        fence: Fence | None = None,
        user: str | None = None,
    ) -> bool:
        """Adds messages after the first `length`; False when the conversation has meanwhile another length.

        `user` is whose job says them, so that the session goes when that user is forgotten. The same append twice is
        one append. Raises StaleAttemptError when the fence holds another value, or none.
        """
        if not messages:
            return True
        return await self._write(APPEND, scope, fence, length, user or "", *map(_dump, messages))

    async def compact(
        self, scope: SessionScope, generation: int, covered: int, summary: Json, fence: Fence | None = None
    ) -> bool:
        """Puts `summary`, which was found sound, in the place of the `covered` oldest messages that are left.

        False, and nothing done, when the conversation is of another generation than the one that was summed up, or has
        no such messages any more. The same compaction twice is one. Raises as `append` does.
        """
        return await self._write(COMPACT, scope, fence, generation, covered, _dump(summary))

    async def forget_user(self, tenant: str, user: str) -> int:
        """Deletes every session of a tenant in which a job of the user said something; returns how many there were.

        It looks at every key in Redis: for what is seldom asked, and by a person.
        """
        cursor, forgotten = 0, 0
        sessions = SessionScope(GLOB.sub(r"\\\g<0>", tenant), "*").about_key
        while True:
            cursor, found = await self._redis.command("SCAN", cursor, "MATCH", sessions, "COUNT", SCANNED_AT_ONCE)
            for about_key in found:
                if await self._redis.command("HEXISTS", about_key, f"user:{user}"):
                    messages_key = about_key.removesuffix(b"about") + b"messages"
                    forgotten += bool(await self._redis.command("DEL", messages_key, about_key))
            if not int(cursor):
                return forgotten

    async def _read(self, scope: SessionScope, start: int, stop: int, most: int, ttl: int) -> Conversation:
        words: tuple[str | int, ...] = (2, scope.key, scope.about_key, start, stop, most, ttl)
        base, generation, first, length, kept_ms, found = await self._redis.command("EVAL", READ, *words)
        return Conversation([json.loads(text) for text in found], first, length, base, generation, kept_ms)

    async def _write(
        self, script: str, scope: SessionScope, fence: Fence | None, expected: int, *words: str | int
    ) -> bool:
        key, field, value = (fence.key, fence.field, fence.value) if fence else (scope.key, "", "")
        where: tuple[str | int, ...] = (3, scope.key, scope.about_key, key, expected, TTL_SECONDS, field, value)
        found = int(await self._redis.command("EVAL", script, *where, *words))
        if found == STALE:
            raise StaleAttemptError(f"session {scope.session_id}: the writer no longer owns its job")
        return found >= 0


def _dump(message: Json) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
