"""Which slots are due and what becomes of them, at any time: held to the tables of docs/schedules.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cron import clock
from jobs.slots import MISSED_MS, CatchUp, Decision, Timing, look, upcoming
from tests.docs.markdown import CODE, ROOT, table

PAGE = ROOT / "docs/schedules.md"
HOUR = 3_600_000
DAY = datetime(2026, 5, 4, tzinfo=UTC)


def plain(cell: str) -> str:
    return CODE.sub(r"\1", cell)


def ms(time: str) -> int:
    hours, minutes = map(int, time.split(":"))
    return int((DAY + timedelta(hours=hours, minutes=minutes)).timestamp() * 1000)


def shown(decision: Decision) -> str:
    return decision.outcome if decision.reason is None else f"{decision.outcome}: {decision.reason}"


@pytest.mark.parametrize("row", table(PAGE, "cron", "zone"), ids=" ".join)
def test_the_table_of_days_on_which_the_clocks_change(row: list[str]) -> None:
    expression, name, day, expected = map(plain, row)
    zone = ZoneInfo(name)
    begin = datetime.fromisoformat(day).replace(tzinfo=zone)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=zone)
    found = []
    for at in clock(expression, name, 0).after(int(begin.timestamp()) - 1):
        if at >= end.timestamp():
            break
        found.append(datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S").removesuffix(":00"))
    assert " ".join(found) == expected


OUTAGES = table(PAGE, "`catch_up`", "`catch_up_window`", "07:00")


@pytest.mark.parametrize("row", OUTAGES, ids=lambda row: plain(" ".join(row[:2])))
def test_the_table_of_an_outage_of_six_hours(row: list[str]) -> None:
    policy, window, *expected = map(plain, row)
    timing = timed("0 * * * *", policy, int(window))  # type: ignore[arg-type]
    after = look(timing, ms("06:00"), ms("12:30"))
    assert [shown(decision) for decision in after.decisions] == expected[:-1]
    assert after.next_due == ms("13:00")
    (then,) = look(timing, after.decisions[-1].slot.at, ms("13:00")).decisions
    assert shown(then) == expected[-1]


def timed(cron: str, catch_up: CatchUp = "last", window: int = 86_400, jitter: int = 0, **more: Any) -> Timing:
    return Timing("sched_1", cron, catch_up=catch_up, catch_up_window=window, jitter=jitter, **more)


@pytest.mark.parametrize("policy", ["none", "last", "all"])
@pytest.mark.parametrize(
    ("late", "expected"), [(0, "fired"), (5000, "fired"), (5001, "late: delayed"), (MISSED_MS, "late: delayed")]
)
def test_a_slot_that_is_handled_within_a_minute_fires_under_every_policy(
    policy: CatchUp, late: int, expected: str
) -> None:
    (decision,) = look(timed("0 * * * *", policy), ms("06:00"), ms("07:00") + late).decisions
    assert shown(decision) == expected


def test_a_slot_that_is_on_time_stands_for_those_that_were_missed() -> None:
    found = look(timed("*/30 * * * *", "last"), ms("06:00"), ms("07:30")).decisions
    assert list(map(shown, found)) == ["skipped: superseded", "skipped: superseded", "fired"]


def test_the_last_one_of_a_look_is_not_the_last_one_of_an_outage() -> None:
    first = look(timed("0 * * * *", "last"), ms("06:00"), ms("12:30"), most=4)
    assert {shown(decision) for decision in first.decisions} == {"skipped: superseded"}
    assert first.next_due == ms("11:00")
    second = look(timed("0 * * * *", "last"), first.decisions[-1].slot.at, ms("12:30"), most=4)
    assert list(map(shown, second.decisions)) == ["skipped: superseded", "caught_up: missed"]


def test_no_slot_comes_after_the_end() -> None:
    ending = timed("0 * * * *", ends_ms=ms("08:00"))
    assert upcoming(ending, ms("06:00")) == [ms("07:00"), ms("08:00")]
    assert look(ending, ms("08:00"), ms("09:00")) == ([], None)
    assert look(ending, ms("07:00"), ms("07:30")).next_due == ms("08:00")


CRONS = st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "*/20 * * * * *", "@every 90s"])


@settings(max_examples=60, deadline=None)
@given(
    cron=CRONS,
    policy=st.sampled_from(["none", "last", "all"]),
    jitter=st.sampled_from([0, 1, 30, 3600]),
    waits=st.lists(st.integers(1, 4 * HOUR), min_size=1, max_size=8),
    most=st.integers(1, 300),
)
def test_every_slot_is_decided_once_and_none_before_it_is_due(
    cron: str, policy: CatchUp, jitter: int, waits: list[int], most: int
) -> None:
    timing, start = timed(cron, policy, jitter=jitter, anchor_ms=ms("00:00")), ms("06:00")
    cursor, now, decided = start, start, list[Decision]()
    for wait in waits:
        now += wait
        while True:
            found = look(timing, cursor, now, most)
            assert len(found.decisions) <= most
            decided += found.decisions
            cursor = found.decisions[-1].slot.at if found.decisions else cursor
            if found.next_due is None or found.next_due > now:
                break
    assert all(decision.slot.at <= decision.slot.due <= now for decision in decided)
    slots = [decision.slot for decision in decided]
    expected = []
    for slot in timing.after(start):
        if slot.due > now:
            break
        expected.append(slot)
    assert slots == expected
    assert all(one.due < other.at or jitter == 0 for one, other in pairwise(slots))


def test_jitter_is_the_same_for_whoever_computes_it_and_differs_between_slots_and_schedules() -> None:
    def shares(seed: str) -> list[int]:
        found = Timing(seed, "0 * * * *", jitter=600).after(ms("00:00"))
        return [slot.due - slot.at for slot, _ in zip(found, range(50), strict=False)]

    assert shares("a") == shares("a") != shares("b")
    assert len(set(shares("a"))) > 40
    assert all(0 <= share < 600_000 for share in shares("a"))
