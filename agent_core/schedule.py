"""When an agent runs by the clock: the plain definition that a module declares beside its agents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from agent_core.errors import DefinitionError
from agent_core.types import Budget, Json

Overlap = Literal["skip", "queue", "cancel_previous", "allow"]
CatchUp = Literal["none", "last", "all"]
Priority = Literal["high", "default", "low"]
Service = Literal["standard", "batch"]
ONE_OF = {"overlap": get_args(Overlap), "catch_up": get_args(CatchUp)} | {
    "priority": get_args(Priority),
    "service": get_args(Service),
}
DAY = 86_400
LEAST_AND_MOST = {"concurrency": (1, 1000), "catch_up_window": (60, 366 * DAY), "jitter": (0, DAY)}
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
    overlap: Overlap = "skip"
    concurrency: int = 1
    catch_up: CatchUp = "last"
    catch_up_window: int = 86_400
    jitter: int = 0
    ends_at: datetime | None = None
    max_runs: int | None = None
    session_id: str | None = None
    user: str | None = None
    priority: Priority = "default"
    service: Service = "standard"
    budget: Budget | None = None
    tags: list[str] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = isinstance(self.name, str) and NAME.fullmatch(self.name)
        self._check(bool(words), "name", "1 to 64 letters, digits, _ and -, a letter first")
        for name in ("cron", "agent", "timezone"):
            self._check(_is_text(getattr(self, name)), name, "a text that is not empty")
        self._check(_is_text(self.input) or isinstance(self.input, dict), "input", "a text, or a dictionary")
        for name, values in ONE_OF.items():
            self._check(getattr(self, name) in values, name, f"one of {', '.join(values)}")
        for name, (least, most) in LEAST_AND_MOST.items():
            value = getattr(self, name)
            self._check(_is_whole(value) and least <= value <= most, name, f"a whole number from {least} to {most}")
        self._check(self.max_runs is None or (_is_whole(self.max_runs) and self.max_runs > 0), "max_runs", "1 or more")
        ends = self.ends_at is None or (isinstance(self.ends_at, datetime) and self.ends_at.tzinfo is not None)
        self._check(ends, "ends_at", "a datetime with a zone")
        self._check(isinstance(self.budget, Budget | None), "budget", "a Budget")

    def to_json(self) -> Json:
        """The definition as plain JSON; `ends_at` in ms."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        ends_at = None if self.ends_at is None else int(self.ends_at.timestamp() * 1000)
        return {**given, "ends_at": ends_at, "budget": self.budget and self.budget.to_json()}

    def _check(self, sound: bool, name: str, expected: str) -> None:
        if not sound:
            held = f"{name} is {getattr(self, name)!r}; expected {expected}"
            raise DefinitionError(f"schedule {self.name!r}: {held}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
