"""Tells people when a condition of `jobs.conditions` holds, and when it no longer does. Every worker runs one; the lock
lets one of them look about once a minute, and whoever comes next goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from agent_core.types import micros
from jobs import keys
from jobs.alerts import AlertBoard, Message
from jobs.conditions import Conditions, Thresholds
from jobs.errors import UnavailableError
from jobs.link import RedisLink
from jobs.notifier import Channel, Notifier, SlackChannel, TelegramChannel, WebhookChannel
from jobs.records import rfc3339
from jobs.stats import Stats
from worker.settings import AlertSettings

log = structlog.get_logger("worker")
LOCK_MS = 60_000
"""Nobody gives the lock back: it is also what keeps a fleet to one look a minute."""
LONGEST_LOOK = 50.0
"""Seconds after which a look is broken off, well before its lock ends. The next one delivers what is left."""
ASK_SECONDS = 15.0
GIVE_UP_MS = 24 * 3600 * 1000
"""A message that a channel has not taken for so long is of no use to anyone."""


class Alerter:
    """Looks at the conditions and delivers what there is to tell."""

    def __init__(self, link: RedisLink, thresholds: Thresholds, notifier: Notifier, stats: Stats) -> None:
        self._link = link
        self._conditions = Conditions(link, thresholds)
        self._board = AlertBoard(link)
        self._notifier = notifier
        self._stats = stats

    async def run(self) -> None:
        """Looks for ever. A look that fails is logged, and the next one makes up for it."""
        while True:
            try:
                async with asyncio.timeout(LONGEST_LOOK):
                    await self.look_if_free()
            except (UnavailableError, TimeoutError) as exc:
                log.warning("alerts: %s", str(exc) or "a look took too long")
            except Exception:  # whatever a record may hold; no lease may be lost over it
                log.exception("alerts failed")
            await asyncio.sleep(ASK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def look_if_free(self) -> bool:
        """One look, unless another worker has had one within the minute; whether it was made."""
        if not await self._link.command("SET", keys.ALERT_LOCK, 1, "NX", "PX", LOCK_MS):
            return False
        seconds, rest = await self._link.command("TIME")
        await self.look(int(seconds) * 1000 + int(rest) // 1000)
        return True

    async def look(self, now_ms: int) -> None:
        """Raises and resolves alerts, and delivers all that is in the outbox."""
        findings = await self._conditions.findings(now_ms)
        for alert in await self._board.update(findings, now_ms, self._notifier.names):
            log.warning(alert.type, condition=alert.condition, tenant=alert.tenant, summary=alert.summary)
            self._stats.add("alerts_total", alert.condition, alert.type.removeprefix("alert."))
        messages = await self._live(now_ms)
        await asyncio.gather(
            *(self._drain([m for m in messages if m.channel == name], now_ms) for name in self._notifier.names)
        )

    async def _live(self, now_ms: int) -> list[Message]:
        """What is in the outbox, without what is too old."""
        messages = await self._board.outbox()
        for message in messages:
            if now_ms - message.alert.at_ms > GIVE_UP_MS:
                await self._board.remove(message)
                self._stats.add("alert_deliveries_total", message.channel, "given_up")
                log.error("an alert was never delivered", **_about(message))
        return [message for message in messages if now_ms - message.alert.at_ms <= GIVE_UP_MS]

    async def _drain(self, messages: list[Message], now_ms: int) -> None:
        """Delivers one channel's messages in their order, until it is away."""
        for message in messages:
            if message.due_ms > now_ms:
                return
            outcome = await self._notifier.deliver(message.alert, message.channel)
            self._stats.add("alert_deliveries_total", message.channel, "delivered" if outcome.delivered else "failed")
            if outcome.delivered:
                await self._board.remove(message)
                continue
            log.warning("an alert is still to be delivered: it %s", outcome.detail, **_about(message))
            if outcome.passing:
                await self._board.postpone(message, now_ms + int(outcome.pause * 1000))
                return


def _about(message: Message) -> dict[str, object]:
    return {"channel": message.channel, "summary": message.alert.line, "since": rfc3339(message.alert.at_ms)}


def make_notifier(settings: AlertSettings) -> Notifier:
    """The channels that are set."""
    channels: list[Channel] = []
    if settings.alert_webhook_url and settings.alert_webhook_secret:
        secret = settings.alert_webhook_secret.get_secret_value()
        channels.append(WebhookChannel(settings.alert_webhook_url.get_secret_value(), secret))
    if settings.alert_slack_url:
        channels.append(SlackChannel(settings.alert_slack_url.get_secret_value()))
    if settings.alert_telegram_token and settings.alert_telegram_chat:
        token = settings.alert_telegram_token.get_secret_value()
        channels.append(TelegramChannel(settings.alert_telegram_url, token, settings.alert_telegram_chat))
    return Notifier(channels)


def thresholds(settings: AlertSettings) -> Thresholds:
    """When the conditions hold."""
    daily = settings.alert_daily_spend_usd
    return Thresholds(
        daily_micros=None if daily is None else micros(daily),
        error_percent=settings.alert_error_rate_percent,
        error_jobs=settings.alert_error_rate_jobs,
        rate_times=settings.alert_spend_rate_times,
        rate_floor_micros=micros(settings.alert_spend_rate_floor_usd),
    )
