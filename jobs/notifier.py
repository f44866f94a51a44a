"""Tells people about alerts: by a signed webhook, a Slack-compatible webhook, a Telegram bot.

A channel says what the request for an alert is; the notifier sends it, within a time limit and with a few tries. No URL
goes into a log or an error, for those of Slack and Telegram are secrets.
"""

from __future__ import annotations

import asyncio
import html
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

import httpx2

from agent_core.types import Json
from jobs.records import rfc3339
from jobs.signing import signed_headers

TRIES = 3
TRY_SECONDS = 8.0
"""Longest that one try may take, from the connection to the last byte of the answer."""
BACKOFF_SECONDS = 0.5
LONGEST_WAIT = 5.0
"""A channel that asks for a longer pause than this many seconds is not waited for; it is the caller's to come back."""
LONGEST_PAUSE = 3600.0
"""No channel is taken at its word for longer than this many seconds."""
PASSING = frozenset({408, 425, 429})
"""Answers besides those from 500 on after which the same request may succeed."""
JSON_TYPE = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Alert:
    """One message about a condition: that it holds, or no longer does.

    `id` is the same on each try; `at_ms` is when it was found. `summary` is one line for people, `details` is what
    programs may want to know besides.
    """

    id: str
    type: Literal["alert.raised", "alert.resolved"]
    at_ms: int
    condition: str
    tenant: str
    summary: str
    details: Json = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The whole message for people."""
        return f"Nightshift {'alert' if self.type == 'alert.raised' else 'alert resolved'}: {self.summary}"


@dataclass(frozen=True, slots=True)
class Request:
    """A POST."""

    url: str = field(repr=False)
    body: bytes
    headers: dict[str, str]


class Channel(Protocol):
    """A way to people."""

    name: str

    def request(self, alert: Alert) -> Request:
        """What to send; made anew for each try."""


class WebhookChannel:
    """A webhook as Standard Webhooks has it, signed with a secret like `whsec_…`."""

    name = "webhook"

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret

    def request(self, alert: Alert) -> Request:
        """The event, signed with the time of the try."""
        about = {"condition": alert.condition, "tenant": alert.tenant, "summary": alert.summary, **alert.details}
        event = {"type": alert.type, "timestamp": rfc3339(alert.at_ms), "data": about}
        body = json.dumps(event, ensure_ascii=False)
        return Request(self._url, body.encode(), JSON_TYPE | signed_headers(alert.id, body, [self._secret]))


class SlackChannel:
    """An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat, Discord's `/slack`)."""

    name = "slack"

    def __init__(self, url: str) -> None:
        self._url = url

    def request(self, alert: Alert) -> Request:
        """The message as a text without markup."""
        return Request(self._url, json.dumps({"text": html.escape(alert.line, quote=False)}).encode(), JSON_TYPE)


class TelegramChannel:
    """A Telegram bot that writes into a chat."""

    name = "telegram"

    def __init__(self, base_url: str, token: str, chat: str) -> None:
        self._url = f"{base_url.rstrip('/')}/bot{token}/sendMessage"
        self._chat = chat

    def request(self, alert: Alert) -> Request:
        """The message as a text without markup."""
        return Request(self._url, json.dumps({"chat_id": self._chat, "text": alert.line}).encode(), JSON_TYPE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery. `detail` tells it to people. `passing` says that the channel is away or busy rather
    than refusing, and `pause` for how many seconds it asked to be left alone.
    """

    delivered: bool
    detail: str
    passing: bool = False
    pause: float = 0.0


class Notifier:
    """Sends alerts through channels. `sleep` waits between tries."""

    def __init__(
        self, channels: Sequence[Channel], sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._channels = {channel.name: channel for channel in channels}
        self._sleep = sleep

    @property
    def names(self) -> list[str]:
        """The names of the channels."""
        return list(self._channels)

    async def send(self, alert: Alert) -> dict[str, Outcome]:
        """Sends an alert through every channel at once; what became of it, by channel. Raises nothing of theirs."""
        outcomes = await asyncio.gather(*(self.deliver(alert, name) for name in self._channels))
        return dict(zip(self._channels, outcomes, strict=True))

    async def deliver(self, alert: Alert, name: str) -> Outcome:
        """Sends an alert through one channel, and again when that may help."""
        async with httpx2.AsyncClient(timeout=None, follow_redirects=False) as client:
            for number in range(1, TRIES + 1):
                outcome = await _attempt(client, self._channels[name].request(alert))
                if number == TRIES or not outcome.passing or outcome.pause > LONGEST_WAIT:
                    break
                backoff = BACKOFF_SECONDS * 2 ** (number - 1)
                await self._sleep(outcome.pause + random.uniform(backoff / 2, backoff))  # noqa: S311
            return outcome


async def _attempt(client: httpx2.AsyncClient, request: Request) -> Outcome:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            answer = await client.post(request.url, content=request.body, headers=request.headers)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as exc:  # their texts may hold the URL
        return Outcome(False, f"does not answer ({type(exc).__name__})", passing=True)
    status = answer.status_code
    passing = status in PASSING or status >= 500
    return Outcome(answer.is_success, f"answered {status}", passing, _pause(answer) if passing else 0.0)


def _pause(answer: httpx2.Response) -> float:
    """The seconds after which it may be tried again, from the header Retry-After or as Telegram says it in its body."""
    try:
        return pause(answer.headers.get("retry-after") or str(answer.json()["parameters"]["retry_after"]))
    except (ValueError, KeyError, TypeError):
        return 0.0


def pause(said: str) -> float:
    """The seconds that a Retry-After asks for, `LONGEST_PAUSE` at most. Raises ValueError when it is none."""
    seconds = float(said) if said[:1].isdigit() else (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE)
