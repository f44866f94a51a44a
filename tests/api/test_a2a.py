"""The platform as an A2A server, with the SDK's own client: who may do what, and what is refused."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    SendMessageConfiguration,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from jobs.agents import AgentCatalogue, Published
from jobs.keyring import Keyring, Scope
from tests.a2a_client import about, message, speaking, states, text, told
from tests.api.conftest import ADMIN, client_of, serving, submitted

WRITES: list[Scope] = ["jobs:read", "jobs:write"]
NOW = SendMessageConfiguration(return_immediately=True)


@asynccontextmanager
async def client_with(url, link, scopes, tenant="default"):
    _, secret = await Keyring(link).create(tenant, "k", scopes)
    async with speaking(url, secret, streaming=False) as client:
        yield client


def at_once(*parts, **fields):
    request = message(*parts, **fields)
    request.configuration.CopyFrom(NOW)
    return request


async def sent(client, *parts, **fields):
    (event,) = await told(client, at_once(*parts, **fields))
    return event.task


# ---- cards


async def test_the_public_card_is_for_whoever_asks_and_names_no_agent(url, echo):
    async with client_of(url, None) as client:
        answer = await client.get("/.well-known/agent-card.json")
        assert answer.status_code == 200
        assert answer.json()["supportedInterfaces"][0]["url"] == f"{url}/a2a"
        assert "echo" not in answer.text
        refused = await client.post("/a2a", json={"jsonrpc": "2.0", "id": 1, "method": "ListTasks"})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


async def test_the_extended_card_has_the_agents_as_skills(url, link, echo):
    async with client_with(url, link, ["jobs:read"]) as client:
        card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
    assert [skill.id for skill in card.skills] == ["echo"]


async def test_without_the_extra_there_is_no_such_path(settings, monkeypatch):
    monkeypatch.setattr("api.app.find_spec", lambda name: None)
    async with serving(settings) as url, client_of(url) as client:
        for path in ("/.well-known/agent-card.json", "/a2a"):
            assert (await client.get(path)).status_code == 404


# ---- tasks


async def test_a_message_is_a_job_with_the_fields_that_it_names(url, link, api, echo):
    async with client_with(url, link, WRITES) as client:
        task = await sent(
            client, text("one"), text("two"), contextId="talk", job={"budget": {"steps": 7}, "tags": ["a"]}
        )
        job = (await api.get(f"/v1/jobs/{task.id}")).json()
        assert (job["input"], job["session_id"], job["agent"]) == ("one\n\ntwo", "talk", "echo")
        assert (job["budget"]["steps"], job["tags"], task.context_id) == (7, ["a"], "talk")
        task = await sent(client, {"data": {"rows": 3, "share": 0.5}})
        job = (await api.get(f"/v1/jobs/{task.id}")).json()
        assert job["input"] == {"rows": 3, "share": 0.5}
        assert task.context_id == job["session_id"] != ""


async def test_the_job_is_the_keys_own(url, link, echo, worker):
    async with client_with(url, link, WRITES) as client:
        task = await sent(client, text("hello"))
    (key,) = await Keyring(link).list("default")
    assert (await worker.store.get(None, task.id)).spec.submitted_by == key.id


async def test_what_it_changes_is_in_the_audit_log(url, link, api, echo):
    async with client_with(url, link, WRITES) as client:
        task = await sent(client, text("hello"))
        await client.get_task(GetTaskRequest(id=task.id))
        await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(TaskNotFoundError):
            await client.cancel_task(CancelTaskRequest(id="job_none"))
    async with client_with(url, link, ["jobs:read"]) as client:
        with pytest.raises(A2AClientError):
            await sent(client, text("hello"))
    found = (await api.get("/v1/audit")).json()["data"]
    assert [(entry["action"], entry["target"], entry["status"]) for entry in found] == [
        ("submit_job", None, 403),
        ("cancel_job", "job_none", 404),
        ("cancel_job", task.id, 200),
        ("submit_job", task.id, 200),
    ]
    assert {(entry["method"], entry["path"]) for entry in found} == {("POST", "/a2a")}


async def test_a_message_sent_twice_is_one_task(url, link, echo):
    async with client_with(url, link, WRITES) as client:
        first = await sent(client, text("hello"), messageId="m1")
        assert (await sent(client, text("hello"), messageId="m1")).id == first.id
        with pytest.raises(InvalidParamsError) as refusal:
            await sent(client, text("else"), messageId="m1")
    assert refusal.value.data is not None
    assert refusal.value.data["code"] == "idempotency_key_reused"


async def test_which_agent_has_to_be_said_when_there_are_two(url, link, echo):
    other = Published("other", "v1", {**echo.definition, "name": "other"})
    await AgentCatalogue(link).publish([other])
    async with client_with(url, link, WRITES) as client:
        with pytest.raises(InvalidParamsError, match="echo, other"):
            await sent(client, text("hello"))
        assert about(await sent(client, text("hello"), job={"agent": "other"}))["agent"] == "other"


@pytest.mark.parametrize(
    ("parts", "fields", "error", "says"),
    [
        ([{"url": "https://example.org/a.pdf"}], {}, ContentTypeNotSupportedError, "/v1/files"),
        ([{"data": {}}, {"data": {}}], {}, ContentTypeNotSupportedError, "one data part"),
        ([{"data": [1]}], {}, ContentTypeNotSupportedError, "one data part"),
        ([{"text": " "}], {}, InvalidParamsError, "input: "),
        ([], {}, InvalidParamsError, "Validation failed"),
        ([{"text": "x"}], {"job": {"colour": "red"}}, InvalidParamsError, "colour"),
        ([{"text": "x"}], {"job": {"input": "y"}}, InvalidParamsError, "parts"),
        ([{"text": "x"}], {"metadata": {"job": 3}}, InvalidParamsError, "expected an object"),
        ([{"text": "x"}], {"job": {"agent": "nobody"}}, InvalidParamsError, "nobody"),
        ([{"text": "x"}], {"taskId": "job_1"}, TaskNotFoundError, "job_1"),
    ],
)
async def test_what_is_no_job_is_refused(url, link, echo, parts, fields, error, says):
    async with client_with(url, link, ["admin"]) as client:
        with pytest.raises(error, match=says):
            await sent(client, *parts, **fields)


async def test_tasks_are_listed_by_context_and_state(url, link, echo, worker):
    async with client_with(url, link, WRITES) as client:
        first = await sent(client, text("a"), contextId="talk")
        await worker.run("done")
        second = await sent(client, text("b"), contextId="talk")
        third = await sent(client, text("c"))

        async def listed(**asked):
            page = await client.list_tasks(ListTasksRequest(**asked))
            return [task.id for task in page.tasks], page

        assert (await listed())[0] == [third.id, second.id, first.id]
        assert (await listed(context_id="talk"))[0] == [second.id, first.id]
        assert (await listed(status=TaskState.TASK_STATE_SUBMITTED))[0] == [third.id, second.id]
        assert (await listed(status=TaskState.TASK_STATE_REJECTED))[0] == []
        _, page = await listed(status=TaskState.TASK_STATE_COMPLETED, include_artifacts=True)
        assert page.tasks[0].artifacts[0].parts[0].text == "done"
        ids, page = await listed(page_size=2)
        assert ids + (await listed(page_token=page.next_page_token))[0] == [third.id, second.id, first.id]


async def test_an_ended_task_is_not_cancelled_watched_or_talked_to(url, link, echo, worker):
    async with client_with(url, link, ["admin"]) as client:
        task = await sent(client, text("a"))
        await worker.run("done")
        found = await client.get_task(GetTaskRequest(id=task.id))
        assert (found.status.state, found.artifacts[0].parts[0].text) == (TaskState.TASK_STATE_COMPLETED, "done")
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(UnsupportedOperationError, match="asks nothing"):
            await sent(client, text("more"), taskId=task.id)
    async with speaking(url, ADMIN) as client:
        with pytest.raises(UnsupportedOperationError, match="nothing more will happen"):
            await anext(client.subscribe(SubscribeToTaskRequest(id=task.id)))


async def test_push_notifications_are_refused_and_not_forgotten(url, link, echo):
    async with client_with(url, link, WRITES) as client:
        with pytest.raises(PushNotificationNotSupportedError):
            await client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id="job_1", url="https://example.org")
            )
        request = at_once(text("a"))
        request.configuration.task_push_notification_config.url = "https://example.org"
        with pytest.raises(PushNotificationNotSupportedError):
            await told(client, request)


# ---- whose


async def test_scopes_hold(url, link, api, echo):
    job = await submitted(api)
    async with client_with(url, link, ["jobs:read"]) as client:
        for refused in (sent(client, text("x")), client.cancel_task(CancelTaskRequest(id=job["id"])),
                        sent(client, text("x"), taskId=job["id"])):  # fmt: skip
            with pytest.raises(A2AClientError, match="403"):
                await refused
    async with client_with(url, link, ["jobs:write"]) as client:
        with pytest.raises(A2AClientError, match="403"):
            await client.get_task(GetTaskRequest(id=job["id"]))
    assert (await api.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"


async def test_another_tenants_task_is_not_there(url, link, api, echo):
    job = await submitted(api)
    _, secret = await Keyring(link).create("other", "k", ["admin"])
    async with speaking(url, secret) as client:
        attempts = (
            client.get_task(GetTaskRequest(id=job["id"])),
            client.cancel_task(CancelTaskRequest(id=job["id"])),
            anext(client.subscribe(SubscribeToTaskRequest(id=job["id"]))),
            told(client, message(text("x"), taskId=job["id"])),
        )
        for attempt in attempts:
            with pytest.raises(TaskNotFoundError):
                await attempt
        assert list((await client.list_tasks(ListTasksRequest())).tasks) == []


async def test_what_breaks_says_nothing_of_its_cause(url, link, echo, monkeypatch):
    async def broken(*given, **named):
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr("jobs.store.JobStore.get", broken)
    async with client_with(url, link, WRITES) as client:
        with pytest.raises(A2AError, match="went wrong on our side") as error:
            await client.get_task(GetTaskRequest(id="job_1"))
    assert "42" not in str(error.value)


async def test_a_stream_says_what_becomes_of_the_job(url, link, echo, worker):
    _, secret = await Keyring(link).create("default", "k", WRITES)
    async with speaking(url, secret) as client:
        events = aiter(client.send_message(message(text("hello"))))
        heard = [await anext(events)]
        claim = await worker.claim()
        heard.append(await anext(events))
        await worker.end(claim, "fail", "error", output="half", error={"code": "internal", "message": "it broke"})
        heard += [event async for event in events]
    assert states(heard) == ["SUBMITTED", "WORKING", "FAILED"]
    assert heard[2].artifact_update.artifact.parts[0].text == "half"
    assert heard[3].status_update.status.message.parts[0].text == "it broke"
