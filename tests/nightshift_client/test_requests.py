"""Which requests are sent, and sent again, and what becomes of refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import get_type_hints

import httpx2
import pytest
from pydantic import BaseModel

from api import schemas, tenants, views
from nightshift_client import ApiError, UnreachableError, types
from tests.nightshift_client.script import Answer, client_of

JOB = {"id": "job_1", "status": "queued", "a_field_of_tomorrow": 1}
BUSY = httpx2.Response(503, headers={"Retry-After": "7"}, json={"code": "unavailable", "detail": "Redis is away"})
CUT = httpx2.ReadError("the connection was cut")


class Said:
    """Gives its answers in turn, the last one for ever; keeps the requests."""

    def __init__(self, answers: Iterable[httpx2.Response | Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[httpx2.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        self.asked.append(request)
        self.bodies.append(b"".join(request.stream))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def keys(self) -> set[str]:
        return {request.headers["Idempotency-Key"] for request in self.asked}


def test_a_submission_is_repeated_under_one_key_until_it_is_answered() -> None:
    said = Said([CUT, BUSY, httpx2.Response(429), httpx2.Response(202, json=JOB)])
    with client_of(said) as (client, clock):
        assert client.submit("analyst", "hello", tags=["x"], budget={"usd": "1"}) == JOB
    assert len(said.asked) == 4
    assert len(said.keys()) == 1
    assert [json.loads(body) for body in set(said.bodies)] == [
        {"agent": "analyst", "input": "hello", "tags": ["x"], "budget": {"usd": "1"}}
    ]
    assert 7 <= clock.pauses[1] <= 10, "Retry-After was not heeded"


def test_two_submissions_have_two_keys_and_yours_is_used() -> None:
    said = Said([httpx2.Response(202, json=JOB)])
    with client_of(said) as (client, _):
        client.submit("analyst", "hello")
        client.submit("analyst", "hello")
        client.submit("analyst", "hello", idempotency_key="mine")
        client.fork("job_1", idempotency_key="mine too", message="go on")
        client.cancel("job_1")
    assert len(said.keys()) == 5
    assert {"mine", "mine too"} < said.keys()


def test_a_request_whose_first_try_is_still_under_way_is_repeated() -> None:
    under_way = httpx2.Response(409, json={"code": "idempotency_in_progress"})
    said = Said([under_way, httpx2.Response(202, json=JOB)])
    with client_of(said) as (client, _):
        assert client.submit("analyst", "hello") == JOB


@pytest.mark.parametrize("failure", [CUT, BUSY], ids=["cut", "busy"])
def test_what_may_not_be_repeated_is_not(failure: httpx2.Response | Exception) -> None:
    said = Said([failure, httpx2.Response(200, json={})])
    with client_of(said) as (client, _):
        with pytest.raises((ApiError, UnreachableError)):
            client.call("PATCH", "/v1/schedules/sched_1", {"jitter_seconds": 3})
        assert len(said.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 500])
def test_a_refusal_is_final(status: int) -> None:
    problem = {
        "status": status,
        "code": "invalid_fields",
        "detail": "the first",
        "request_id": "req_1",
        "errors": [{"field": "agent", "message": "is missing"}, {"field": "tags", "message": "too many"}],
    }
    said = Said([httpx2.Response(status, json=problem)])
    with client_of(said) as (client, _), pytest.raises(ApiError) as refused:
        client.get("job_1")
    error = refused.value
    assert (error.status, error.code, error.request_id) == (status, "invalid_fields", "req_1")
    assert error.detail == "agent: is missing; tags: too many"
    assert error.errors == problem["errors"]
    assert "req_1" in str(error)
    assert len(said.asked) == 1


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]"])
def test_an_error_that_is_no_problem_document_is_an_error_all_the_same(body: bytes) -> None:
    said = Said([httpx2.Response(404, content=body)])
    with client_of(said) as (client, _), pytest.raises(ApiError, match="Not Found") as refused:
        client.get("job_1")
    assert (refused.value.status, refused.value.code) == (404, "error")


@pytest.mark.parametrize("failure", [CUT, BUSY], ids=["cut", "busy"])
def test_patience_ends(failure: httpx2.Response | Exception) -> None:
    said = Said([failure])
    with client_of(said, patience=30) as (client, clock), pytest.raises((ApiError, UnreachableError)) as ended:
        client.get("job_1")
    assert 20 < sum(clock.pauses) <= 36
    if isinstance(failure, Exception):
        assert ended.value.__cause__ is failure
    else:
        assert isinstance(ended.value, ApiError)


def test_without_patience_nothing_is_repeated() -> None:
    said = Said([CUT])
    with client_of(said, patience=0) as (client, clock), pytest.raises(UnreachableError):
        client.get("job_1")
    assert (len(said.asked), clock.pauses) == (1, [])


def test_lists_are_read_page_by_page_as_they_are_iterated() -> None:
    asked: list[dict[str, str]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        start = int(request.url.params.get("after", "0"))
        more = start < 4
        page = {
            "data": [{"id": f"job_{start}"}, {"id": f"job_{start + 1}"}],
            "has_more": more,
            "next_cursor": str(start + 2) if more else None,
        }
        return httpx2.Response(200, json=page)

    with client_of(answer) as (client, _):
        jobs = client.jobs(status="failed", tag="a b")
        assert (next(jobs)["id"], len(asked)) == ("job_0", 1)
        assert [job["id"] for job in jobs] == [f"job_{number}" for number in range(1, 6)]
    filters = {"status": "failed", "tag": "a b"}
    assert asked == [filters, {**filters, "after": "2"}, {**filters, "after": "4"}]


def test_what_is_not_asked_for_is_not_sent() -> None:
    said = Said([httpx2.Response(200, json={"data": [], "has_more": False})])
    with client_of(said) as (client, _):
        assert list(client.usage(by="day", first="2026-11-01")) == []
    assert dict(said.asked[0].url.params) == {"by": "day", "from": "2026-11-01"}


def test_waiting_asks_again_until_the_job_settles_or_time_is_up() -> None:
    statuses = iter(["queued", "running", "requires_action"])
    said: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        said.append(request)
        return httpx2.Response(200, json={"status": next(statuses, "running")})

    with client_of(answer) as (client, clock):
        assert client.wait("job_1")["status"] == "requires_action"
        assert [request.url.params["wait"] for request in said] == ["30.0"] * 3
        assert min(request.extensions["timeout"]["read"] for request in said) > 30
        begun = clock.now
        assert client.wait("job_1", timeout=2)["status"] == "running"
        assert clock.now - begun == pytest.approx(2, abs=0.3)


def test_ids_cannot_lead_elsewhere() -> None:
    said = Said([httpx2.Response(200, json=JOB)])
    with client_of(said) as (client, _):
        client.get("../keys?x=1#")
    assert said.asked[0].url.raw_path == b"/v1/jobs/..%2Fkeys%3Fx%3D1%23"


def test_an_upload_is_sent_whole_each_time_and_bytes_need_a_name(tmp_path) -> None:
    path = tmp_path / "sales.csv"
    path.write_bytes(b"region,amount\n" * 10_000)
    said = Said([BUSY, httpx2.Response(201, json={"id": "file_1"})])
    with client_of(said) as (client, _):
        assert client.upload(path)["id"] == "file_1"
        assert said.bodies == [path.read_bytes()] * 2
        assert {request.headers["Content-Length"] for request in said.asked} == {str(path.stat().st_size)}
        assert {request.url.params["name"] for request in said.asked} == {"sales.csv"}
        assert len(said.keys()) == 1
        with pytest.raises(ValueError, match="need a name"):
            client.upload(b"x")
        with pytest.raises(FileNotFoundError):
            client.upload(tmp_path / "none")


def test_a_download_that_breaks_off_is_no_shorter_file() -> None:
    class Broken(httpx2.SyncByteStream):
        def __iter__(self):
            yield b"half"
            raise httpx2.RemoteProtocolError("incomplete")

    answer: Answer = lambda request: httpx2.Response(200, stream=Broken())  # noqa: E731
    with client_of(answer) as (client, _):
        pieces = client.download("file_1")
        assert next(pieces) == b"half"
        with pytest.raises(UnreachableError):
            next(pieces)


# ---- the types, against those of the API


@pytest.mark.parametrize(
    ("shape", "model", "beside"),
    [
        (types.Submission, schemas.Submission, {"agent", "input"}),
        (types.ForkChanges, schemas.Fork, set()),
        (types.Ruling, schemas.RulingIn, {"decision"}),
        (types.Budget, schemas.BudgetIn, set()),
        (types.Webhook, schemas.WebhookIn, set()),
    ],
)
def test_what_can_be_sent_is_what_the_api_takes(shape: type, model: type[BaseModel], beside: set[str]) -> None:
    assert set(get_type_hints(shape)) | beside == set(model.model_fields)


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        (types.Job, views.JobView),
        (types.Usage, views.UsageView),
        (types.Event, views.EventView),
        (types.LedgerRow, views.LedgerRow),
        (types.UsageRow, views.UsageRow),
        (types.Approval, views.ApprovalView),
        (types.File, views.FileView),
        (types.AuditEntry, tenants.AuditEntryView),
    ],
)
def test_what_is_received_is_what_the_api_says(shape: type, model: type[BaseModel]) -> None:
    assert set(get_type_hints(shape)) <= set(model.model_fields)
