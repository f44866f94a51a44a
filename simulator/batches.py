"""The Message Batches API: requests that are answered together, later, at half the price.

Each request is answered as `POST /v1/messages` would answer it; its script's `latency` says when. A batch ends with its
last request, and has results only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from simulator.calls import Call, CallLog
from simulator.deliver import Answer
from simulator.errors import STATUSES, ApiError, error_body
from simulator.validation import read_json

Json = dict[str, Any]

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MOST_REQUESTS = 100_000
MOST_BYTES = 256_000_000
LIFE_SECONDS = 24 * 3600
KEPT_BATCHES = 1000
LARGEST_PAGE, PAGE = 1000, 20
RESULT_TYPES = ("succeeded", "errored", "canceled", "expired")


@dataclass(slots=True)
class Batch:
    """A batch. Times are seconds since 1970; `results` grow while it is processed, in the order of their coming."""

    id: str
    requests: list[Json]
    created_at: float
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    cancel_initiated_at: float | None = None
    ended_at: float | None = None
    results: list[Json] = field(default_factory=list)

    @property
    def status(self) -> str:
        if self.ended_at is not None:
            return "ended"
        return "in_progress" if self.cancel_initiated_at is None else "canceling"

    def to_json(self, origin: str) -> Json:
        """The batch as the API shows it; nothing of it is counted before its end."""
        ended = self.ended_at is not None
        found = [line["result"]["type"] for line in self.results] if ended else []
        counts = {type_: found.count(type_) for type_ in RESULT_TYPES}
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {"processing": 0 if ended else len(self.requests), **counts},
            "created_at": _rfc3339(self.created_at),
            "expires_at": _rfc3339(self.created_at + LIFE_SECONDS),
            "ended_at": _rfc3339(self.ended_at),
            "cancel_initiated_at": _rfc3339(self.cancel_initiated_at),
            "archived_at": None,
            "results_url": f"{origin}/v1/messages/batches/{self.id}/results" if ended else None,
        }


class Batches:
    """The batches there are, and their routes. `answer` works out what a request is to get."""

    def __init__(self, calls: CallLog, answer: Callable[[object, Call], Answer]) -> None:
        self._calls = calls
        self._answer = answer
        self._batches: OrderedDict[str, Batch] = OrderedDict()
        self._processing: set[asyncio.Task[None]] = set()

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to an application, at whose end processing ends too."""
        path = "/v1/messages/batches"
        app.add_routes(
            [
                web.post(path, self.create),
                web.get(path, self.list),
                web.get(f"{path}/{{id}}", self.get),
                web.get(f"{path}/{{id}}/results", self.results),
                web.post(f"{path}/{{id}}/cancel", self.cancel),
            ]
        )
        app.on_cleanup.append(self._stop)

    async def create(self, request: web.Request) -> web.Response:
        requests = check_batch(await read_json(request.clone(client_max_size=MOST_BYTES)))
        batch = Batch(f"msgbatch_sim_{secrets.token_hex(10)}", requests, time.time())
        self._batches[batch.id] = batch
        if len(self._batches) > KEPT_BATCHES:
            self._batches.popitem(last=False)
        task = asyncio.create_task(self._process(batch))
        self._processing.add(task)
        task.add_done_callback(self._processing.discard)
        return _json(request, batch)

    async def get(self, request: web.Request) -> web.Response:
        return _json(request, self._find(request))

    async def cancel(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        if batch.status == "ended":
            raise ApiError(400, f"batch {batch.id} cannot be canceled: its processing has ended")
        batch.cancel_initiated_at = batch.cancel_initiated_at or time.time()
        batch.cancelled.set()
        return _json(request, batch)

    async def list(self, request: web.Request) -> web.Response:
        """The newest first."""
        limit = request.query.get("limit", str(PAGE))
        if not limit.isdecimal() or not 1 <= int(limit) <= LARGEST_PAGE:
            raise ApiError(400, f"limit: Input should be between 1 and {LARGEST_PAGE}")
        ids = list(reversed(self._batches))
        start, end = 0, len(ids)
        if after := request.query.get("after_id"):
            start = _place(ids, after) + 1
        if before := request.query.get("before_id"):
            end = _place(ids, before)
            start = max(start, end - int(limit))
        page = ids[start:end][: int(limit)]
        body = {
            "data": [self._batches[id_].to_json(_origin(request)) for id_ in page],
            "has_more": bool(page) and (start > 0 if before else page[-1] != ids[-1]),
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        return web.json_response(body)

    async def results(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        if batch.ended_at is None:
            raise ApiError(404, f"batch {batch.id} has no results: its processing has not ended")
        lines = "".join(f"{json.dumps(line)}\n" for line in batch.results)
        return web.Response(text=lines, content_type="application/x-jsonl")

    def _find(self, request: web.Request) -> Batch:
        id_ = request.match_info["id"]
        if id_ not in self._batches:
            raise ApiError(404, f"Batch not found: {id_}")
        return self._batches[id_]

    async def _process(self, batch: Batch) -> None:
        await asyncio.gather(*(self._process_request(batch, request) for request in batch.requests))
        batch.ended_at = time.time()

    async def _process_request(self, batch: Batch, request: Json) -> None:
        with self._calls.record() as call:
            call.batch_id = batch.id
            try:
                result = await self._result(batch, request["params"], call)
            except ApiError as exc:
                call.outcome = f"failed:{exc.status}"
                result = {"type": "errored", "error": error_body(exc.type, exc.message)}
        batch.results.append({"custom_id": request["custom_id"], "result": result})

    async def _result(self, batch: Batch, params: Json, call: Call) -> Json:
        answer = self._answer(params, call)
        if params.get("stream"):
            raise ApiError(400, "stream: a request of a batch cannot be streamed")
        fault = answer.fault
        hang = fault.hang if fault is not None and fault.hang is not None else 0.0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(batch.cancelled.wait(), answer.pace.latency + hang)
        ended = "canceled" if batch.cancelled.is_set() else fault.result if fault is not None else None
        if ended is not None:
            call.outcome = ended
            return {"type": ended}
        if fault is not None and not fault.early_end:
            type_ = fault.error_event
            status = fault.status or STATUSES.get(type_ or "api_error", 500)
            raise ApiError(status, "simulated fault", type_=type_)
        message = answer.message.to_json() | ({"stop_reason": None} if fault is not None else {})
        if "usage" in message:
            message["usage"] = {**message["usage"], "service_tier": "batch"}
        return {"type": "succeeded", "message": message}

    async def _stop(self, _: web.Application) -> None:
        for task in self._processing:
            task.cancel()
        await asyncio.gather(*self._processing, return_exceptions=True)


def check_batch(body: object) -> list[Json]:
    """The requests of a body, if the API would take it; their `params` it looks at later. Raises ApiError with 400."""
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not 1 <= len(requests) <= MOST_REQUESTS:
        raise ApiError(400, f"requests: Input should be a list of 1 to {MOST_REQUESTS} requests")
    seen: set[str] = set()
    for number, request in enumerate(requests):
        where = f"requests.{number}"
        if not isinstance(request, dict) or not isinstance(request.get("params"), dict):
            raise ApiError(400, f"{where}.params: Field required")
        custom_id = request.get("custom_id")
        if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
            raise ApiError(400, f"{where}.custom_id: String should match pattern '^{CUSTOM_ID.pattern}$'")
        if custom_id in seen:
            raise ApiError(400, f"{where}.custom_id: {custom_id} is not unique within the batch")
        seen.add(custom_id)
    return requests


def _json(request: web.Request, batch: Batch) -> web.Response:
    return web.json_response(batch.to_json(_origin(request)))


def _origin(request: web.Request) -> str:
    return str(request.url.origin())


def _place(ids: Sequence[str], id_: str) -> int:
    if id_ not in ids:
        raise ApiError(404, f"Batch not found: {id_}")
    return ids.index(id_)


def _rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
