"""Remembers the calls that came in, so that a test can see what a client did: how it called, and when it hung up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from simulator.errors import ApiError
from simulator.reply import Delivery
from simulator.script import Fault

Json = dict[str, Any]

COUNTED_TURNS = 100_000


@dataclass(slots=True)
class Call:
    """One `POST /v1/messages`, or one request of a batch. Times are seconds since 1970, as `time.time()` gives them.

    `outcome` is None while the call runs, then `completed`, `failed:<status or error type>`, `cut` (by a fault),
    `client_closed`, or, in a batch, `canceled` or `expired`. `closed_at` is when the connection was closed in the
    middle of the call, by either side. `script_key` and `turn` (from 0) say what of a script was asked for,
    `batch_id` in which batch. `usage` is what a provider would bill, although not all of the answer may have arrived;
    None for what was refused.
    """

    n: int
    started_at: float
    ended_at: float | None = None
    outcome: str | None = None
    model: str | None = None
    messages: int = 0
    closed_at: float | None = None
    script_key: str = ""
    turn: int | None = None
    batch_id: str | None = None
    usage: Json | None = None


class CallLog:
    """The last `limit` calls, and counts over all of them."""

    def __init__(self, limit: int) -> None:
        self._calls: deque[Call] = deque(maxlen=limit)
        self._number = 0
        self._running = 0
        self.reset()

    def reset(self) -> None:
        """Forgets what was recorded; calls that still run are counted when they end."""
        self._calls.clear()
        self._outcomes: Counter[str] = Counter()
        self._max_running = self._running

    @contextlib.contextmanager
    def record(self) -> Iterator[Call]:
        """A call that runs within the block, and what became of it."""
        self._number += 1
        call = Call(self._number, time.time())
        self._calls.append(call)
        self._running += 1
        self._max_running = max(self._max_running, self._running)
        try:
            yield call
            call.outcome = call.outcome or "completed"
        except ApiError as exc:
            call.outcome = f"failed:{exc.status}"
            raise
        except (asyncio.CancelledError, ConnectionError):
            call.outcome = "client_closed"
            call.closed_at = time.time()
            raise
        except Exception:
            call.outcome = "failed:500"
            raise
        finally:
            self._end(call)

    def _end(self, call: Call) -> None:
        call.ended_at = time.time()
        self._running -= 1
        self._outcomes[str(call.outcome)] += 1

    def to_json(self) -> list[Json]:
        """The recorded calls, oldest first."""
        return [asdict(call) for call in self._calls]

    def stats(self) -> Json:
        """Counts since the last reset."""
        return {
            "calls": sum(self._outcomes.values()) + self._running,
            "outcomes": dict(self._outcomes),
            "in_flight": self._running,
            "max_concurrent": self._max_running,
        }


class Attempts:
    """How often each faulty turn was tried; the ones tried longest ago are forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def reset(self) -> None:
        self._counts.clear()

    def next_fault(self, delivery: Delivery) -> Fault | None:
        """Counts an attempt at a reply and returns the fault it is to have."""
        if not delivery.faults:
            return None
        tried = self._counts.pop(delivery.attempts_key, 0)
        self._counts[delivery.attempts_key] = tried + 1
        if len(self._counts) > COUNTED_TURNS:
            self._counts.popitem(last=False)
        if delivery.always:
            return delivery.faults[tried % len(delivery.faults)]
        return delivery.faults[tried] if tried < len(delivery.faults) else None
