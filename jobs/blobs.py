"""Entries too big for the stream. Their data is kept once by its content, beside the journals that refer to it, so that
a fork copies a reference and a stream stays small.

The script that appends an entry writes its blob too, so no entry is ever visible without its blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agent_core.types import Json
from jobs import keys
from jobs.errors import NotFoundError
from jobs.journal import Line, dump
from jobs.link import RedisLink

INLINE_BYTES = 32 * 1024
"""The most bytes of data, as JSON, that an entry has in the stream itself."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The data of entries as they are written, in order, and the content of each blob by its key."""

    texts: list[str]
    blobs: dict[str, bytes]


def pack(items: Iterable[Json]) -> Packed:
    """What is written for some entries' data."""
    packed = Packed([], {})
    for data in items:
        text = dump(data)
        if len(text) * 4 > INLINE_BYTES and len(content := text.encode()) > INLINE_BYTES:
            sha256 = hashlib.sha256(content).hexdigest()
            packed.blobs[keys.blob(sha256)] = content
            text = dump({"blob": sha256, "bytes": len(content)})
        packed.texts.append(text)
    return packed


async def resolve(link: RedisLink, lines: Sequence[Line]) -> list[Line]:
    """The lines with their blobs in place, in one more round trip when there are any.

    Raises NotFoundError when the job was pruned after its lines were read.
    """
    wanted = {line.data["blob"] for line in lines if _is_reference(line.data)}
    if not wanted:
        return list(lines)
    contents = await asyncio.gather(*(link.command("HGET", keys.blob(sha256), "data") for sha256 in wanted))
    if None in contents:
        raise NotFoundError("the job was pruned while its journal was read", code="job_not_found")
    found = dict(zip(wanted, map(json.loads, contents), strict=True))
    return [replace(line, data=found[line.data["blob"]]) if _is_reference(line.data) else line for line in lines]


def _is_reference(data: Json) -> bool:
    return data.keys() == {"blob", "bytes"}
