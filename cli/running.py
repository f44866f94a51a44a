"""Submitting a job and following one until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote

from cli import jobview, live, output
from cli.client import Client, Json
from cli.invocation import command

FAILED = 1


async def submit(client: Client, body: Json, files: Sequence[Path] = (), idempotency_key: str | None = None) -> Json:
    """Uploads the files and submits the job; the job as it was accepted."""
    whole = await with_files(client, body, files)
    return dict(await client.post("/v1/jobs", whole, idempotency_key=idempotency_key))


async def with_files(client: Client, body: Json, files: Sequence[Path]) -> Json:
    """A submission with files that are uploaded now."""
    stored = [await client.upload(path) for path in files]
    return {**body, "files": [record["id"] for record in stored]} if stored else body


async def get_job(client: Client, job_id: str) -> Json:
    """The job as it is now."""
    return dict(await client.get(f"/v1/jobs/{quote(job_id, safe='')}"))


async def watch(
    client: Client,
    job_id: str,
    title: str,
    *,
    silent: bool,
    attend: Callable[[Json], Awaitable[None]] | None = None,
) -> Json:
    """Shows the job's progress until it has ended, and has `attend` see to each event; the job as it ended."""
    try:
        with live.view(title, silent=silent) as view:
            async with aclosing(client.events(job_id)) as events:
                async for event in events:
                    view.show(event)
                    if attend is not None:
                        await attend(event)
    except asyncio.CancelledError:
        output.say(f"the job goes on without us: {command(f'follow {job_id}')}")
        raise
    return await get_job(client, job_id)


def finish(job: Json, *, as_json: bool) -> int:
    """Prints the result of a job that has ended; the exit status of the command."""
    if as_json:
        output.print_json(job)
    else:
        output.say(jobview.ending(job))
        jobview.print_output(job)
    return 0 if job["status"] == "completed" else FAILED
