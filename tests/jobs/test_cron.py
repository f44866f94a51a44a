"""When clocks strike, against a clock on the wall that is watched second by second, or minute by minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cron import clock
from jobs.errors import InvalidError

EDGES = {
    "Europe/Berlin": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    "America/New_York": ("2026-03-08T07:00Z", "2026-11-01T06:00Z"),
    "Australia/Lord_Howe": ("2026-10-03T15:30Z", "2026-04-04T15:00Z"),  # moves by half an hour
    "America/Santiago": ("2026-09-06T04:00Z", "2026-04-05T03:00Z"),  # at midnight
}
"""Where the clock moves on, and where it moves back."""
MINUTES = st.sampled_from(["*", "0", "30", "15,45", "*/15", "*/20", "10-50/10"])
HOURS = st.sampled_from(["*", "0", "1", "2", "3", "1,2", "0-3", "*/2", "23", "2,3"])


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def strikes(expression: str, zone: str, start: int, end: int) -> list[int]:
    found: list[int] = []
    for at in clock(expression, zone, start).after(start):
        if at > end:
            return found
        found.append(at)
    raise AssertionError("clocks go on for ever")


def times(expression: str, first: datetime, last: datetime) -> set[datetime]:
    """The times, as a clock shows them, at which it strikes."""
    return set(takewhile(lambda shown: shown <= last, CronSim(expression, first - timedelta(hours=2))))


def watched(zone: str, start: int, end: int) -> Iterator[tuple[int, datetime]]:
    """What the clock shows, each minute."""
    for at in range(start - start % 60 + 60, end + 1, 60):
        yield at, datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None)


def expected(expression: str, zone: str, start: int, end: int) -> list[int]:
    """By watching: see docs/schedules.md, "When the clocks change"."""
    minute, hour = expression.split()[:2]
    shown = list(watched(zone, start - 8 * 3600, end))
    striking = times(expression, shown[0][1], shown[-1][1])
    if minute.startswith("*") or hour.startswith("*"):
        return [at for at, time in shown if at > start and time in striking]
    found: dict[datetime, int] = {}
    jumps: set[int] = set()
    for (_, before), (at, time) in pairwise(shown):
        skipped = (before + timedelta(minutes=n) for n in range(1, int((time - before).total_seconds() // 60)))
        if not striking.isdisjoint(skipped):
            jumps.add(at)
        if time in striking:
            found.setdefault(time, at)
    return sorted(at for at in {*found.values(), *jumps} if at > start)


@pytest.mark.parametrize("zone", EDGES)
@pytest.mark.parametrize("edge", [0, 1], ids=["moves on", "moves back"])
@settings(max_examples=30, deadline=None)
@given(minute=MINUTES, hour=HOURS, back=st.integers(0, 6 * 3600))
def test_around_an_edge(zone: str, edge: int, minute: str, hour: str, back: int) -> None:
    at = seconds(EDGES[zone][edge])
    expression = f"{minute} {hour} * * *"
    start, end = at - 3 * 3600 + back, at + 30 * 3600
    assert strikes(expression, zone, start, end) == expected(expression, zone, start, end)


@settings(max_examples=40, deadline=None)
@given(minute=MINUTES, hour=HOURS, zone=st.sampled_from(sorted(EDGES)), start=st.integers(1_767_225_600, 1_798_761_600))
def test_going_on_from_any_slot_finds_the_same_ones(minute: str, hour: str, zone: str, start: int) -> None:
    made = clock(f"{minute} {hour} * * *", zone, 0)
    at_once = list(islice(made.after(start), 12))
    assert at_once == sorted(set(at_once))
    one_by_one = [start]
    for _ in at_once:
        one_by_one.append(next(made.after(one_by_one[-1])))
    assert one_by_one[1:] == at_once


def test_seconds_stand_first() -> None:
    start = seconds("2026-05-01T00:00Z")
    assert strikes("*/20 * * * * *", "UTC", start, start + 60) == [start + 20, start + 40, start + 60]
    assert strikes("5,10 30 2 * * *", "UTC", start, start + 86_400) == [start + 9005, start + 9010]


def test_what_the_clock_skips_strikes_once_when_it_jumps() -> None:
    jump = seconds(EDGES["Europe/Berlin"][0])
    assert strikes("15,45 2 * * *", "Europe/Berlin", jump - 3600, jump + 3600) == [jump]
    assert strikes("* 30 2 * * *", "Europe/Berlin", jump - 3600, jump + 3600) == [jump]


def test_a_yearly_time_in_the_hour_that_comes_twice() -> None:
    first = seconds("2026-11-01T05:30Z")  # 01:30 in New York, for the first time; the next year it comes once
    found = strikes("*/30 1 1 11 *", "America/New_York", first - 60, first + 366 * 86_400)
    assert [at - first for at in found[:3]] == [0, 1800, 3600]


def test_intervals_are_counted_from_their_anchor() -> None:
    made = clock("@every 1h30m", "UTC", 1000)
    assert list(islice(made.after(0), 2)) == [6400, 11_800]
    assert list(islice(made.after(6400), 2)) == [11_800, 17_200]
    assert next(made.after(6399)) == 6400


@pytest.mark.parametrize(
    "expression",
    [
        *("", "* * * *", "0 0 * * * * *", "60 * * * *", "0 0 31 2 *", "x * * * *", "@daily", "* " * 300),
        *("@every 0s", "@every", "@every 367d", "@every -1s"),
    ],
)
def test_what_is_no_clock(expression: str) -> None:
    with pytest.raises(InvalidError) as caught:
        clock(expression, "UTC", 0)
    assert caught.value.code == "invalid_cron"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(InvalidError) as caught:
        clock("* * * * *", zone, 0)
    assert caught.value.code == "invalid_timezone"


def test_utc_is_a_zone() -> None:
    assert next(clock("0 0 * * *", "UTC", 0).after(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))) % 86_400 == 0
