"""A kill in the middle of a flush leaves files of which some are newer than others; the log must make good for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from memory.embedded import writes
from memory.embedded.engine import Collection, Engine

IDS = [f"3f0c9f7e-2a3c-4b89-9d53-0c1f4f1a7a1{number}" for number in range(4)]


async def write(collection: Collection, *operations: dict[str, Any]) -> None:
    await collection.update(writes.batch({"operations": list(operations)}))


def upsert(*ids: str) -> dict[str, Any]:
    vector = {"text": {"indices": [1], "values": [1.0]}}
    return {"upsert": {"points": [{"id": each, "vector": vector, "payload": {"at": 1}} for each in ids]}}


def set_later_than(limit: int, at: int) -> dict[str, Any]:
    """Sets `at` where it is less than a limit: a condition that its own effect makes false."""
    earlier = {"must": [{"key": "at", "range": {"lt": limit}}]}
    return {"set_payload": {"payload": {"at": at}, "filter": earlier}}


async def test_conditional_writes_outlive_a_kill_between_the_flush_of_indexes_and_of_payloads(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "live")
    engine.create("c", {"sparse_vectors": {"text": {}}})
    live = engine.collections["c"]
    await live.create_index({"field_name": "at", "field_schema": "integer"})
    await write(live, upsert(*IDS))
    live._shard.flush()
    files, killed = tmp_path / "live/collections/c", tmp_path / "killed/collections/c"
    shutil.copytree(files, killed)

    await write(live, set_later_than(2, at=2), upsert("3f0c9f7e-2a3c-4b89-9d53-0c1f4f1a7a19"))
    await write(live, set_later_than(2, at=3), {"delete": {"filter": {"must": [{"has_id": IDS[:1]}]}}})
    shutil.copytree(files / "0/wal", killed / "0/wal", dirs_exist_ok=True)
    live._shard.flush()
    for index in files.glob("0/segments/*/payload_index"):
        shutil.copytree(index, killed / index.relative_to(files), dirs_exist_ok=True)
    wanted = sorted((each["id"], each["payload"]["at"]) for each in (await live.scroll({}))["points"])
    assert [at for _, at in wanted] == [2, 2, 2, 3]
    engine.close()

    again = Engine(tmp_path / "killed")
    points = (await again.collections["c"].scroll({}))["points"]
    assert sorted((each["id"], each["payload"]["at"]) for each in points) == wanted
    assert await again.collections["c"].count({"filter": {"must": [{"key": "at", "range": {"gte": 2}}]}}) == {
        "count": 4
    }
    again.close()
