"""Money, budgets, usage and the journal's entries as plain data."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.entries import (
    ENTRY_TYPES,
    ApprovalDecided,
    Compacted,
    Entry,
    GuardrailChecked,
    ModelCompleted,
    ModelFailed,
    ModelStarted,
    ModelSubmitted,
    ResultsCleared,
    StateChanged,
    ToolCompleted,
    ToolReconciled,
    ToolRequested,
    entry_from_json,
    entry_to_json,
)
from agent_core.outcomes import Refusal
from agent_core.types import Budget, Usage, micros, usd

ENTRIES: list[Entry] = [
    ModelStarted("c1", 1, "claude-sonnet-5-5", 900, 5000, 77, "p/1", "planner", final=True),
    ModelCompleted(
        "c1", 1, "m", [{"type": "text", "text": "hé"}], "end_turn", {"input_tokens": 3}, "p/1", 900, 36, "settled", 1.5
    ),
    ModelFailed("c2", 2, "m", "overloaded", "too busy", None, "p/1", 900, 0, "released"),
    ToolRequested("t1", 1, "look", {"at": 3}, "read"),
    ToolCompleted("t1", 1, "look", "seen", False, 0.25),
    ApprovalDecided("appr_1", "t2", "erase", "approve", "key_1", "fine", {"what": 2}),
    ToolReconciled("t3", 1, "pay", "not_happened", "person"),
    ModelSubmitted("c1", 1, "msgbatch_1"),
    StateChanged("planning", 2, "phase", "Plan.", "planner", tools=False, expects={"type": "object"}),
    Compacted(9, "## Facts", 5),
    ResultsCleared(9, ["t1"]),
    GuardrailChecked("output", "no_prices", 2, "redact", "it names a price", "It costs [a price]."),
]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (12_300, "0.0123"),
        (0, "0"),
        (1, "0.000001"),
        (-5, "-0.000005"),
        (1_000_000, "1"),
        (2_500_000, "2.5"),
        (10**13, "10000000"),
    ],
)
def test_money_is_written_as_a_short_decimal(amount: int, text: str) -> None:
    assert usd(amount) == text


@given(st.integers(-(10**15), 10**15))
def test_money_survives_being_written_and_read(amount: int) -> None:
    assert micros(usd(amount)) == amount
    assert Decimal(usd(amount)) * 1_000_000 == amount


@pytest.mark.parametrize(("amount", "rounded"), [("0.0000005", 0), ("0.0000015", 2), ("0.00000151", 2), (3, 3_000_000)])
def test_micros_round_half_to_even(amount: str | int, rounded: int) -> None:
    assert micros(amount) == rounded


def test_a_budget_in_micros() -> None:
    assert Budget(usd="0.25").micros == 250_000
    assert Budget(usd=None).micros is None


def test_override_replaces_the_given_fields_alone() -> None:
    budget = Budget(usd="2", tokens=10, steps=3, seconds=60)
    assert budget.override({"usd": "5", "steps": None}) == Budget(usd="5", tokens=10, steps=None, seconds=60)
    assert budget.override({"colour": "red"}) == budget


def test_a_budget_survives_json() -> None:
    budget = Budget(usd="2", tokens=10, steps=None, seconds=1.5)
    assert Budget(**json.loads(json.dumps(budget.to_json()))) == budget


def test_usage_adds_up_what_the_messages_api_reports() -> None:
    usage = Usage()
    usage.count({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 8})
    usage.count({"input_tokens": 100, "output_tokens": None, "speed": "standard"})
    usage.count(None)
    assert (usage.input_tokens, usage.output_tokens) == (101, 2)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (4, 8)
    assert usage.tokens == 115


def test_each_type_of_entry_is_tried_here() -> None:
    assert {type(entry) for entry in ENTRIES} == set(ENTRY_TYPES.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.TYPE)
def test_an_entry_survives_json(entry: Entry) -> None:
    assert entry_from_json(entry.TYPE, json.loads(json.dumps(entry_to_json(entry)))) == entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.TYPE)
def test_fields_of_a_later_version_are_left_out(entry: Entry) -> None:
    assert entry_from_json(entry.TYPE, {**entry_to_json(entry), "from_the_future": [1]}) == entry


def test_a_line_that_is_not_the_loops_is_no_entry() -> None:
    assert entry_from_json("job.queued", {"status": "queued"}) is None


def test_the_start_of_a_call_that_an_earlier_version_wrote_is_read() -> None:
    data = {"call_id": "c1", "step": 1, "model": "m", "reserved": 900}
    assert entry_from_json("model.started", data) == ModelStarted("c1", 1, "m", 900)


@pytest.mark.parametrize(
    ("refusal", "detail"),
    [
        (("job", "total", "stop", "usd", 10_000, 300), "the job's budget: 0.0003 USD of 0.01 USD are left"),
        (("job", "total", "stop", "usd", 10_000, -5), "the job's budget: 0 USD of 0.01 USD are left"),
        (
            ("user:u1", "day", "pause", "tokens", 20_000, 1_500),
            "the user:u1 budget of this day: 1,500 tokens of 20,000 tokens are left",
        ),
    ],
)
def test_a_refusal_says_which_budget_has_how_much_left(refusal: tuple[Any, ...], detail: str) -> None:
    assert Refusal(*refusal).detail == f"the next call does not fit into {detail}"


def test_a_missing_field_takes_its_default_or_is_refused() -> None:
    data = entry_to_json(ENTRIES[4])
    del data["seconds"]
    assert entry_from_json("tool.completed", data) == ToolCompleted("t1", 1, "look", "seen", False, 0.0)
    del data["content"]
    with pytest.raises(TypeError, match="content"):
        entry_from_json("tool.completed", data)
