from __future__ import annotations

import json

import pytest

from tests.api.conftest import ADMIN, client_of, submitted

FOREIGN = [
    ("GET", "/v1/jobs/{job}"),
    ("GET", "/v1/jobs/{job}?wait=5"),
    ("GET", "/v1/jobs/{job}/events"),
    ("GET", "/v1/jobs/{job}/ledger"),
    ("GET", "/v1/jobs/{job}/explain"),
    ("GET", "/v1/jobs/{job}/artifacts"),
    ("POST", "/v1/jobs/{job}/cancel"),
    ("POST", "/v1/jobs/{job}/pause"),
    ("POST", "/v1/jobs/{job}/resume"),
    ("POST", "/v1/jobs/{job}/retry"),
    ("POST", "/v1/jobs/{job}/fork"),
    ("GET", "/v1/files/{file}"),
    ("DELETE", "/v1/keys/{key}"),
]


async def made(api, tenant: str, *scopes: str) -> dict:
    answer = await api.post("/v1/keys", json={"name": "n", "scopes": scopes, "tenant": tenant})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Basic YTpi", f"Token {ADMIN}", "Bearer ns_wrong", "Bearer " + "x" * 9000]
)
async def test_without_a_valid_key_nothing_is_answered(url, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    async with client_of(url, None) as client:
        for method, path in [
            *FOREIGN,
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/agents"),
            ("GET", "/v1/keys"),
        ]:
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["code"] == "unauthorized"


async def test_a_key_does_what_its_scopes_say(api, echo, url):
    reader = (await made(api, "default", "jobs:read"))["secret"]
    writer = (await made(api, "default", "jobs:write"))["secret"]
    body = {"agent": "echo", "input": "x"}
    async with client_of(url, reader) as read, client_of(url, writer) as write:
        assert (await read.get("/v1/jobs")).status_code == 200
        assert (await write.post("/v1/jobs", json=body)).status_code == 202
        for answer in (await read.post("/v1/jobs", json=body), await write.get("/v1/jobs"), await read.get("/v1/keys")):
            assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


async def test_a_thing_of_another_tenant_answers_as_one_that_is_not_there(api, echo, url):
    theirs = await made(api, "b", "admin")
    async with client_of(url, theirs["secret"]) as other:
        job = await submitted(other)
        file = (await other.post("/v1/files", params={"name": "a"}, content=b"x")).json()
        there = {"job": job["id"], "file": file["id"], "key": theirs["id"]}
        missing = {name: value[:-1] + ("0" if value[-1] != "0" else "1") for name, value in there.items()}
        for method, path in FOREIGN:
            answers = [await api.request(method, path.format(**ids)) for ids in (there, missing)]
            assert [answer.status_code for answer in answers] == [404, 404], path
            foreign, absent = (json.loads(answer.text.replace(answer.json()["request_id"], "")) for answer in answers)
            for name in there:
                foreign = json.loads(json.dumps(foreign).replace(there[name], missing[name]))
            assert foreign == absent
            headers = [set(answer.headers) for answer in answers]
            assert headers[0] == headers[1]
        assert (await other.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"
        assert (await api.get("/v1/jobs")).json()["data"] == []


async def test_a_job_takes_no_file_of_another_tenant(api, echo, url):
    key = (await made(api, "b", "jobs:write"))["secret"]
    file = (await api.post("/v1/files", params={"name": "a"}, content=b"x")).json()["id"]
    async with client_of(url, key) as other:
        answer = await other.post("/v1/jobs", json={"agent": "echo", "input": "x", "files": [file]})
    assert (answer.status_code, answer.json()["code"]) == (422, "file_not_found")


async def test_the_id_of_a_request_is_the_clients_own_when_it_is_a_plain_word(api):
    assert (await api.get("/v1/jobs", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    answer = await api.get("/v1/nothing", headers={"X-Request-Id": "a b"})
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
