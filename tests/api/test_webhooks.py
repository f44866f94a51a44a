"""Webhook endpoints over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from agent_core.egress import Egress
from agent_core.redaction import Redactor
from agent_core.types import Json
from jobs.link import RedisLink
from jobs.outbox import DISABLED, EVENTS
from jobs.stats import Stats
from jobs.webhooks import MOST_ENDPOINTS, Webhooks
from tests.agent_core.toolbox.test_egress import FORBIDDEN
from tests.agent_core.toolbox.web import dials
from tests.api.conftest import Worker, client_of, serving, submitted
from tests.receiver import Receiver
from worker.webhooks import Dispatcher

HOOK = "http://93.184.216.34/hook"
AT = "/v1/webhook_endpoints"
UNKNOWN = "whk_" + "0" * 32


async def made(api: httpx2.AsyncClient, **body: Any) -> Json:
    answer = await api.post(AT, json={"url": HOOK, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{AT}/{answer.json()['id']}"
    found: Json = answer.json()
    return found


async def deliver(link: RedisLink) -> None:
    """What a worker does; its receivers are on loopback."""
    await Dispatcher(link, Redactor(), Stats(), Egress(allow_private=True)).sweep()


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# ---- endpoints


async def test_an_endpoint_is_made_shown_changed_and_removed(api):
    endpoint = await made(api, events=["job.completed", DISABLED], description="the shop")
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert endpoint["id"].startswith("whk_")
    assert (endpoint["url"], endpoint["enabled"], endpoint["failing_since"]) == (HOOK, True, None)
    at = f"{AT}/{endpoint['id']}"
    assert (await api.get(at)).json() == endpoint
    assert (await api.get(AT)).json() == {"data": [endpoint], "has_more": False, "next_cursor": None}
    changed = (await api.patch(at, json={"enabled": False, "events": None})).json()
    assert (changed["enabled"], changed["disabled_reason"], changed["events"]) == (False, "by_request", None)
    assert (changed["url"], changed["description"]) == (HOOK, "the shop")
    assert code(await api.post(f"{at}/test")) == (409, "endpoint_disabled")
    changed = (await api.patch(at, json={"enabled": True, "url": f"{HOOK}2", "description": None})).json()
    assert (changed["enabled"], changed["disabled_at"], changed["url"]) == (True, None, f"{HOOK}2")
    assert changed["description"] is None
    assert (await api.delete(at)).status_code == 204
    assert code(await api.get(at)) == code(await api.delete(at)) == (404, "endpoint_not_found")


async def test_no_answer_shows_a_secret_again(api, link):
    endpoint = await made(api)
    at = f"{AT}/{endpoint['id']}"
    fresh = (await api.post(f"{at}/rotate_secret")).json()["secret"]
    assert fresh != endpoint["secret"]
    assert await Webhooks(link).signing(endpoint["id"]) == [fresh, endpoint["secret"]]
    await api.post(f"{at}/test")
    answers = [await api.get(path) for path in (at, AT, f"{at}/deliveries")]
    answers += [await api.patch(at, json={"description": "d"}), await api.post(f"{at}/test")]
    for answer in answers:
        assert answer.status_code < 300
        assert "whsec_" not in answer.text


async def test_a_repeated_request_shows_the_secret_that_it_made(api):
    headers = {"Idempotency-Key": "k"}
    first, again = [await api.post(AT, json={"url": HOOK}, headers=headers) for _ in range(2)]
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await api.get(AT)).json()["data"]) == 1
    at, headers = f"{AT}/{first.json()['id']}/rotate_secret", {"Idempotency-Key": "r"}
    rotated = [(await api.post(at, json={"overlap_seconds": 0}, headers=headers)).json()["secret"] for _ in range(2)]
    assert len({*rotated, first.json()["secret"]}) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "https://example.com", "events": []}, "events"),
        ({"url": "https://example.com", "events": ["job.done"]}, "events.0"),
        ({"url": "https://example.com", "events": ["message.delta"]}, "events.0"),
        ({"url": "https://example.com", "secret": "s"}, "secret"),
        ({"url": "https://a:b@example.com"}, "url"),
    ],
)
async def test_what_makes_no_sense_is_refused(api, body, field):
    answer = await api.post(AT, json=body)
    assert code(answer) == (422, "invalid_fields")
    assert answer.json()["errors"][0]["field"] == field
    if "events" in body:
        assert all(event in answer.text for event in EVENTS) or not body["events"]


async def test_a_tenant_has_so_many_endpoints_and_no_more(api):
    for _ in range(MOST_ENDPOINTS):
        await made(api)
    assert code(await api.post(AT, json={"url": HOOK})) == (409, "too_many_endpoints")


# ---- where they may lead


async def test_what_is_forbidden_is_refused_when_it_is_named(api, echo):
    known = (await made(api))["id"]
    with dials() as seen:
        for url in FORBIDDEN:
            answers = [await api.post(AT, json={"url": url}), await api.patch(f"{AT}/{known}", json={"url": url})]
            if "localhost" not in url.lower():  # a name is resolved when it is dialled
                job = {"agent": "echo", "input": "x", "webhook": {"url": url}}
                answers.append(await api.post("/v1/jobs", json=job))
            for answer in answers:
                assert answer.status_code == 422, url
                assert answer.json()["code"] in ("forbidden_target", "invalid_fields")
    own = {"socket.getaddrinfo", "socket.connect"}
    assert not [dial for dial in seen if dial[0] not in own]
    assert (await api.get(f"{AT}/{known}")).json()["url"] == HOOK


async def test_private_targets_may_be_allowed(settings, echo):
    open_settings = settings.model_copy(update={"webhook_allow_private": True})
    async with serving(open_settings) as url, client_of(url) as api:
        await made(api, url="http://127.0.0.1:9/hook")
        await submitted(api, webhook={"url": "http://10.0.0.1:9/hook"})
        assert code(await api.post(AT, json={"url": "http://169.254.169.254/"})) == (422, "forbidden_target")


# ---- deliveries


async def test_a_job_is_told_and_the_log_says_so(api, echo, worker: Worker, link, receiver: Receiver):
    created = await Webhooks(link).create("default", receiver.url, ["job.completed"], None, "whsec_" + "A" * 43 + "=")
    at = f"{AT}/{created.id}"
    job = await submitted(api)
    await worker.run()
    receiver.say(500)
    await deliver(link)
    (delivery,) = (await api.get(f"{at}/deliveries", params={"status": "pending"})).json()["data"]
    (got,) = receiver.take()
    assert (delivery["type"], delivery["job_id"], delivery["request"]) == ("job.completed", job["id"], got.json)
    assert [tried["status"] for tried in delivery["tries"]] == [500]
    assert delivery["next_try_at"] is not None
    again = await api.post(f"{at}/deliveries/{delivery['id']}/redeliver")
    assert again.status_code == 202
    await deliver(link)
    shown = (await api.get(f"{at}/deliveries/{delivery['id']}")).json()
    assert (shown["status"], [tried["status"] for tried in shown["tries"]]) == ("delivered", [500, 200])
    since = {"since": delivery["created_at"]}
    assert (await api.post(f"{at}/redeliver", json=since)).json() == {"deliveries": 1}
    assert (await api.post(f"{at}/redeliver", json={**since, "only_failed": True})).json() == {"deliveries": 0}


async def test_deliveries_come_in_pages(api, link, receiver: Receiver):
    created = await Webhooks(link).create("default", receiver.url, None, None, "whsec_" + "A" * 43 + "=")
    at = f"{AT}/{created.id}"
    tests = [(await api.post(f"{at}/test")).json()["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        page = (await api.get(f"{at}/deliveries", params={"limit": 2, **({"after": after} if after else {})})).json()
        seen += [one["id"] for one in page["data"]]
        after = page["next_cursor"]
        assert page["has_more"] is (after is not None)
        if after is None:
            break
    assert sorted(seen) == sorted(tests)
    await deliver(link)
    assert {one.json["type"] for one in receiver.take()} == {"webhook.test"}
    assert (await api.get(f"{at}/deliveries", params={"status": "pending"})).json()["data"] == []


async def test_the_webhooks_of_jobs_are_an_endpoint_of_their_own(api, echo, link):
    job = await submitted(api, webhook={"url": HOOK, "events": ["job.queued"]})
    (delivery,) = (await api.get(f"{AT}/jobs/deliveries")).json()["data"]
    assert (delivery["job_id"], delivery["endpoint_id"]) == (job["id"], "jobs")
    secret = (await api.post(f"{AT}/jobs/rotate_secret", json={"overlap_seconds": 0})).json()["secret"]
    assert await Webhooks(link).signing("jobs:default") == [secret]
    assert (await api.get(f"{AT}/jobs")).json()["url"] is None
    refused = [await api.delete(f"{AT}/jobs"), await api.patch(f"{AT}/jobs", json={"enabled": False})]
    assert [code(answer) for answer in refused] == [(422, "endpoint_of_jobs")] * 2


# ---- who may


async def test_another_tenants_are_as_if_they_did_not_exist(api, url):
    endpoint = await made(api)
    delivery = (await api.post(f"{AT}/{endpoint['id']}/test")).json()["id"]
    key = (await api.post("/v1/keys", json={"name": "k", "scopes": ["admin"], "tenant": "other"})).json()["secret"]
    async with client_of(url, key) as other:
        own = (await made(other))["id"]
        assert [one["id"] for one in (await other.get(AT)).json()["data"]] == [own]
        calls: list[tuple[str, str, Json | None]] = [
            ("GET", "", None),
            ("PATCH", "", {"enabled": False}),
            ("DELETE", "", None),
            ("POST", "/rotate_secret", None),
            ("POST", "/test", None),
            ("GET", "/deliveries", None),
            ("GET", f"/deliveries/{delivery}", None),
            ("POST", f"/deliveries/{delivery}/redeliver", None),
            ("POST", "/redeliver", {"since": "2026-01-01T00:00:00Z"}),
        ]
        for method, path, body in calls:
            found = [await other.request(method, f"{AT}/{one}{path}", json=body) for one in (endpoint["id"], UNKNOWN)]
            foreign, missing = found
            assert code(foreign) == code(missing) == (404, "endpoint_not_found")
            assert foreign.json()["detail"].replace(endpoint["id"], UNKNOWN) == missing.json()["detail"]
        for way in (own, "jobs"):
            assert code(await other.get(f"{AT}/{way}/deliveries/{delivery}")) == (404, "delivery_not_found")
    assert (await api.get(f"{AT}/{endpoint['id']}")).json()["enabled"] is True


async def test_it_takes_a_scope(api, url):
    for scope, status in (("webhooks:write", 200), ("jobs:read", 403)):
        key = (await api.post("/v1/keys", json={"name": "k", "scopes": [scope]})).json()["secret"]
        async with client_of(url, key) as client:
            assert (await client.get(AT)).status_code == status
