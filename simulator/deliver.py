"""Writes a message to the client, in one piece or as a stream, with the delays and the fault it was given."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

from aiohttp import web

from simulator import render
from simulator.calls import Call
from simulator.errors import STATUSES, ApiError, error_body
from simulator.script import Fault

STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
JSON_HEADERS = {"Content-Type": "application/json"}
NO_FAULT = Fault.model_construct()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a message goes out; times in seconds."""

    latency: float
    chunk_delay: float
    chunks: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A message, how fast it goes out, and what goes wrong with it."""

    message: render.Message
    pace: Pace
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Exit:
    """The way to one client: the request to answer, the id that the answer carries, and the call's record."""

    request: web.Request
    request_id: str
    call: Call

    async def send(self, answer: Answer, *, stream: bool) -> web.StreamResponse:
        """Answers the request. Raises ApiError for a fault that is an HTTP error."""
        message, pace, fault = answer.message, answer.pace, answer.fault
        if fault is not None and fault.result is not None:
            raise ApiError(400, "#sim: a fault with `result` is for a request of a batch")
        if pace.latency:
            await asyncio.sleep(pace.latency)
        if fault is not None and fault.status is not None:
            raise ApiError(fault.status, "simulated fault", retry_after=fault.retry_after)
        if fault is not None and fault.hang is not None and fault.after is None:
            await asyncio.sleep(fault.hang)
        if fault is not None and (fault.drop or (fault.hang is not None and fault.after is None)):
            return self._break_off(web.Response())
        if stream:
            return await self._stream(message, pace, fault)
        return await self._whole(message, pace, fault)

    async def _whole(self, message: render.Message, pace: Pace, fault: Fault | None) -> web.StreamResponse:
        if pace.chunk_delay:
            await asyncio.sleep(pace.chunk_delay * len(render.events(message, pace.chunks)))
        fault = fault or NO_FAULT
        if fault.error_event is not None:
            raise ApiError(STATUSES.get(fault.error_event, 500), "simulated fault", type_=fault.error_event)
        data = json.dumps(message.to_json() | ({"stop_reason": None} if fault.early_end else {})).encode()
        response = web.StreamResponse(headers={**JSON_HEADERS, "request-id": self.request_id})
        response.content_length = len(data)
        await response.prepare(self.request)
        share = fault.cut if fault.cut is not None else fault.after
        if share is not None:
            await response.write(data[: int(len(data) * share)])
            await asyncio.sleep(fault.hang or 0)
            return self._break_off(response)
        await response.write(data[:-1] + b"]" if fault.malformed_tool_json else data)
        await response.write_eof()
        return response

    async def _stream(self, message: render.Message, pace: Pace, fault: Fault | None) -> web.StreamResponse:
        fault = fault or NO_FAULT
        events = render.events(message, pace.chunks, malformed_tool_json=bool(fault.malformed_tool_json))
        response = web.StreamResponse(headers={**STREAM_HEADERS, "request-id": self.request_id})
        await response.prepare(self.request)
        await _write(response, _until(events, fault), pace.chunk_delay)
        if fault.hang:
            await asyncio.sleep(fault.hang)
        if fault.cut is not None or fault.hang is not None:
            return self._break_off(response)
        if fault.error_event is not None:
            self.call.outcome = f"failed:{fault.error_event}"
            await response.write(b"event: error\ndata: %s\n\n" % _error(fault.error_event, self.request_id))
        if fault.early_end:
            self.call.outcome = "cut"
        await response.write_eof()
        return response

    def _break_off(self, response: web.StreamResponse) -> web.StreamResponse:
        """Closes the connection without ending the answer. What was written still arrives, as on a real network."""
        self.call.outcome = "cut"
        self.call.closed_at = time.time()
        if self.request.transport is not None:
            self.request.transport.close()
        return response


def _until(events: list[bytes], fault: Fault) -> list[bytes]:
    """The events that go out before the fault strikes."""
    if fault.early_end:
        return events[:-2]
    if fault.cut is None and fault.hang is None and fault.error_event is None:
        return events
    share = fault.cut if fault.cut is not None else fault.after
    return events[: int(len(events) * (0.5 if share is None else share))]


async def _write(response: web.StreamResponse, events: list[bytes], delay: float) -> None:
    if not delay:
        await response.write(b"".join(events))
        return
    for number, event in enumerate(events):
        if number:
            await asyncio.sleep(delay)
        await response.write(event)


def _error(type_: str, request_id: str) -> bytes:
    return json.dumps(error_body(type_, "simulated fault", request_id)).encode()
