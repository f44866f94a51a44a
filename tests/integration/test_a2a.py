"""A2A over real processes, with the SDK's own client: the API, a worker, the simulated model."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from a2a.client import Client
from a2a.types import CancelTaskRequest, GetTaskRequest, SubscribeToTaskRequest, TaskState
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict

from tests.a2a_client import about, message, speaking, states, text, told
from tests.integration.harness import Platform, WorkerProcess, calls, eventually, says, script, serve_api

AGENTS = str(Path(__file__).with_name("approvals.py"))
KEY = "ns_admin-key-of-the-tests"


@pytest.fixture
async def client(platform: Platform, tmp_path: Path) -> AsyncIterator[Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "NIGHTSHIFT_REDIS_URL": platform.redis.url,
        "NIGHTSHIFT_PORT": str(port),
        "NIGHTSHIFT_ADMIN_KEY": KEY,
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "data"),
    }
    api = WorkerProcess(settings, tmp_path / "api.log", serve_api)
    platform.processes.workers.append(api)
    await platform.start_worker(agents=AGENTS)

    async def ready() -> bool:
        assert api.alive, api.tail()
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                return (await http.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    await eventually(ready, "the API", within=30)
    async with speaking(f"http://127.0.0.1:{port}", KEY) as found:
        yield found


async def test_a_job_is_streamed_to_its_end_and_the_context_goes_on(platform: Platform, client: Client):
    events = await told(client, message(text(script(says("one"))), contextId="talk"))
    assert (states(events)[0], states(events)[-1]) == ("SUBMITTED", "COMPLETED")
    assert events[-2].artifact_update.artifact.parts[0].text == "one"
    first = events[0].task.id
    task = await client.get_task(GetTaskRequest(id=first))
    assert (task.artifacts[0].parts[0].text, about(task)["usage"]["model_calls"]) == ("one", 1)
    events = await told(client, message(text(script(says("two"))), contextId="talk"))
    assert states(events)[-1] == "COMPLETED"
    assert [call["messages"] for call in await platform.simulator.calls()] == [1, 3]


async def test_people_answer_and_decide_through_messages(platform: Platform, client: Client):
    wipes = calls("wipe", folder=platform.folder, text="a")
    turns = script(calls("ask_human", question="which?", choices=["red", "blue"]), wipes, says("done"))
    events = await told(client, message(text(turns)))
    assert states(events)[-1] == "INPUT_REQUIRED"
    asked = events[-1].status_update.status.message
    task_id = events[0].task.id
    assert (asked.parts[0].text, asked.task_id) == ("which?", task_id)
    with pytest.raises(InvalidParamsError, match="red, blue"):
        await told(client, message(text("green"), taskId=task_id))
    events = await told(client, message(text("blue"), taskId=task_id))
    assert states(events)[-1] == "INPUT_REQUIRED"
    call = MessageToDict(events[-1].status_update.status.message.parts[0].data)
    assert (call["tool"], call["input"]["text"]) == ("wipe", "a")
    with pytest.raises(InvalidParamsError, match="data part"):
        await told(client, message(text("approve"), taskId=task_id))
    assert platform.trace("wipe") == []
    ruling = {"approval_id": call["approval_id"], "decision": "approve", "input_sha256": call["input_sha256"]}
    events = await told(client, message({"data": ruling}, taskId=task_id))
    assert states(events)[-1] == "COMPLETED"
    assert len(platform.trace("wipe")) == 1


async def test_who_subscribes_hears_of_the_cancellation(platform: Platform, client: Client):
    events = aiter(client.send_message(message(text(script(calls("ask_human", question="which?"), says("done"))))))
    task_id = (await anext(events)).task.id
    assert states([event async for event in events])[-1] == "INPUT_REQUIRED"
    watched = aiter(client.subscribe(SubscribeToTaskRequest(id=task_id)))
    assert (await anext(watched)).task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    cancelled = await client.cancel_task(CancelTaskRequest(id=task_id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    assert states([event async for event in watched]) == ["CANCELED"]
