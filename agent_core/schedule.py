"""When an agent runs by the clock: the plain definition that a module declares beside its agents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Literal

from agent_core.errors import DefinitionError
from agent_core.types import Budget, Json

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Submits a job of an agent by the clock. Raises DefinitionError at once when a field is wrong.

    `name` tells it from others: a module that declares it otherwise changes it. `cron` has five fields, or six with
    seconds first, or is `@every 15m`; it is read in `timezone`. Texts of `input` may hold `{{ scheduled_at }}`,
    `{{ last_run.id }}` and `{{ last_run.output }}`. With `concurrency` runs open, `overlap` says what becomes of the
    next; `catch_up` which times are made up for that nobody was there for, of the last `catch_up_window` seconds.
    Jobs start up to `jitter` seconds later. It ends at `ends_at`, or after `max_runs`. `budget` is that of each job.
    """

    name: str
    cron: str
    agent: str
    input: str | Json
    timezone: str = "UTC"
    overlap: Literal["skip", "queue", "cancel_previous", "allow"] = "skip"
    concurrency: int = 1
    catch_up: Literal["none", "last", "all"] = "last"
    catch_up_window: int = 86_400
    jitter: int = 0
    ends_at: datetime | None = None
    max_runs: int | None = None
    session_id: str | None = None
    user: str | None = None
    priority: Literal["high", "default", "low"] = "default"
    service: Literal["standard", "batch"] = "standard"
    budget: Budget | None = None
    tags: list[str] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = isinstance(self.name, str) and NAME.fullmatch(self.name)
        self._check(bool(words), "name", "1 to 64 letters, digits, _ and -, a letter first")
        self._check(isinstance(self.ends_at, datetime | None), "ends_at", "a datetime with a zone")
        self._check(self.ends_at is None or self.ends_at.tzinfo is not None, "ends_at", "a datetime with a zone")
        self._check(isinstance(self.budget, Budget | None), "budget", "a Budget")

    def to_json(self) -> Json:
        """The schedule as `POST /v1/schedules` takes it."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        ends_at = self.ends_at and self.ends_at.isoformat()
        return {**given, "ends_at": ends_at, "budget": self.budget and self.budget.to_json()}

    def _check(self, sound: bool, name: str, expected: str) -> None:
        if not sound:
            held = f"{name} is {getattr(self, name)!r}; expected {expected}"
            raise DefinitionError(f"schedule {self.name!r}: {held}")
