from __future__ import annotations

import pytest

from tests.api.conftest import client_of, serving, until

BODY = {"name": "ci", "scopes": ["jobs:read"]}


async def test_a_key_is_made_listed_and_revoked(api, url):
    answer = await api.post("/v1/keys", json=BODY)
    key = answer.json()
    assert answer.status_code == 201
    assert key["secret"].startswith("ns_")
    listed = (await api.get("/v1/keys")).json()["data"]
    assert listed == [{name: value for name, value in key.items() if name != "secret"}]
    async with client_of(url, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 204
        assert (await client.get("/v1/jobs")).status_code == 401
    assert (await api.get("/v1/keys")).json()["data"] == []
    assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 404


async def test_another_process_stops_accepting_a_revoked_key(api, url, settings):
    key = (await api.post("/v1/keys", json=BODY)).json()
    async with serving(settings) as elsewhere, client_of(elsewhere, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        await api.delete(f"/v1/keys/{key['id']}")

        async def refused() -> bool:
            return (await client.get("/v1/jobs")).status_code == 401

        await until(refused)


async def test_the_answer_to_a_repeated_request_shows_the_secret_again_and_redis_never_has_it(api, url, link):
    headers = {"Idempotency-Key": "k"}
    first, again = [await api.post("/v1/keys", json=BODY, headers=headers) for _ in range(2)]
    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await api.get("/v1/keys")).json()["data"]) == 1
    secret = first.json()["secret"]
    async with client_of(url, secret) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
    for name in await link.command("KEYS", "*"):
        dumped = await link.command("DUMP", name)
        assert secret[10:].encode() not in dumped


async def test_only_the_bootstrap_key_names_other_tenants(api, url):
    admin = (await api.post("/v1/keys", json={"name": "b", "scopes": ["admin"], "tenant": "b"})).json()
    assert admin["tenant"] == "b"
    async with client_of(url, admin["secret"]) as client:
        assert (await client.post("/v1/keys", json=BODY)).json()["tenant"] == "b"
        for answer in (
            await client.post("/v1/keys", json={**BODY, "tenant": "default"}),
            await client.get("/v1/keys", params={"tenant": "default"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_tenant")
    assert len((await api.get("/v1/keys", params={"tenant": "b"})).json()["data"]) == 2
    assert (await api.delete(f"/v1/keys/{admin['id']}", params={"tenant": "b"})).status_code == 204


@pytest.mark.parametrize(
    "change", [{"scopes": []}, {"scopes": ["root"]}, {"name": ""}, {"tenant": "A b"}, {"secret": "ns_mine"}]
)
async def test_a_wrong_key_is_refused(api, change):
    assert (await api.post("/v1/keys", json={**BODY, **change})).status_code == 422
