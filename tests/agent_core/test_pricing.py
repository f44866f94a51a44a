"""Prices worked out by hand from the published price list, and the bound that reservations rest on."""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices.data import providers
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_core import UnknownPriceError
from agent_core.pricing import OWN_TOKENS, PUBLISHED, Prices, estimate_output_tokens
from agent_core.types import Json

PUBLISHED_RATES = {
    # USD for a million tokens: input, output, cache write for 5 minutes, for an hour, cache read
    "claude-fable-5-2": "8 40 10 16 0.2",
    "claude-fable-5-1": "10 50 12.5 20 0.25",
    "claude-fable-5": "10 50 12.5 20 1",
    "claude-mythos-5-2": "8 40 10 16 0.2",
    "claude-opus-5-5": "4 20 5 8 0.2",
    "claude-opus-5": "5 25 6.25 10 0.5",
    "claude-opus-4-8": "5 25 6.25 10 0.5",
    "claude-opus-4-7": "5 25 6.25 10 0.5",
    "claude-opus-4-6": "5 25 6.25 10 0.5",
    "claude-opus-4-5": "5 25 6.25 10 0.5",
    "claude-opus-4-1": "15 75 18.75 30 1.5",
    "claude-sonnet-5-5": "2 10 2.5 4 0.1",
    "claude-sonnet-5": "2 10 2.5 4 0.2",
    "claude-sonnet-4-6": "3 15 3.75 6 0.3",
    "claude-sonnet-4-5": "3 15 3.75 6 0.3",
    "claude-haiku-5-5": "0.1 0.5 0.125 0.2 0.01",
    "claude-haiku-4-5": "1 5 1.25 2 0.1",
    "claude-3-haiku-20240307": "0.25 1.25 0.3 0.5 0.03",
}
LONG_RATES = {  # of all tokens of a call whose prompt is longer than so many tokens
    "claude-haiku-5-5": (100_000, "0.5 2.5 0.625 1 0.05"),
    "claude-sonnet-4-5": (200_000, "6 22.5 7.5 12 0.6"),
}
FAST_RATES = {
    "claude-fable-5-2": "16 80 20 32 0.4",
    "claude-mythos-5-2": "16 80 20 32 0.4",
    "claude-opus-5-5": "8 40 10 16 0.4",
    "claude-opus-5": "10 50 12.5 20 1",
    "claude-opus-4-8": "10 50 12.5 20 1",
}
NO_BATCHES = {"claude-opus-4-1", "claude-3-haiku-20240307"}  # retired, and billed in full for all that is known
SEARCH = Decimal("10") / 1000
USAGE: Json = {
    "input_tokens": 1_003,
    "output_tokens": 2_001,
    "cache_read_input_tokens": 10_007,
    "cache_creation_input_tokens": 4_011,
    "cache_creation": {"ephemeral_5m_input_tokens": 3_010, "ephemeral_1h_input_tokens": 1_001},
    "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 7},
    "service_tier": "standard",
    "inference_geo": "global",
    "a_field_of_tomorrow": {"tokens": 5},
}


def by_hand(rates: str, factor: str = "1") -> int:
    """What USAGE costs, in micro-dollars: fetches are free, and searches are the same in a batch."""
    input_, output, write_5m, write_1h, read = (Decimal(rate) for rate in rates.split())
    tokens = 1_003 * input_ + 2_001 * output + 3_010 * write_5m + 1_001 * write_1h + 10_007 * read
    dollars = tokens * Decimal(factor) / 1_000_000 + 3 * SEARCH
    return int((dollars * 1_000_000).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(("model", "rates"), PUBLISHED_RATES.items())
def test_a_price_is_what_the_published_rates_come_to(model: str, rates: str) -> None:
    assert PUBLISHED.price(model, USAGE) == by_hand(rates)
    assert PUBLISHED.price(model, {**USAGE, "inference_geo": "us"}) == by_hand(rates, "1.1")


@pytest.mark.parametrize(("model", "rates"), PUBLISHED_RATES.items())
def test_a_batch_costs_half_but_for_its_searches(model: str, rates: str) -> None:
    half = "1" if model in NO_BATCHES else "0.5"
    assert PUBLISHED.price(model, {**USAGE, "service_tier": "batch"}) == by_hand(rates, half)


@pytest.mark.parametrize(("model", "rates"), FAST_RATES.items())
def test_a_hurry_costs_twice(model: str, rates: str) -> None:
    assert PUBLISHED.price(model, {**USAGE, "speed": "fast"}) == by_hand(rates)


@pytest.mark.parametrize("model", sorted(PUBLISHED_RATES.keys() - FAST_RATES.keys()))
def test_a_hurry_without_a_known_price_is_not_sold_at_the_standard_one(model: str) -> None:
    with pytest.raises(UnknownPriceError, match=f"{model} at speed fast"):
        PUBLISHED.price(model, {**USAGE, "speed": "fast"})


@pytest.mark.parametrize(("model", "tier"), LONG_RATES.items())
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("part", ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"])
def test_above_its_boundary_a_long_prompt_is_dearer_in_every_token(
    model: str, tier: tuple[int, str], batch: bool, part: str
) -> None:
    boundary, long_rates = tier
    extra = {"service_tier": "batch"} if batch else {}
    factor = Decimal("0.5") if batch else Decimal(1)
    usage = {"input_tokens": 7, "output_tokens": 1_000, "server_tool_use": None, **extra}
    column = {"input_tokens": 0, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}[part]
    for prompt, listed in ((boundary, PUBLISHED_RATES[model]), (boundary + 1, long_rates)):
        rates = [Decimal(rate) for rate in listed.split()]
        rest = prompt if part == "input_tokens" else prompt - 7
        expected = rest * rates[column] + (0 if part == "input_tokens" else 7 * rates[0]) + 1_000 * rates[1]
        rounded = (expected * factor).to_integral_value(ROUND_CEILING)
        assert PUBLISHED.price(model, {**usage, part: rest}) == rounded


def test_every_model_that_the_data_knows_can_be_priced_and_bounded() -> None:
    """The table above is not the whole list; the rest must have the rates that a price needs."""
    [anthropic] = [provider for provider in providers if provider.id == "anthropic"]
    for model in anthropic.models:
        assert 0 < PUBLISHED.price(model.id, USAGE) < PUBLISHED.worst_case(model.id, 20_000, 2_001) + 30_000


def test_a_call_is_rounded_up_once() -> None:
    assert PUBLISHED.price("claude-haiku-5-5", {"input_tokens": 1, "output_tokens": 0}) == 1  # 0.1 of one
    assert PUBLISHED.price("claude-haiku-5-5", {"input_tokens": 3, "output_tokens": 1}) == 1  # 0.3 and 0.5
    assert PUBLISHED.price("claude-haiku-5-5", {"input_tokens": 0, "output_tokens": 0}) == 0


def test_writes_of_an_unsaid_lifetime_have_the_one_that_was_asked_for() -> None:
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 1_000}
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert PUBLISHED.price("claude-sonnet-5-5", usage) == 2_500
    assert PUBLISHED.price("claude-sonnet-5-5", usage, hour) == 4_000
    said = {**usage, "cache_creation": {"ephemeral_5m_input_tokens": 600}}
    assert PUBLISHED.price("claude-sonnet-5-5", said, hour) == 600 * 5 // 2 + 400 * 4


def test_the_parts_of_the_cache_are_paid_for_even_when_their_sum_is_not_reported() -> None:
    split = {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400}
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation": split}
    assert PUBLISHED.price("claude-sonnet-5-5", usage) == 600 * 5 // 2 + 400 * 4


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"input_tokens": 1},
        {"output_tokens": 1},
        {"input_tokens": None, "output_tokens": 1},
        {"input_tokens": "many", "output_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1.5},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": -1},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": "1"},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": -5}},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation": [1]},
        {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": 0.5}},
        [1, 2],
        "12",
    ],
)
def test_a_usage_that_cannot_be_read_is_refused(usage: Json) -> None:
    with pytest.raises(ValueError, match=r"^usage: "):
        PUBLISHED.price("claude-sonnet-5-5", usage)


def test_a_model_without_a_price_is_refused_with_how_to_set_one() -> None:
    with pytest.raises(UnknownPriceError, match="'nobody-1'"):
        PUBLISHED.price("nobody-1", USAGE)
    with pytest.raises(UnknownPriceError, match=r'NIGHTSHIFT_PRICES names a JSON file of \{"nobody-1": '):
        PUBLISHED.worst_case("nobody-1", 10, 10)
    with pytest.raises(UnknownPriceError):
        PUBLISHED.affordable("nobody-1", 10, 10)


# ---- prices of one's own

OWN = '{"nobody-1": {"input": 3, "output": 15.5, "cache_write_1h": 6}, "free": {"input": 0, "output": 0}}'


def test_own_prices_go_before_the_published_ones_and_fill_up_with_the_inputs() -> None:
    own = Prices.from_json(OWN)
    assert own.price("nobody-1", USAGE) == by_hand("3 15.5 3 6 3")
    assert own.price("nobody-1", {**USAGE, "service_tier": "batch"}) == by_hand("3 15.5 3 6 3")
    assert own.price("claude-opus-5", USAGE) == PUBLISHED.price("claude-opus-5", USAGE)
    dearer = Prices.from_json('{"claude-opus-5": {"input": 6, "output": 30}}')
    assert dearer.price("claude-opus-5", USAGE) == by_hand("6 30 6 6 6")


def test_what_is_free_has_no_bound_and_can_always_be_afforded() -> None:
    own = Prices.from_json(OWN)
    assert own.worst_case("free", 1_000_000, 1_000_000) == 0
    assert own.affordable("free", 1_000_000, 0) > 1_000_000
    assert own.affordable("free", 1_000_000, -1) == 0


def test_the_version_names_the_data_and_ones_own_prices() -> None:
    assert PUBLISHED.version.startswith("genai-prices/")
    own = Prices.from_json(OWN)
    assert own.version.startswith("own/")
    assert own.version.endswith(f"+{PUBLISHED.version}")
    assert Prices.from_json(json.dumps(json.loads(OWN), sort_keys=True)).version == own.version
    assert Prices.from_json(OWN.replace("15.5", "15.6")).version != own.version


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Expecting value"),
        ("[]", "expected a JSON object like"),
        ('{"m": 3}', "'m': expected an object with input and output"),
        ('{"m": {"input": 3}}', "'m': expected an object with input and output"),
        ('{"m": {"input": 3, "output": 1, "speed": 2}}', "and of cache_write_5m, cache_write_1h, cache_read any"),
        ('{"m": {"input": -3, "output": 1}}', "'m': input is -3; expected USD for a million tokens, from 0 to"),
        ('{"m": {"input": "3", "output": 1}}', "'m': input is 3; expected USD"),
        ('{"m": {"input": true, "output": 1}}', "'m': input is True; expected USD"),
        ('{"m": {"input": NaN, "output": 1}}', "'m': input is nan; expected USD"),
        ('{"m": {"input": 1e9, "output": 1}}', "'m': input is 1E.9; expected USD"),
    ],
)
def test_wrong_own_prices_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Prices.from_json(text)


# ---- the bound

EVERYTHING = Prices.from_json(OWN)
MODELS = st.sampled_from([*PUBLISHED_RATES, "nobody-1", "free"])
EXTRAS = st.sampled_from(
    [None, {}, *({"cache_control": {"type": "ephemeral", "ttl": ttl}} for ttl in ("5m", "1h")),
     {"service_tier": "batch"}, {"inference_geo": "global"}, {"inference_geo": "us"},
     {"service_tier": "batch", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
)  # fmt: skip
TOKENS = st.one_of(st.integers(0, 1_000_000), st.sampled_from([98_975, 98_976, 98_977, 100_000, 100_001, 198_977]))


def test_the_worst_case_by_hand() -> None:
    room = 1_000 + OWN_TOKENS
    anywhere = {"inference_geo": "global"}
    assert PUBLISHED.worst_case("claude-sonnet-5-5", 1_000, 500, anywhere) == room * 5 // 2 + 5_000
    hour = {**anywhere, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert PUBLISHED.worst_case("claude-sonnet-5-5", 1_000, 500, hour) == room * 4 + 5_000
    batch = {**anywhere, "service_tier": "batch"}
    assert PUBLISHED.worst_case("claude-sonnet-5-5", 1_000, 500, batch) == (room * 5 // 2 + 5_000) // 2
    # its workspace may keep a request that does not say otherwise in the US
    assert PUBLISHED.worst_case("claude-sonnet-5-5", 1_000, 500) == (room * 5 // 2 + 5_000) * 11 // 10
    # what the provider adds by itself may take a prompt over the boundary
    long = 100_000 - OWN_TOKENS
    assert PUBLISHED.worst_case("claude-haiku-5-5", long, 0, anywhere) == 12_500
    assert PUBLISHED.worst_case("claude-haiku-5-5", long + 1, 0, anywhere) == 62_501  # 100,001 at $0.625


@given(model=MODELS, tokens=TOKENS, max_tokens=st.integers(0, 128_000), extra=EXTRAS, data=st.data())
def test_no_usage_within_the_bound_costs_more(
    model: str, tokens: int, max_tokens: int, extra: Json | None, data: st.DataObject
) -> None:
    room = tokens + OWN_TOKENS
    cuts = sorted(data.draw(st.lists(st.integers(0, room), min_size=4, max_size=4)))
    plain, written, read = cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1]
    terms = extra or {}
    usage: Json = {
        "input_tokens": plain,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": data.draw(st.integers(0, max_tokens)),
        "service_tier": terms.get("service_tier", "standard"),
        "inference_geo": terms.get("inference_geo") or data.draw(st.sampled_from(["us", "global", "not_available"])),
    }
    ttl = (terms.get("cache_control") or {}).get("ttl", "5m")
    if data.draw(st.booleans()):
        usage["cache_creation"] = {f"ephemeral_{ttl}_input_tokens": written}
    if ttl == "1h" and data.draw(st.booleans()):  # a part of it may have been written for less
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": written // 2, "ephemeral_1h_input_tokens": written // 3}
    assert EVERYTHING.price(model, usage, extra) <= EVERYTHING.worst_case(model, tokens, max_tokens, extra)


@given(model=MODELS, tokens=TOKENS, more=st.integers(0, 200_000), max_tokens=st.integers(0, 128_000), extra=EXTRAS)
def test_the_bound_grows_with_what_it_bounds(
    model: str, tokens: int, more: int, max_tokens: int, extra: Json | None
) -> None:
    bound = EVERYTHING.worst_case(model, tokens, max_tokens, extra)
    assert EVERYTHING.worst_case(model, tokens + more, max_tokens, extra) >= bound
    assert EVERYTHING.worst_case(model, tokens, max_tokens + more, extra) >= bound


@given(model=MODELS, tokens=TOKENS, micros=st.integers(-10, 20_000_000), extra=EXTRAS)
def test_what_is_affordable_fits_and_one_token_more_does_not(
    model: str, tokens: int, micros: int, extra: Json | None
) -> None:
    assume(model != "free")
    most = EVERYTHING.affordable(model, tokens, micros, extra)
    assert EVERYTHING.worst_case(model, tokens, most + 1, extra) > micros
    assert most == 0 or EVERYTHING.worst_case(model, tokens, most, extra) <= micros


@given(model=MODELS, tokens=TOKENS, max_tokens=st.integers(0, 128_000), extra=EXTRAS)
def test_a_bound_affords_what_it_bounds(model: str, tokens: int, max_tokens: int, extra: Json | None) -> None:
    bound = EVERYTHING.worst_case(model, tokens, max_tokens, extra)
    assert EVERYTHING.affordable(model, tokens, bound, extra) >= max_tokens


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ([], 0),
        ([{"type": "text", "text": "1234567"}], 3),
        ([{"type": "text", "text": "夜班"}], 2),
        ([{"type": "thinking", "thinking": "123", "signature": "abcd"}, {"type": "text", "text": "45"}], 3),
        ([{"type": "redacted_thinking", "data": "123456"}], 2),
        ([{"type": "tool_use", "id": "t", "name": "look", "input": {}, "partial_json": '{"at": 12'}], 3),
    ],
)
def test_the_output_of_a_cut_reply_is_estimated_from_what_came(content: list[Json], tokens: int) -> None:
    assert estimate_output_tokens(content) == tokens
