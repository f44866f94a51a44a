"""`nightshift demo`: the whole platform, one real job on a real file, its result and its cost, and then the end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cli import fetching, jobview, output, running, settings, startup, supervisor
from cli.client import Client, Json
from cli.errors import UsageError
from cli.inventory import write_inventory
from cli.invocation import command

AGENT = "analyst"
INVENTORY = "python_packages.csv"
INVENTORY_QUESTION = "Which licenses take up the most size_bytes in all, and which packages are the largest?"
FILE_QUESTION = "What is in this file? Give the size, the most important totals and groups, and what stands out."
INTERRUPTED = 130


def run(file: Path | None, question: str | None, data_dir: Path | None, *, verbose: bool) -> int:
    """Runs the demo; its exit status: 0 when the job completed, 1 when it ended otherwise. Raises CliError."""
    example = startup.example_agent()
    if example is None:
        raise UsageError("the demo runs examples/analyst, which is only in the source tree: clone it, and `make demo`")
    plan = supervisor.Plan(
        data_dir=data_dir or settings.data_dir(None) / "demo",
        around=settings.surroundings(),
        agents=str(example),
        port=0,
        verbose=verbose,
    )
    begun = time.monotonic()

    async def show(platform: supervisor.Platform) -> int:
        return await _show(platform, file, question, begun)

    output.line("Nightshift demo: starting Redis, the API, a worker" + (" and a simulated model" * plan.simulated))
    status = asyncio.run(supervisor.run(plan, show, interrupted=INTERRUPTED))
    if status != INTERRUPTED:
        output.line(f"All of it is stopped again, {output.duration(time.monotonic() - begun)} after the start.")
    return status


async def _show(platform: supervisor.Platform, file: Path | None, question: str | None, begun: float) -> int:
    output.line(f"up at {platform.url} after {output.duration(time.monotonic() - begun)}")
    output.line(f"model:    {startup.describe_model(platform.plan)}")
    source = await asyncio.to_thread(_input_file, platform.data_dir, file)
    asked = question or (FILE_QUESTION if file else INVENTORY_QUESTION)
    output.line(f"question: {asked}")
    output.line("")
    async with Client(platform.connection) as client:
        job = await running.submit(client, {"agent": AGENT, "input": asked, "tags": ["demo"]}, [source])
        job = await running.watch(client, job["id"], f"{AGENT} {job['id']}", silent=False)
        await _report(client, platform, job)
    return 0 if job["status"] == "completed" else running.FAILED


def _input_file(data_dir: Path, file: Path | None) -> Path:
    if file is not None:
        output.line(f"file:     {file} ({file.stat().st_size:,} bytes)")
        return file
    source = data_dir / INVENTORY
    rows = write_inventory(source)
    output.line(f"file:     {source}: the {rows} Python packages that are installed here")
    return source


async def _report(client: Client, platform: supervisor.Platform, job: Json) -> None:
    output.line("")
    output.line(jobview.ending(job))
    jobview.print_output(job)
    output.line("")
    ledger = (await client.get(f"/v1/jobs/{job['id']}/ledger"))["data"]
    output.line("Cost ledger")
    jobview.print_ledger(ledger)
    output.line(_verdict(job, jobview.ledger_totals(ledger), platform.plan))
    artifacts = (await client.get(f"/v1/jobs/{job['id']}/artifacts"))["data"]
    if artifacts:
        output.line("")
        output.line("Artifacts")
        jobview.print_artifacts(artifacts)
        await fetching.save_all(client, artifacts, platform.data_dir / "artifacts" / job["id"])
    output.line("")
    directory = platform.plan.data_dir
    output.line(f"The API was at {platform.url}, described in {platform.url}/openapi.json and {platform.url}/docs.")
    output.line(f"`{command('up --data-dir')} {directory}` starts it again with this job in it; then, for example:")
    output.line(f"  {command('show --data-dir')} {directory} {job['id']}")


def _verdict(job: Json, totals: Json, plan: supervisor.Plan) -> str:
    if not jobview.agrees(job["usage"], totals):
        return f"The ledger does NOT add up to the job's usage, which is {job['usage']}: please report this."
    billed = " at list price; nothing was billed, because the model is simulated" * plan.simulated
    return f"The totals are the job's own usage: ${job['usage']['cost_usd']}{billed}."
