"""What a process did a moment ago, so that it need not do it with each request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")
REMEMBERED_SECONDS = 1.5
"""How long a process may go by what has changed, if it does not hear that it has."""
MOST_REMEMBERED = 10_000


class Recent:
    """Values by the names of the keys that they were made of. Who changes such a key publishes its name to
    `keys.CHANGED`, and every process forgets it.
    """

    def __init__(self, seconds: float = REMEMBERED_SECONDS) -> None:
        self._seconds = seconds
        self._known: dict[str, tuple[float, Any]] = {}
        self._forgotten = 0

    async def get(self, key: str, look_up: Callable[[], Awaitable[T]]) -> T:
        """The value that is known, or what `look_up` finds. What that raises is not remembered."""
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return cast("T", known[1])
        forgotten = self._forgotten
        value = await look_up()
        if forgotten == self._forgotten:  # else it may have been looked up before it changed
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = (now + self._seconds, value)
        return value

    def forget(self, key: str | None = None) -> None:
        """Forgets a value, or all of them."""
        self._forgotten += 1
        if key is None:
            self._known.clear()
        else:
            self._known.pop(key, None)


class Seldom:
    """Says yes to each name once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def now(self, name: str) -> bool:
        """Whether it is time again."""
        now = time.monotonic()
        last = self._last.get(name)
        if last is not None and last + self._seconds > now:
            return False
        if len(self._last) >= MOST_REMEMBERED:
            self._last.clear()
        self._last[name] = now
        return True
