"""Prices worked out by hand from the providers' price lists, and the bound that reservations rest on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core import UnknownPriceError
from agent_core.pricing import (
    BYTES_PER_TOKEN,
    OWN_TOKENS,
    estimate_output_tokens,
    price,
    price_version,
    worst_case,
)
from agent_core.types import Json

MODELS = ["claude-sonnet-5-5", "claude-opus-5-5", "claude-opus-4-8", "claude-haiku-5-5", "claude-haiku-4-5"]
EVERYTHING: Json = {
    "input_tokens": 1_000,
    "output_tokens": 2_000,
    "cache_read_input_tokens": 10_000,
    "cache_creation_input_tokens": 4_000,
}


@pytest.mark.parametrize(
    ("model", "usage", "micro_dollars"),
    [
        # $2 in, $10 out, $0.10 cache read, $2.50 cache write, $4 for an hour's, each a million tokens
        ("claude-sonnet-5-5", {"input_tokens": 1_000_000, "output_tokens": 0}, 2_000_000),
        ("claude-sonnet-5-5", {"input_tokens": 100, "output_tokens": 20}, 200 + 200),
        ("claude-sonnet-5-5", EVERYTHING, 2_000 + 20_000 + 1_000 + 10_000),
        (
            "claude-sonnet-5-5",
            {**EVERYTHING, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 4_000}},
            2_000 + 20_000 + 1_000 + 16_000,
        ),
        ("claude-sonnet-5-5", {**EVERYTHING, "service_tier": "batch"}, (2_000 + 20_000 + 1_000 + 10_000) // 2),
        # $4, $20, $0.20, $5, and twice that in a hurry
        ("claude-opus-5-5", {"input_tokens": 1_000, "output_tokens": 2_000, "speed": "fast"}, 88_000),
        ("claude-opus-5-5", EVERYTHING, 4_000 + 40_000 + 2_000 + 20_000),
        # $5, $25, $0.50, $6.25
        ("claude-opus-4-8", EVERYTHING, 5_000 + 50_000 + 5_000 + 25_000),
        # $1, $5, $0.10, $1.25
        ("claude-haiku-4-5", EVERYTHING, 1_000 + 10_000 + 1_000 + 5_000),
        # $0.10, $0.50, $0.01, $0.125
        ("claude-haiku-5-5", EVERYTHING, 100 + 1_000 + 100 + 500),
    ],
)
def test_prices_match_the_price_list(model: str, usage: Json, micro_dollars: int) -> None:
    assert price(model, usage) == micro_dollars


def test_part_of_a_micro_dollar_is_rounded_up() -> None:
    assert price("claude-haiku-5-5", {"input_tokens": 1, "output_tokens": 0}) == 1  # 0.1 of one


@pytest.mark.parametrize(
    "usage", [{}, {"input_tokens": "many", "output_tokens": 1}, {"input_tokens": -1, "output_tokens": 1}]
)
def test_a_usage_that_cannot_be_read_is_refused(usage: Json) -> None:
    with pytest.raises(ValueError, match="usage"):
        price("claude-sonnet-5-5", usage)


def test_an_unknown_model_has_no_price() -> None:
    with pytest.raises(UnknownPriceError, match="'nobody-1'"):
        price("nobody-1", {"input_tokens": 1, "output_tokens": 1})
    with pytest.raises(UnknownPriceError, match="genai-prices"):
        worst_case("nobody-1", 10, 10)


def test_the_worst_case_by_hand() -> None:
    # 2,000 bytes are 1,000 tokens at most, rounded up to 16 * 64, written to the cache at $2.50; 500 of output at $10
    assert worst_case("claude-sonnet-5-5", 2_000, 500) == (OWN_TOKENS + 1_024) * 5 // 2 + 5_000


@given(
    model=st.sampled_from(MODELS),
    input_bytes=st.integers(0, 3_000_000),
    max_tokens=st.integers(1, 64_000),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_no_usage_within_the_bound_costs_more(
    model: str, input_bytes: int, max_tokens: int, shares: list[float]
) -> None:
    room = OWN_TOKENS + input_bytes // BYTES_PER_TOKEN
    written = int(room * shares[0])
    read = int((room - written) * shares[1])
    usage = {
        "input_tokens": int((room - written - read) * shares[2]),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": int(max_tokens * shares[3]),
    }
    assert price(model, usage) <= worst_case(model, input_bytes, max_tokens)


def test_the_version_of_the_prices_is_named() -> None:
    assert price_version().startswith("genai-prices/")


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ([], 0),
        ([{"type": "text", "text": "1234567"}], 3),
        ([{"type": "thinking", "thinking": "123", "signature": "abc"}, {"type": "text", "text": "456"}], 2),
        ([{"type": "tool_use", "id": "t", "name": "look", "input": {}, "partial_json": '{"at": 12'}], 3),
    ],
)
def test_the_output_of_a_cut_reply_is_estimated_from_what_came(content: list[Json], tokens: int) -> None:
    assert estimate_output_tokens(content) == tokens
