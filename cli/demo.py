"""`nightshift demo`: the whole platform, an example's jobs on real files, results and costs, and then the end."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from pathlib import Path

from cli import fetching, jobview, output, running, settings, showcase, startup, supervisor
from cli.client import Client, Json
from cli.errors import UsageError
from cli.inventory import write_inventory
from cli.invocation import command

INVENTORY = "python_packages.csv"
INTERRUPTED = 130


def run(name: str, file: Path | None, question: str | None, data_dir: Path | None, *, verbose: bool) -> int:
    """Runs an example; its exit status: 0 when its jobs completed, 1 when one ended otherwise. Raises CliError."""
    example = showcase.EXAMPLES.get(name)
    if example is None:
        raise UsageError(f"--example is {name!r}; expected one of {', '.join(showcase.EXAMPLES)}")
    if not example.source.is_file():
        raise UsageError(f"the demo runs examples/{name}, which is only in the source tree: clone it, and `make demo`")
    session = f"demo-{secrets.token_hex(4)}"
    directory = data_dir or settings.data_dir(None) / "demo"
    plan = supervisor.Plan(
        data_dir=directory,
        around=settings.surroundings(),
        agents=str(example.source),
        port=0,
        verbose=verbose,
        tool_settings={example.database: str(directory.absolute() / f"{session}.db")} if example.database else {},
    )
    begun = time.monotonic()

    async def show(platform: supervisor.Platform) -> int:
        output.line(f"up at {platform.url} after {output.duration(time.monotonic() - begun)}")
        output.line(f"model:    {startup.describe_model(plan)}")
        files = await asyncio.to_thread(_input_files, example, platform.data_dir, file)
        asked = (question,) if question else (example.file_question,) if file else example.questions
        return await _show(platform, example, files, asked, session)

    output.line("Nightshift demo: starting Redis, the API, a worker" + (" and a simulated model" * plan.simulated))
    status = asyncio.run(supervisor.run(plan, show, interrupted=INTERRUPTED))
    if status != INTERRUPTED:
        output.line(f"All of it is stopped again, {output.duration(time.monotonic() - begun)} after the start.")
    return status


async def _show(
    platform: supervisor.Platform,
    example: showcase.Example,
    files: list[Path],
    questions: tuple[str, ...],
    session: str,
) -> int:
    fields = {"agent": example.agent, "tags": ["demo"], **({"session_id": session} if len(questions) > 1 else {})}
    async with Client(platform.connection) as client:
        for asked in questions:
            output.line(f"question: {asked}")
            output.line("")
            job = await running.submit(client, {**fields, "input": asked}, files)
            decide = functools.partial(showcase.decide, client)
            title = f"{example.agent} {job['id']}"
            job = await running.watch(client, job["id"], title, silent=False, attend=decide)
            await _report(client, platform, job)
            if job["status"] != "completed":
                break
        _say_goodbye(platform, job)
    return 0 if job["status"] == "completed" else running.FAILED


def _input_files(example: showcase.Example, data_dir: Path, file: Path | None) -> list[Path]:
    if file is not None:
        output.line(f"file:     {file} ({file.stat().st_size:,} bytes)")
        return [file]
    if example is not showcase.ANALYST:
        files = example.own_files()
        if files:
            output.line(f"files:    {', '.join(path.name for path in files)} of {files[0].parent}")
        return files
    source = data_dir / INVENTORY
    rows = write_inventory(source)
    output.line(f"file:     {source}: the {rows} Python packages that are installed here")
    return [source]


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


def _say_goodbye(platform: supervisor.Platform, job: Json) -> None:
    directory = platform.plan.data_dir
    output.line(f"The API was at {platform.url}, described in {platform.url}/openapi.json and {platform.url}/docs.")
    output.line(f"`{command('up --data-dir')} {directory}` starts it again with this job in it; then, for example:")
    output.line(f"  {command('show --data-dir')} {directory} {job['id']}")


def _verdict(job: Json, totals: Json, plan: supervisor.Plan) -> str:
    if not jobview.agrees(job["usage"], totals):
        return f"The ledger does NOT add up to the job's usage, which is {job['usage']}: please report this."
    billed = " at list price; nothing was billed, because the model is simulated" * plan.simulated
    return f"The totals are the job's own usage: ${job['usage']['cost_usd']}{billed}."
