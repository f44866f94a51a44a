"""When a schedule's clock strikes: cron expressions in a time zone, and intervals. Nothing here knows what time it is.

A cron expression has five fields, or six with the seconds before them. It is read by `cronsim`, as Debian's cron would
read it, in the time that a clock on the wall shows. What becomes of times that such a clock skips, or shows twice, is
decided here: docs/schedules.md, "When the clocks change".
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from jobs.errors import InvalidError

EVERY = "@every "
INTERVAL = re.compile(r"(?:(\d{1,3})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?")
UNITS = (86_400, 3600, 60, 1)
LONGEST_INTERVAL = 366 * 86_400
LONGEST_EXPRESSION = 200
DAY = 86_400


class Every:
    """Strikes each `seconds` after an anchor."""

    def __init__(self, seconds: int, anchor: int) -> None:
        self._seconds = seconds
        self._anchor = anchor

    def after(self, moment: int) -> Iterator[int]:
        """The seconds since the epoch at which it strikes later than `moment`."""
        at = self._anchor + self._seconds * max(1, (moment - self._anchor) // self._seconds + 1)
        while True:
            yield at
            at += self._seconds


class Cron:
    """Strikes when the clock on the wall of a time zone shows what the expression says."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        """Raises InvalidError."""
        self._expression = expression
        self._zone = zone
        try:
            next(CronSim(expression, _wall(0)))
        except CronSimError as exc:
            raise _wrong(expression, str(exc).lower()) from None
        except StopIteration:
            raise _wrong(expression, "no such day ever comes") from None
        minute, hour = expression.split()[-5:-3]
        self._by_time_elapsed = minute.startswith("*") or hour.startswith("*")

    def after(self, moment: int) -> Iterator[int]:
        """The seconds since the epoch at which it strikes later than `moment`."""
        return self._elapsing(moment) if self._by_time_elapsed else self._fixed(moment)

    def _fixed(self, last: int) -> Iterator[int]:
        """Each time on the wall once: at the first of two, or when the clock jumps over it."""
        for shown in CronSim(self._expression, _wall(last + self._offset(last))):
            at = self._moment(shown)
            if at > last:
                last = at
                yield at

    def _elapsing(self, at: int) -> Iterator[int]:
        """Whenever the clock shows such a time: twice what it shows twice, and never what it skips."""
        offset = self._offset(at)
        while True:
            then = _seconds(next(CronSim(self._expression, _wall(at + offset)))) - offset
            change = self._change(at, then, offset)
            if change is None:
                yield then
                at = then
            else:
                at, offset = change - 1, self._offset(change)

    def _moment(self, shown: datetime) -> int:
        first = int(shown.replace(tzinfo=self._zone).timestamp())
        if _wall(first + self._offset(first)) == shown:
            return first
        before = int(shown.replace(tzinfo=self._zone, fold=1).timestamp())
        jump = self._change(before, first, self._offset(before))
        assert jump is not None
        return jump

    def _offset(self, moment: int) -> int:
        """How many seconds the zone's clock is ahead of UTC."""
        ahead = datetime.fromtimestamp(moment, self._zone).utcoffset()
        assert ahead is not None
        return int(ahead.total_seconds())

    def _change(self, low: int, high: int, offset: int) -> int | None:
        """The first moment after `low`, at the latest `high`, at which the clock is no longer ahead by `offset`."""
        while low < high:
            step = min(low + DAY, high)
            if self._offset(step) != offset:
                between = range(low + 1, step)
                return low + 1 + bisect_left(between, True, key=lambda moment: self._offset(moment) != offset)
            low = step
        return None


@lru_cache(4096)
def clock(expression: str, timezone: str, anchor: int) -> Every | Cron:
    """The clock of an expression; intervals are counted from `anchor`, in seconds. Raises InvalidError."""
    zone = zone_of(timezone)
    if len(expression) > LONGEST_EXPRESSION:
        raise _wrong(expression, f"it has more than {LONGEST_EXPRESSION} characters")
    if expression.startswith(EVERY):
        return Every(interval(expression), anchor)
    return Cron(expression, zone)


def interval(expression: str) -> int:
    """The seconds of `@every 1h30m`. Raises InvalidError."""
    found = INTERVAL.fullmatch(expression.removeprefix(EVERY).strip())
    seconds = sum(int(n) * unit for n, unit in zip(found.groups("0"), UNITS, strict=True)) if found else 0
    if not 1 <= seconds <= LONGEST_INTERVAL:
        raise _wrong(expression, "expected @every and 1s to 366d, like @every 1h30m")
    return seconds


def zone_of(name: str) -> ZoneInfo:
    """The time zone. Raises InvalidError for a name that the IANA database does not have."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there; no name of a file; the name of a folder
        text = f"{name[:80]!r} is no time zone; expected a name of the IANA database, like Europe/Berlin or UTC"
        raise InvalidError(text, code="invalid_timezone") from None


def _wall(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _seconds(shown: datetime) -> int:
    return int(shown.replace(tzinfo=UTC).timestamp())


def _wrong(expression: str, why: str) -> InvalidError:
    text = (
        f"{expression[:80]!r} is no schedule: {why}. Expected minute hour day month weekday, with seconds before them "
        "if wanted, or @every and an interval"
    )
    return InvalidError(text, code="invalid_cron")
