"""Long-term memory over HTTP."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, get_args

import httpx2
import pytest

from agent_core.types import Json
from api import memories
from jobs.keyring import Keyring
from memory.session import SessionMemory, SessionScope
from tests.api.conftest import client_of, serving, submitted


@pytest.fixture
async def url(with_memory):
    async with serving(with_memory) as url:
        yield url


@pytest.fixture
def ada() -> str:
    """A user of this test alone."""
    return f"ada-{uuid.uuid4().hex}"


async def remember(api: httpx2.AsyncClient, user: str, text: str, **fields: Any) -> Json:
    answer = await api.post("/v1/memories", json={"user": user, "text": text, **fields})
    assert answer.status_code in (200, 201), answer.text
    kept: Json = answer.json()
    return kept


async def listed(api: httpx2.AsyncClient, **query: Any) -> list[Json]:
    answer = await api.get("/v1/memories", params=query)
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["data"]
    return found


def test_the_kinds_are_those_of_memory():
    from memory.points import Kind

    assert get_args(memories.Kind) == get_args(Kind)


async def test_what_is_remembered_is_found_and_says_whose_it_is(api, ada):
    answer = await api.post("/v1/memories", json={"user": ada, "text": " Lives in Oslo. ", "slot": "user.city"})
    assert answer.status_code == 201
    kept = answer.json()
    assert answer.headers["location"] == f"/v1/memories/{kept['id']}"
    assert {name: kept[name] for name in ("object", "user", "text", "kind", "slot", "valid_to", "source")} == {
        "object": "memory", "user": ada, "text": "Lives in Oslo.", "kind": "semantic", "slot": "user.city",
        "valid_to": None, "source": None,
    }  # fmt: skip
    assert kept["id"].startswith("mem_")
    assert "tenant" not in kept
    assert (await api.get(answer.headers["location"])).json() == kept
    await remember(api, ada, "Likes tea.", kind="episodic")
    (found,) = await listed(api, user=ada, query="Where does she live? In Oslo?", explain=True)
    assert found["score"] == pytest.approx(
        (found["why"]["words"] + found["why"]["cosine"]) * found["why"]["recency"], 0.01
    )
    assert {**kept, "score": found["score"], "why": found["why"]} == found
    assert [each["text"] for each in await listed(api, user=ada, kind="episodic")] == ["Likes tea."]
    assert "why" not in (await listed(api, user=ada, query="oslo", k=1))[0]


async def test_what_is_said_again_is_confirmed_and_what_is_said_anew_in_a_slot_supersedes(api, ada):
    oslo = await remember(api, ada, "Lives in Oslo.", slot="user.city")
    again = await api.post("/v1/memories", json={"user": ada, "text": "lives in  OSLO.", "slot": "user.city"})
    assert (again.status_code, again.json()["id"]) == (200, oslo["id"])
    rome = await remember(api, ada, "Lives in Rome.", slot="user.city")
    assert [each["id"] for each in await listed(api, user=ada)] == [rome["id"]]
    assert [each["id"] for each in await listed(api, user=ada, past=True)] == [rome["id"], oslo["id"]]
    history = (await api.get(f"/v1/memories/{rome['id']}/history")).json()["data"]
    assert [(each["text"], each["superseded_by"]) for each in history] == [
        ("Lives in Oslo.", rome["id"]),
        ("Lives in Rome.", None),
    ]


async def test_pages_have_each_memory_once(api, ada):
    for number in range(7):
        await remember(api, ada, f"Fact {number}.")
    seen: list[str] = []
    query: Json = {"user": ada, "limit": 3}
    while True:
        shown = (await api.get("/v1/memories", params=query)).json()
        seen += [each["text"] for each in shown["data"]]
        assert shown["has_more"] == (shown["next_cursor"] is not None)
        if not shown["has_more"]:
            break
        query["after"] = shown["next_cursor"]
    assert seen == [f"Fact {number}." for number in reversed(range(7))]


async def test_a_memory_is_forgotten_by_its_id(api, ada):
    kept = await remember(api, ada, "Lives in Oslo.")
    assert (await api.delete(f"/v1/memories/{kept['id']}")).status_code == 204
    for answer in (await api.get(f"/v1/memories/{kept['id']}"), await api.delete(f"/v1/memories/{kept['id']}")):
        assert (answer.status_code, answer.json()["code"]) == (404, "memory_not_found")
    assert (await api.get("/v1/memories/mem_x")).json()["code"] == "memory_not_found"


async def test_a_replay_is_one_memory_and_brings_no_forgotten_one_back(api, ada, link):
    body, headers = {"user": ada, "text": "The code word is heron."}, {"Idempotency-Key": uuid.uuid4().hex}
    first = await api.post("/v1/memories", json=body, headers=headers)
    again = await api.post("/v1/memories", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.post("/v1/memories", json={**body, "text": "x"}, headers=headers)).status_code == 422
    await api.delete(f"/v1/memories/{first.json()['id']}")
    assert (await api.post("/v1/memories", json=body, headers=headers)).status_code == 404
    for key in await link.command("KEYS", "*"):
        if await link.command("TYPE", key) == b"string":
            assert b"heron" not in await link.command("GET", key)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "user: Field required"),
        ({"user": "a\nb"}, "user"),
        ({"user": "a\u00a0b"}, "printable characters"),
        ({"user": "a", "query": " "}, "expected a text that is not empty"),
        ({"user": "a", "query": "x", "past": "true"}, "past goes without a query alone"),
        ({"user": "a", "k": 3}, "k goes with a query alone"),
        ({"user": "a", "query": "x", "k": 101}, "k: "),
        ({"user": "a", "kind": "procedural"}, "kind: "),
        ({"user": "a", "after": "yesterday"}, "no cursor of this list"),
        ({"user": "a", "tenant": "rival"}, "there is no query parameter 'tenant'"),
    ],
)
async def test_what_a_query_cannot_ask(api, query, says):
    answer = await api.get("/v1/memories", params=query)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [{"text": "x"}, {"user": "a"}, {"user": "a", "text": " "}, {"user": "a", "text": "x" * 4001},
     {"user": "a", "text": "x", "kind": "y"}, {"user": "a", "text": "x", "importance": 1.5},
     {"user": "a", "text": "x", "expires_at": "tomorrow"}, {"user": "a", "text": "x", "tenant": "rival"}],
)  # fmt: skip
async def test_what_cannot_be_remembered(api, body):
    assert (await api.post("/v1/memories", json=body)).status_code == 422


async def test_it_takes_its_scopes(api, url, ada, link):
    kept = await remember(api, ada, "Lives in Oslo.")
    _, reads = await Keyring(link).create("default", "r", ["jobs:read"])
    _, writes = await Keyring(link).create("default", "w", ["memories:write"])
    async with client_of(url, reads) as reader, client_of(url, writes) as writer:
        assert (await reader.get(f"/v1/memories/{kept['id']}")).status_code == 200
        for refused in (
            await reader.post("/v1/memories", json={"user": ada, "text": "x"}),
            await reader.delete(f"/v1/memories/{kept['id']}"),
            await reader.delete("/v1/memories", params={"user": ada}),
            await writer.get("/v1/memories", params={"user": ada}),
        ):
            assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        assert (await writer.delete("/v1/memories", params={"user": ada})).json()["forgotten"] == 1


async def test_a_user_is_forgotten_with_their_sessions_and_with_their_jobs_when_asked(
    api, ada, link, worker, echo, store
):
    await remember(api, ada, "Lives in Oslo.")
    bobs = await remember(api, f"not {ada}", "Lives in Rome.")
    await SessionMemory(link).append(SessionScope("default", "chat"), 0, [{"role": "user", "content": "x"}], user=ada)
    done = await submitted(api, user=ada)
    await worker.run()
    going_on, others = await submitted(api, user=ada), await submitted(api, user="bob")
    first = (await api.delete("/v1/memories", params={"user": ada})).json()
    assert first == {"forgotten": 1, "sessions": 1, "jobs": 0, "unfinished": 0}
    assert await listed(api, user=ada, past=True) == []
    assert (await api.get("/v1/sessions/chat")).status_code == 404
    assert (await api.get(f"/v1/jobs/{done['id']}")).status_code == 200
    again = (await api.delete("/v1/memories", params={"user": ada, "jobs": True})).json()
    assert again == {"forgotten": 0, "sessions": 0, "jobs": 1, "unfinished": 1}
    assert (await api.get(f"/v1/jobs/{done['id']}")).status_code == 404
    for job in (going_on, others):
        assert (await api.get(f"/v1/jobs/{job['id']}")).status_code == 200
    assert (await api.get(f"/v1/memories/{bobs['id']}")).status_code == 200


async def test_without_a_qdrant_it_says_so_and_still_forgets(settings, ada):
    async with serving(settings) as url, client_of(url) as api:
        refused = await api.get("/v1/memories", params={"user": ada})
        assert (refused.status_code, refused.json()["code"]) == (503, "memory_not_configured")
        assert "NIGHTSHIFT_QDRANT_URL" in refused.json()["detail"]
        assert (await api.delete("/v1/memories", params={"user": ada})).json()["forgotten"] == 0


async def test_a_qdrant_that_is_away_is_told_and_used_when_it_is_back(with_memory, ada, port):
    away = with_memory.model_copy(update={"qdrant_url": f"http://127.0.0.1:{port}"})
    async with serving(away) as url, client_of(url) as api:
        answers = await asyncio.gather(*(api.get("/v1/memories", params={"user": ada}) for _ in range(3)))
        for answer in (*answers, await api.delete("/v1/memories", params={"user": ada})):
            assert (answer.status_code, answer.json()["code"]) == (503, "memory_unavailable")
            assert answer.headers["retry-after"] == "2"
            assert str(port) not in answer.text
        assert (await api.get("/readyz")).status_code == 200
