"""Uploading input files, and downloading them and what jobs made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from api import docs
from api.auth import Reader, Writer
from api.body import refuse_compressed
from api.errors import RefusedError
from api.idempotency import once
from api.query import KnownQueryRoute
from api.responses import json_response
from jobs.files import LONGEST_NAME, check_name

router = APIRouter(tags=["files"], route_class=KnownQueryRoute)


@router.post("/files", status_code=201, response_model=None, responses=docs.FILE_MADE, openapi_extra=docs.RAW_BODY)
async def upload_file(
    request: Request,
    caller: Writer,
    name: Annotated[str, Query(min_length=1, max_length=LONGEST_NAME, description="The file's name.")],
) -> Response:
    """Uploads a file: the body is its content, whatever its type. Jobs name it by its id in `files`."""
    check_name(name)
    refuse_compressed(request)
    caller.services.guard.require()
    content = await caller.services.files.write(_limited(request, caller.services.settings.max_file_mb))

    async def register() -> Response:
        record = await caller.services.files.register(caller.tenant, name, content)
        return json_response(record.to_json(), 201, {"Location": f"/v1/files/{record.id}"})

    return await once(request, caller, register, what={"name": name, "sha256": content.sha256})


@router.get("/files/{file_id}", response_model=None, responses=docs.DOWNLOAD)
async def download_file(file_id: Annotated[str, Path(max_length=80)], caller: Reader) -> Response:
    """A file's content."""
    record = await caller.services.files.get(caller.tenant, file_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.name, safe='', errors='replace')}",
        "Content-Length": str(record.bytes),
        "Content-Security-Policy": "sandbox",
        "ETag": f'"{record.sha256}"',
    }
    pieces = caller.services.files.stream(record)
    first = await anext(pieces, b"")  # a content that is gone is a 404, not a broken download
    return StreamingResponse(_chained(first, pieces), 200, headers, "application/octet-stream")


async def _limited(request: Request, most_mb: int) -> AsyncIterator[bytes]:
    most, size = most_mb << 20, 0
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > most):
        raise _too_large(most_mb)
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise _too_large(most_mb)
        yield piece


def _too_large(most_mb: int) -> RefusedError:
    return RefusedError(413, "file_too_large", f"a file has at most {most_mb} MiB")


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
