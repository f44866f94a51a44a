"""The alerts that are raised, and the outbox of the messages about them. Both are in Redis and change together: whoever
restarts or takes over raises nothing a second time, and forgets no message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs import keys
from jobs.conditions import Finding
from jobs.link import RedisLink
from jobs.notifier import Alert
from jobs.records import new_id, rfc3339
from jobs.scripts import script


@dataclass(frozen=True, slots=True)
class Message:
    """An alert that a channel has still to be told of, but not before `due_ms`."""

    alert: Alert
    channel: str
    due_ms: int

    @property
    def name(self) -> str:
        """Its field in the outbox."""
        return f"{self.alert.id}|{self.channel}"

    def dump(self) -> str:
        """The message as JSON."""
        return json.dumps({"alert": asdict(self.alert), "channel": self.channel, "due_ms": self.due_ms})

    @classmethod
    def parse(cls, text: bytes) -> Message:
        """The message of a JSON text."""
        raw = json.loads(text)
        return cls(Alert(**raw["alert"]), raw["channel"], raw["due_ms"])


class AlertBoard:
    """Alerts and their messages. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def update(self, findings: Iterable[Finding], now_ms: int, channels: Sequence[str]) -> list[Alert]:
        """Raises an alert for each finding that has none, and resolves those alerts that have no finding any more and
        have stood long enough; returns the messages, each of which is then in the outbox for every channel.
        """
        raised, held = await self._raised(), {finding.name: finding for finding in findings}
        changes = [
            self._change(name, _alert(finding, now_ms), finding.until_ms, channels)
            for name, finding in held.items()
            if name not in raised
        ] + [
            self._change(name, _resolved(alert, now_ms), None, channels)
            for name, (alert, until_ms) in raised.items()
            if name not in held and now_ms >= until_ms
        ]
        return [alert for alert in await asyncio.gather(*changes) if alert]

    async def outbox(self) -> list[Message]:
        """The messages that no channel has taken yet, oldest first."""
        found = map(Message.parse, await self._link.command("HVALS", keys.ALERT_OUTBOX))
        return sorted(found, key=lambda message: message.alert.at_ms)

    async def remove(self, message: Message) -> None:
        """Takes a message out of the outbox."""
        await self._link.command("HDEL", keys.ALERT_OUTBOX, message.name)

    async def postpone(self, message: Message, due_ms: int) -> None:
        """Keeps a message back until a time."""
        await self._link.command("HSET", keys.ALERT_OUTBOX, message.name, replace(message, due_ms=due_ms).dump())

    async def _raised(self) -> dict[str, tuple[Alert, int]]:
        """Each alert that is raised, as its message said it, and the time until which it stands at least."""
        answer: Any = await self._link.command("HGETALL", keys.ALERTS)
        pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
        found = {name.decode(): json.loads(text) for name, text in pairs}
        return {name: (Alert(**raw["alert"]), raw["until_ms"]) for name, raw in found.items()}

    async def _change(self, name: str, alert: Alert, until_ms: int | None, channels: Sequence[str]) -> Alert | None:
        """Raises an alert, or resolves it when `until_ms` is None; None when someone else did so before."""
        state = "" if until_ms is None else json.dumps({"alert": asdict(alert), "until_ms": until_ms})
        messages = [Message(alert, channel, alert.at_ms) for channel in channels]
        words = [word for message in messages for word in (message.name, message.dump())]
        done = await self._link.script(script("alert"), [keys.ALERTS, keys.ALERT_OUTBOX], [name, state, *words])
        return alert if done else None


def _alert(finding: Finding, now_ms: int) -> Alert:
    alert_id = new_id("alert")
    details = {"alert_id": alert_id, **finding.details}
    return Alert(
        f"{alert_id}_raised", "alert.raised", now_ms, finding.condition, finding.tenant, finding.summary, details
    )


def _resolved(alert: Alert, now_ms: int) -> Alert:
    """The message that an alert is over: what it said, and since when."""
    message_id = alert.id.replace("_raised", "_resolved")
    details = {**alert.details, "raised_at": rfc3339(alert.at_ms)}
    return replace(alert, id=message_id, type="alert.resolved", at_ms=now_ms, details=details)
