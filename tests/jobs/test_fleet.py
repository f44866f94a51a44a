"""What workers report of themselves."""

from __future__ import annotations

import json
from dataclasses import asdict

from jobs import fleet, keys
from jobs.link import RedisLink

REPORT = fleet.WorkerReport("w", "h", 1, ["default"], ["echo@v1"], 10, 2, simulated=True)


async def test_a_report_is_read_as_it_was_written_until_it_is_forgotten(link: RedisLink) -> None:
    await fleet.report(link, REPORT, 60)
    assert await fleet.workers(link) == [REPORT]
    await fleet.forget(link, "w")
    assert await fleet.workers(link) == []


async def test_a_report_of_a_newer_or_an_older_worker_is_read_as_far_as_it_is_known(link: RedisLink) -> None:
    await fleet.report(link, REPORT, 60)
    newer = {**asdict(REPORT), "invented_later": 1}
    await link.command("SET", keys.worker("w"), json.dumps(newer))
    assert await fleet.workers(link) == [REPORT]
    older = {name: value for name, value in newer.items() if name not in ("simulated", "draining")}
    await link.command("SET", keys.worker("w"), json.dumps(older))
    assert not (await fleet.workers(link))[0].simulated
