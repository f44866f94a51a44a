"""Journal lines, their ids, and how money is shown."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.entries import ModelStarted
from jobs.errors import InvalidError
from jobs.journal import FIRST, Line, dump, ledger_rows, parse_event_id, parse_line

ids = st.builds("{}-{}".format, st.integers(0, 10**15 - 1), st.integers(0, 10**10 - 1))


@given(ids)
def test_an_event_id_comes_back_as_the_streams_id(line_id: str) -> None:
    event = Line(line_id, "job.queued", 0, {}).to_event("job_1")["id"] if len(line_id) < 17 else f"evt_{line_id}"
    assert parse_event_id(event) == parse_event_id(f" {line_id} ") == line_id


@given(st.text())
def test_whatever_a_client_sends_is_an_id_or_is_refused(text: str) -> None:
    try:
        found = parse_event_id(text)
    except InvalidError:
        return
    assert re.fullmatch(r"[0-9]{1,15}-[0-9]{1,10}", found)


@pytest.mark.parametrize("text", ["evt_", "1-", "-1", "1-2-3", "1.5", "٣", "evt_1²", "1" * 16, "$", "(1-0"])
def test_what_is_no_event_id(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_event_id(text)


@pytest.mark.parametrize(
    ("text", "expected"), [(None, FIRST), ("", FIRST), ("17", "17-0"), ("evt_17", "17-0"), ("17-3", "17-3")]
)
def test_what_is_one(text: str | None, expected: str) -> None:
    assert parse_event_id(text) == expected


def test_an_event_as_the_api_shows_it() -> None:
    line = Line("1700000000123-4", "model.completed", 2, {"step": 1, "reserved": 12_300, "settled": 0})
    assert line.to_event("job_1") == {
        "id": "evt_1700000000123-4",
        "type": "model.completed",
        "job_id": "job_1",
        "attempt": 2,
        "created_at": "2023-11-14T22:13:20.123Z",
        "data": {"step": 1, "reserved_usd": "0.0123", "settled_usd": "0"},
    }


@given(st.integers(0, 10**12))
def test_money_is_a_decimal_string_without_loss(micros: int) -> None:
    shown = Line("0-1", "model.started", 1, {"reserved": micros}).to_event("j")["data"]["reserved_usd"]
    assert Decimal(shown) * 1_000_000 == micros
    assert "e" not in shown.lower()


def test_lines_sort_by_their_numbers_and_not_by_their_text() -> None:
    early, late = Line("99-10", "", 0, {}), Line("100-2", "", 0, {})
    assert early.position < late.position
    assert Line("99-9", "", 0, {}).position < early.position
    assert early.ms == 99


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_data_comes_back_as_it_was_written(data) -> None:
    raw = {b"t": b"state.changed", b"a": b"3", b"d": dump(data).encode()}
    expected = Line("1-0", "state.changed", 3, data)
    assert parse_line((b"1-0", raw)) == expected
    assert parse_line((b"1-0", [word for pair in raw.items() for word in pair])) == expected


def test_an_entry_of_the_loop_comes_back_as_that_entry() -> None:
    data = {"call_id": "c", "step": 1, "model": "m", "reserved": 5, "from_the_future": 1}
    assert Line("1-0", "model.started", 1, data).entry() == ModelStarted("c", 1, "m", 5)
    assert Line("1-0", "job.queued", 0, {}).entry() is None


def test_a_call_that_was_tried_twice_has_two_rows_and_a_closed_one_replaces_its_reservation() -> None:
    started = {"call_id": "c1", "step": 1, "model": "m", "reserved": 5, "tokens": 90}
    closed = {
        "call_id": "c1",
        "step": 1,
        "model": "m",
        "reserved": 5,
        "settled": 5,
        "reason": "worst_case",
        "usage": None,
    }
    lines = [
        Line("1-0", "model.started", 1, started),
        Line("2-0", "model.failed", 1, closed),
        Line("3-0", "model.started", 2, {**started, "call_id": "c2"}),
        Line("4-0", "tool.completed", 2, {"call_id": "t1"}),
    ]
    rows = ledger_rows("job_1", lines)
    assert [(row["id"], row["settled_usd"], row["reason"]) for row in rows] == [
        ("c1", "0.000005", "worst_case"),
        ("c2", None, "reserved"),
    ]
    assert [row["tokens"] for row in rows] == [90, 90]
    assert rows[0]["created_at"] == "1970-01-01T00:00:00.001Z", "it is of the day of its reservation"


def test_the_tokens_of_a_row_are_those_of_its_usage_unless_it_is_settled_at_the_worst_case() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 8}
    started = {"call_id": "c", "step": 1, "model": "m", "reserved": 5, "tokens": 90}
    for reason, tokens in (("settled", 15), ("cut_stream", 15), ("worst_case", 90)):
        closed = {
            "call_id": "c",
            "step": 1,
            "model": "m",
            "reserved": 5,
            "settled": 5,
            "reason": reason,
            "usage": usage,
        }
        (row,) = ledger_rows("j", [Line("1-0", "model.started", 1, started), Line("2-0", "model.completed", 1, closed)])
        assert row["tokens"] == tokens


def test_a_priced_tool_call_that_another_attempt_goes_on_with_keeps_the_time_of_its_reservation() -> None:
    asked = {"call_id": "t", "step": 1, "name": "order", "reserved": 5}
    made_again = [Line("1-0", "tool.requested", 1, asked), Line("9-0", "tool.requested", 2, asked)]
    (row,) = ledger_rows("j", made_again)
    assert (row["created_at"], row["attempt"]) == ("1970-01-01T00:00:00.001Z", 2)
    reconciled = Line("5-0", "tool.reconciled", 2, {"call_id": "t", "step": 1, "decision": "not_happened"})
    (row,) = ledger_rows("j", [made_again[0], reconciled, made_again[1]])
    assert row["created_at"] == "1970-01-01T00:00:00.009Z", "it is another reservation"


def test_a_priced_tool_call_that_is_made_again_after_it_was_charged_has_another_row() -> None:
    asked = {"call_id": "t", "step": 1, "name": "order", "reserved": 5}
    lines = [
        Line("1-0", "tool.requested", 1, asked),
        Line("2-0", "tool.charged", 1, {"call_id": "t", "settled": 5, "reason": "worst_case"}),
        Line("3-0", "tool.reconciled", 2, {"call_id": "t", "step": 1, "decision": "not_happened"}),
        Line("4-0", "tool.requested", 2, asked),
        Line("5-0", "tool.completed", 2, {"call_id": "t", "settled": 5}),
    ]
    for length, reasons in ((3, ["worst_case"]), (4, ["worst_case", "reserved"]), (5, ["worst_case", "settled"])):
        rows = ledger_rows("j", lines[:length])
        assert [row["reason"] for row in rows] == reasons, "what was charged stays charged"
    assert [row["id"] for row in rows] == ["t", "t.again"]
    assert [row["settled_usd"] for row in rows] == ["0.000005"] * 2
