"""A tenant's limits over HTTP."""

from __future__ import annotations

import pytest

from tests.api.conftest import client_of

NONE = {"scope": "tenant", "running": None, "requests_per_minute": None, "burst": None}


async def test_limits_are_set_listed_and_lifted(api, echo):
    assert (await api.get("/v1/limits")).json() == {"data": [NONE], "has_more": False, "next_cursor": None}
    answer = await api.put("/v1/limits", json={"scope": "tenant", "running": 5, "requests_per_minute": 6000})
    assert (answer.status_code, answer.json()) == (200, {**NONE, "running": 5, "requests_per_minute": 6000})
    answer = await api.put("/v1/limits", json={"scope": "agent:echo", "running": 2})
    assert answer.json() == {**NONE, "scope": "agent:echo", "running": 2}
    shown = (await api.put("/v1/limits", json={"scope": "tenant", "requests_per_minute": None})).json()
    assert shown == {**NONE, "running": 5}
    assert (await api.get("/v1/limits")).json()["data"] == [shown, answer.json()]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scope": "user:x"}, "invalid_scope"),
        ({"scope": "agent:echo", "burst": 1}, "invalid_scope"),
        ({"scope": "agent:unheard-of", "running": 1}, "agent_not_found"),
        ({"running": 0}, "invalid_fields"),
        ({"running": "5"}, "invalid_fields"),
        ({"burst": 10**7}, "invalid_fields"),
        ({"tenant": "A b"}, "invalid_fields"),
        ({"scope": None}, "invalid_fields"),
        ({"jobs": 3}, "invalid_fields"),
    ],
)
async def test_limits_that_make_no_sense_are_refused_and_not_kept(api, echo, change, code):
    answer = await api.put("/v1/limits", json={"scope": "tenant", **change})
    assert (answer.status_code, answer.json()["code"]) == (404 if code == "agent_not_found" else 422, code)
    assert (await api.get("/v1/limits")).json()["data"] == [NONE]


async def test_the_bootstrap_key_sets_a_tenants_limits_and_its_admin_those_of_its_agents(api, url, echo):
    made = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    body = {"scope": "tenant", "running": 3}
    async with client_of(url, made["secret"]) as other:
        for answer, code in (
            (await other.put("/v1/limits", json=body), "operators_limit"),
            (await other.put("/v1/limits", json={**body, "tenant": "default"}), "foreign_tenant"),
            (await other.get("/v1/limits", params={"tenant": "default"}), "foreign_tenant"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, code)
        assert (await api.put("/v1/limits", json={**body, "tenant": "b"})).status_code == 200
        of_agent = (await other.put("/v1/limits", json={"scope": "agent:echo", "running": 1})).json()
        limits = [{**NONE, "running": 3}, of_agent]
        assert (await other.get("/v1/limits")).json()["data"] == limits
        assert (await api.get("/v1/limits", params={"tenant": "b"})).json()["data"] == limits
        assert (await api.get("/v1/limits")).json()["data"] == [NONE]


async def test_limits_are_for_admins(api, url):
    made = (await api.post("/v1/keys", json={"name": "r", "scopes": ["jobs:read", "jobs:write"]})).json()
    async with client_of(url, made["secret"]) as client:
        for answer in (await client.get("/v1/limits"), await client.put("/v1/limits", json={"scope": "tenant"})):
            assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
