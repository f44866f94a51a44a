"""What channels send, how often it is tried, and that no secret gets out."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs import notifier
from jobs.notifier import Alert, Channel, Notifier, Outcome, SlackChannel, TelegramChannel, WebhookChannel
from tests.receiver import Answer, Receiver

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ALERT = Alert(
    "alert_1_raised",
    "alert.raised",
    1_800_000_000_000,
    "error_rate",
    "acme",
    "3 of <9> of one's & others' failed",
    {"n": 3},
)


class Slept(list[float]):
    """Sleeps by writing down for how long."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def slept() -> Slept:
    return Slept()


@pytest.fixture
def unreachable() -> str:
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


async def test_a_webhook_is_signed_as_standard_webhooks_says(receiver: Receiver) -> None:
    outcomes = await Notifier([WebhookChannel(f"{receiver.url}/hook?x=1", SECRET)]).send(ALERT)
    assert outcomes == {"webhook": Outcome(True, "answered 200")}
    (sent,) = receiver.received
    assert sent.path == "/hook?x=1"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["webhook-id"] == ALERT.id
    assert Webhook(SECRET).verify(sent.body, sent.headers) == {
        "type": "alert.raised",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {"condition": "error_rate", "tenant": "acme", "summary": "3 of <9> of one's & others' failed", "n": 3},
    }
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"other" * 6).decode()).verify(sent.body, sent.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(sent.body.replace(b"acme", b"evil"), sent.headers)


async def test_slack_gets_a_text_in_which_nothing_is_markup(receiver: Receiver) -> None:
    assert (await Notifier([SlackChannel(f"{receiver.url}/services/T0/B0/x")]).send(ALERT))["slack"].delivered
    (sent,) = receiver.received
    assert sent.path == "/services/T0/B0/x"
    assert sent.json == {"text": "Nightshift alert: 3 of &lt;9&gt; of one's &amp; others' failed"}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_telegram_gets_a_message_of_the_bot(receiver: Receiver, slash: str) -> None:
    resolved = Alert(
        "alert_1_resolved", "alert.resolved", 0, "error_rate", "acme", "3 of <9> of one's & others' failed"
    )
    assert (await Notifier([TelegramChannel(receiver.url + slash, "12:ab", "-100")]).send(resolved))[
        "telegram"
    ].delivered
    (sent,) = receiver.received
    assert sent.path == "/bot12:ab/sendMessage"
    assert sent.json == {"chat_id": "-100", "text": "Nightshift alert resolved: 3 of <9> of one's & others' failed"}


async def test_what_may_pass_is_tried_again_with_the_same_id(receiver: Receiver, slept: Slept) -> None:
    receiver.say(500)
    receiver.say(429, retry_after="2")
    outcomes = await Notifier([WebhookChannel(receiver.url, SECRET)], slept).send(ALERT)
    assert outcomes["webhook"] == Outcome(True, "answered 200")
    assert [sent.headers["webhook-id"] for sent in receiver.received] == [ALERT.id] * 3
    for sent in receiver.received:
        Webhook(SECRET).verify(sent.body, sent.headers)
    first, second = slept
    assert 0.25 <= first <= 0.5
    assert 2.5 <= second <= 3


async def test_tries_are_bounded(receiver: Receiver, slept: Slept) -> None:
    receiver.say(*[503] * 10)
    assert (await Notifier([SlackChannel(receiver.url)], slept).send(ALERT))["slack"] == Outcome(
        False, "answered 503", passing=True
    )
    assert (len(receiver.received), len(slept)) == (3, 2)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410])
async def test_a_refusal_is_not_argued_with(receiver: Receiver, slept: Slept, status: int) -> None:
    receiver.say(status, location=f"{receiver.url}/elsewhere", retry_after="7")
    assert await Notifier([SlackChannel(receiver.url)], slept).send(ALERT) == {
        "slack": Outcome(False, f"answered {status}")
    }
    assert (len(receiver.received), slept) == (1, [])


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (Answer(429, (("Retry-After", "120"),)), 120),
        (Answer(503, (("Retry-After", "1e400"),)), notifier.LONGEST_PAUSE),
        (Answer(429, (), b'{"ok":false,"error_code":429,"parameters":{"retry_after":35}}'), 35),
    ],
)
async def test_a_long_pause_is_left_to_the_caller(
    receiver: Receiver, slept: Slept, answer: Answer, pause: float
) -> None:
    receiver.answers.append(answer)
    outcome = await Notifier([SlackChannel(receiver.url)], slept).deliver(ALERT, "slack")
    assert outcome == Outcome(False, f"answered {answer.status}", passing=True, pause=pause)
    assert (len(receiver.received), slept) == (1, [])


async def test_a_pause_may_be_given_as_a_date(receiver: Receiver, slept: Slept) -> None:
    receiver.say(429, retry_after=format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True))
    outcome = await Notifier([SlackChannel(receiver.url)], slept).deliver(ALERT, "slack")
    assert 1000 < outcome.pause <= 1200


@pytest.mark.parametrize(
    "said", ["-5", "soon", "²", "nan", "Sat, 01 Jan 2000 00:00:00 -0000", "Sat, 01 Jan 2000 00:00:00 GMT"]
)
async def test_a_pause_that_makes_no_sense_is_none(receiver: Receiver, slept: Slept, said: str) -> None:
    receiver.say(429, retry_after=said)
    outcome = await Notifier([SlackChannel(receiver.url)], slept).deliver(ALERT, "slack")
    assert outcome.delivered
    assert slept[0] <= notifier.BACKOFF_SECONDS


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"parameters":{"retry_after":{}}}'])
async def test_a_body_that_says_nothing_of_a_pause_is_passed_over(
    receiver: Receiver, slept: Slept, body: bytes
) -> None:
    receiver.answers.append(Answer(429, (), body))
    assert (await Notifier([SlackChannel(receiver.url)], slept).deliver(ALERT, "slack")).delivered


CHANNELS: list[Callable[[str], Channel]] = [
    lambda url: WebhookChannel(f"{url}/hush", SECRET),
    lambda url: SlackChannel(f"{url}/services/hush"),
    lambda url: TelegramChannel(url, "hush", "1"),
]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_no_secret_is_told(
    receiver: Receiver, unreachable: str, slept: Slept, channel: Callable[[str], Channel]
) -> None:
    receiver.say(404)
    made = channel(receiver.url)
    for outcome in (
        await Notifier([made], slept).deliver(ALERT, made.name),
        await Notifier([channel(unreachable)], slept).deliver(ALERT, made.name),
        await Notifier([channel("http://[")], slept).deliver(ALERT, made.name),
    ):
        assert not outcome.delivered
        assert "hush" not in outcome.detail
        assert "http" not in outcome.detail
    assert "hush" not in repr(made.request(ALERT))
    assert SECRET not in repr(made)


async def test_one_channel_that_fails_keeps_no_other_from_sending(
    receiver: Receiver, unreachable: str, slept: Slept
) -> None:
    channels: list[Channel] = [
        SlackChannel(unreachable),
        WebhookChannel(receiver.url, SECRET),
        TelegramChannel(unreachable, "t", "1"),
    ]
    outcomes = await Notifier(channels, slept).send(ALERT)
    assert {name: outcome.delivered for name, outcome in outcomes.items()} == {
        "slack": False,
        "webhook": True,
        "telegram": False,
    }
    assert outcomes["slack"].detail == "does not answer (ConnectError)"
    assert outcomes["slack"].passing


async def test_an_answer_that_never_comes_is_not_waited_for(
    receiver: Receiver, slept: Slept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "TRY_SECONDS", 0.05)
    receiver.silent.set()
    outcome = await Notifier([SlackChannel(receiver.url)], slept).deliver(ALERT, "slack")
    assert outcome == Outcome(False, "does not answer (TimeoutError)", passing=True)
    assert len(slept) == 2
