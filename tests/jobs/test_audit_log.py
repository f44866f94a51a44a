from __future__ import annotations

import asyncio
from dataclasses import replace

from agent_core.redaction import Redactor
from jobs import keys
from jobs.audit_log import LONGEST, MOST_OF_NOBODY, AuditLog, Entry, Filters

ENTRY = Entry("key_1", "create_key", "POST", "/v1/keys", "key_2", 201, "req_1", "10.0.0.1")


async def shown(log: AuditLog, tenant: str | None = "t") -> list[dict]:
    found, cursor = await log.page(tenant, Filters(), limit=1000)
    assert cursor is None
    return found


async def test_an_entry_is_kept_as_it_was(link):
    log = AuditLog(link)
    await log.append("t", ENTRY)
    await log.append(None, Entry(None, "submit_job", "POST", "/v1/jobs", None, 401, "req_2", None))
    (entry,) = await shown(log)
    assert entry["id"].startswith("aud_")
    assert {**entry, "id": "", "created_at": ""} == {
        "id": "",
        "created_at": "",
        "key_id": "key_1",
        "action": "create_key",
        "method": "POST",
        "path": "/v1/keys",
        "target": "key_2",
        "status": 201,
        "request_id": "req_1",
        "address": "10.0.0.1",
    }
    (nobodys,) = await shown(log, None)
    assert (nobodys["key_id"], nobodys["target"], nobodys["address"]) == (None, None, None)
    assert await shown(log, "u") == []


async def test_what_a_client_chose_is_short_and_without_secrets(link):
    log = AuditLog(link, Redactor(["the-admin-key"]))
    await log.append("t", Entry("k", "a", "DELETE", "/v1/keys/the-admin-key", "x" * 9000, 404, "r", None))
    (entry,) = await shown(log)
    assert "the-admin-key" not in entry["path"]
    assert len(entry["target"]) == LONGEST


async def test_a_flood_of_refusals_is_an_entry(link):
    log = AuditLog(link)
    for status in (429, 429, 401, 429, 401, 403, 403):
        await log.append("t", replace(ENTRY, status=status))
    await log.append("t", replace(ENTRY, status=429, key="key_2"))
    found = [(entry["key_id"], entry["status"]) for entry in reversed(await shown(log))]
    assert found == [("key_1", 429), ("key_1", 401), ("key_1", 403), ("key_1", 403), ("key_2", 429)]


async def test_attempts_of_nobody_are_bounded(link):
    log = AuditLog(link)
    for _ in range(12):
        await asyncio.gather(*(log.append(None, ENTRY) for _ in range(1000)))
    assert MOST_OF_NOBODY <= await link.command("XLEN", keys.audit_log(None)) <= MOST_OF_NOBODY + 200


async def test_a_page_of_a_rare_filter_has_a_cursor_and_misses_nothing(link):
    log = AuditLog(link)
    await log.append("t", Entry("rare", "a", "POST", "/", None, 200, "r", None))
    await asyncio.gather(*(log.append("t", ENTRY) for _ in range(10_050)))
    found, cursor = await log.page("t", Filters(key="rare"), limit=10)
    assert (found, cursor is None) == ([], False)
    found, cursor = await log.page("t", Filters(key="rare"), limit=10, after=cursor)
    assert ([entry["key_id"] for entry in found], cursor) == (["rare"], None)


async def test_old_entries_go_and_so_does_a_log_that_is_empty(link):
    log = AuditLog(link)
    seconds, micros = await link.command("TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    await log.append("u", ENTRY)
    for old in (9_000_000, 5_000_000):  # entries of that many ms ago, as a log that began then has them
        await link.command("XADD", keys.audit_log("t"), f"{now - old}-0", *(w for p in fields() for w in p))
    await link.command("SADD", keys.AUDIT_LOGS, keys.audit_log("t"))
    await log.append("t", ENTRY)
    assert await log.prune(90_000_000) == 0
    assert await log.prune(7_000_000) == 1
    assert len(await shown(log)) == 2
    assert await log.prune(-1000) == 3
    assert await link.command("KEYS", f"{keys.PREFIX}audit*") == []
    await log.append("t", ENTRY)
    assert await log.prune(-1000) == 1


def fields() -> list[tuple[str, str]]:
    names = ("key", "action", "method", "path", "target", "status", "request_id", "address")
    return [(name, "200" if name == "status" else "x") for name in names]
