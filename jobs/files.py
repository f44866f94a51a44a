"""Files: what clients upload and what tools make. Records are in Redis; contents are kept once each, by their SHA-256.

The place for contents is an fsspec URL: `file:///srv/files`, or an object store such as `s3://bucket/prefix` when its
fsspec driver is installed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

from agent_core.types import Json
from jobs import keys
from jobs.errors import InvalidError, NotFoundError, StaleAttemptError, UnavailableError
from jobs.link import RedisLink, milliseconds
from jobs.records import new_id, rfc3339
from jobs.scripts import script

CHUNK = 1 << 20
LONGEST_NAME = 255
LOOK_AGAIN_SECONDS = 0.05
MOST_LOOKS = 1300
"""A little longer, in all, than a pruner may take to delete a content."""
FORBIDDEN_IN_NAMES = frozenset("/\\") | {chr(code) for code in (*range(32), 127)}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's record. `job_id` names the job whose artifact it is, or is None for an upload."""

    id: str
    tenant: str
    name: str
    bytes: int
    sha256: str
    job_id: str | None
    created_ms: int

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "object": "file",
            "name": self.name,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "job_id": self.job_id,
            "created_at": rfc3339(self.created_ms),
        }


@dataclass(frozen=True, slots=True)
class Content:
    """What was written: a content's digest and its size in bytes."""

    sha256: str
    bytes: int


def check_name(name: str) -> str:
    """The name, when it is a plain file name. Raises InvalidError for a path, `..`, control characters, a long one."""
    if name in ("", ".", "..") or FORBIDDEN_IN_NAMES & set(name) or len(_encoded(name)) > LONGEST_NAME:
        raise InvalidError(
            f"{name[:80]!r} is no file name; accepted are 1 to {LONGEST_NAME} bytes without separators",
            code="invalid_file_name",
        )
    return name


class FileStore:
    """Files of all tenants. `location` is an fsspec URL; nothing is touched before the first use."""

    def __init__(self, link: RedisLink, location: str) -> None:
        self._link = link
        self._location = location
        self._opened: tuple[Any, str] | None = None

    async def save(
        self, tenant: str, name: str, data: bytes | AsyncIterator[bytes], *, job_id: str | None = None, token: str = ""
    ) -> FileRecord:
        """Keeps a file; returns after both content and record are written. Raises as `register` does."""
        check_name(name)
        return await self.register(tenant, name, await self.write(data), job_id=job_id, token=token)

    async def write(self, data: bytes | AsyncIterator[bytes]) -> Content:
        """Writes a content that no record names yet. One that is there already is not written twice."""
        filesystem, root = await asyncio.to_thread(self._open)
        draft = f"{root}/drafts/{secrets.token_hex(16)}"
        await asyncio.to_thread(filesystem.makedirs, f"{root}/drafts", exist_ok=True)
        digest, size = hashlib.sha256(), 0
        file = await asyncio.to_thread(filesystem.open, draft, "wb")
        try:
            async for chunk in _pieces(data):
                digest.update(chunk)
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(file.close)
            await self._announce(digest.hexdigest())
            await asyncio.to_thread(_keep, filesystem, draft, self._path(root, digest.hexdigest()))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_discard, filesystem, file, draft))
            raise
        return Content(digest.hexdigest(), size)

    async def register(
        self, tenant: str, name: str, content: Content, *, job_id: str | None = None, token: str = ""
    ) -> FileRecord:
        """Gives a written content a record; a job's file replaces its earlier one of that name.

        `token` is the attempt's, when one keeps it. Raises InvalidError for a bad name, NotFoundError when the job or
        the content is no more, StaleAttemptError.
        """
        record = FileRecord(
            _artifact_id(job_id, name) if job_id else new_id("file"),
            tenant,
            check_name(name),
            content.bytes,
            content.sha256,
            job_id,
            milliseconds(),
        )
        verdict = await self._link.script(
            script("register_file"),
            [
                keys.file(record.id),
                keys.FILES,
                keys.UNNAMED,
                keys.content(content.sha256),
                keys.content_lock(content.sha256),
                keys.job_files(job_id or ""),
                keys.job(job_id or ""),
            ],
            [record.id, json.dumps(asdict(record), ensure_ascii=False), int(job_id is not None), token],
        )
        if verdict == b"pruned":
            raise NotFoundError(f"there is no job {job_id!r} to keep {name!r} with", code="job_not_found")
        if verdict == b"stale":
            raise StaleAttemptError(f"job {job_id} has been handed to another attempt")
        if verdict == b"gone":
            raise NotFoundError(
                f"the content of {name!r} waited too long for its record; send it again", code="file_gone"
            )
        return record

    async def get(self, tenant: str, file_id: str) -> FileRecord:
        """A file's record. Raises NotFoundError, also for a file of another tenant."""
        text = await self._link.command("HGET", keys.file(file_id), "record")
        record = FileRecord(**json.loads(text)) if text else None
        if record is None or record.tenant != tenant:
            raise NotFoundError(f"there is no file {file_id[:80]!r}", code="file_not_found")
        return record

    async def read(self, record: FileRecord) -> bytes:
        """A file's whole content. Raises NotFoundError when it is gone."""
        return b"".join([chunk async for chunk in self.stream(record)])

    async def stream(self, record: FileRecord) -> AsyncIterator[bytes]:
        """A file's content in pieces of at most 1 MiB. Raises NotFoundError, before the first, when it is gone."""
        filesystem, root = await asyncio.to_thread(self._open)
        try:
            file = await asyncio.to_thread(filesystem.open, self._path(root, record.sha256), "rb")
        except FileNotFoundError:
            raise NotFoundError(f"the content of file {record.id} is gone", code="file_gone") from None
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        finally:
            await asyncio.shield(asyncio.to_thread(file.close))

    async def fetch(self, record: FileRecord, directory: Path) -> Path:
        """Copies a file into a directory under its own name; its path there. Raises NotFoundError, InvalidError."""
        path = directory / check_name(record.name)
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        with await asyncio.to_thread(path.open, "wb") as file:
            async for chunk in self.stream(record):
                await asyncio.to_thread(file.write, chunk)
        return path

    async def artifacts(self, job_id: str) -> list[FileRecord]:
        """What a job's tools kept, the oldest first."""
        ids = sorted(member.decode() for member in await self._link.command("SMEMBERS", keys.job_files(job_id)))
        texts = await asyncio.gather(*(self._link.command("HGET", keys.file(file_id), "record") for file_id in ids))
        return [FileRecord(**json.loads(text)) for text in texts if text]

    async def discard(self, sha256: str) -> None:
        """Deletes a content, if it is there."""
        filesystem, root = await asyncio.to_thread(self._open)
        await asyncio.to_thread(_remove, filesystem, self._path(root, sha256))

    async def discard_drafts(self, seconds: float) -> None:
        """Deletes what writes that never ended, as of a killed process, have left, once it is so old."""
        filesystem, root = await asyncio.to_thread(self._open)
        await asyncio.to_thread(
            _remove_old, filesystem, f"{root}/drafts", datetime.now(UTC) - timedelta(seconds=seconds)
        )

    async def _announce(self, sha256: str) -> None:
        """Keeps pruners away from a content that is about to be there; waits for one that is deleting it."""
        content_keys = [keys.UNNAMED, keys.content(sha256), keys.content_lock(sha256)]
        for _ in range(MOST_LOOKS):
            if await self._link.script(script("touch_content"), content_keys, []):
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        raise UnavailableError("the same content is being deleted; try again shortly")

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            filesystem, root = fsspec.core.url_to_fs(self._location, use_listings_cache=False)
            self._opened = filesystem, str(root).rstrip("/")
        return self._opened

    @staticmethod
    def _path(root: str, sha256: str) -> str:
        return f"{root}/contents/{sha256[:2]}/{sha256}"


class JobArtifacts:
    """The files of one tenant's jobs, as a running tool keeps them (`agent_core.tools.ArtifactStore`).

    `token` fences what is saved: an attempt that lost its job replaces no artifact of the one that has it.
    """

    def __init__(self, store: FileStore, tenant: str, token: str = "") -> None:
        self._store = store
        self._tenant = tenant
        self._token = token

    async def save(self, job_id: str, name: str, data: bytes) -> Json:
        """Keeps a file with the job; its id, name and size. Raises as `FileStore.register` does."""
        record = await self._store.save(self._tenant, name, data, job_id=job_id, token=self._token)
        return {"artifact": record.name, "id": record.id, "bytes": record.bytes}

    async def load(self, job_id: str, name: str) -> bytes:
        """The content of a job's file. Raises FileNotFoundError."""
        try:
            return await self._store.read(await self._store.get(self._tenant, _artifact_id(job_id, name)))
        except NotFoundError as exc:
            raise FileNotFoundError(str(exc)) from None


def _artifact_id(job_id: str, name: str) -> str:
    """One id for a job's file of a name, so that saving it twice, as after a crash, is saving it once."""
    return f"file_{hashlib.sha256(f'{job_id}/{name}'.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


async def _pieces(data: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for chunk in data:
        yield chunk


def _keep(filesystem: Any, draft: str, path: str) -> None:
    if filesystem.exists(path):
        filesystem.rm(draft)
        return
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.mv(draft, path)


def _remove(filesystem: Any, path: str) -> None:
    with suppress(FileNotFoundError):
        filesystem.rm(path)


def _remove_old(filesystem: Any, directory: str, before: datetime) -> None:
    with suppress(FileNotFoundError):
        for path in filesystem.ls(directory, detail=False):
            if filesystem.modified(path) < before:
                _remove(filesystem, path)


def _discard(filesystem: Any, file: Any, draft: str) -> None:
    file.close()
    if filesystem.exists(draft):
        filesystem.rm(draft)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
