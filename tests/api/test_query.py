"""A query parameter that no endpoint has is refused, and so is a body where none belongs."""

from __future__ import annotations

import pytest

from tests.api.conftest import submitted


@pytest.mark.parametrize(
    ("path", "there_are"),
    [
        ("/v1/jobs?statsu=failed", "status, agent, tag"),
        ("/v1/jobs?limit=5&page=2", "status, agent, tag"),
        ("/v1/jobs/{job}?wait=0&timeout=3", "there are: wait"),
        ("/v1/jobs/{job}/events?since=1", "after, limit"),
        ("/v1/jobs/{job}/ledger?limit=1", "there are none here"),
        ("/v1/jobs/{job}/explain?x=", "there are none here"),
        ("/v1/jobs/{job}/artifacts?x", "there are none here"),
        ("/v1/agents?name=echo", "there are none here"),
        ("/v1/agents/echo?version=1", "there are none here"),
        ("/v1/keys?limit=1", "there are: tenant"),
    ],
)
async def test_an_unknown_parameter_is_named(api, echo, path, there_are):
    job = await submitted(api)
    answer = await api.get(path.format(job=job["id"]))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    unknown = path.replace("&", "?").split("?")[-1].partition("=")[0]
    assert f"there is no query parameter {unknown!r}" in answer.json()["detail"]
    assert there_are in answer.json()["detail"]


async def test_the_parameters_that_there_are_pass(api, echo):
    job = await submitted(api, tags=["x"])
    query = "status=queued&agent=echo&tag=x&created_after=2020-01-01T00:00:00Z&limit=5"
    assert [found["id"] for found in (await api.get(f"/v1/jobs?{query}")).json()["data"]] == [job["id"]]
    assert (await api.get(f"/v1/jobs/{job['id']}?wait=0")).json()["id"] == job["id"]
    assert (await api.get("/healthz?probe=1")).status_code == 200


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
async def test_an_action_without_fields_takes_none(api, echo, action):
    job = await submitted(api)
    if action == "resume":
        await api.post(f"/v1/jobs/{job['id']}/pause")
    answer = await api.post(f"/v1/jobs/{job['id']}/{action}", json={"reason": "too late"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")
    assert answer.json()["errors"][0]["field"] == "reason"
    assert (await api.post(f"/v1/jobs/{job['id']}/{action}", json=[])).status_code == 422
    assert (await api.post(f"/v1/jobs/{job['id']}/{action}", json={})).status_code == 200
