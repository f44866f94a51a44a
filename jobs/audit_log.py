"""The audit log: who changed what by the API, and who tried to. One stream for each tenant, to which entries are only
appended; they go when they are old.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_core.redaction import Redactor
from agent_core.types import Json
from jobs import cursors, keys
from jobs.link import Arg, RedisLink
from jobs.recent import Seldom
from jobs.records import rfc3339
from jobs.scripts import script

LONGEST = 300
"""Characters of a field that a client chose."""
MOST_OF_NOBODY = 10_000
"""Entries kept of attempts without a valid key, which anyone can make; about so many."""
REPEATED = frozenset({401, 429})
"""Statuses of requests that cost a client nothing, and that no limit keeps from coming by the thousand."""
REPEATED_SECONDS = 60.0
CHUNK = 200
MOST_SCANNED = 10_000
"""Entries looked at for one page; a page of a rare filter may be short, or empty, and still have a cursor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, or an attempt at one. `key` is None when the API key was not valid.

    `action` is the operation's name in the OpenAPI description; `target` the id or the scope of what it is about, or of
    what it made; `status` what HTTP answered; `address` the client's, as the server saw it.
    """

    key: str | None
    action: str
    method: str
    path: str
    target: str | None
    status: int
    request_id: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries to list; None lists all. Times are ms since the epoch, the later one excluded."""

    action: str | None = None
    key: str | None = None
    target: str | None = None
    created_after: int | None = None
    created_before: int | None = None

    def fit(self, shown: Json) -> bool:
        """Whether an entry is one of them, but for its time."""
        wanted = (("action", self.action), ("key_id", self.key), ("target", self.target))
        return all(value is None or shown[name] == value for name, value in wanted)


class AuditLog:
    """The logs in Redis. Raises UnavailableError when Redis is away. What a client chose is redacted."""

    def __init__(self, link: RedisLink, redactor: Redactor | None = None) -> None:
        self._link = link
        self._redactor = redactor or Redactor()
        self._note_again = Seldom(REPEATED_SECONDS)

    async def append(self, tenant: str | None, entry: Entry) -> None:
        """Appends an entry to the log of a tenant, None for the attempts of nobody.

        Of a key's requests that are too many, or come after it has expired, the first in a minute has one.
        """
        if entry.key and entry.status in REPEATED and not self._note_again.now(f"{entry.key} {entry.status}"):
            return
        args: list[Arg] = [
            "" if tenant else MOST_OF_NOBODY,
            "key", entry.key or "",
            "action", entry.action,
            "method", entry.method,
            "path", self._redactor.text(entry.path)[:LONGEST],
            "target", self._redactor.text(entry.target or "")[:LONGEST],
            "status", entry.status,
            "request_id", entry.request_id,
            "address", entry.address or "",
        ]  # fmt: skip
        log_keys = [keys.audit_log(tenant), keys.AUDIT_LOGS]
        await self._link.script(script("note_audit"), log_keys, args, patient=False)

    async def page(
        self, tenant: str | None, filters: Filters, *, limit: int, after: str | None = None
    ) -> tuple[list[Json], str | None]:
        """Up to `limit` entries below a cursor, the newest first, and the cursor of the next page, None at the end.

        Raises InvalidError.
        """
        log = keys.audit_log(tenant)
        lowest = "-" if filters.created_after is None else str(filters.created_after)
        highest = "+" if filters.created_before is None else f"({filters.created_before}-0"
        below = await cursors.read(self._link, log, after) if after else None
        if below and (filters.created_before is None or int(below.partition("-")[0]) < filters.created_before):
            highest = f"({below}"
        found: list[Json] = []
        for _ in range(MOST_SCANNED // CHUNK):
            chunk = await self._link.command("XREVRANGE", log, highest, lowest, "COUNT", CHUNK)
            for raw_id, raw in chunk:
                shown = _shown(raw_id.decode(), raw)
                if filters.fit(shown):
                    if len(found) == limit:
                        return found, await cursors.sign(self._link, log, highest[1:])
                    found.append(shown)
                highest = f"({raw_id.decode()}"
            if len(chunk) < CHUNK:
                return found, None
        return found, await cursors.sign(self._link, log, highest[1:])

    async def prune(self, keep_ms: int) -> int:
        """Removes the entries of all logs that are older; how many."""
        removed = 0
        for log in await self._link.command("SMEMBERS", keys.AUDIT_LOGS):
            log_keys = [log.decode(), keys.AUDIT_LOGS]
            removed += await self._link.script(script("prune_audit"), log_keys, [keep_ms], patient=False)
        return removed


def _shown(entry_id: str, raw: Any) -> Json:
    """An entry as the API shows it."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    fields = {name.decode(): value.decode(errors="replace") for name, value in pairs}
    return {
        "id": f"aud_{entry_id}",
        "created_at": rfc3339(int(entry_id.partition("-")[0])),
        "key_id": fields["key"] or None,
        "action": fields["action"],
        "method": fields["method"],
        "path": fields["path"],
        "target": fields["target"] or None,
        "status": int(fields["status"]),
        "request_id": fields["request_id"],
        "address": fields["address"] or None,
    }
