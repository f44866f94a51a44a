"""The one module that talks to the Messages API: one streamed attempt a call, every failure classified, no retry.

It reads the stream's raw events instead of the SDK's typed ones: the JSON is kept as the provider sent it, unknown
blocks included, and a call costs half the CPU.
"""

from __future__ import annotations

import json
import math
from typing import Any

import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAioHttpClient

from agent_core import pricing
from agent_core.errors import ModelError
from agent_core.ports import Draft, Request
from agent_core.state import WHOLE
from agent_core.types import Json

TRANSIENT_TYPES = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
STATUS_CODES = {400: "invalid_request", 401: "authentication", 403: "permission", 404: "not_found",
                413: "request_too_large", 429: "rate_limited", 529: "overloaded"}  # fmt: skip
ERROR_TYPE_CODES = {"overloaded_error": "overloaded", "rate_limit_error": "rate_limited", "timeout_error": "timeout"}


class ClaudeModel:
    """A target: any server that speaks the Messages API, behind one SDK client.

    The client must have `max_retries=0`: retries are the loop's, so that each is budgeted and recorded. One instance
    belongs to one event loop.
    """

    def __init__(self, client: AsyncAnthropic, provider: str = "anthropic") -> None:
        self.client = client
        self.provider = provider

    @classmethod
    def connect(
        cls, *, api_key: str | None = None, base_url: str | None = None, connections: int = 1000, timeout: float = 600
    ) -> ClaudeModel:
        """A target with a client of its own, over aiohttp; `timeout` in seconds is the longest silence allowed."""
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        http = DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(timeout, connect=5.0))
        client = AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=0, http_client=http, open_telemetry=False
        )
        return cls(client)

    async def aclose(self) -> None:
        await self.client.close()

    async def complete(self, request: Request, draft: Draft) -> None:
        """See `ports.Model.complete`."""
        try:
            async with self.client.messages.with_streaming_response.create(**_body(request)) as response:
                async for event in AsyncStream.raw_events(response.http_response):
                    _take(draft, event.event, event.data)
        except anthropic.APIStatusError as exc:
            raise _status_error(exc) from exc
        except (anthropic.APIConnectionError, httpx2.TransportError) as exc:
            cause = exc.__cause__ or exc
            raise ModelError("connection", f"the connection to the model broke: {cause!r}", retryable=True) from exc
        except UnicodeDecodeError as exc:
            raise ModelError("malformed_stream", "the model's stream is not UTF-8", retryable=True) from exc
        if draft.stop_reason is None:  # nothing in the SDK reports a stream that ends cleanly before its last event
            raise ModelError("early_end", "the model's stream ended before the reply was whole", retryable=True)
        _parse_inputs(draft)

    def price(self, model: str, usage: Json) -> int:
        return pricing.price(model, usage, self.provider)

    def worst_case(self, model: str, input_bytes: int, max_tokens: int) -> int:
        return pricing.worst_case(model, input_bytes, max_tokens, self.provider)

    @property
    def price_version(self) -> str:
        return pricing.price_version()


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "max_tokens": request.max_tokens,
        "stream": True,
        "cache_control": {"type": "ephemeral"},
        **request.extra,
    }
    if request.system:
        body["system"] = request.system
    if request.tools:
        body["tools"] = request.tools
    return body


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
    message = f"the model answered {status}: {_message(exc)}"
    return ModelError(code, message, retryable=retryable, retry_after=_retry_after(exc))


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
