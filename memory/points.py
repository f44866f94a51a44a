"""A memory and the point that it is in Qdrant: its id, its payload, and which of its fields are indexed."""

from __future__ import annotations

import json
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from qdrant_client import models

from memory.errors import InvalidMemoryError
from memory.ids import public_id, sound_id
from memory.scope import Scope

Kind = Literal["semantic", "episodic"]
"""A fact, or something that happened."""
SCHEMA_VERSION = 1
LONGEST_TEXT = 4_000
LONGEST_SLOT = 128
MOST_KEYWORDS = 32
_NAMESPACE = uuid.UUID("6f1d2a52-0d0c-5a3e-9a52-5b7f5f0c9b11")

INDEXES: dict[str, models.KeywordIndexParams | models.PayloadSchemaType] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    **dict.fromkeys(("user", "agent", "session", "kind", "slot"), models.PayloadSchemaType.KEYWORD),
    **dict.fromkeys(
        ("created_at", "last_confirmed_at", "valid_to", "expires_at"), models.PayloadSchemaType.DATETIME
    ),
}  # fmt: skip
"""Without an index, Qdrant refuses to order by a field."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a memory came from: a job and, in its journal, the first and last entry of the steps."""

    job: str
    seq_from: str | None = None
    seq_to: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Something that is remembered.

    It is current while `valid_to` is None; `superseded_by` is what took its place. `last_confirmed_at` is when it was
    last said. `importance` is from 0 to 1; `uses` is about how often it was recalled and used.
    """

    id: str
    scope: Scope
    kind: Kind
    text: str
    created_at: datetime
    last_confirmed_at: datetime
    slot: str | None = None
    keywords: tuple[str, ...] = ()
    importance: float = 0.5
    event_at: datetime | None = None
    valid_to: datetime | None = None
    superseded_by: str | None = None
    expires_at: datetime | None = None
    uses: int = 0
    source: Source | None = None

    @classmethod
    def new(
        cls,
        scope: Scope,
        text: str,
        now: datetime,
        *,
        kind: Kind = "semantic",
        slot: str | None = None,
        keywords: Sequence[str] = (),
        importance: float = 0.5,
        event_at: datetime | None = None,
        expires_at: datetime | None = None,
        source: Source | None = None,
    ) -> Memory:
        """One that is said now. Raises InvalidMemoryError for what cannot be kept."""
        if not isinstance(scope, Scope):
            raise InvalidMemoryError(f"scope is {scope!r}; expected a Scope")
        if kind not in get_args(Kind):
            raise InvalidMemoryError(f"kind is {kind!r}; accepted are {', '.join(get_args(Kind))}")
        if isinstance(importance, bool) or not isinstance(importance, int | float) or not 0 <= importance <= 1:
            raise InvalidMemoryError(f"importance is {importance!r}; expected a number from 0 to 1")
        if isinstance(keywords, str) or len(keywords) > MOST_KEYWORDS:
            raise InvalidMemoryError(f"keywords: expected a list of at most {MOST_KEYWORDS} texts")
        kept = sound_text("text", text, LONGEST_TEXT)
        return cls(
            id=id_of(scope, kind, kept),
            scope=scope,
            kind=kind,
            text=kept,
            created_at=now,
            last_confirmed_at=now,
            slot=None if slot is None else sound_text("slot", slot, LONGEST_SLOT),
            keywords=tuple(sound_text("keywords", each, LONGEST_SLOT) for each in keywords),
            importance=float(importance),
            event_at=moment("event_at", event_at),
            expires_at=moment("expires_at", expires_at),
            source=source,
        )

    @property
    def searched(self) -> str:
        """What a search for it looks at."""
        return " ".join([self.text, *self.keywords])

    @property
    def cursor(self) -> str:
        """Where it stands in a list by age, to go on after it."""
        return f"{date(self.created_at)}_{self.id}"

    @property
    def order(self) -> tuple[datetime, str]:
        """Of two that contradict each other, the greater is the current one."""
        return self.last_confirmed_at, self.id

    def to_payload(self) -> dict[str, Any]:
        """The point's payload."""
        return {
            **self.scope.parts(),
            "kind": self.kind,
            "slot": self.slot,
            "text": self.text,
            "keywords": list(self.keywords),
            "importance": self.importance,
            "created_at": date(self.created_at),
            "last_confirmed_at": date(self.last_confirmed_at),
            "event_at": date(self.event_at),
            "valid_to": date(self.valid_to),
            "superseded_by": self.superseded_by,
            "expires_at": date(self.expires_at),
            "uses": self.uses,
            "source": None if self.source is None else asdict(self.source),
            "schema_v": SCHEMA_VERSION,
        }

    @classmethod
    def from_payload(cls, id: str, payload: Mapping[str, Any]) -> Memory:
        """The memory of a point."""
        source = payload.get("source")
        dates = {name: _read_date(payload.get(name)) for name in ("event_at", "valid_to", "expires_at")}
        return cls(
            id=id,
            scope=Scope(payload["tenant"], payload["user"], payload.get("agent"), payload.get("session")),
            kind=payload["kind"],
            text=payload["text"],
            created_at=datetime.fromisoformat(payload["created_at"]),
            last_confirmed_at=datetime.fromisoformat(payload["last_confirmed_at"]),
            slot=payload.get("slot"),
            keywords=tuple(payload.get("keywords") or ()),
            importance=payload.get("importance", 0.5),
            superseded_by=payload.get("superseded_by"),
            uses=payload.get("uses", 0),
            source=None if source is None else Source(**source),
            **dates,
        )

    def to_json(self) -> dict[str, Any]:
        """For people and programs."""
        shown = {**self.to_payload(), "id": self.id}
        del shown["tenant"], shown["schema_v"]
        return shown


@dataclass(frozen=True, slots=True)
class Why:
    """Why a memory was recalled: the parts of its score, which is `(cosine + words) × recency`.

    `words` is 0.6·b/(b+6) of the BM25 score b, which is `bm25`; `cosine` is 0.4 times the similarity, and 0 without an
    embedder.
    """

    bm25: float
    words: float
    cosine: float
    recency: float


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory that fits a question, and how well. `why` is there when it was asked for."""

    memory: Memory
    score: float
    why: Why | None = field(default=None, compare=False)


def id_of(scope: Scope, kind: Kind, text: str) -> str:
    """The same thing said in the same scope has the same id, so that saying it twice needs no lock."""
    said = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return public_id(uuid.uuid5(_NAMESPACE, json.dumps([*scope.parts().values(), kind, said], ensure_ascii=False)))


def read_cursor(given: object) -> tuple[datetime, str]:
    """When the memory of a cursor was made, and its id. Raises InvalidMemoryError for what is no cursor."""
    made, _, memory_id = given.partition("_") if isinstance(given, str) else ("", "", "")
    try:
        at = moment("after", datetime.fromisoformat(made))
    except ValueError:  # InvalidMemoryError is one
        at = None
    if at is None:
        raise InvalidMemoryError(f"after is {given!r}; expected the cursor of a page before")
    return at, sound_id(memory_id)


def sound_kinds(given: object) -> tuple[Kind, ...]:
    """Kinds to look for. Raises InvalidMemoryError for anything but a list of them."""
    if not isinstance(given, list | tuple) or any(each not in get_args(Kind) for each in given):
        raise InvalidMemoryError(f"kinds is {given!r}; expected a list of {', '.join(get_args(Kind))}")
    return tuple(given)


def sound_count(name: str, given: object, most: int) -> int:
    """A number of memories. Raises InvalidMemoryError for anything but a whole number from 1 to `most`."""
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise InvalidMemoryError(f"{name} is {given!r}; expected a whole number from 1 to {most:,}")
    return given


def sound_text(name: str, value: object, longest: int) -> str:
    """A text without white space around it. Raises InvalidMemoryError."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidMemoryError(f"{name} is {value!r}; expected a text that is not empty")
    kept = value.strip().encode("utf-8", "replace").decode().replace("\0", "")
    if not kept or len(kept) > longest:
        raise InvalidMemoryError(f"{name} has {len(kept):,} characters; expected 1 to {longest:,}")
    return kept


def moment(name: str, value: object) -> datetime | None:
    """A date that Qdrant can read: one bad date fails every query that looks at it. Raises InvalidMemoryError."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidMemoryError(f"{name} is {value!r}; expected a datetime with a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidMemoryError(f"{name} is {value!r}; expected a date from year 1 to 9999") from None


def date(value: datetime | None) -> str | None:
    """A date as payloads and filters have it."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _read_date(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
