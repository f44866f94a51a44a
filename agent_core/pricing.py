"""Prices of model calls in integer micro-dollars: published rates from genai-prices, and an operator's own.

Only the rates come from genai-prices. The sums are made here, so that a price, its bound and what an amount still buys
are one arithmetic, and so that what its data is silent about is charged for.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from typing import Any

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, TieredPrices

from agent_core.errors import UnknownPriceError
from agent_core.types import Json

OWN_TOKENS = 1024
"""For bounds only: what the provider adds to a request by itself, such as its own words on how to use tools."""
SEARCH = 10_000
"""Micro-dollars of a web search. genai-prices has the price for some models only; the others search for as much."""
US_ONLY = Decimal("1.1")
"""What tokens cost more where inference has to stay in the US, which genai-prices knows nothing of."""
ANYWHERE = frozenset({None, "global", "not_available"})
A_RATE = "USD for a million tokens, from 0 to 1,000,000"


@dataclass(frozen=True, slots=True)
class Rates:
    """USD for a million tokens of each kind, which is micro-dollars for one token."""

    input: Decimal
    output: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal


RATES = tuple(f.name for f in fields(Rates))


@dataclass(frozen=True)
class Prices:
    """What calls cost. `own` has the rates of models that have no published ones, or others where they are served.

    `extra` is what a request carries besides its messages and tools; a batch's has `service_tier` "batch" as well.
    Every method raises UnknownPriceError for a model whose price nobody knows.
    """

    own: Mapping[str, Rates] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Prices:
        """Own rates from `{model: {"input": 3, "output": 15, "cache_read": 0.3, ...}}`, named as in `Rates`.

        A cache rate that is left out is the input's. Own rates are charged whatever the speed and the service tier.
        Raises ValueError.
        """
        listed = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        if not isinstance(listed, dict):
            raise ValueError('expected a JSON object like {"my-model": {"input": 3, "output": 15}}')
        return cls({model: _own_rates(model, given) for model, given in listed.items()})

    @functools.cached_property
    def version(self) -> str:
        """Names the data that prices come from; it stands on every ledger row."""
        published = f"genai-prices/{version('genai-prices')}"
        if not self.own:
            return published
        listed = json.dumps({model: asdict(rates) for model, rates in self.own.items()}, sort_keys=True, default=str)
        return f"own/{hashlib.sha256(listed.encode()).hexdigest()[:12]}+{published}"

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        """What a usage, as the Messages API reports it, costs in micro-dollars, rounded up once.

        Where the usage is silent on lifetime, tier, speed or place, `extra` decides. Raises ValueError when the usage
        cannot be read.
        """
        if not isinstance(usage, dict):
            raise ValueError("usage: expected an object")
        plain, output = _count(usage, "input_tokens", None), _count(usage, "output_tokens", None)
        read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
        split, tools = _part(usage, "cache_creation"), _part(usage, "server_tool_use")
        five = _count(split, "ephemeral_5m_input_tokens")
        hour = _count(split, "ephemeral_1h_input_tokens")
        said = {key: usage[key] for key in ("service_tier", "speed", "inference_geo") if usage.get(key) is not None}
        terms = {**(extra or {}), **said}
        rest = max(0, written - five - hour)
        if _for_an_hour(terms):
            hour += rest
        else:
            five += rest
        rates = self._rates(model, terms, plain + five + hour + read)
        tokens = rates.input * plain + rates.cache_write_5m * five + rates.cache_write_1h * hour
        tokens += rates.cache_read * read + rates.output * output
        return _up(tokens * _place(terms)) + SEARCH * _count(tools, "web_search_requests")

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        """An upper bound of a call's price in micro-dollars, `input_tokens` being one of its input.

        All input is new and written to the cache, every output token is used, and inference stays in the US unless
        `extra` says otherwise: a request that does not say follows its workspace.
        """
        before, each = self._bound(model, input_tokens, extra)
        return _up(before + each * max_tokens)

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        """The most output tokens for which the worst case is within `micros`; 0 when it never is."""
        before, each = self._bound(model, input_tokens, extra)
        room = micros - before
        if room < 0:
            return 0
        return int(room // each) if each else sys.maxsize

    def embedding_rate(self, model: str, provider: str) -> Decimal:
        """USD for a million tokens that an embedding model reads; `provider` is genai-prices' id of who serves it."""
        if model in self.own:
            return self.own[model].input
        try:
            rate = calc_price(Usage(), model, provider_id=provider).model_price.input_mtok
        except LookupError as exc:
            raise UnknownPriceError(model) from exc
        if rate is None:
            raise UnknownPriceError(model)
        return _at(rate, 0)

    def _bound(self, model: str, input_tokens: int, extra: Json | None) -> tuple[Decimal, Decimal]:
        """Micro-dollars of the input at most, and of each output token."""
        terms = {"inference_geo": "us", **(extra or {})}
        tokens = input_tokens + OWN_TOKENS
        rates = self._rates(model, terms, tokens)
        written = rates.cache_write_1h if _for_an_hour(terms) else rates.cache_write_5m
        place = _place(terms)
        return max(rates.input, written, rates.cache_read) * tokens * place, rates.output * place

    def _rates(self, model: str, terms: Json, prompt: int) -> Rates:
        """The rates of a call whose input is `prompt` tokens, from the cache and to it included."""
        if model in self.own:
            return self.own[model]
        speed, tier = terms.get("speed"), terms.get("service_tier")
        context = "speed=fast" if speed == "fast" else "processing=batch" if tier == "batch" else ""
        published = _published(model, context, int(time.time()) // 60)

        def rate(*names: str) -> Decimal:
            prices = (getattr(published, name) for name in names)
            price = next((price for price in prices if price is not None), None)
            if price is None:
                raise UnknownPriceError(model)
            return _at(price, prompt)

        return Rates(
            input=rate("input_mtok"),
            output=rate("output_mtok"),
            cache_write_5m=rate("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
            cache_write_1h=rate("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
            cache_read=rate("cache_read_mtok", "input_mtok"),
        )


PUBLISHED = Prices()
"""The prices of a target that has none of its own."""


@functools.lru_cache(maxsize=1024)
def _published(model: str, context: str, minute: int) -> ModelPrice:
    """`minute` is the time since the epoch, because prices change with time and a worker runs for long."""
    try:
        standard = calc_price(Usage(), model, provider_id="anthropic").model_price
        if not context:
            return standard
        key, _, value = context.partition("=")
        special = calc_price(Usage(), model, provider_id="anthropic", price_context={key: value}).model_price
    except LookupError as exc:
        raise UnknownPriceError(model) from exc
    if key == "speed" and special == standard:  # the data falls back to the standard price, and a hurry costs more
        raise UnknownPriceError(f"{model} at speed {value}")
    return special


def _at(price: Decimal | TieredPrices, prompt: int) -> Decimal:
    """The rate at a prompt's length: above a tier's start its price holds for every token of the call."""
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if prompt > tier.start), price.base)


def _own_rates(model: str, given: object) -> Rates:
    if not isinstance(given, dict) or not {"input", "output"} <= given.keys() <= set(RATES):
        raise ValueError(f"{model!r}: expected an object with input and output, and of {', '.join(RATES[2:])} any")
    for name, rate in given.items():
        if not (isinstance(rate, Decimal) and 0 <= rate <= 1_000_000):
            raise ValueError(f"{model!r}: {name} is {rate}; expected {A_RATE}")
    return Rates(**{name: given[name if name in given else "input"] for name in RATES})


def _for_an_hour(terms: Json) -> bool:
    return (terms.get("cache_control") or {}).get("ttl") == "1h"


def _place(terms: Json) -> Decimal:
    return Decimal(1) if terms.get("inference_geo") in ANYWHERE else US_ONLY


def _part(usage: Json, key: str) -> Json:
    part = usage.get(key) or {}
    if not isinstance(part, dict):
        raise ValueError(f"usage: {key} is {part!r}; expected an object")
    return part


def _count(usage: Json, key: str, default: Any = 0) -> int:
    value = usage.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise ValueError(f"usage: {key} is {usage.get(key)!r}; expected a whole number, 0 or more")
    return value


def _up(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))


def estimate_output_tokens(content: list[Json]) -> int:
    """Output tokens of a reply that broke off: one for three bytes of what came, more than models make of text.

    A signature counts as well: it carries the thinking that the provider bills and does not show.
    """
    keys = ("text", "thinking", "signature", "data", "partial_json")
    size = sum(len(str(block.get(key) or "").encode()) for block in content for key in keys)
    return -(-size // 3)
