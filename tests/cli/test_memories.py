"""Long-term memory from the command line, on a platform with its embedded one."""

from __future__ import annotations

import asyncio
import json
import uuid

import psutil
import pytest

from tests.cli.conftest import Cli
from tests.cli.harness import Result, Up
from tests.memory.embedding_server import embedding_server


@pytest.fixture
def ada() -> str:
    """A user of this test alone."""
    return f"ada-{uuid.uuid4().hex}"


def test_a_memory_from_its_beginning_to_its_end(cli: Cli, platform: Up, ada: str) -> None:
    oslo = cli("memories", "remember", ada, "Ada lives in Oslo.", "--slot", "user.city").out.strip()
    assert oslo.startswith("mem_")
    rome = cli("memories", "remember", ada, "Ada lives in Rome.", "--slot", "user.city", "--json").json
    assert rome["text"] == "Ada lives in Rome."
    head, row = cli("memories", "search", ada, "Where does Ada live?", "--explain").out.splitlines()
    assert head.split("\t") == ["memory", "score", "why", "slot", "said", "until", "text"]
    assert row.split("\t")[0] == rome["id"]
    assert "bm25" in row
    assert len(cli("memories", "list", ada).out.splitlines()) == 2
    assert [each["id"] for each in cli("memories", "list", ada, "--past", "--json").json["data"]] == [rome["id"], oslo]
    assert [each["id"] for each in cli("memories", "history", oslo, "--json").json["data"]] == [oslo, rome["id"]]
    assert f"superseded_by: {rome['id']}" in cli("memories", "show", oslo).out
    assert cli("memories", "forget", oslo).out == f"{oslo} forgotten\n"
    assert (cli("memories", "show", oslo).status, "there is no such memory" in cli("memories", "show", oslo).err) == (
        2,
        True,
    )


def test_forgetting_a_user_asks_first(cli: Cli, platform: Up, ada: str) -> None:
    cli("memories", "remember", ada, "Ada lives in Oslo.")
    kept = cli("memories", "forget-user", ada, stdin="n\n")
    assert (kept.status, kept.out.strip()) == (1, "")
    assert f"Delete all memories and sessions of {ada}?" in kept.err
    done = cli("memories", "forget-user", ada, "--jobs", stdin="y\n")
    assert done.out.endswith("forgotten: 1 memories, 0 sessions, 0 jobs\n")
    assert cli("memories", "forget-user", ada, "--yes", "--json").json["forgotten"] == 0


async def test_the_doctor_and_a_new_embedder(cli: Cli, platform: Up, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*words: str) -> Result:
        return await asyncio.to_thread(cli, *words)

    async def memory() -> dict[str, str]:
        (found,) = [check for check in (await run("doctor", "--json")).json if check["check"] == "memory"]
        return dict(found)

    await run("memories", "remember", ada, "Ada lives in Oslo.")
    found = (await memory())["detail"]
    assert found.startswith("Nightshift embedded memory")
    assert found.endswith("no embedder: it finds by words alone")
    refused = await run("memories", "reembed")
    assert (refused.status, "NIGHTSHIFT_EMBEDDER is not set" in refused.err) == (2, True)
    async with embedding_server() as server:
        for name, value in {"": "openai", "_URL": server.url, "_MODEL": "m", "_SIZE": "2"}.items():
            monkeypatch.setenv(f"NIGHTSHIFT_EMBEDDER{name}", value)
        waiting = await memory()
        assert "have no vector of it" in waiting["detail"]
        assert "nightshift memories reembed" in waiting["fix"]
        done = await run("memories", "reembed")
        assert (done.status, done.out.endswith(" memories were given a vector\n")) == (0, True)
        assert " of " in done.err
        assert (await run("memories", "reembed")).out == "0 memories were given a vector\n"
        assert (await memory())["fix"] == ""
    monkeypatch.setenv("NIGHTSHIFT_QDRANT_URL", "http://127.0.0.1:9")
    assert "jobs go on without memory" in (await memory())["fix"]
    assert (await run("memories", "reembed")).status == 3


def test_the_doctor_says_when_the_key_is_wrong(cli: Cli, platform: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = json.loads((platform.data_dir / "lock").read_text())
    monkeypatch.setenv("NIGHTSHIFT_QDRANT_URL", holder["qdrant_url"])
    monkeypatch.setenv("NIGHTSHIFT_QDRANT_API_KEY", "wrong")
    (found,) = [check for check in cli("doctor", "--json").json if check["check"] == "memory"]
    assert not found["ok"]
    assert found["fix"] == "correct NIGHTSHIFT_QDRANT_API_KEY"
    assert "wrong" not in found["detail"]


async def test_a_killed_memory_comes_back_with_what_it_had(cli: Cli, platform: Up, ada: str) -> None:
    assert (await asyncio.to_thread(cli, "memories", "remember", ada, "Ada lives in Oslo.")).status == 0
    owner = platform.children()["memory"]
    owner.kill()
    psutil.wait_procs([owner])
    async with asyncio.timeout(30):
        while (found := await asyncio.to_thread(cli, "memories", "list", ada, "--json")).status != 0:
            assert "long-term memory is away" in found.err
    assert [each["text"] for each in found.json["data"]] == ["Ada lives in Oslo."]
