"""Usage, the ledger of all jobs, and its check over HTTP."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx2
import pytest

from api.views import AuditView, ScopeBudgetView, TenantLedgerRow, UsageRow
from jobs import keys
from jobs.errors import UnavailableError
from jobs.journal import Line
from jobs.store import JobStore
from tests.api.conftest import client_of, submitted
from tests.jobs.spender import USAGE, Spender


@pytest.fixture
async def spent(api, echo, worker, store) -> list[Spender]:
    """Two jobs of two users that made three calls in all."""
    spenders = []
    for user, amounts in (("u1", [10, 20]), ('u,"2"', [40])):
        await submitted(api, user=user)
        claim = await worker.claim()
        spenders.append(Spender(store, claim.job, worker.attempt(claim)))
        for amount in amounts:
            await spenders[-1].spend(amount, model=f"m{amount}")
    return spenders


async def test_usage_is_by_day_and_by_what_is_asked_for(api, spent):
    (day,) = (await api.get("/v1/usage")).json()["data"]
    assert date.fromisoformat(day["day"]) in (datetime.now(UTC).date(), datetime.now(UTC).date() - timedelta(days=1))
    assert (day["calls"], day["cost_usd"], day["cache_hit_rate"]) == (3, "0.00007", 0.7371)
    both = (await api.get("/v1/usage", params=[("by", "user,model"), ("by", "role")])).json()["data"]
    assert [(row["user"], row["model"], row["role"], row["cost_usd"]) for row in both] == [
        ('u,"2"', "m40", "executor", "0.00004"),
        ("u1", "m10", "executor", "0.00001"),
        ("u1", "m20", "executor", "0.00002"),
    ]
    (one,) = (await api.get("/v1/usage", params={"user": "u1", "model": "m20", "agent": "echo"})).json()["data"]
    assert one["cost_usd"] == "0.00002"
    assert (await api.get("/v1/usage", params={"to": "2026-01-31"})).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"by": "tenant"}, "invalid_request"),
        ({"by": ""}, "invalid_request"),
        ({"from": "2026-02-30"}, "invalid_fields"),
        ({"from": "1700000000"}, "invalid_fields"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "invalid_request"),
        ({"since": "2026-03-02"}, "invalid_request"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(api, query, code):
    answer = await api.get("/v1/usage", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_the_ledger_has_every_row_page_by_page(api, spent):
    whole = (await api.get("/v1/ledger")).json()
    assert [row["settled_usd"] for row in whole["data"]] == ["0.00001", "0.00002", "0.00004"]
    assert (whole["has_more"], whole["next_cursor"]) == (False, None)
    paged: list[Any] = []
    after = None
    while after is not None or not paged:
        query = {"limit": 1} | ({"after": after} if after else {})
        answer = (await api.get("/v1/ledger", params=query)).json()
        paged += answer["data"]
        after = answer["next_cursor"]
    assert paged == whole["data"]
    own = (await api.get(f"/v1/jobs/{spent[0].job.id}/ledger")).json()["data"]
    assert [{name: row[name] for name in own[0]} for row in whole["data"][:2]] == own


async def test_the_ledger_as_json_lines_and_as_csv_says_the_same(api, spent):
    rows = (await api.get("/v1/ledger")).json()["data"]
    lines = await api.get("/v1/ledger", params={"format": "jsonl"})
    assert lines.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    table = await api.get("/v1/ledger", params={"format": "csv"})
    assert table.headers["content-type"].startswith("text/csv")
    parsed = list(csv.DictReader(io.StringIO(table.text)))
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert [{**row, "usage": ""} for row in parsed] == [{**row, "usage": ""} for row in texts]
    assert json.loads(parsed[0]["usage"]) == USAGE
    empty = await api.get("/v1/ledger", params={"format": "csv", "to": "2026-01-01"})
    assert empty.text.splitlines() == [",".join(TenantLedgerRow.model_fields)]


async def test_an_export_that_breaks_off_does_not_pass_for_a_whole_one(api, spent, monkeypatch):
    real = JobStore.lines

    async def lines(self: JobStore, job_id: str, *rest: Any) -> list[Line]:
        if job_id == spent[1].job.id:
            raise UnavailableError("Redis does not answer")
        return await real(self, job_id, *rest)

    monkeypatch.setattr("jobs.usage.JOBS_AT_ONCE", 1)
    monkeypatch.setattr("api.routes.usage.PIECE", 1)
    monkeypatch.setattr(JobStore, "lines", lines)
    with pytest.raises(httpx2.TransportError):
        await api.get("/v1/ledger", params={"format": "jsonl"})


async def test_a_wrong_cursor_or_format_is_refused(api):
    for query, code in (({"after": "x"}, "invalid_cursor"), ({"format": "xml"}, "invalid_fields")):
        answer = await api.get("/v1/ledger", params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_the_check_says_whether_every_total_is_the_sum_of_its_rows(api, link, spent):
    found = (await api.get("/v1/usage/check")).json()
    assert (found["exact"], found["differences"], found["unchecked"], found["rows"]) == (True, [], [], 3)
    key = keys.meter("default", "user:u1", "total")
    await link.command("HINCRBY", key, "settled", 1)
    found = (await api.get("/v1/usage/check")).json()
    assert found["exact"] is False
    assert found["differences"] == [{"key": key, "figure": "settled_usd", "recorded": "0.000031", "rows": "0.00003"}]


async def test_only_an_admin_may_check_and_no_tenant_sees_anothers(api, url, spent):
    reader = (await api.post("/v1/keys", json={"name": "r", "scopes": ["jobs:read"]})).json()
    async with client_of(url, reader["secret"]) as client:
        assert (await client.get("/v1/usage")).status_code == (await client.get("/v1/ledger")).status_code == 200
        assert (await client.get("/v1/usage/check")).status_code == 403
    other = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    async with client_of(url, other["secret"]) as client:
        for path in ("/v1/usage", "/v1/ledger"):
            assert (await client.get(path)).json()["data"] == []
        assert (await client.get("/v1/usage/check")).json()["rows"] == 0


async def test_what_is_answered_has_the_shape_that_is_described(api, spent):
    await api.put("/v1/budgets", json={"scope": "tenant", "usd": "1"})
    for path, view in (
        ("/v1/budgets", ScopeBudgetView),
        ("/v1/ledger", TenantLedgerRow),
        ("/v1/usage?by=day,agent,user,model,role", UsageRow),
    ):
        (row, *_) = (await api.get(path)).json()["data"]
        assert set(row) == set(view.model_fields), path
    assert set((await api.get("/v1/usage/check")).json()) == set(AuditView.model_fields)
