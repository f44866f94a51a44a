"""Alerts that are raised and resolved once, with their messages in the outbox."""

from __future__ import annotations

import asyncio

import pytest

from jobs import keys
from jobs.alerts import AlertBoard
from jobs.conditions import Finding
from jobs.link import RedisLink, connect

NOW = 1_800_000_000_000
FINDING = Finding("error_rate", "acme", NOW + 600, "many fail", {"failed": 3})
OTHER = Finding("daily_spend", "acme", NOW, "dear", {"spent_usd": "9"}, window="2027-01-15")
CHANNELS = ["webhook", "slack"]


@pytest.fixture
def board(link: RedisLink) -> AlertBoard:
    return AlertBoard(link)


async def test_an_alert_is_raised_once_and_resolved_once(board: AlertBoard) -> None:
    (raised,) = await board.update([FINDING], NOW, CHANNELS)
    assert (raised.type, raised.at_ms, raised.condition, raised.tenant) == ("alert.raised", NOW, "error_rate", "acme")
    assert raised.id == f"{raised.details['alert_id']}_raised"
    assert raised.details == {"alert_id": raised.details["alert_id"], "failed": 3}
    assert await board.update([FINDING], NOW + 60, CHANNELS) == []
    assert await board.update([FINDING], NOW + 10_000, CHANNELS) == []
    (resolved,) = await board.update([], NOW + 20_000, CHANNELS)
    assert resolved.id == f"{raised.details['alert_id']}_resolved"
    assert (resolved.type, resolved.at_ms, resolved.summary) == ("alert.resolved", NOW + 20_000, "many fail")
    assert resolved.details == {**raised.details, "raised_at": "2027-01-15T08:00:00.000Z"}
    assert await board.update([], NOW + 30_000, CHANNELS) == []
    (again,) = await board.update([FINDING], NOW + 40_000, CHANNELS)
    assert again.details["alert_id"] != raised.details["alert_id"]


async def test_an_alert_stands_for_its_window(board: AlertBoard) -> None:
    await board.update([FINDING], NOW, CHANNELS)
    assert await board.update([], NOW + 599, CHANNELS) == []
    assert await board.update([FINDING], NOW + 599, CHANNELS) == []
    assert [alert.type for alert in await board.update([], NOW + 600, CHANNELS)] == ["alert.resolved"]


async def test_conditions_tenants_and_windows_are_told_apart(board: AlertBoard) -> None:
    findings = [
        FINDING,
        OTHER,
        Finding("daily_spend", "acme", NOW, "dear", window="2027-01-16"),
        Finding("daily_spend", "other", NOW, "dear", window="2027-01-15"),
        Finding("spend_rate", "acme", NOW, "fast"),
    ]
    assert len(await board.update(findings, NOW, CHANNELS)) == 5
    assert await board.update(findings, NOW, CHANNELS) == []
    assert [alert.condition for alert in await board.update(findings[:-1], NOW, CHANNELS)] == ["spend_rate"]


async def test_of_two_that_find_the_same_one_raises_it(board: AlertBoard, redis_url: str) -> None:
    another = RedisLink(connect(redis_url))
    boards = [board, AlertBoard(another)] * 5
    raised = await asyncio.gather(*(one.update([FINDING], NOW, CHANNELS) for one in boards))
    assert sum(map(len, raised)) == 1
    assert len(await board.outbox()) == 2
    resolved = await asyncio.gather(*(one.update([], NOW + 600, CHANNELS) for one in boards))
    assert sum(map(len, resolved)) == 1
    ids = [alert.details["alert_id"] for alerts in (*raised, *resolved) for alert in alerts]
    assert ids[0] == ids[1]
    assert len(await board.outbox()) == 4
    await another.aclose()


async def test_the_outbox_has_a_message_for_each_channel_in_order(board: AlertBoard, link: RedisLink) -> None:
    (first,) = await board.update([OTHER], NOW, CHANNELS)
    second, third = await board.update([FINDING], NOW + 1, CHANNELS)
    messages = await board.outbox()
    for channel in CHANNELS:
        at_channel = [m.alert for m in messages if m.channel == channel]
        assert at_channel in ([first, second, third], [first, third, second])  # those two came at once
    assert {m.due_ms for m in messages} == {NOW, NOW + 1}

    await board.remove(messages[0])
    await board.postpone(messages[1], NOW + 99)
    left = await board.outbox()
    assert {m.name for m in left} == {m.name for m in messages[1:]}
    assert next(m for m in left if m.name == messages[1].name).due_ms == NOW + 99
    assert next(m for m in left if m.name == messages[1].name).alert == messages[1].alert
    for message in left:
        await board.remove(message)
    assert not await link.command("EXISTS", keys.ALERT_OUTBOX)


async def test_without_a_channel_an_alert_is_raised_all_the_same(board: AlertBoard) -> None:
    assert len(await board.update([FINDING], NOW, [])) == 1
    assert await board.update([FINDING], NOW, []) == []
    assert await board.outbox() == []
