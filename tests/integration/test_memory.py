"""Long-term memory on real processes: learnt by jobs, shown to the next ones, through crashes of workers and of Qdrant.

The simulated model keeps what users say in sentences like "I live in Oslo".
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memory.longterm import LongTermMemory
from memory.scope import Scope
from tests.integration.harness import TENANT, Platform, WorkerProcess, eventually, says, script
from tests.memory.embedded_server import EmbeddedServer
from tests.servers import running

AGENTS = Path(__file__).with_name("memory_agents.py")
ADA = Scope(TENANT, "ada")


@pytest.fixture
def qdrant() -> Iterator[EmbeddedServer]:
    with running(EmbeddedServer) as server:
        yield server


@pytest.fixture
async def memory(qdrant: EmbeddedServer) -> AsyncIterator[LongTermMemory]:
    made = LongTermMemory(qdrant.client())
    await made.open()
    yield made
    await made.aclose()


async def start(platform: Platform, qdrant: EmbeddedServer, **settings: str | int) -> WorkerProcess:
    return await platform.start_worker(
        agents=str(AGENTS), qdrant_url=qdrant.url, qdrant_api_key=qdrant.api_key, **settings
    )


async def ask(platform: Platform, text: str, user: str = "ada") -> str:
    spec, budget = await platform.spec(text, agent="friend", user=user)
    return (await platform.store.submit(TENANT, spec, budget)).job.id


async def extraction_of(platform: Platform, job_id: str) -> str:
    [line] = await platform.lines(job_id, "job.completed")
    return str(line.data["extraction"])


async def learnt(platform: Platform, job_id: str) -> str:
    """The extraction of a job, once both have completed."""
    await platform.becomes(job_id, "completed")
    return (await platform.becomes(await extraction_of(platform, job_id), "completed")).id


async def facts(memory: LongTermMemory, scope: Scope = ADA) -> list[str]:
    return sorted(each.text for each in await memory.browse(scope, past=True))


async def test_what_a_user_says_is_known_to_their_next_job_and_to_nobody_elses(
    platform: Platform, qdrant: EmbeddedServer, memory: LongTermMemory
):
    await start(platform, qdrant)
    first = await ask(platform, "My name is Ada. I live in Oslo.")
    await learnt(platform, first)
    assert await memory.get_user_facts(ADA) == {
        "user.city": "The user lives in Oslo.",
        "user.name": "The user's name is Ada.",
    }
    await learnt(platform, await ask(platform, "Hello, I moved to Rome."))
    assert await memory.get_user_facts(ADA) == {
        "user.city": "The user lives in Rome.",
        "user.name": "The user's name is Ada.",
    }
    last = await platform.becomes(await ask(platform, "What is the name of the user, who lives where?"), "completed")
    assert "The user lives in Rome." in last.output
    assert "Oslo" not in last.output
    other = await platform.becomes(await ask(platform, "Where does the user live?", "bob"), "completed")
    assert "Rome" not in other.output
    [row] = await platform.ledger(await extraction_of(platform, first))
    assert (row["model"], row["reason"]) == ("claude-haiku-4-5", "settled")


@pytest.mark.parametrize("place", ["after_tool", "before_settle"])
async def test_a_worker_killed_in_the_middle_of_learning_leaves_each_fact_once(
    platform: Platform, qdrant: EmbeddedServer, memory: LongTermMemory, place: str
):
    # by its script, the source has one reply and no tool call
    first = await start(platform, qdrant, failpoints=f"{place}=kill@{1 if place == 'after_tool' else 2}")
    job_id = await ask(platform, f"My name is Ada. I live in Oslo. I like tea.\n{script(says('Hello.'))}")
    await eventually(lambda: not first.alive, "the worker's end")
    assert (await platform.job(job_id)).status == "completed"
    await start(platform, qdrant)
    extraction = await platform.becomes(await extraction_of(platform, job_id), "completed")
    assert extraction.attempts == 2
    assert await facts(memory) == ["The user likes tea.", "The user lives in Oslo.", "The user's name is Ada."]
    assert len(json.loads(extraction.output)["written"]) == 3


async def test_extractions_of_one_user_run_one_at_a_time_over_all_workers(
    platform: Platform, qdrant: EmbeddedServer, memory: LongTermMemory
):
    await asyncio.gather(start(platform, qdrant), start(platform, qdrant))
    cities = ["Oslo", "Rome", "Bergen", "Turin", "Oslo", "Bonn"]
    ids = [await ask(platform, f"I live in {city}.") for city in cities]
    ids += [await ask(platform, "I like tea.", user=f"user-{number}") for number in range(4)]
    extractions = [await platform.job(await learnt(platform, job_id)) for job_id in ids]
    journals = [await platform.lines(job.id) for job in extractions[: len(cities)]]
    spans = sorted(
        (line.position, ended.position)
        for lines in journals
        for line, ended in itertools.pairwise(line for line in lines if line.type.startswith("job."))
        if line.type == "job.started"
    )
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    ended = [((await platform.job(job_id)).ended_ms or 0, city) for city, job_id in zip(cities, ids, strict=False)]
    said_last = {f"The user lives in {city}." for at, city in ended if at == max(ended)[0]}
    [city] = (await memory.get_user_facts(ADA)).values()
    assert city in said_last
    assert len(await facts(memory)) == len(set(cities))


async def test_with_qdrant_away_jobs_go_on_and_what_they_said_is_learnt_when_it_is_back(
    platform: Platform, qdrant: EmbeddedServer, memory: LongTermMemory
):
    await start(platform, qdrant)
    await learnt(platform, await ask(platform, "I live in Oslo."))
    qdrant.stop()
    job = await platform.becomes(await ask(platform, "Does the user live in Rome? I like tea."), "completed")
    types = await platform.types(job.id)
    assert [t for t in types if t.startswith("memory.")] == ["memory.unavailable"]
    assert "Oslo" not in job.output
    waiting = await extraction_of(platform, job.id)
    await eventually(lambda: put_off(platform, waiting), "the extraction's being put off")
    qdrant.start()
    await platform.store.undefer(waiting)  # a minute later
    await platform.store.release(waiting)
    await platform.becomes(waiting, "completed")
    assert await facts(memory) == ["The user likes tea.", "The user lives in Oslo."]
    again = await platform.becomes(await ask(platform, "Does the user live in Rome?"), "completed")
    assert "The user lives in Oslo." in again.output


async def put_off(platform: Platform, job_id: str) -> bool:
    last = (await platform.lines(job_id))[-1]
    return last.type == "job.queued" and "memory is not available" in last.data.get("why", "")
