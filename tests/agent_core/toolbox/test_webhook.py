"""Signed webhooks: what arrives, once and again, and what the model never sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from agent_core import DefinitionError, Tool
from agent_core.egress import Egress
from agent_core.toolbox import WebhookTarget, send_webhook
from tests.agent_core.toolbox.web import call, dials, error
from tests.receiver import Receiver

SECRET = "whsec_" + "c2VjcmV0IG9mIGEgdGVzdA=="


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


def tool_for(url: str, **limits: Any) -> Tool:
    target = WebhookTarget(SecretStr(f"{url}/hook/token-of-ours"), SecretStr(SECRET))
    return send_webhook({"crm": target}, egress=Egress(allow_private=True, **limits))


async def test_what_arrives_is_signed(receiver: Receiver, tmp_path: Path) -> None:
    data = {"order": "A-1", "note": "größer"}
    result = await call(tool_for(receiver.url), tmp_path, target="crm", event="order.refunded", data=data)
    assert json.loads(result.content) == {"target": "crm", "status": 200}
    (received,) = receiver.received
    assert Webhook(SECRET).verify(received.body, received.headers) == {"type": "order.refunded", "data": data}
    assert received.headers["webhook-id"] == "job_1.toolu_1"
    assert received.path == "/hook/token-of-ours"


async def test_a_repetition_can_be_told(receiver: Receiver, tmp_path: Path) -> None:
    receiver.say(503, 429, 204)
    made = tool_for(receiver.url)
    assert not (await call(made, tmp_path, target="crm", event="e", data={})).is_error
    await call(made, tmp_path, target="crm", event="e", data={})
    assert [r.headers["webhook-id"] for r in receiver.received] == ["job_1.toolu_1"] * 4
    assert {r.body for r in receiver.received} == {receiver.received[0].body}


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (302, 1), (503, 3)])
async def test_what_is_not_taken(receiver: Receiver, tmp_path: Path, status: int, tries: int) -> None:
    receiver.say(*[status] * tries, location="http://169.254.169.254/")
    found = error(await call(tool_for(receiver.url), tmp_path, target="crm", event="e", data={}))
    assert found == {"code": "http_error", "message": f"crm answered {status}", "retryable": tries > 1}
    assert len(receiver.received) == tries


async def test_the_model_sees_names_alone(receiver: Receiver, tmp_path: Path) -> None:
    made = tool_for("http://127.0.0.1:1")
    results = [
        await call(made, tmp_path, target="crm", event="e", data={}),
        await call(made, tmp_path, target="http://evil.example/", event="e", data={}),
    ]
    assert error(results[1])["message"].endswith("the targets are: crm")
    shown = json.dumps([made.definition(), [result.content for result in results]]) + repr(made)
    assert "token-of-ours" not in shown
    assert SECRET not in shown
    assert (made.effect, made.idempotent) == ("write", True)


async def test_targets_are_guarded(tmp_path: Path) -> None:
    target = WebhookTarget(SecretStr("http://localhost:8080/"), SecretStr(SECRET))
    with dials() as seen:
        found = error(await call(send_webhook({"crm": target}), tmp_path, target="crm", event="e", data={}))
    assert found["code"] == "forbidden_target"
    assert [dial for dial in seen if dial[0] == "socket.connect"] == []


async def test_an_event_has_a_size(receiver: Receiver, tmp_path: Path) -> None:
    found = error(await call(tool_for(receiver.url), tmp_path, target="crm", event="e", data={"x": "y" * 300_000}))
    assert (found["code"], receiver.received) == ("too_large", [])


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://169.254.169.254/", SECRET),
        ("ftp://x.example/", SECRET),
        ("https://x.example/", ""),
        ("https://x.example/", "whsec_é"),
    ],
)
def test_a_target_that_cannot_work_is_refused_at_once(url: str, secret: str) -> None:
    with pytest.raises(DefinitionError, match="of 'crm' cannot be used") as caught:
        send_webhook({"crm": WebhookTarget(SecretStr(url), SecretStr(secret))})
    assert not secret or secret not in str(caught.value)


def test_there_must_be_a_target() -> None:
    with pytest.raises(DefinitionError, match="targets is empty"):
        send_webhook({})
