"""Whose memory: the one place where filters are made, so that nothing a caller or a model passes can widen one."""

from __future__ import annotations

from dataclasses import dataclass, fields

from qdrant_client import models

from memory.errors import ScopeError
from memory.ids import point_id

LONGEST_PART = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """A tenant's user, and within that one agent or one session when they are given.

    Reads see what was written at this scope and at narrower ones; a slot belongs to the scope it was written at.
    Raises ScopeError for a part that is no text of 1 to 256 characters.
    """

    tenant: str
    user: str
    agent: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is None and part.name in ("agent", "session"):
                continue
            # A subclass of str could compare as something else than what it sends.
            if type(value) is not str or not 1 <= len(value) <= LONGEST_PART:
                raise ScopeError(f"{part.name} is {value!r}; expected a text of 1 to {LONGEST_PART} characters")
            if not value.isprintable():
                raise ScopeError(f"{part.name} is {value!r}; expected printable characters only")

    def parts(self) -> dict[str, str | None]:
        """The four parts by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def within(self, *also: models.Condition, without: tuple[models.Condition, ...] = ()) -> models.Filter:
        """What may be read: each part that is given must match, and all of `also`, and none of `without`."""
        given = [equals(name, value) for name, value in self.parts().items() if value is not None]
        return models.Filter(must=[*given, *also], must_not=list(without) or None)

    def exactly(self, *also: models.Condition, without: tuple[models.Condition, ...] = ()) -> models.Filter:
        """What was written at this very scope: parts that are not given must be empty."""
        missing = [empty(name) for name, value in self.parts().items() if value is None]
        return self.within(*missing, *also, without=without)


def anyones(tenant: str, memory_id: str) -> models.Filter:
    """A memory of whichever user of a tenant. For finding out whose it is, and for nothing else."""
    return models.Filter(must=[equals("tenant", Scope(tenant, "anyone").tenant), with_id(memory_id)])


def equals(name: str, value: str) -> models.Condition:
    """That a field has a value."""
    return models.FieldCondition(key=name, match=models.MatchValue(value=value))


def empty(name: str) -> models.Condition:
    """That a field is missing or null."""
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=name))


def with_id(*ids: str) -> models.Condition:
    """That a memory is one of these."""
    return models.HasIdCondition(has_id=[point_id(each) for each in ids])
