"""Which agents live workers run."""

from __future__ import annotations

from typing import Any

from jobs import fleet

REPORT: dict[str, Any] = {
    "name": "w",
    "host": "h",
    "pid": 1,
    "pools": ["default"],
    "versions": ["echo@v1"],
    "concurrency": 1,
}


async def one(api):
    (agent,) = (await api.get("/v1/agents")).json()["data"]
    detail = (await api.get("/v1/agents/echo")).json()
    assert {name: detail[name] for name in agent} == agent
    return agent["workers"], agent["simulated"]


async def test_an_agent_says_how_many_live_workers_run_it_and_whether_its_model_is_simulated(api, echo, link):
    assert await one(api) == (0, False)
    others: list[dict[str, Any]] = [{"versions": ["echo@v0", "other@v1"]}, {"pools": ["gpu"]}, {"draining": True}]
    for number, change in enumerate(others):
        report = {**REPORT, "name": f"o{number}", "running": 0, "simulated": True, **change}
        await fleet.report(link, fleet.WorkerReport(**report), 60)
    assert await one(api) == (0, False)
    await fleet.report(link, fleet.WorkerReport(**REPORT, running=0), 60)
    assert await one(api) == (1, False)
    await fleet.report(link, fleet.WorkerReport(**{**REPORT, "name": "w2"}, running=0, simulated=True), 60)
    assert await one(api) == (2, True)
