"""Sessions over HTTP."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from agent_core.types import Json
from memory.session import TTL_SECONDS, SessionMemory, SessionScope
from tests.api.conftest import client_of

SCOPE = SessionScope("default", "chat")
SAID: list[Json] = [
    {"role": role, "content": f"{role} {number}"} for number in range(3) for role in ("user", "assistant")
]
SUMMARY: Json = {"role": "user", "content": "[Summary]"}


@pytest.fixture
async def memory(link) -> SessionMemory:
    memory = SessionMemory(link)
    assert await memory.append(SCOPE, 0, SAID)
    return memory


async def test_a_session_shows_what_was_said(api, memory):
    answer = await api.get("/v1/sessions/chat")
    assert answer.status_code == 200
    shown = answer.json()
    left = datetime.fromisoformat(shown.pop("expires_at")).timestamp() - time.time()
    assert TTL_SECONDS - 60 < left <= TTL_SECONDS + 1
    said = [{"offset": offset, "is_summary": False, **message} for offset, message in enumerate(SAID)]
    about = {"id": "chat", "object": "session", "length": 6, "generation": 0}
    assert shown == {**about, "data": said, "has_more": False, "next_cursor": None}


async def test_offsets_and_pages_stay_after_a_compaction(api, memory):
    first = (await api.get("/v1/sessions/chat?limit=2")).json()
    assert ([m["offset"] for m in first["data"]], first["has_more"], first["next_cursor"]) == ([0, 1], True, "1")
    await memory.compact(SCOPE, 0, 3, SUMMARY)
    rest = (await api.get("/v1/sessions/chat", params={"after": first["next_cursor"], "limit": 2})).json()
    assert [(m["offset"], m["is_summary"], m["content"]) for m in rest["data"]] == [
        (2, True, "[Summary]"),
        (3, False, "assistant 1"),
    ]
    assert (rest["length"], rest["generation"], rest["next_cursor"]) == (6, 1, "3")
    last = (await api.get("/v1/sessions/chat", params={"after": 3, "limit": 2})).json()
    assert ([m["offset"] for m in last["data"]], last["has_more"]) == ([4, 5], False)
    assert (await api.get("/v1/sessions/chat", params={"after": 5})).json()["data"] == []


async def test_another_tenants_session_is_as_one_that_is_not_there(url, api, link):
    await SessionMemory(link).append(SessionScope("rival", "theirs"), 0, SAID)
    answers = [(await api.get(f"/v1/sessions/{name}")).json() for name in ("theirs", "nobodys")]
    for answer in answers:
        answer.pop("request_id")
    assert answers[0] == answers[1]
    assert (answers[0]["status"], answers[0]["code"]) == (404, "session_not_found")
    async with client_of(url, None) as stranger:
        assert (await stranger.get("/v1/sessions/chat")).status_code == 401


async def test_a_name_with_a_slash(api, link):
    await SessionMemory(link).append(SessionScope("default", "team/chat"), 0, SAID)
    assert (await api.get("/v1/sessions/team%2Fchat")).json()["id"] == "team/chat"


@pytest.mark.parametrize("query", ["after=x", "after=-2", "limit=0", "limit=201", "before=1"])
async def test_what_a_query_cannot_ask(api, memory, query):
    assert (await api.get(f"/v1/sessions/chat?{query}")).status_code == 422
