"""The one module that talks to the Messages API: one streamed attempt a call, every failure classified, no retry.
And to the Message Batches API, for calls that are answered together.

It reads the stream's raw events instead of the SDK's typed ones: the JSON is kept as the provider sent it, unknown
blocks included, and a call costs half the CPU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAioHttpClient
from pydantic import BaseModel

from agent_core.errors import ModelError
from agent_core.ports import Draft, Request
from agent_core.pricing import PUBLISHED, Prices
from agent_core.state import WHOLE
from agent_core.types import Json

TRANSIENT_TYPES = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
STATUS_CODES = {400: "invalid_request", 401: "authentication", 403: "permission", 404: "not_found",
                413: "request_too_large", 429: "rate_limited", 529: "overloaded"}  # fmt: skip
TOO_LONG = re.compile(r"prompt is too long|exceed context limit")
PROVIDERS_OWN = frozenset({500, 503, 529})
"""Refusals of the provider itself. Others above 500 are a gateway's, which has lost an answer that may exist."""
NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
ERROR_TYPE_CODES = {"overloaded_error": "overloaded", "rate_limit_error": "rate_limited", "timeout_error": "timeout",
                    "invalid_request_error": "invalid_request", "authentication_error": "authentication",
                    "permission_error": "permission", "not_found_error": "not_found"}  # fmt: skip
PLAIN_BLOCKS = frozenset({"text", "image", "document", "tool_use", "tool_result"})
UNPROCESSED = {
    "expired": "the batch expired before the call was processed",
    "canceled": "the batch was canceled before the call was processed",
}


class ClaudeModel:
    """A target: any server that speaks the Messages API, behind one SDK client.

    The client must have `max_retries=0`: retries are the loop's, so that each is budgeted and recorded. One instance
    belongs to one event loop.
    """

    def __init__(self, client: AsyncAnthropic, prices: Prices = PUBLISHED, *, plain: bool = False) -> None:
        self.client = client
        self.prices = prices
        self._plain = plain

    @classmethod
    def connect(
        cls,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        prices: Prices = PUBLISHED,
        connections: int = 1000,
        timeout: float = 600,
        plain: bool = False,
    ) -> ClaudeModel:
        """A target with a client of its own, over aiohttp; `timeout` in seconds is the longest silence allowed. A
        `plain` one is asked for nothing but messages and tools, which is what other servers know of the API.
        """
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        http = DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(timeout, connect=5.0))
        client = AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=0, http_client=http, open_telemetry=False
        )
        return cls(client, prices, plain=plain)

    async def aclose(self) -> None:
        await self.client.close()

    async def complete(self, request: Request, draft: Draft) -> None:
        """See `ports.Model.complete`."""
        try:
            with _classified():
                async with self.client.messages.with_streaming_response.create(
                    **(plain_params_of(request) if self._plain else params_of(request)), stream=True
                ) as response:
                    async for event in AsyncStream.raw_events(response.http_response):
                        _take(draft, event.event, event.data)
        except UnicodeDecodeError as exc:
            raise ModelError("malformed_stream", "the model's stream is not UTF-8", retryable=True) from exc
        if draft.stop_reason is None:  # nothing in the SDK reports a stream that ends cleanly before its last event
            raise ModelError("early_end", "the model's stream ended before the reply was whole", retryable=True)
        _parse_inputs(draft)

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        return self.prices.price(model, usage, extra)

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        return self.prices.worst_case(model, input_tokens, max_tokens, extra)

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        return self.prices.affordable(model, input_tokens, micros, extra)

    @property
    def price_version(self) -> str:
        return self.prices.version


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """Whether a batch has ended, and for how many seconds it has existed."""

    ended: bool
    age: float


class MessageBatches:
    """The Message Batches API of a target. Methods raise ModelError; its code is `malformed_answer` for what is no JSON
    of the API's.
    """

    def __init__(self, client: AsyncAnthropic) -> None:
        self._batches = client.messages.batches

    async def create(self, requests: Mapping[str, Json]) -> str:
        """The id of a new batch, of requests as `params_of` makes them by ids of our own."""
        asked: Any = [{"custom_id": custom_id, "params": params} for custom_id, params in requests.items()]
        with _readable(), _classified():
            answer = await self._batches.with_raw_response.create(requests=asked)
            return str(_loads(await answer.text())["id"])

    async def status(self, batch_id: str) -> BatchStatus:
        with _readable(), _classified():
            answer = await self._batches.with_raw_response.retrieve(batch_id)
            batch = _loads(await answer.text())
            age = datetime.now(UTC) - datetime.fromisoformat(batch["created_at"])
            return BatchStatus(batch["processing_status"] == "ended", max(0.0, age.total_seconds()))

    async def results(self, batch_id: str) -> dict[str, Json]:
        """What became of each request of a batch that has ended, by our ids."""
        with _readable(), _classified():
            async with self._batches.with_streaming_response.results(batch_id) as response:
                lines = [_loads(line.decode()) for line in (await response.read()).splitlines() if line.strip()]
            return {line["custom_id"]: line["result"] for line in lines}

    async def cancel(self, batch_id: str) -> None:
        with _classified():
            await self._batches.cancel(batch_id)


def take_result(draft: Draft, result: Json) -> None:
    """Fills a draft with what a batch has for a call. Raises ModelError for anything but a whole reply.

    Nothing is billed for a call that was not processed.
    """
    with _readable():
        match result["type"]:
            case "succeeded":
                message = result["message"]
                content = [dict(block) for block in message["content"]]
                draft.started, draft.usage = True, message.get("usage")
                draft.content, draft.stop_reason = content, message.get("stop_reason")
            case "errored":
                fault = _error_event(result["error"]["error"])
                raise ModelError(fault.code, str(fault), retryable=fault.retryable, billed=False)
            case type_:
                why = UNPROCESSED.get(type_, f"the batch has no reply to the call, but {type_!r}")
                raise ModelError(f"batch_{type_}", why, retryable=True, billed=type_ not in UNPROCESSED)
    if draft.stop_reason is None:
        raise ModelError("early_end", "the batch's reply is not whole", retryable=True)
    if any(block.get("type") == "tool_use" and not isinstance(block.get("input"), dict) for block in draft.content):
        raise ModelError("malformed_tool_input", "a tool call's input is not a JSON object", retryable=True)


@contextmanager
def _classified() -> Iterator[None]:
    """Turns what the SDK raises into a ModelError that says what it means for the call."""
    try:
        yield
    except anthropic.APIStatusError as exc:
        raise _status_error(exc) from exc
    except (anthropic.APIConnectionError, httpx2.TransportError) as exc:
        cause = exc.__cause__ or exc
        billed = not isinstance(cause.__cause__, NEVER_SENT)  # what cause itself is called says less
        message = f"the connection to the model broke: {cause!r}"
        raise ModelError("connection", message, retryable=True, billed=billed) from exc


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (anthropic.AnthropicError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ModelError("malformed_answer", f"the answer about a batch is malformed: {exc!r}", retryable=True) from exc


def schema_of(model: type[BaseModel]) -> Json:
    """A Pydantic model as the JSON schema that `output_config` takes."""
    return anthropic.transform_schema(model)


def params_of(request: Request) -> dict[str, Any]:
    """The parameters of a call, as the API takes them."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "max_tokens": request.max_tokens,
        "cache_control": {"type": "ephemeral"},
        **request.extra,
    }
    if request.system:
        body["system"] = request.system
    if request.tools:
        body["tools"] = request.tools
    return body


def plain_params_of(request: Request) -> dict[str, Any]:
    """The parameters of a call without what only Anthropic's own servers know; a schema is asked for in words."""
    body = params_of(request)
    asked = body.pop("output_config", {}).get("format")
    for name in ("cache_control", "thinking", "service_tier", "speed"):
        body.pop(name, None)
    if asked is not None:
        words = f"Give your final answer as nothing but JSON of this schema: {json.dumps(asked['schema'])}"
        body["system"] = "\n\n".join(filter(None, [request.system, words]))
    if "tools" in body:
        body["tools"] = [tool for tool in body["tools"] if "input_schema" in tool]
    body["messages"] = [_plain(message) for message in request.messages]
    return body


def _plain(message: Json) -> Json:
    if isinstance(message["content"], str):
        return message
    kept = [block for block in message["content"] if block.get("type") in PLAIN_BLOCKS]
    return {**message, "content": kept or [{"type": "text", "text": "(nothing)"}]}


def _take(draft: Draft, kind: str | None, data: str) -> None:
    try:
        _fold(draft, kind, _loads(data) if data else {})
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ModelError("malformed_stream", f"the model sent a malformed {kind} event", retryable=True) from exc


def _fold(draft: Draft, kind: str | None, event: Json) -> None:
    match kind:
        case "message_start":
            draft.started = True
            draft.usage = event["message"].get("usage")
        case "content_block_start":
            draft.content.append(dict(event["content_block"]))
        case "content_block_delta":
            _grow(draft, draft.content[event["index"]], event["delta"])
        case "message_delta":
            draft.stop_reason = event["delta"].get("stop_reason") or draft.stop_reason
            fresh = {k: v for k, v in (event.get("usage") or {}).items() if v is not None}
            draft.usage = {**(draft.usage or {}), **fresh} or None
        case "error":
            raise _error_event(event.get("error") or {})
        case _:
            pass


def _grow(draft: Draft, block: Json, delta: Json) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
            if draft.on_text is not None:
                draft.on_text(delta["text"])
        case "input_json_delta":
            block["partial_json"] = block.get("partial_json", "") + delta["partial_json"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])
        case _:
            pass


def _parse_inputs(draft: Draft) -> None:
    """Turns the gathered JSON of tool inputs into objects; in a reply that was cut off it may be incomplete."""
    for block in draft.content:
        if partial := block.pop("partial_json", None):
            parsed = _object(partial)
            if parsed is None and draft.stop_reason in WHOLE:
                raise ModelError("malformed_tool_input", "a tool call's input is not a JSON object", retryable=True)
            block["input"] = parsed or {}


def _object(text: str) -> Json | None:
    try:
        value = _loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _loads(text: str) -> Any:
    """The JSON value, without the lone surrogates that escapes can make: no journal and no request can carry them."""
    value = json.loads(text)
    if "\\ud" in text.lower():
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _status_error(exc: anthropic.APIStatusError) -> ModelError:
    status = exc.status_code
    code = STATUS_CODES.get(status, "server_error" if status >= 500 else "refused")
    retryable = status in (408, 409, 429) or status >= 500
    if isinstance(exc, anthropic.EnforcedSpendLimitReachedError | anthropic.ContractSpendLimitReachedError):
        code, retryable = "spend_limit", False
    if code == "invalid_request" and TOO_LONG.search(_message(exc)):
        code = "context_window"
    message = f"the model answered {status}: {_message(exc)}"
    billed = status >= 500 and status not in PROVIDERS_OWN
    return ModelError(code, message, retryable=retryable, retry_after=_retry_after(exc), billed=billed)


def _error_event(error: Json) -> ModelError:
    kind = str(error.get("type"))
    code = ERROR_TYPE_CODES.get(kind, "server_error")
    return ModelError(code, f"the model broke off: {error.get('message', kind)}", retryable=kind in TRANSIENT_TYPES)


def _message(exc: anthropic.APIStatusError) -> str:
    body = exc.body if isinstance(exc.body, dict) else {}
    error = body.get("error")
    return str(error.get("message")) if isinstance(error, dict) else exc.message[:200]


def _retry_after(exc: anthropic.APIStatusError) -> float | None:
    try:
        seconds = float(exc.response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
