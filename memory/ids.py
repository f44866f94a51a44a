"""The ids of memories: `mem_` and 32 hexadecimal digits everywhere but in Qdrant, which takes UUIDs alone."""

from __future__ import annotations

import re
import uuid

from memory.errors import InvalidMemoryError

PREFIX = "mem_"
PUBLIC = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")


def public_id(point: object) -> str:
    """The memory's id, of its point's."""
    return PREFIX + uuid.UUID(str(point)).hex


def point_id(memory_id: str) -> str:
    """The point's id, of the memory's. Raises InvalidMemoryError for what is none."""
    return str(uuid.UUID(sound_id(memory_id).removeprefix(PREFIX)))


def sound_id(given: object) -> str:
    """An id as it was given. Raises InvalidMemoryError for what is none."""
    found = PUBLIC.fullmatch(given) if isinstance(given, str) else None
    if found is not None:
        return found.group()  # not `given`, which a subclass of str could show as something else
    raise InvalidMemoryError(
        f"id is {given!r}; expected the id of a memory, which is {PREFIX} and 32 hexadecimal digits"
    )
