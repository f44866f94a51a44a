"""Deliveries of webhooks: one event for one listener each, from the step that wrote the event until it has arrived or
nobody tries any more; and the log of what was tried.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agent_core.types import Json
from jobs import keys, outbox
from jobs.blobs import resolve
from jobs.errors import ConflictError, NotFoundError
from jobs.journal import Line, dump, parse_line
from jobs.link import Arg, RedisLink
from jobs.records import rfc3339
from jobs.scripts import script
from jobs.webhooks import JOBS, Endpoint, Webhooks, disabled, owner_of_jobs, texts

MOST_OF_A_LANE = 10
"""Deliveries of one lane that are under way at once, by all workers together."""
FAILING_MS = 5 * 24 * 3600 * 1000
"""An endpoint at which every try has failed for so long is disabled."""
LONGEST_VALUE = 200
"""Characters of a text of an event's data that is told; what is longer is there to be fetched."""
SINCE_CHUNK = 500
Status = Literal["pending", "delivered", "failed", "dropped"]
Result = Literal["delivered", "failed", "gone", "dropped", "returned"]
"""What a try came to; `returned` is no try: a worker that stops gives back what it had claimed."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery at one moment. `tries` are those of the current round, `log` is every try there was, oldest first.

    `owner` is an endpoint's id, or `jobs:` and the tenant; `about` is the data of an event that is in no journal.
    """

    id: str
    tenant: str
    owner: str
    lane: str
    job_id: str
    type: str
    entry: str
    sequence: int
    made_ms: int
    due_ms: int
    status: Status
    tries: int
    about: Json | None = None
    body: str | None = None
    log: tuple[Json, ...] = ()

    @property
    def endpoint_id(self) -> str:
        return JOBS if self.owner == owner_of_jobs(self.tenant) else self.owner

    def to_json(self) -> Json:
        """The delivery as the API shows it."""
        return {
            "id": self.id,
            "object": "webhook_delivery",
            "endpoint_id": self.endpoint_id,
            "job_id": self.job_id or None,
            "type": self.type,
            "sequence": self.sequence,
            "status": self.status,
            "created_at": rfc3339(self.made_ms),
            "next_try_at": rfc3339(self.due_ms) if self.status == "pending" else None,
            "request": json.loads(self.body) if self.body else None,
            "tries": list(self.log),
        }


class Claimed(NamedTuple):
    """A delivery that is this worker's to make, and the number of its claim."""

    delivery: Delivery
    number: int


class Settled(NamedTuple):
    """What became of a delivery, and why its endpoint was disabled over it, if it was."""

    status: Status
    disabled: str


class Deliveries:
    """The deliveries in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self, endpoint: Endpoint, delivery_id: str) -> Delivery:
        """A delivery of an endpoint. Raises NotFoundError."""
        (found,) = await self.get_many([delivery_id])
        if found is None or found.owner != endpoint.owner or found.tenant != endpoint.tenant:
            raise NotFoundError(f"there is no delivery {delivery_id[:80]!r}", code="delivery_not_found")
        return found

    async def get_many(self, delivery_ids: Sequence[str]) -> list[Delivery | None]:
        """Deliveries in the order of their ids, None for those that do not exist."""
        raws = await asyncio.gather(*(self._link.command("HGETALL", keys.delivery(one)) for one in delivery_ids))
        return [_parse(one, texts(raw)) for one, raw in zip(delivery_ids, raws, strict=True)]

    async def depth(self) -> int:
        """How many are not settled, of all tenants."""
        lanes = await self._link.command("ZRANGE", keys.LANES, 0, -1)
        return sum(await asyncio.gather(*(self._link.command("ZCARD", keys.lane(lane.decode())) for lane in lanes)))

    # ---- asked for by people

    async def test(self, endpoint: Endpoint) -> Delivery:
        """Notes a `webhook.test` for an endpoint. Raises ConflictError when it is disabled."""
        args: list[Arg] = [endpoint.id, endpoint.tenant, outbox.TEST, dump({"endpoint_id": endpoint.id}), outbox.NAMES]
        made = await self._link.script(script("test_endpoint"), [keys.endpoint(endpoint.id)], args)
        if not made:
            raise disabled(endpoint)
        return await self.get(endpoint, made.decode())

    async def redeliver(self, endpoint: Endpoint, delivery_id: str) -> Delivery:
        """Makes a delivery again, whatever became of it; its id stays. Raises NotFoundError; ConflictError when the
        endpoint is disabled, or the delivery under way.
        """
        found = await self.get(endpoint, delivery_id)
        if not endpoint.enabled:
            raise disabled(endpoint)
        if not await self._again(found):
            raise ConflictError(f"delivery {found.id} is being made at this moment", code="delivery_under_way")
        return await self.get(endpoint, delivery_id)

    async def redeliver_since(self, endpoint: Endpoint, since_ms: int, *, only_failed: bool) -> int:
        """Makes all deliveries again whose events were written since a time; returns how many. Raises ConflictError."""
        if not endpoint.enabled:
            raise disabled(endpoint)
        index, start, count = keys.deliveries(endpoint.owner), 0, 0
        while True:
            limits = ("LIMIT", start, SINCE_CHUNK)
            ids = await self._link.command("ZRANGEBYSCORE", index, since_ms, "+inf", *limits)
            found = await self.get_many([one.decode() for one in ids])
            wanted = [one for one in found if one and (one.status in ("failed", "dropped") or not only_failed)]
            count += sum(await asyncio.gather(*map(self._again, wanted)))
            start += len(ids)
            if len(ids) < SINCE_CHUNK:
                return count

    async def _again(self, delivery: Delivery) -> bool:
        lane = delivery.lane
        again_keys = [keys.delivery(delivery.id), keys.lane(lane), keys.busy(lane), keys.LANES, keys.SETTLED]
        return bool(await self._link.script(script("redeliver"), again_keys, [delivery.id, lane]))

    # ---- made by workers

    async def claim(self, most: int, lease_seconds: float) -> list[Claimed]:
        """Takes deliveries that are due; one that is not settled within the lease is due again."""
        args: list[Arg] = [most, MOST_OF_A_LANE, int(lease_seconds * 1000), outbox.NAMES]
        answer = await self._link.script(script("claim_deliveries"), [keys.LANES], args, patient=False)
        parsed = [(_parse(one.decode(), texts(raw)), int(number)) for one, number, raw in answer]
        return [Claimed(delivery, number) for delivery, number in parsed if delivery is not None]

    async def settle(
        self, claimed: Claimed, result: Result, *, tried: Json | None = None, body: str = "", again_ms: int = 0
    ) -> Settled | None:
        """Writes down a try and what follows. What failed, or was returned, is due again after `again_ms`, unless that
        is 0. Returns None when the claim has lapsed, and another one been made.
        """
        delivery = claimed.delivery
        is_jobs = delivery.endpoint_id == JOBS
        answer = await self._link.script(
            script("settle_delivery"),
            [
                keys.delivery(delivery.id),
                keys.lane(delivery.lane),
                keys.busy(delivery.lane),
                keys.SETTLED,
                keys.job(delivery.job_id) if is_jobs else keys.endpoint(delivery.owner),
                keys.listeners(delivery.tenant),
            ],
            [
                delivery.id,
                claimed.number,
                result,
                again_ms,
                "" if tried is None else dump(tried),
                body,
                FAILING_MS,
                MOST_OF_A_LANE,
                "" if is_jobs else delivery.owner,
                outbox.DISABLED,
                outbox.NAMES,
            ],
        )
        return None if answer[0] == b"stale" else Settled(answer[0].decode(), answer[1].decode())

    async def target(self, delivery: Delivery) -> str | None:
        """The URL to send to; None when nobody is there any more who wants it."""
        if delivery.endpoint_id != JOBS:
            endpoint = await Webhooks(self._link).find(delivery.owner)
            return endpoint.url if endpoint is not None and endpoint.enabled else None
        own, spec = await self._link.command("HMGET", keys.job(delivery.job_id), "webhook", "spec")
        return json.loads(spec)["webhook"]["url"] if own and spec else None

    async def event(self, delivery: Delivery) -> Json | None:
        """What is told, without what is too long for it; None when the job was pruned meanwhile."""
        if not delivery.entry:
            data = {**(delivery.about or {}), "sequence": delivery.sequence}
            return {"type": delivery.type, "timestamp": rfc3339(delivery.made_ms), "data": data}
        found = await self._link.command("XRANGE", keys.journal(delivery.job_id), delivery.entry, delivery.entry)
        agent = await self._link.command("HGET", keys.job(delivery.job_id), "agent")
        try:
            line = (await resolve(self._link, [parse_line(found[0])]))[0] if found else None
        except NotFoundError:
            line = None
        return None if line is None or agent is None else _event(delivery, line, agent.decode())

    async def prune(self, delivery_id: str, keep_ms: int) -> bool:
        """Removes a settled delivery, if it is old enough; whether it did."""
        args: list[Arg] = [delivery_id, keep_ms, keys.DELIVERIES_PREFIX]
        pruned = await self._link.script(
            script("prune_delivery"), [keys.delivery(delivery_id), keys.SETTLED], args, patient=False
        )
        return bool(pruned)


def _event(delivery: Delivery, line: Line, agent: str) -> Json:
    shown = line.to_event(delivery.job_id)
    small = {name: value for name, value in shown["data"].items() if _is_small(value)}
    if "job_id" in small:  # what a parent's journal says of a child
        small["child_id"] = small.pop("job_id")
    data = {
        **small,
        "job_id": delivery.job_id,
        "agent": small.get("agent", agent),
        "attempt": line.attempt,
        "event_id": shown["id"],
        "sequence": delivery.sequence,
        "url": f"/v1/jobs/{delivery.job_id}",
    }
    return {"type": line.type, "timestamp": shown["created_at"], "data": data}


def _is_small(value: Any) -> bool:
    return isinstance(value, bool | int | float | None) or (isinstance(value, str) and len(value) <= LONGEST_VALUE)


def _parse(delivery_id: str, raw: Mapping[str, str]) -> Delivery | None:
    if "tenant" not in raw:
        return None
    numbers = sorted(int(name.removeprefix("try:")) for name in raw if name.startswith("try:"))
    return Delivery(
        delivery_id,
        raw["tenant"],
        raw["owner"],
        raw["lane"],
        raw["job_id"],
        raw["type"],
        raw["entry"],
        int(raw["sequence"]),
        int(float(raw["made_ms"])),
        int(float(raw["due_ms"])),
        raw["status"],  # type: ignore[arg-type]
        int(raw["tries"]),
        json.loads(raw["about"]) if raw["about"] else None,
        raw.get("body"),
        tuple(json.loads(raw[f"try:{number}"]) for number in numbers),
    )
