"""The loop's ports over Redis: a fenced journal, and live text for whoever watches."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable

from agent_core.entries import Entry, ModelCompleted, ModelFailed, ToolCompleted, entry_to_json
from agent_core.errors import BudgetError
from agent_core.redaction import Redactor
from agent_core.types import USAGE_FIELDS, Json
from jobs import keys
from jobs.money import NO_MONEY, Money, money_of
from jobs.records import Job
from jobs.stats import Stats
from jobs.store import JobStore

SHAPES_ALONE = Redactor()
GATHER_SECONDS = 0.25
"""Live text is gathered for this long, so that a watcher gets at most four pieces a second."""


class DurableJournal:
    """Writes an attempt's entries under its token, numbered, so that a repeated write changes nothing."""

    def __init__(
        self,
        store: JobStore,
        job: Job,
        token: str,
        stats: Stats,
        live: LiveText,
        on_cancel: Callable[[], None],
        redactor: Redactor = SHAPES_ALONE,
    ) -> None:
        self._store = store
        self._job = job
        self._token = token
        self._stats = stats
        self._live = live
        self._on_cancel = on_cancel
        self._redactor = redactor
        self._written = 0
        self._noted: list[tuple[str, Json]] = []
        self._pause = job.flag == "pause"

    def kept(self, entry: Entry) -> Entry:
        """See `agent_core.ports.Journal`."""
        return self._redactor.entry(entry)

    async def record(self, *entries: Entry) -> None:
        """See `agent_core.ports.Journal`."""
        if any(isinstance(entry, ModelCompleted | ModelFailed) for entry in entries):
            self._live.drop()
        lines = [(entry.TYPE, entry_to_json(entry)) for entry in entries]
        await self.append(_counters(entries), lines, money_of(entries))
        for entry in entries:
            self._observe(entry)

    async def append(self, counters: dict[str, int], lines: list[tuple[str, Json]], money: Money = NO_MONEY) -> None:
        """Appends lines of any type, after those that were noted. Raises as `JobStore.record`."""
        self._written += 1
        noted, self._noted = self._noted, []
        lines = [*noted, *lines]
        try:
            flag = await self._store.record(self._job.id, self._token, self._written, counters, lines, money)
        except BudgetError as exc:
            self._noted = [*noted, *self._noted]
            self._stats.add("budget_refusals_total", exc.refusal.scope.partition(":")[0])
            raise
        self._pause = self._pause or flag == 2
        if flag == 1:
            self._on_cancel()

    def note(self, type_: str, data: Json) -> None:
        """Has a line go with the next write: before anything that follows from it, and without a round trip more."""
        self._noted.append((type_, data))

    def pause_requested(self) -> bool:
        return self._pause

    def request_pause(self) -> None:
        """Notes a pause that came by another way than a write."""
        self._pause = True

    def spent(self, model: str, settled: int, usage: Json | None) -> None:
        """Counts in the metrics what a call of a model cost, in micro-dollars, and its tokens."""
        self._stats.add("cost_usd_total", self._job.spec.agent, model, amount=settled / 1e6)
        for name, key in USAGE_FIELDS:
            if amount := (usage or {}).get(key):
                self._stats.add("tokens_total", model, name.removesuffix("_tokens"), amount=amount)

    def _observe(self, entry: Entry) -> None:
        stats = self._stats
        match entry:
            case ModelCompleted() | ModelFailed():
                outcome = "ok" if isinstance(entry, ModelCompleted) else entry.code
                stats.add("model_calls_total", entry.model, outcome)
                if self._job.spec.service == "standard":  # a batch's reply is fetched, and says nothing of the model
                    stats.observe("model_call_seconds", entry.seconds)
                self.spent(entry.model, entry.settled, entry.usage)
            case ToolCompleted():
                stats.add("tool_calls_total", entry.name, "error" if entry.is_error else "ok")
                stats.observe("tool_call_seconds", entry.seconds)
            case _:
                pass


def _counters(entries: tuple[Entry, ...]) -> dict[str, int]:
    """What the entries add to the record."""
    counts: Counter[str] = Counter()
    for entry in entries:
        match entry:
            case ModelCompleted() | ModelFailed():
                counts["model_calls"] += 1
                for name, key in USAGE_FIELDS:
                    counts[name] += int((entry.usage or {}).get(key) or 0)
            case ToolCompleted():
                counts["tool_calls"] += 1
            case _:
                pass
    return {name: amount for name, amount in counts.items() if amount}


class LiveText:
    """Publishes what the model says while it says it; nothing of it is kept."""

    def __init__(self, store: JobStore, job: Job, redactor: Redactor = SHAPES_ALONE) -> None:
        self._store = store
        self._job = job
        self._redactor = redactor
        self._pieces: list[str] = []
        self._held = ""
        """The last word when it was last looked at."""
        self._step = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def text(self, step: int, delta: str) -> None:
        """See `agent_core.ports.Events`."""
        if step != self._step:
            self.drop()
            self._step = step
        self._pieces.append(delta)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)

    def drop(self) -> None:
        """Forgets what was not sent: what the reply came to stands in the journal from now on."""
        self._pieces, self._held = [], ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        """Sends what is gathered, but for a last word that still grows: it may be the half of a secret."""
        self._timer = None
        text = "".join(self._pieces)
        end = len(text) if text == self._held else max(text.rfind(" "), text.rfind("\n")) + 1
        self._held = text[end:]
        self._pieces = [self._held] if self._held else []
        if self._held:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
        if end:
            data = {"step": self._step, "text": self._redactor.text(text[:end])}
            task = asyncio.get_running_loop().create_task(self._publish(data))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _publish(self, data: Json) -> None:
        event = {"type": "message.delta", "job_id": self._job.id, "attempt": self._job.attempts, "data": data}
        await self._store.link.command("PUBLISH", keys.channel(self._job.id), json.dumps(event, ensure_ascii=False))
