"""The job record: to Redis and back, as the API shows it, and what is no record."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.types import Budget
from jobs import keys
from jobs.records import COUNTERS, RECORD_VERSION, Job, new_id, parse_record, record_fields, rfc3339
from jobs.status import STATUSES
from jobs.store import JobStore
from tests.jobs.driver import SPEC, Driver

FULL = replace(
    SPEC,
    files=["file_1"],
    session_id="s",
    user="u",
    run_at=1,
    expires_at=2,
    webhook={"url": "https://example.com"},
    tags=["t"],
    metadata={"ä": [1, None]},
    output_schema={"type": "object"},
    forked_from={"job_id": "job_0", "step": 1},
)


def raw(**changes: str | int | None) -> dict[bytes, bytes]:
    """A record's hash; None takes a field away."""
    words = [str(word) for word in record_fields("job_1", "acme", FULL, Budget(usd="0.5"))]
    fields = dict(zip(words[::2], words[1::2], strict=True)) | {"status": "queued", "created_ms": "5"}
    kept = {**fields, **changes}
    return {name.encode(): str(value).encode() for name, value in kept.items() if value is not None}


def test_a_new_record_comes_back_as_it_was_asked_for() -> None:
    job = parse_record(raw())
    assert job == Job("job_1", "acme", FULL, Budget(usd="0.5"), "queued", 5, counters=dict.fromkeys(COUNTERS, 0))


def test_a_record_of_a_running_job() -> None:
    fields: dict[str, str | int] = {"attempt": 2, "token": "t", "worker": "w", "since_ms": 9, "started_ms": 7}
    job = parse_record(raw(status="running", **fields, cancel=1, cost=3))
    assert (job.attempts, job.token, job.worker, job.since_ms, job.started_ms) == (2, "t", "w", 9, 7)
    assert (job.flag, job.counters["cost"], job.ended) == ("cancel", 3, False)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_read(status: str) -> None:
    assert parse_record(raw(status=status)).status == status


@pytest.mark.parametrize(
    "changes",
    [
        {"v": RECORD_VERSION + 1},
        {"v": "new"},
        {"v": None},
        {"id": None},
        {"tenant": None},
        {"spec": None},
        {"spec": "{"},
        {"spec": "null"},
        {"spec": "[]"},
        {"spec": '{"agent": "a"}'},
        {"spec": '{"agent": "a", "input": 1, "from_the_future": 1}'},
        {"budget": '{"euro": 1}'},
        {"budget": None},
        {"status": None},
        {"status": "flying"},
        {"created_ms": "yesterday"},
        {"created_ms": None},
        {"attempt": "one"},
        {"cost": "0.1"},
        {"started_ms": "x"},
    ],
)
def test_what_this_version_cannot_read_is_a_value_error(changes: dict[str, str | int | None]) -> None:
    with pytest.raises(ValueError, match=r"record|invalid literal|Expecting|line"):
        parse_record(raw(**changes))


@given(st.sampled_from(sorted(raw())), st.binary(max_size=30))
def test_no_damage_is_anything_but_a_value_error(field: bytes, value: bytes) -> None:
    with suppress(ValueError):
        parse_record({**raw(), field: value}).to_json()


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=8), max_size=4))
def test_a_hash_of_something_else_is_no_record(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        parse_record(fields)


async def test_a_damaged_record_is_claimed_as_such_and_holds_up_nobody(store: JobStore) -> None:
    driver = Driver(store)
    broken, whole = await driver.submit(), await driver.submit()
    await store.link.command("HSET", keys.job(broken.id), "spec", "{")
    first, second = await driver.claim(10)
    assert (first.job_id, first.job, second.job_id) == (broken.id, None, whole.id)
    assert first.damaged
    with pytest.raises(ValueError, match="Expecting"):
        await store.get(None, broken.id)


def test_a_job_as_the_api_shows_it() -> None:
    counters = {"cost": 12_300, "spent": 12_301, "input_tokens": 7}
    job = Job("job_1", "acme", FULL, Budget(), "completed", 0, ended_ms=1500, attempts=1, counters=counters, output="o")
    shown = job.to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["usage"] == {
        "input_tokens": 7, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0,
        "model_calls": 0, "tool_calls": 0, "cost_usd": "0.0123", "total_cost_usd": "0.012301",
    }  # fmt: skip
    assert (shown["object"], shown["status"], shown["output"], shown["attempts"]) == ("job", "completed", "o", 1)
    assert (shown["created_at"], shown["ended_at"]) == ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.500Z")
    assert (shown["started_at"], shown["run_at"]) == (None, "1970-01-01T00:00:00.001Z")
    assert "acme" not in json.dumps(shown), "the tenant is the key's, not the job's to tell"


def test_ids_sort_by_their_age_and_tell_nothing() -> None:
    made = [new_id("job") for _ in range(100)]
    assert len(set(made)) == 100
    assert [i[:16] for i in made] == sorted(i[:16] for i in made)
    assert all(len(i) == 36 and i.startswith("job_") for i in made)


@pytest.mark.parametrize(
    ("ms", "text"), [(None, None), (0, "1970-01-01T00:00:00.000Z"), (1_700_000_000_009, "2023-11-14T22:13:20.009Z")]
)
def test_times_are_rfc_3339_in_utc(ms: int | None, text: str | None) -> None:
    assert rfc3339(ms) == text
