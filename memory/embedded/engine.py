"""The collections of a data directory: each a Qdrant Edge shard, and a description that says which folder it is in.

```
{data_dir}/lock                                    held by the process that owns them
{data_dir}/collections/{name}/collection.json      what was asked for, and the shard's folder
{data_dir}/collections/{name}/{shard}/             Qdrant Edge's own files, its write-ahead log among them
```
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as edge

from memory.embedded import translate, writes

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
COPIED_AT_ONCE = 200
"""Points that a rewrite copies in one go: readers wait for the interpreter's lock for some milliseconds at most."""
FOUND_AT_ONCE = 10_000
"""Ids that a conditional write reads in one go."""
FLUSH_SECONDS = 1.0
"""How soon a write is on the disk itself. It outlives the death of this process at once, through the log."""
PURGE_SECONDS = 1.0
"""A rewrite waits until nothing was deleted for so long, so that many deletions cost one."""


class Collection:
    """One collection. Reads run beside each other and beside writes; writes one after the other."""

    def __init__(self, folder: Path, description: dict[str, Any], shard: edge.EdgeShard) -> None:
        self._folder = folder
        self._description = description
        self._shard = shard
        self._writing = asyncio.Lock()
        self._deleted_at: float | None = time.monotonic() if description.get("purge") else None
        self._written = False
        self._reads: set[asyncio.Future[Any]] = set()

    @classmethod
    def create(cls, folder: Path, body: Any) -> Collection:
        """A new one. Raises UnsupportedError and WrongError."""
        given = translate.only(body, "collection", "vectors", "sparse_vectors")
        description = {
            "vectors": given.get("vectors", {}),
            "sparse_vectors": given.get("sparse_vectors", {}),
            "indexes": {},
            "shard": "0",
            "purge": False,
        }
        config = _config(description)
        shutil.rmtree(folder, ignore_errors=True)  # of a creation that was broken off
        shard = _new_shard(folder / "0", config)
        collection = cls(folder, description, shard)
        collection._save()
        return collection

    @classmethod
    def load(cls, folder: Path) -> Collection:
        """The one that is in a folder; what a rewrite that was broken off left there is removed."""
        description = json.loads((folder / "collection.json").read_text(encoding="utf-8"))
        _remove_others(folder, description["shard"])
        return cls(folder, description, edge.EdgeShard.load(str(folder / description["shard"])))

    # ---- reads

    async def query(self, body: Any) -> dict[str, Any]:
        """The points that a query finds, best first."""
        found = await self._read(self._shard.query, translate.query_request(body))
        return {"points": [translate.record(point) for point in found]}

    async def scroll(self, body: Any) -> dict[str, Any]:
        """A page of points, and where the next begins."""
        found, following = await self._read(self._shard.scroll, translate.scroll_request(body))
        return {"points": [translate.record(point) for point in found], "next_page_offset": following}

    async def count(self, body: Any) -> dict[str, Any]:
        """How many points a filter lets through."""
        return {"count": await self._read(self._shard.count, translate.count_request(body))}

    async def facet(self, body: Any) -> dict[str, Any]:
        """The values of a field and how often each occurs."""
        found = await self._read(self._shard.facet, translate.facet_request(body))
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in found.hits]}

    def info(self) -> dict[str, Any]:
        """Its description and state: `yellow` while what was deleted is still to be taken out of the files."""
        found = self._shard.info()
        schema = {
            name: {"data_type": index if isinstance(index, str) else index["type"], "points": 0}
            for name, index in self._description["indexes"].items()
        }
        params = {
            "vectors": self._description["vectors"],
            "sparse_vectors": self._description["sparse_vectors"],
        }
        return {
            "status": "green" if self._deleted_at is None else "yellow",
            "optimizer_status": "ok",
            "points_count": found.points_count,
            "indexed_vectors_count": found.indexed_vectors_count,
            "segments_count": found.segments_count,
            "payload_schema": schema,
            "config": {"params": params, **FIXED},
        }

    # ---- writes

    async def update(self, operations: Sequence[writes.Operation], deletes: bool = False) -> None:
        """Applies operations in order; when it returns, they outlive the death of this process."""
        async with self._writing:
            if deletes:
                self._mark_for_purge()
            await asyncio.to_thread(self._apply, operations)

    async def create_index(self, body: Any) -> None:
        """Indexes a field of the payload."""
        given = translate.only(body, "index", "field_name", "field_schema")
        field, schema = (translate.needed(given, "index", name) for name in ("field_name", "field_schema"))
        operation = edge.UpdateOperation.create_field_index(field, translate.index_params(schema))
        async with self._writing:
            await asyncio.to_thread(self._apply, [operation])
            self._description["indexes"][field] = schema
            self._save()

    async def create_vector(self, name: str, body: Any) -> None:
        """Adds a dense vector to the collection; points have it once it is given to them."""
        params = translate.needed(translate.only(body, "vector", "dense"), "vector", "dense")
        known = self._description["vectors"].get(name, params)
        if known != params:
            raise translate.WrongError(f"vector `{name}` exists already, as {known}")
        dense = translate.dense_params(params)
        operation = edge.UpdateOperation.create_dense_vector(name, dense.size, dense.distance)
        async with self._writing:
            await asyncio.to_thread(self._apply, [operation])
            self._description["vectors"][name] = params
            self._save()

    async def delete_vector(self, name: str) -> None:
        """Takes a dense vector out of the collection. Raises WrongError when there is none."""
        if name not in self._description["vectors"]:
            raise translate.WrongError(f"Not existing vector name error: {name}")
        async with self._writing:
            await asyncio.to_thread(self._apply, [edge.UpdateOperation.delete_vector_name(name)])
            del self._description["vectors"][name]
            self._save()

    async def tidy(self) -> None:
        """Flushes what was written, and rewrites the shard when a deletion has been quiet for a while."""
        async with self._writing:
            if self._deleted_at is not None and time.monotonic() - self._deleted_at >= PURGE_SECONDS:
                await self._purge()
            elif self._written:
                self._written = False
                await asyncio.to_thread(self._shard.flush)

    async def remove(self) -> None:
        """Closes the shard when what is under way is done, and removes all files."""
        async with self._writing:
            # Without its description it is no collection any more, whatever becomes of the rest.
            (self._folder / "collection.json").unlink()
            self._deleted_at, self._written = None, False
            await self._retire(self._shard)
            await asyncio.to_thread(shutil.rmtree, self._folder)

    def close(self) -> None:
        """Flushes and closes the shard; nothing may be under way."""
        self._shard.flush()
        self._shard.close()

    def _apply(self, operations: Sequence[writes.Operation]) -> None:
        for operation in operations:
            self._written = True
            if isinstance(operation, writes.Conditional):
                # Edge would log the filter and ask it again after a crash, of indexes that a flush may have brought
                # further than the payloads: what was acknowledged could then find nothing. Ids find the same points.
                ids = self._found(operation.filter)
                if ids:
                    self._shard.update(operation.on(ids))
            else:
                self._shard.update(operation)

    def _found(self, wanted: edge.Filter) -> list[Any]:
        ids, offset = [], None
        while True:
            page, offset = self._shard.scroll(
                edge.ScrollRequest(offset=offset, limit=FOUND_AT_ONCE, filter=wanted, with_payload=False)
            )
            ids += [each.id for each in page]
            if offset is None:
                return ids

    def _mark_for_purge(self) -> None:
        self._deleted_at = time.monotonic()
        if not self._description["purge"]:
            self._description["purge"] = True
            self._save()

    async def _read(self, call: Callable[[R], T], request: R) -> T:
        reading = asyncio.get_running_loop().run_in_executor(None, call, request)
        self._reads.add(reading)
        reading.add_done_callback(self._reads.discard)
        return await asyncio.shield(reading)

    async def _purge(self) -> None:
        # Edge's log and storage keep the bytes of what was deleted; a new shard has none of them.
        if self._description["purge"]:
            old, self._shard = self._shard, await asyncio.to_thread(self._copy)
            self._written = False
            await self._retire(old)
        await asyncio.to_thread(_remove_others, self._folder, self._description["shard"])
        self._deleted_at = None

    async def _retire(self, shard: edge.EdgeShard) -> None:
        # Closing a shard under a read's feet would fail the read; leaving it open would let it write on.
        if self._reads:
            await asyncio.wait(set(self._reads))
        await asyncio.to_thread(shard.close)

    def _copy(self) -> edge.EdgeShard:
        """Copies what there is to a new shard, which is the collection's from then on."""
        name = str(int(self._description["shard"]) + 1)
        copy = _new_shard(self._folder / name, _config(self._description))
        for field, schema in self._description["indexes"].items():
            copy.update(edge.UpdateOperation.create_field_index(field, translate.index_params(schema)))
        offset = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=COPIED_AT_ONCE, with_payload=True, with_vector=True)
            found, offset = self._shard.scroll(request)
            points = [edge.Point(each.id, each.vector or {}, each.payload) for each in found]
            copy.update(edge.UpdateOperation.upsert_points(points))
            if offset is None:
                break
        copy.flush()
        self._description |= {"shard": name, "purge": False}
        self._save()
        return copy

    def _save(self) -> None:
        draft = self._folder / "collection.json.new"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(self._description, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / "collection.json")


class Engine:
    """All collections of a data directory, which no other process may have open."""

    def __init__(self, data_dir: Path) -> None:
        """Loads what there is. Raises BlockingIOError when another process has the directory."""
        self._folder = data_dir / "collections"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        described = sorted(path.parent for path in self._folder.glob("*/collection.json"))
        self.collections = {folder.name: Collection.load(folder) for folder in described}

    def create(self, name: str, body: Any) -> None:
        """Makes a collection. Raises FileExistsError, UnsupportedError and WrongError."""
        if name in self.collections:
            raise FileExistsError(f"Wrong input: Collection `{name}` already exists!")
        if not NAME.fullmatch(name):
            raise translate.WrongError(f"collection name {name!r}: expected 1 to 100 letters, digits, _ and -")
        self.collections[name] = Collection.create(self._folder / name, body)

    async def delete(self, name: str) -> bool:
        """Removes a collection and its files; False when there is none."""
        collection = self.collections.pop(name, None)
        if collection is None:
            return False
        await collection.remove()
        return True

    async def keep_tidy(self) -> None:
        """Flushes and rewrites until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            for name, collection in list(self.collections.items()):
                try:
                    await collection.tidy()
                except Exception:  # the disk may be full now and not in a second; reads go on
                    log.exception("collection %s: could not be flushed or rewritten", name)

    def close(self) -> None:
        """Closes everything and lets the directory go."""
        for collection in self.collections.values():
            collection.close()
        os.close(self._lock)


FIXED = {
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "flush_interval_sec": int(FLUSH_SECONDS),
    },
}
"""What clients expect to read of a collection."""


def _config(description: dict[str, Any]) -> edge.EdgeConfig:
    dense = {name: translate.dense_params(each) for name, each in description["vectors"].items()}
    sparse = {name: translate.sparse_params(each) for name, each in description["sparse_vectors"].items()}
    if not dense and not sparse:
        raise translate.UnsupportedError("a collection without vectors")
    return edge.EdgeConfig(vectors=dense or None, sparse_vectors=sparse or None, wal_enabled=True)


def _remove_others(folder: Path, shard: str) -> None:
    for other in folder.iterdir():
        if other.is_dir() and other.name != shard:
            shutil.rmtree(other)


def _new_shard(folder: Path, config: edge.EdgeConfig) -> edge.EdgeShard:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return edge.EdgeShard.create(str(folder), config)
