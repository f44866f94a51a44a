"""A circuit breaker for each target of model calls, which the whole fleet shares (M. Nygard, "Release It!", 2007).

Failures in a row, whichever worker sees them, open it: nobody asks the target for a while. Then one call of the fleet,
the probe, finds out whether it answers again. Redis has the truth and the clock; each worker has a view of it, so that
a call to a target that answers costs no round trip.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass

from jobs import keys
from jobs.errors import UnavailableError
from jobs.link import Arg, RedisLink
from jobs.scripts import script

CAPACITY = frozenset({"rate_limited", "overloaded", "server_error", "connection", "timeout", "early_end"})
"""Codes of failures that say that a target does not keep up. With any other it has answered."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """When a breaker opens, and for how long: times in seconds.

    `lease` is for how long nobody else is let through beside a probe; it is renewed while the probe's call goes on.
    """

    failures: int = 5
    window: float = 60.0
    cooldown: float = 30.0
    lease: float = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A breaker as this process last saw it. `ready` is when a probe may be asked for, by the process's own clock."""

    open: bool
    failures: int
    ready: float
    opened: int = 0

    @classmethod
    def of(cls, state: bytes, failures: int, wait_ms: int, opened: int = 0) -> Seen:
        """From an answer of a script."""
        return cls(state == b"open", failures, time.monotonic() + wait_ms / 1000, opened)


@dataclass(frozen=True, slots=True)
class Probe:
    """A call of this process that may go to a target although its breaker is open: the one of a task."""

    id: str
    task: asyncio.Task[object]


class FleetBreakers:
    """The breakers as the loop asks them (`agent_core.ports.Breakers`). Without Redis, the view alone decides."""

    def __init__(self, link: RedisLink, rules: Rules | None = None) -> None:
        self._link = link
        self._rules = rules or Rules()
        self._view: dict[str, Seen] = {}
        self._probes: dict[str, Probe] = {}

    async def allows(self, target: str) -> bool:
        """Whether a call may go to the target. Who is told so while its breaker is open makes the probe."""
        seen = self._view.get(target)
        if seen is None or not seen.open:
            return True
        probe, task = self._probes.get(target), _this_task()
        if probe is not None and probe.task is task:
            return True
        if time.monotonic() < seen.ready:
            return False
        asking = Probe(uuid.uuid4().hex, task)
        try:
            may, was_open = await self._ask(self._link, target, asking)
        except UnavailableError:
            return False
        if may and was_open:
            self._probes[target] = asking
            log.info("the circuit breaker of %s lets a probe through", target)
        return may

    async def report(self, target: str, ok: bool, code: str = "") -> None:
        """What became of a call. A success where none failed of late costs no round trip."""
        answered = ok or code not in CAPACITY
        seen, probe = self._view.get(target), self._probes.get(target)
        own = self._probes.pop(target).id if probe is not None and probe.task is _this_task() else ""
        if answered and not own and (seen is None or seen.open or not seen.failures):
            return
        limits = self._rules.failures, int(self._rules.window * 1000), int(self._rules.cooldown * 1000)
        args: list[Arg] = [target, int(answered), own, *limits]
        try:
            happened, *row = await self._link.script(script("breaker_report"), [keys.BREAKERS], args, patient=False)
        except UnavailableError as exc:
            log.warning("circuit breaker of %s: %s", target, exc)
            return
        self._view[target] = Seen.of(*row)
        if happened == b"opened":
            log.warning("the circuit breaker of %s opened: %d calls in a row failed, the last with %s",
                        target, self._rules.failures, code)  # fmt: skip
        elif happened == b"kept_open":
            log.warning("the circuit breaker of %s stays open: its probe failed with %s", target, code)
        elif happened == b"closed":
            log.warning("the circuit breaker of %s closed: it answers again", target)

    async def refresh(self, link: RedisLink) -> None:
        """Takes over what the fleet knows, and renews the leases of this process's probes. Raises UnavailableError."""
        for target, probe in list(self._probes.items()):
            # a task that is done ended without a word of its call
            if probe.task.done() or not (await self._ask(link, target, probe))[0]:
                self._probes.pop(target, None)
        self._view = await read(link)

    async def _ask(self, link: RedisLink, target: str, probe: Probe) -> tuple[bool, bool]:
        """Whether the probe may go, and whether the breaker is open."""
        args: list[Arg] = [target, probe.id, int(self._rules.lease * 1000)]
        may, *row = await link.script(script("breaker_probe"), [keys.BREAKERS], args, patient=False)
        self._view[target] = seen = Seen.of(*row)
        return bool(may), seen.open


async def read(link: RedisLink) -> dict[str, Seen]:
    """Every breaker that was ever used, by its target. Raises UnavailableError."""
    rows = await link.script(script("breaker_view"), [keys.BREAKERS], [], patient=False)
    return {target.decode(): Seen.of(*row) for target, *row in rows}


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
