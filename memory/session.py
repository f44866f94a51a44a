"""Session memory: the messages of a conversation that several jobs share, a Redis list that lives on for 24 hours."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent_core.errors import StaleAttemptError
from agent_core.types import Json

TTL_SECONDS = 24 * 3600
STALE = -2
APPEND = (Path(__file__).parent / "lua" / "append.lua").read_text(encoding="utf-8")


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
        return f"ns:session:{self.tenant}:{self.session_id}:messages"


@dataclass(frozen=True, slots=True)
class Fence:
    """Who may write: the `field` of the hash at `key` must hold `value` at the moment of the write."""

    key: str
    field: str
    value: str


class SessionMemory:
    """Reads and extends conversations."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis

    async def read(self, scope: SessionScope, length: int | None = None) -> list[Json]:
        """The first `length` messages, all for None; reading keeps the session alive for another 24 hours."""
        if length == 0:
            return []
        found = await self._redis.command("LRANGE", scope.key, 0, -1 if length is None else length - 1)
        await self._redis.command("EXPIRE", scope.key, TTL_SECONDS)
        return [json.loads(text) for text in found]

    async def append(
        self, scope: SessionScope, length: int, messages: Sequence[Json], fence: Fence | None = None
    ) -> bool:
        """Adds messages after the first `length`; False when the conversation has meanwhile another length.

        The same append twice is one append. Raises StaleAttemptError when the fence holds another value, or none.
        """
        if not messages:
            return True
        texts = [json.dumps(m, ensure_ascii=False, separators=(",", ":")) for m in messages]
        key, field, value = (fence.key, fence.field, fence.value) if fence else (scope.key, "", "")
        words: tuple[str | int, ...] = (2, scope.key, key, length, TTL_SECONDS, field, value, *texts)
        found = int(await self._redis.command("EVAL", APPEND, *words))
        if found == STALE:
            raise StaleAttemptError(f"session {scope.session_id}: the writer no longer owns its job")
        return found >= 0
