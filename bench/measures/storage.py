"""What a step costs in Redis: a job of 100 steps on a history of 200,000 tokens."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import redis

from agent_core import Agent, Budget, tool
from agent_core.ports import Draft, Request
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Json
from bench.report import Goal, Section
from bench.stack import Stack
from jobs import keys
from jobs.files import FileStore
from jobs.link import RedisLink, connect
from jobs.queue import queue_names
from jobs.records import JobSpec
from jobs.stats import Stats
from jobs.store import JobStore
from memory.session import SessionMemory, SessionScope
from worker.executor import Attempted, Executor

STEPS = 100
HISTORY_BYTES = 800_000
MESSAGE_BYTES = 8_000
RESULT_CHARS = 6_000
EARLY, LATE = (20, 40), (80, 100)
TENANT = "default"


def measure(stack: Stack, scale: float) -> Section:
    """Always of the same size: what is measured are bytes."""
    sizes = asyncio.run(sizes_by_step(stack.redis_url))
    early, late = growth(sizes, EARLY), growth(sizes, LATE)
    section = Section(
        "storage",
        f"The real executor with a scripted model: a job of {STEPS} steps, each with a tool call whose result has "
        f"{RESULT_CHARS:,} characters, in a session of {HISTORY_BYTES:,} bytes. MEMORY USAGE of the job's record and "
        "journal, and of what its entries refer to, before each model call.",
    )
    section.add("steps 80 to 100 against 20 to 40", late / early, "×", Goal("<=", 1.2))
    section.add("a step, from step 20 to 40", early, "bytes")
    section.add("a step, from step 80 to 100", late, "bytes")
    section.add("record and journal after 100 steps", sizes[-1], "bytes")
    stack.reset()
    return section


def growth(sizes: list[int], steps: tuple[int, int]) -> float:
    """Bytes that a step added between two steps."""
    first, last = steps
    return (sizes[last - 1] - sizes[first - 1]) / (last - first)


async def sizes_by_step(redis_url: str) -> list[int]:
    """The bytes that the job holds in Redis before each model call: element n has n steps behind it."""
    link = RedisLink(connect(redis_url))
    try:
        with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
            return await _run(link, Path(folder))
    finally:
        await link.aclose()


@tool(effect="read")
async def look(page: int) -> str:
    """Reads a page."""
    return f"{page:06} ".ljust(RESULT_CHARS, "x")


class Weighing(ScriptedModel):
    """Weighs the job before it answers."""

    def __init__(self, script: list[Json], client: redis.Redis) -> None:
        super().__init__(script)
        self.client = client
        self.job_id = ""
        self.sizes: list[int] = []

    async def complete(self, request: Request, draft: Draft) -> None:
        """See `ports.Model.complete`."""
        self.sizes.append(await asyncio.to_thread(weigh, self.client, self.job_id))
        await super().complete(request, draft)
        self.requests.clear()


def weigh(client: redis.Redis, job_id: str) -> int:
    """Bytes of a job's record, of its journal, and of the blobs that it refers to."""
    own = [keys.job(job_id), keys.journal(job_id), keys.job_blobs(job_id)]
    blobs = [key.decode() for key in client.scan_iter(match=keys.blob("*"))]
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in (*own, *blobs))


async def _run(link: RedisLink, folder: Path) -> list[int]:
    store = JobStore(link)
    # a window in which nothing need be summed up: what is measured is a history that stays
    agent = Agent(
        name="reader",
        instructions="Read all pages.",
        model="claude-sonnet-5-5",
        tools=[look],
        context_window=10_000_000,
    )
    await SessionMemory(link).append(SessionScope(TENANT, "long"), 0, _history())
    script = [calls(("look", {"page": page})) for page in range(STEPS)]
    model = Weighing([*[says("")] * (_turns_before()), *script, says("done")], link.client)
    spec = JobSpec(agent=agent.name, agent_version=agent.version, input="go on", session_id="long")
    submitted = await store.submit(TENANT, spec, Budget(usd=None, steps=None))
    model.job_id = submitted.job.id
    version = f"{agent.name}@{agent.version}"
    (claim,) = await store.tickets.claim(queue_names(["default"]), [version], most=1, lease=600, worker="bench")
    files = FileStore(link, f"file://{folder}/files")
    await Executor(store, files, {"standard": model}, {version: agent}.get, Stats(), folder / "work").execute(
        Attempted(claim)
    )
    ended = await store.get(TENANT, submitted.job.id)
    if ended.status != "completed":
        raise RuntimeError(f"the job is {ended.status}: {json.dumps(ended.error)}")
    return model.sizes


def _history() -> list[Json]:
    roles = ("user", "assistant")
    count = HISTORY_BYTES // MESSAGE_BYTES
    return [{"role": roles[n % 2], "content": f"{n:06} ".ljust(MESSAGE_BYTES, "x")} for n in range(count)]


def _turns_before() -> int:
    """A scripted model counts the replies of the history as turns of its script."""
    return HISTORY_BYTES // MESSAGE_BYTES // 2
