"""Delivers webhooks: claims what is due, sends it signed through the guard, and writes down what came of it.

Every worker runs one. A receiver has been told once it answered with 2xx; a worker that dies between that and its note
of it leaves the delivery to be made again, with the same `webhook-id`. Deliveries of one lane share a few places, so
that a receiver that hangs takes none from the others.
"""

from __future__ import annotations

import asyncio
import functools
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from agent_core.egress import Egress, EgressError, Reply, Resolver
from agent_core.failpoints import failpoint
from agent_core.redaction import Redactor
from agent_core.types import Json
from jobs.deliveries import Claimed, Deliveries, Result
from jobs.errors import UnavailableError
from jobs.journal import dump
from jobs.link import RedisLink, milliseconds
from jobs.notifier import JSON_TYPE, pause
from jobs.records import rfc3339
from jobs.signing import signed_headers
from jobs.stats import Stats
from jobs.webhooks import Webhooks
from worker.settings import Settings

log = structlog.get_logger("worker")
RETRY_SECONDS = (5, 30, 120, 600, 1800, 7200, 28_800, 86_400)
"""How long after each failed try the next one is made. After the last one nobody tries any more."""
JITTER = 0.1
"""The share by which these times vary, so that what failed together does not come back together."""
TRY_SECONDS = 15.0
LEASE_SECONDS = 60.0
"""When a worker that claimed a delivery and said nothing since is taken for dead; well above the longest try."""
MOST_AT_ONCE = 100
"""Deliveries that one worker makes at once."""
LOOK_SECONDS = 0.2
FIRST_BYTES = 500
"""What the log keeps of an answer's body."""
AGENT = "Nightshift-Webhooks/1"
GONE = 410


class Dispatcher:
    """Makes the deliveries that are due, as many as `most` at once."""

    def __init__(
        self, link: RedisLink, redactor: Redactor, stats: Stats, egress: Egress, most: int = MOST_AT_ONCE
    ) -> None:
        self._deliveries = Deliveries(link)
        self._webhooks = Webhooks(link)
        self._redactor = redactor
        self._stats = stats
        self._egress = egress
        self._most = most
        self._under_way: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Delivers for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._start(group)
                except UnavailableError as exc:
                    log.warning("webhooks: %s", exc)
                except Exception:  # whatever a record may hold; no lease may be lost over it
                    log.exception("webhooks could not be claimed")
                with suppress(TimeoutError):  # a delivery that is done may make room for the next one of its lane
                    async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.5, 1.0)):  # noqa: S311
                        await self._finished.wait()

    async def sweep(self) -> int:
        """Makes what is due now and returns when it is done; how many deliveries that were."""
        async with asyncio.TaskGroup() as group:
            return await self._start(group)

    async def _start(self, group: asyncio.TaskGroup) -> int:
        self._finished.clear()
        room = self._most - len(self._under_way)
        claimed = await self._deliveries.claim(room, LEASE_SECONDS) if room else []
        for one in claimed:
            task = group.create_task(self._deliver(one))
            self._under_way.add(task)
            task.add_done_callback(self._done)
        return len(claimed)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._finished.set()

    async def _deliver(self, claimed: Claimed) -> None:
        try:
            await self._make(claimed)
        except asyncio.CancelledError:  # this worker stops, and another one need not wait for the lease to end
            await self._deliveries.settle(claimed, "returned", again_ms=1)
            raise
        except UnavailableError as exc:  # it is due again when the lease has ended
            log.warning("a webhook was left unsettled: %s", exc, delivery=claimed.delivery.id)
        except Exception:  # one record that cannot be read must not end the duty
            log.exception("a webhook could not be made", delivery=claimed.delivery.id)

    async def _make(self, claimed: Claimed) -> None:
        delivery = claimed.delivery
        url = await self._deliveries.target(delivery)
        body = delivery.body or await self._body(claimed)
        if url is None or body is None:
            await self._deliveries.settle(claimed, "dropped")
            self._stats.add("webhook_deliveries_total", "dropped")
            return
        failpoint("before_delivery")
        tried, reply = await self._send(delivery.id, delivery.owner, url, body)
        failpoint("after_delivery")
        result, again = verdict(reply, delivery.tries)
        settled = await self._deliveries.settle(claimed, result, tried=tried, body=body, again_ms=int(again * 1000))
        self._stats.add("webhook_deliveries_total", "delivered" if result == "delivered" else "failed")
        if settled is not None and settled.status == "failed":
            self._stats.add("webhook_deliveries_total", "given_up")
            log.warning("a webhook was given up", delivery=delivery.id, endpoint=delivery.endpoint_id)
        if settled is not None and settled.disabled:
            log.error("a webhook endpoint was disabled", endpoint=delivery.endpoint_id, reason=settled.disabled)

    async def _body(self, claimed: Claimed) -> str | None:
        """What is sent; the same bytes on every try, for they are kept with the first one."""
        event = await self._deliveries.event(claimed.delivery)
        return None if event is None else dump(self._redactor.json(event))

    async def _send(self, message_id: str, owner: str, url: str, body: str) -> tuple[Json, Reply | None]:
        """One try: what the log says of it, and the reply, None when there was none."""
        signed = signed_headers(message_id, body, await self._webhooks.signing(owner))
        headers = {**JSON_TYPE, "user-agent": AGENT, **signed}
        tried: Json = {"at": rfc3339(milliseconds()), "status": None, "error": None, "body": None}
        begun = time.monotonic()
        reply: Reply | None = None
        try:
            reply = await self._egress.peek("POST", url, headers=headers, content=body.encode(), most=FIRST_BYTES)
            tried |= {"status": reply.status, "body": self._redactor.text(reply.body.decode(errors="replace"))}
        except EgressError as exc:
            tried["error"] = str(exc)
        return {**tried, "seconds": round(time.monotonic() - begun, 3)}, reply


def make_dispatcher(link: RedisLink, settings: Settings, stats: Stats) -> Dispatcher:
    """The duty as the settings want it."""
    egress = Egress(allow_private=settings.webhook_allow_private, seconds=TRY_SECONDS, resolve=own_resolver())
    return Dispatcher(link, Redactor(settings.secrets), stats, egress)


def own_resolver() -> Resolver:
    """The system's names, in threads of its own: those that hang with a name server must keep no other duty waiting."""
    threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="names")

    async def resolve(host: str, port: int) -> list[str]:
        ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(threads, ask)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    return resolve


def verdict(reply: Reply | None, tries: int) -> tuple[Result, float]:
    """What a try came to that had so many before it, and the seconds until the next one, 0 for none."""
    if reply is not None and 200 <= reply.status < 300:
        return "delivered", 0.0
    if reply is not None and reply.status == GONE:
        return "gone", 0.0
    if tries >= len(RETRY_SECONDS):
        return "failed", 0.0
    return "failed", max(RETRY_SECONDS[tries] * random.uniform(1 - JITTER, 1 + JITTER), _asked(reply))  # noqa: S311


def _asked(reply: Reply | None) -> float:
    """The seconds for which a receiver asked to be left alone."""
    try:
        return pause(reply.headers.get("retry-after", "")) if reply is not None else 0.0
    except (ValueError, TypeError):
        return 0.0
