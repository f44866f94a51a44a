from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from jobs import keys
from jobs.keyring import Keyring
from jobs.link import milliseconds
from jobs.recent import Recent
from jobs.records import rfc3339
from tests.api.conftest import client_of, serving, submitted, until, until_ready
from tests.api.test_events import STREAM
from tests.api.test_process import started

BODY = {"name": "ci", "scopes": ["jobs:read"]}


async def test_a_key_is_made_listed_and_revoked(api, url):
    answer = await api.post("/v1/keys", json=BODY)
    key = answer.json()
    assert answer.status_code == 201
    assert key["secret"].startswith("ns_")
    assert key["expires_at"] is None
    listed = (await api.get("/v1/keys")).json()["data"]
    assert listed == [{name: value for name, value in key.items() if name != "secret"}]
    async with client_of(url, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 204
        assert (await client.get("/v1/jobs")).status_code == 401
    assert (await api.get("/v1/keys")).json()["data"] == []
    assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 404


async def until_refused(client: httpx2.AsyncClient) -> None:
    async def refused() -> bool:
        return (await client.get("/v1/jobs")).status_code == 401

    await until(refused)


async def test_another_process_stops_accepting_a_revoked_key(api, redis_url, port, tmp_path):
    key = (await api.post("/v1/keys", json=BODY)).json()
    process = await started(redis_url, port, tmp_path / "other")
    try:
        async with client_of(f"http://127.0.0.1:{port}", key["secret"]) as client:
            await until_ready(client)
            assert (await client.get("/v1/jobs")).status_code == 200
            assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 204
            await until_refused(client)
    finally:
        process.terminate()
        await process.communicate()


@pytest.fixture
async def remembering(api, settings, monkeypatch) -> AsyncIterator[str]:
    """The URL of another process, which remembers for an hour what it is not told of, and listens."""
    monkeypatch.setattr("api.app.Recent", lambda: Recent(3600))
    async with serving(settings) as elsewhere:
        await told_of_a_revoked_key(api, elsewhere)  # or its subscription began meanwhile
        yield elsewhere


async def told_of_a_revoked_key(api: httpx2.AsyncClient, elsewhere: str) -> None:
    key = (await api.post("/v1/keys", json=BODY)).json()
    async with client_of(elsewhere, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        await api.delete(f"/v1/keys/{key['id']}")
        await until_refused(client)


async def test_it_is_told_and_does_not_wait_until_it_has_forgotten_the_key(api, remembering):
    await told_of_a_revoked_key(api, remembering)


async def test_what_it_was_not_told_of_is_forgotten_with_the_connection(api, remembering, link):
    key = (await api.post("/v1/keys", json=BODY)).json()
    async with client_of(remembering, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        (digest,) = await link.command("HVALS", keys.api_keys("default"))
        await link.command("DEL", keys.api_key(digest.decode()))
        assert (await client.get("/v1/jobs")).status_code == 200
        await link.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until_refused(client)


async def test_a_process_that_is_not_told_finds_out(api, settings, link):
    key = (await api.post("/v1/keys", json=BODY)).json()
    async with serving(settings) as elsewhere, client_of(elsewhere, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        (digest,) = await link.command("HVALS", keys.api_keys("default"))
        await link.command("DEL", keys.api_key(digest.decode()))
        await until_refused(client)


async def test_the_streams_of_a_revoked_key_end(api, url, echo):
    key = (await api.post("/v1/keys", json=BODY)).json()
    job = await submitted(api)
    async with (
        client_of(url, key["secret"]) as client,
        client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=STREAM) as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines)
        await api.delete(f"/v1/keys/{key['id']}")
        async with asyncio.timeout(20):
            assert "event: job.completed" not in [line async for line in lines]


async def test_a_key_expires_and_stays_listed(api, url, link):
    now = milliseconds()
    made = await api.post("/v1/keys", json={**BODY, "expires_at": rfc3339(now + 3_600_000)})
    key = made.json()
    assert (made.status_code, key["expires_at"]) == (201, rfc3339(now + 3_600_000))
    async with client_of(url, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        digest = (await link.command("HGET", keys.api_keys("default"), key["id"])).decode()
        await link.command("HSET", keys.api_key(digest), "expires_ms", now - 1)
        await link.command("PUBLISH", keys.CHANGED, keys.api_key(digest))
        await until_refused(client)
        answer = await client.get("/v1/jobs")
        assert (answer.json()["code"], "www-authenticate" in answer.headers) == ("key_expired", True)
    assert [listed["id"] for listed in (await api.get("/v1/keys")).json()["data"]] == [key["id"]]
    assert (await api.delete(f"/v1/keys/{key['id']}")).status_code == 204


async def test_a_key_that_is_remembered_expires_on_the_minute(link):
    keyring = Keyring(link, recent=Recent(3600))
    _, secret = await keyring.create("t", "k", ["jobs:read"], expires_ms=milliseconds() + 150)
    before = await keyring.authenticate(secret)
    assert before is not None

    async def expired() -> bool:
        principal = await keyring.authenticate(secret)
        return principal is not None and principal.expired

    await until(expired)


async def test_no_key_makes_one_that_outlives_it(api, url):
    now = milliseconds()
    body = {"name": "n", "scopes": ["admin"]}
    short = (await api.post("/v1/keys", json={**body, "expires_at": rfc3339(now + 60_000)})).json()
    async with client_of(url, short["secret"]) as client:
        for given in (body, {**body, "expires_at": rfc3339(now + 60_001)}):
            answer = await client.post("/v1/keys", json=given)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert (await client.post("/v1/keys", json={**body, "expires_at": rfc3339(now + 60_000)})).status_code == 201
    past = await api.post("/v1/keys", json={**body, "expires_at": "2026-01-01T00:00:00Z"})
    assert (past.status_code, past.json()["code"]) == (422, "invalid_request")
    assert len((await api.get("/v1/keys")).json()["data"]) == 2


async def test_when_a_key_was_used_is_shown_and_written_once_a_minute(api, url, link):
    key = (await api.post("/v1/keys", json=BODY)).json()
    assert key["last_used_at"] is None
    before = milliseconds()
    async with client_of(url, key["secret"]) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        (listed,) = (await api.get("/v1/keys")).json()["data"]
        assert rfc3339(before) <= listed["last_used_at"] <= rfc3339(milliseconds())
        await link.command("DEL", keys.keys_used("default"))
        assert (await client.get("/v1/jobs")).status_code == 200
        assert (await api.get("/v1/keys")).json()["data"][0]["last_used_at"] is None


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
