"""Which slots of a schedule are due, and what is to become of each. Pure: the time is an argument, in ms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal, NamedTuple

from jobs.cron import clock

CatchUp = Literal["none", "last", "all"]
Outcome = Literal["fired", "late", "caught_up", "skipped", "waiting"]
"""What became of a slot; only `waiting` may still change."""
Reason = Literal["delayed", "missed", "too_old", "superseded"]
ON_TIME_MS = 5_000
"""A slot that is handled later than this is late."""
MISSED_MS = 60_000
"""A slot that is handled later than this was missed: whether it is made up for is the schedule's to say."""
MOST_AT_ONCE = 200
"""Slots of a schedule that one look handles."""


class Slot(NamedTuple):
    """A time at which the clock struck, and the later one, by the jitter, at which the job is due. Both in ms."""

    at: int
    due: int


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule strikes. `jitter` and `catch_up_window` are in seconds; `ends_ms` is the last moment for a slot.

    `seed` makes the jitter of each slot the same for whoever computes it; `anchor_ms` is what `@every` counts from.
    """

    seed: str
    cron: str
    timezone: str = "UTC"
    anchor_ms: int = 0
    jitter: int = 0
    ends_ms: int | None = None
    catch_up: CatchUp = "last"
    catch_up_window: int = 86_400

    def after(self, ms: int) -> Iterator[Slot]:
        """Its slots after a moment, in order; each is due before the clock strikes again."""
        strikes = clock(self.cron, self.timezone, self.anchor_ms // 1000).after(ms // 1000)
        for at, following in pairwise(strikes):
            if self.ends_ms is not None and at * 1000 > self.ends_ms:
                return
            most = min(self.jitter, following - at) * 1000
            yield Slot(at * 1000, at * 1000 + self._share(at, most))

    def _share(self, at: int, most: int) -> int:
        """A number below `most`, or 0, that depends on the slot alone."""
        digest = hashlib.sha256(f"{self.seed} {at}".encode()).digest()
        return int.from_bytes(digest[:8]) % most if most else 0


class Decision(NamedTuple):
    """What is to become of a slot, before anyone looked at what else of its schedule runs."""

    slot: Slot
    outcome: Outcome
    reason: Reason | None = None


class Look(NamedTuple):
    """The slots that are due, in order, and when the next one is, None when there is none."""

    decisions: list[Decision]
    next_due: int | None


def look(timing: Timing, cursor: int, now: int, most: int = MOST_AT_ONCE) -> Look:
    """What is due of the slots after `cursor`, the last one that was handled; at most so many."""
    found = list(_until(timing.after(cursor), now, most))
    due = [slot for slot in found[:most] if slot.due <= now]
    following = found[len(due)].due if len(found) > len(due) else None
    newest = len(due) - 1 if following is None or following > now else len(due)
    decisions = [decide(timing, slot, now, followed=number < newest) for number, slot in enumerate(due)]
    return Look(decisions, following)


def decide(timing: Timing, slot: Slot, now: int, *, followed: bool) -> Decision:
    """What is to become of a due slot; `followed` when a later one is due as well."""
    late = now - slot.due
    if late <= ON_TIME_MS:
        return Decision(slot, "fired")
    if late <= MISSED_MS:
        return Decision(slot, "late", "delayed")
    if timing.catch_up == "none":
        return Decision(slot, "skipped", "missed")
    if late > timing.catch_up_window * 1000:
        return Decision(slot, "skipped", "too_old")
    if timing.catch_up == "last" and followed:
        return Decision(slot, "skipped", "superseded")
    return Decision(slot, "caught_up", "missed")


def upcoming(timing: Timing, after: int, count: int = 10) -> list[int]:
    """The next times at which the clock strikes, in ms."""
    return [slot.at for slot in islice(timing.after(after), count)]


def _until(slots: Iterator[Slot], now: int, most: int) -> Iterator[Slot]:
    """Slots up to the first that is not due, and no more than one above `most`."""
    for number, slot in enumerate(slots):
        yield slot
        if slot.due > now or number == most:
            return
