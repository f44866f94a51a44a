"""The duty that tells people: from what is in Redis to what receivers on loopback got."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import structlog
from standardwebhooks import Webhook

import worker.alerts
from jobs import keys, stats
from jobs.conditions import HOUR_MS, MINUTE_MS, Thresholds
from jobs.errors import UnavailableError
from jobs.link import RedisLink, connect
from jobs.notifier import Alert, Channel, Notifier, SlackChannel, TelegramChannel, WebhookChannel
from jobs.stats import Stats
from tests.receiver import Received, Receiver
from worker.alerts import Alerter, make_notifier, thresholds
from worker.settings import AlertSettings

NOON = 1_800_014_400_000
"""2027-01-15, 12:00 UTC."""
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def receivers() -> Iterator[dict[str, Receiver]]:
    made = {name: Receiver() for name in ("webhook", "slack", "telegram")}
    yield made
    for receiver in made.values():
        receiver.close()


class Fleet:
    """Workers' duties, each with a connection of its own."""

    def __init__(self, redis_url: str, receivers: dict[str, Receiver]) -> None:
        self.redis_url = redis_url
        self.receivers = receivers
        self.links: list[RedisLink] = []

    def worker(self, **limits: Any) -> Alerter:
        """A worker that has just started."""
        link = RedisLink(connect(self.redis_url))
        self.links.append(link)
        at = {name: receiver.url for name, receiver in self.receivers.items()}
        channels: list[Channel] = [
            WebhookChannel(at["webhook"], SECRET),
            SlackChannel(at["slack"]),
            TelegramChannel(at["telegram"], "t", "1"),
        ]

        async def sleep(_: float) -> None:
            """Does not."""

        return Alerter(link, Thresholds(**{"error_jobs": 1, **limits}), Notifier(channels, sleep), Stats())

    def taken(self) -> dict[str, list[str]]:
        """The messages that came since the last call, in words."""
        return {name: [_words(sent) for sent in receiver.take()] for name, receiver in self.receivers.items()}


def _words(sent: Received) -> str:
    body = sent.json
    if "data" in body:
        Webhook(SECRET).verify(sent.body, sent.headers)
        return f"{body['type']} {body['data']['condition']}"
    return "alert.resolved" if "resolved" in body["text"] else "alert.raised"


@pytest.fixture
async def fleet(redis_url: str, receivers: dict[str, Receiver]) -> AsyncIterator[Fleet]:
    made = Fleet(redis_url, receivers)
    yield made
    for link in made.links:
        await link.aclose()


@pytest.fixture
def fail(link: RedisLink) -> Callable[[int], Any]:
    """Writes that a job failed at a time."""

    async def failed(at: int) -> None:
        await link.command("HSET", keys.job(f"job_{at}"), "tenant", "acme", "status", "failed")
        await link.command("ZADD", keys.ENDED, at, f"job_{at}")

    return failed


@pytest.fixture
def spend(link: RedisLink) -> Callable[[str, int], Any]:
    """Writes what a tenant spent on a day."""

    async def spent(day: str, micros: int) -> None:
        await link.command("SADD", keys.TENANTS, "acme")
        await link.command("HINCRBY", keys.meter("acme", "tenant", day), "settled", micros)

    return spent


RAISED = {"webhook": ["alert.raised error_rate"], "slack": ["alert.raised"], "telegram": ["alert.raised"]}
RESOLVED = {"webhook": ["alert.resolved error_rate"], "slack": ["alert.resolved"], "telegram": ["alert.resolved"]}
NOTHING: dict[str, list[str]] = {"webhook": [], "slack": [], "telegram": []}


async def test_every_channel_is_told_once_whoever_looks_and_again_when_it_is_over(fleet: Fleet, fail) -> None:
    one, two = fleet.worker(), fleet.worker()
    await one.look(NOON)
    assert fleet.taken() == NOTHING
    await fail(NOON)
    await one.look(NOON + 1)
    assert fleet.taken() == RAISED
    for alerter in (one, two, fleet.worker()):
        await alerter.look(NOON + MINUTE_MS)
    assert fleet.taken() == NOTHING
    for alerter in (fleet.worker(), one, two):
        await alerter.look(NOON + 11 * MINUTE_MS)
    assert fleet.taken() == RESOLVED
    await two.look(NOON + 12 * MINUTE_MS)
    assert fleet.taken() == NOTHING
    await fail(NOON + 13 * MINUTE_MS)
    await two.look(NOON + 14 * MINUTE_MS)
    assert fleet.taken() == RAISED


async def test_of_two_workers_one_looks_and_when_it_is_gone_the_other(fleet: Fleet, link: RedisLink, fail) -> None:
    one, two = fleet.worker(), fleet.worker()
    seconds, _ = await link.command("TIME")
    await fail(int(seconds) * 1000)
    assert sorted(await asyncio.gather(one.look_if_free(), two.look_if_free())) == [False, True]
    assert not await two.look_if_free()
    assert fleet.taken() == RAISED
    assert 0 < await link.command("PTTL", keys.ALERT_LOCK) <= worker.alerts.LOCK_MS
    await link.command("DEL", keys.ALERT_LOCK)  # its time is over
    assert await two.look_if_free()
    assert fleet.taken() == NOTHING


async def test_what_a_channel_did_not_take_is_sent_again_to_it_alone_and_in_order(fleet: Fleet, fail) -> None:
    webhook = fleet.receivers["webhook"]
    await fail(NOON)
    webhook.say(*[503] * 3)
    with structlog.testing.capture_logs() as logs:
        await fleet.worker().look(NOON + 1)
    assert {name: len(sent) for name, sent in fleet.taken().items()} == {"webhook": 3, "slack": 1, "telegram": 1}
    (told,) = [entry for entry in logs if "still to be delivered" in entry["event"]]
    assert (told["channel"], told["log_level"]) == ("webhook", "warning")
    webhook.say(*[500] * 3)
    await fleet.worker().look(NOON + 11 * MINUTE_MS)  # it is over by now, and what comes later waits its turn
    tries = webhook.take()
    assert [sent.json["type"] for sent in tries] == ["alert.raised"] * 3
    assert fleet.taken() == {**RESOLVED, "webhook": []}
    await fleet.worker().look(NOON + 12 * MINUTE_MS)
    later = webhook.take()
    assert [sent.json["type"] for sent in later] == ["alert.raised", "alert.resolved"]
    assert tries[0].headers["webhook-id"] == later[0].headers["webhook-id"] != later[1].headers["webhook-id"]
    await fleet.worker().look(NOON + 13 * MINUTE_MS)
    assert fleet.taken() == NOTHING


async def test_what_a_channel_refuses_does_not_hold_up_what_is_behind_it(fleet: Fleet, fail, spend) -> None:
    await fail(NOON)
    await spend("2027-01-15", 2)
    fleet.receivers["slack"].say(400)
    await fleet.worker(daily_micros=1).look(NOON + 1)
    assert fleet.taken()["slack"] == ["alert.raised"] * 2
    await fleet.worker(daily_micros=1).look(NOON + 2)
    assert {name: len(sent) for name, sent in fleet.taken().items()} == {"webhook": 0, "slack": 1, "telegram": 0}


async def test_a_pause_that_is_asked_for_is_kept_from_look_to_look(fleet: Fleet, fail) -> None:
    slack = fleet.receivers["slack"]
    await fail(NOON)
    slack.say(429, retry_after="1200")
    await fleet.worker().look(NOON + 1)
    assert len(slack.take()) == 1
    await fleet.worker().look(NOON + 11 * MINUTE_MS)  # the second message may not pass the first
    assert slack.take() == []
    await fleet.worker().look(NOON + 20 * MINUTE_MS)
    assert slack.take() == []
    await fleet.worker().look(NOON + 20 * MINUTE_MS + 1)
    assert [_words(sent) for sent in slack.take()] == ["alert.raised", "alert.resolved"]


async def test_after_a_day_a_message_is_given_up_loudly(fleet: Fleet, link: RedisLink, fail) -> None:
    await fail(NOON)
    fleet.receivers["slack"].say(*[400] * 3)
    alerter = fleet.worker()
    await alerter.look(NOON + 1)
    await alerter.look(NOON + 1 + 24 * HOUR_MS)
    assert [_words(sent) for sent in fleet.receivers["slack"].take()] == ["alert.raised"] * 2 + ["alert.resolved"]
    with structlog.testing.capture_logs() as logs:
        await alerter.look(NOON + 2 + 24 * HOUR_MS)
    (told,) = [entry for entry in logs if entry["event"] == "an alert was never delivered"]
    assert (told["log_level"], told["channel"]) == ("error", "slack")
    assert told["summary"].startswith("Nightshift alert: 1 of 1 jobs of tenant acme")
    assert [_words(sent) for sent in fleet.receivers["slack"].take()] == ["alert.resolved"]
    assert not await link.command("EXISTS", keys.ALERT_OUTBOX)


async def test_each_day_has_its_own_alert(fleet: Fleet, spend) -> None:
    dear = {"webhook": ["alert.raised daily_spend"], "slack": ["alert.raised"], "telegram": ["alert.raised"]}
    over = {"webhook": ["alert.resolved daily_spend"], "slack": ["alert.resolved"], "telegram": ["alert.resolved"]}
    midnight = NOON + 12 * HOUR_MS
    await spend("2027-01-15", 11)
    await fleet.worker(daily_micros=10).look(NOON)
    assert fleet.taken() == dear
    await fleet.worker(daily_micros=20).look(NOON + 1)  # the limit was raised; the day has its alert all the same
    await fleet.worker(daily_micros=10).look(midnight - 1)
    assert fleet.taken() == NOTHING
    await fleet.worker(daily_micros=10).look(midnight)
    assert fleet.taken() == over
    await spend("2027-01-16", 11)
    await fleet.worker(daily_micros=10).look(midnight + 1)
    assert fleet.taken() == dear


async def test_what_was_told_is_counted(fleet: Fleet, link: RedisLink, fail) -> None:
    alerter = fleet.worker()
    await fail(NOON)
    fleet.receivers["slack"].say(*[500] * 3)
    await alerter.look(NOON + 1)
    await alerter.look(NOON + 11 * MINUTE_MS)
    await alerter._stats.flush(link)
    assert {name: n for name, n in (await stats.read(link)).items() if name.startswith("alert")} == {
        "alerts_total|error_rate|raised": 1,
        "alerts_total|error_rate|resolved": 1,
        "alert_deliveries_total|webhook|delivered": 2,
        "alert_deliveries_total|telegram|delivered": 2,
        "alert_deliveries_total|slack|failed": 1,
        "alert_deliveries_total|slack|delivered": 2,
    }


async def test_a_worker_leaves_alone_what_is_for_a_channel_it_does_not_have(
    fleet: Fleet, redis_url: str, link: RedisLink, fail
) -> None:
    await fail(NOON)
    fleet.receivers["telegram"].say(*[500] * 3)
    await fleet.worker().look(NOON + 1)
    fleet.taken()
    slack_alone = Notifier([SlackChannel(fleet.receivers["slack"].url)])
    await Alerter(link, Thresholds(error_jobs=1), slack_alone, Stats()).look(NOON + 2)
    assert fleet.taken() == NOTHING
    await fleet.worker().look(NOON + 3)
    assert fleet.taken() == {**NOTHING, "telegram": ["alert.raised"]}


# ---- for ever


async def test_a_look_that_fails_is_not_the_last(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.alerts, "ASK_SECONDS", 0)
    monkeypatch.setattr(worker.alerts, "LONGEST_LOOK", 0.02)
    failures: list[Any] = [UnavailableError("away"), ValueError("a record that is none"), None]
    done = asyncio.Event()

    class Failing(Alerter):
        async def look_if_free(self) -> bool:
            if not failures:
                done.set()
                return False
            failure = failures.pop(0)
            if failure:
                raise failure
            await asyncio.Event().wait()
            return True

    made = fleet.worker()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(Failing(made._link, Thresholds(), made._notifier, Stats()).run())
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
    assert [entry["event"] for entry in logs] == [
        "alerts: away",
        "alerts failed",
        "alerts: a look took too long",
    ]


async def test_what_a_look_had_no_time_for_is_left_to_the_next(fleet: Fleet, fail) -> None:
    silent = fleet.receivers["telegram"]
    silent.silent.set()
    await fail(NOON)
    look = asyncio.create_task(fleet.worker().look(NOON + 1))
    for receiver in fleet.receivers.values():
        assert await asyncio.to_thread(receiver.arrived.acquire, timeout=10)
    look.cancel()
    await asyncio.wait({look})
    silent.silent.clear()
    first = silent.received[0]
    fleet.taken()
    await fleet.worker().look(NOON + 2)
    assert [sent.body for sent in silent.take()] == [first.body]


# ---- settings


def test_the_channels_are_those_that_are_set() -> None:
    def names(**fields: Any) -> list[str]:
        return make_notifier(AlertSettings.model_validate(fields)).names

    webhook = {"alert_webhook_url": "http://h", "alert_webhook_secret": SECRET}
    telegram = {"alert_telegram_token": "1:a", "alert_telegram_chat": "-5"}
    assert names() == []
    assert names(**webhook) == ["webhook"]
    assert names(alert_slack_url="https://hooks.example/x") == ["slack"]
    assert names(**telegram) == ["telegram"]
    assert names(**webhook, alert_slack_url="https://h", **telegram) == ["webhook", "slack", "telegram"]


async def test_a_channel_is_made_of_its_settings(receiver: Receiver) -> None:
    given = {"alert_telegram_token": "1:a", "alert_telegram_chat": "-5", "alert_telegram_url": receiver.url}
    given |= {"alert_slack_url": f"{receiver.url}/s", "alert_webhook_url": f"{receiver.url}/w"}
    settings = AlertSettings.model_validate({**given, "alert_webhook_secret": SECRET})
    alert = Alert("a", "alert.raised", 0, "error_rate", "acme", "many fail")
    assert all(outcome.delivered for outcome in (await make_notifier(settings).send(alert)).values())
    sent = {message.path: message for message in receiver.received}
    assert set(sent) == {"/w", "/s", "/bot1:a/sendMessage"}
    assert sent["/bot1:a/sendMessage"].json["chat_id"] == "-5"
    Webhook(SECRET).verify(sent["/w"].body, sent["/w"].headers)


def test_thresholds_come_from_the_settings() -> None:
    assert thresholds(AlertSettings.model_validate({})) == Thresholds()
    fields = {
        "alert_daily_spend_usd": "12.5",
        "alert_error_rate_percent": 7.5,
        "alert_error_rate_jobs": 4,
        "alert_spend_rate_times": 2,
        "alert_spend_rate_floor_usd": Decimal("0.1"),
    }
    assert thresholds(AlertSettings.model_validate(fields)) == Thresholds(12_500_000, 7.5, 4, 2, 100_000)
