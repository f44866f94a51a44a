"""`nightshift alerts test`, and what `doctor` says of alerts."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook

from cli import checks
from tests.receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def slack() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, slack: Receiver) -> None:
    """A webhook at `receiver`, and Slack."""
    monkeypatch.setenv("NIGHTSHIFT_ALERT_WEBHOOK_URL", f"{receiver.url}/hush")
    monkeypatch.setenv("NIGHTSHIFT_ALERT_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("NIGHTSHIFT_ALERT_SLACK_URL", f"{slack.url}/hush")


def test_every_channel_is_tried_and_says_what_it_answered(cli, channels, receiver: Receiver, slack: Receiver):
    done = cli("alerts", "test")
    assert done.status == 0
    assert done.out.splitlines() == [
        "channel\tdelivered\tit", "webhook\tyes\tanswered 200", "slack\tyes\tanswered 200"
    ]  # fmt: skip
    (sent,) = receiver.received
    event = Webhook(SECRET).verify(sent.body, sent.headers)
    assert (event["type"], event["data"]["condition"]) == ("alert.raised", "test")
    assert slack.received[0].json == {"text": "Nightshift alert: this is a test, and nothing is wrong"}


def test_a_channel_that_refuses_is_shown_without_its_secret(cli, channels, receiver: Receiver, slack: Receiver):
    slack.say(403)
    done = cli("alerts", "test", "--json")
    assert done.status == 1
    assert done.json == [
        {"channel": "webhook", "delivered": True, "detail": "answered 200", "passing": False, "pause": 0.0},
        {"channel": "slack", "delivered": False, "detail": "answered 403", "passing": False, "pause": 0.0},
    ]
    assert len(receiver.received) == 1
    assert "hush" not in done.out + done.err


def test_without_a_channel_it_says_how_to_set_one(cli):
    done = cli("alerts", "test")
    assert done.status == 2
    assert "NIGHTSHIFT_ALERT_" in done.err


def test_a_wrong_setting_is_named(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_ALERT_SLACK_URL", "hush")
    done = cli("alerts", "test")
    assert (done.status, done.out) == (2, "")
    assert "NIGHTSHIFT_ALERT_SLACK_URL is wrong: expected a URL" in done.err


def test_the_doctor_says_whom_alerts_reach(monkeypatch, channels):
    assert checks.alerts().detail == "sent to webhook, slack; `nightshift alerts test` tries it"
    monkeypatch.delenv("NIGHTSHIFT_ALERT_SLACK_URL")
    monkeypatch.delenv("NIGHTSHIFT_ALERT_WEBHOOK_URL")
    assert checks.alerts() == checks.Check("alerts", True, "off: no channel is set")
