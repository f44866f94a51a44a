"""Prices of model calls in integer micro-dollars, from the bundled data of genai-prices."""

from __future__ import annotations

import functools
import time
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price, extract_usage

from agent_core.errors import UnknownPriceError
from agent_core.types import MICROS, Json

BYTES_PER_TOKEN = 2
"""For bounds only: no tokeniser in use makes more than one token of two bytes of JSON text on average."""
OWN_TOKENS = 1024
"""For bounds only: what the provider adds to a request by itself, such as its own words on how to use tools."""
TOKEN_STEP = 64
"""For bounds only: input is rounded up to a multiple of it, so that the bounds of most calls are known already."""


def _up(amount: Decimal) -> int:
    return int((amount * MICROS).to_integral_value(ROUND_CEILING))


@functools.cache
def price_version() -> str:
    """Names the price data on every ledger row."""
    return f"genai-prices/{version('genai-prices')}"


def price(model: str, usage: Json, provider: str = "anthropic") -> int:
    """What a usage, as the Messages API reports it, costs in micro-dollars, rounded up.

    Raises UnknownPriceError, and ValueError when the usage cannot be read.
    """
    context: dict[str, str] = {}
    if usage.get("service_tier") == "batch":
        context["processing"] = "batch"
    if usage.get("speed") == "fast":
        context["speed"] = "fast"
    try:
        extracted = extract_usage({"model": model, "usage": usage}, provider_id=provider)
        return _up(extracted.calc_price(price_context=context or None).total_price)
    except LookupError as exc:
        raise UnknownPriceError(model) from exc


def worst_case(model: str, input_bytes: int, max_tokens: int, provider: str = "anthropic") -> int:
    """An upper bound in micro-dollars of a call: all input new and written to the cache, every output token used.

    Raises UnknownPriceError.
    """
    tokens = OWN_TOKENS + -(-input_bytes // BYTES_PER_TOKEN)
    return _bound(model, -(-tokens // TOKEN_STEP) * TOKEN_STEP, max_tokens, provider, int(time.time()) // 60)


@functools.lru_cache(maxsize=4096)
def _bound(model: str, tokens: int, max_tokens: int, provider: str, minute: int) -> int:
    """`minute` is the time since the epoch, because prices change with time and a worker runs for long."""
    try:
        bound = PricedUsage(input_tokens=tokens, cache_write_tokens=tokens, output_tokens=max_tokens)
        return _up(calc_price(bound, model, provider_id=provider).total_price)
    except LookupError as exc:
        raise UnknownPriceError(model) from exc


def estimate_output_tokens(content: list[Json]) -> int:
    """Output tokens of a reply that broke off: one for three characters of what came, more than models make of text."""
    chars = sum(len(str(b.get(key) or "")) for b in content for key in ("text", "thinking", "partial_json"))
    return -(-chars // 3)
