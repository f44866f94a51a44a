"""Agent versions over a fleet: a job runs with the version it was submitted for, or waits for a worker that has it."""

from __future__ import annotations

from pathlib import Path

from jobs import keys
from jobs.agents import AgentCatalogue
from jobs.records import JobSpec
from jobs.store import JobStore
from tests.integration.harness import TENANT, Platform, calls, eventually, says, script

MODULE = '''
from agent_core import Agent, tool

@tool(effect="read")
async def {tool}() -> str:
    """Says who it is."""
    return "{tool}"

shifty = Agent(name="shifty", instructions="{words}", model="claude-sonnet-5-5", tools=[{tool}])
'''


def module(folder: Path, name: str, tool: str, words: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(MODULE.format(tool=tool, words=words))
    return str(path)


async def submit(platform: Platform, version: str, tool: str) -> str:
    text = script(calls(tool), says("{{last_tool_result}}"))
    spec = JobSpec(agent="shifty", input=text, agent_version=version)
    published = await AgentCatalogue(platform.link).get("shifty", version)
    return (await JobStore(platform.link).submit(TENANT, spec, published.budget)).job.id


async def test_a_job_waits_quietly_for_a_worker_that_has_its_version(platform: Platform, tmp_path: Path):
    catalogue = AgentCatalogue(platform.link)
    first = module(tmp_path, "first", "alpha", "first")
    (await platform.start_worker(agents=first)).kill()
    old = (await catalogue.names())["shifty"]
    other = await platform.start_worker(agents=module(tmp_path, "second", "beta", "second"))
    assert (await catalogue.names())["shifty"] != old
    job_id = await submit(platform, old, "alpha")
    side = f"default.default@shifty@{old}"

    async def set_aside() -> bool:
        return (await platform.store.tickets.depths()).get(side) == 1

    await eventually(set_aside, "the ticket in its side queue")
    started = await evaluations(platform), await beat_of(platform, other.name)

    async def two_seconds_on() -> bool:
        return await beat_of(platform, other.name) > started[1] + 2000

    await eventually(two_seconds_on, "two reports of the other worker")
    assert await evaluations(platform) - started[0] < 30  # a busy loop makes thousands
    assert (await platform.job(job_id)).status == "queued"

    await platform.start_worker(agents=first)
    job = await platform.becomes(job_id, "completed")
    assert (job.output, job.attempts, job.spec.agent_version) == ("alpha", 1, old)


async def evaluations(platform: Platform) -> int:
    """How many scripts Redis has run."""
    with_stats = await platform.link.command("INFO", "commandstats")
    return int(with_stats["cmdstat_evalsha"]["calls"])


async def beat_of(platform: Platform, worker: str) -> float:
    return float(await platform.link.command("ZSCORE", keys.WORKERS, worker))


async def test_a_worker_runs_older_versions_whose_tools_it_has_as_they_were(platform: Platform, tmp_path: Path):
    catalogue = AgentCatalogue(platform.link)
    (await platform.start_worker(agents=module(tmp_path, "first", "alpha", "first"))).kill()
    old = (await catalogue.names())["shifty"]
    await platform.start_worker(agents=module(tmp_path, "second", "alpha", "second"))
    new = (await catalogue.names())["shifty"]
    assert new != old
    ids = [await submit(platform, version, "alpha") for version in (old, new)]
    jobs = await platform.all_become(ids, "completed")
    assert [(job.output, job.spec.agent_version) for job in jobs] == [("alpha", old), ("alpha", new)]
